package wipe

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/emerald-platform/emerald/kit/durable"
	"github.com/emerald-platform/emerald/platform/dirs"
)

// outside are the directories that upstream's components use wherever they
// run, and that no setting can move. Parents come before what is in them.
var outside = []string{
	"/var/log/containers",             // kubelet: links to the logs of containers
	"/var/lib/kubelet",                // kubelet: the parent of
	"/var/lib/kubelet/device-plugins", // kubelet: the socket for device plugins
	"/var/lib/cni",                    // container runtime: the parent of
	"/var/lib/cni/results",            // container runtime: what plugins answered
}

// footprint says which directories were not there before the machine's first
// start, and so go with its last trace.
type footprint struct {
	Made []string `json:"made"`
}

func footprintPath(d dirs.Dirs) string { return d.InData("node", "footprint.json") }

// Note writes down, once in the life of a data directory, what the machine is
// going to make outside of its directories. The machine calls it before it
// starts anything.
func Note(d dirs.Dirs) error {
	if _, err := os.Stat(footprintPath(d)); err == nil {
		return nil
	}
	var f footprint
	for _, dir := range outside {
		if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
			f.Made = append(f.Made, dir)
		}
	}
	data, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("note what is made outside %s: %w", d.Data, err)
	}
	if err := os.MkdirAll(filepath.Dir(footprintPath(d)), 0o755); err != nil {
		return fmt.Errorf("note what is made outside %s: %w", d.Data, err)
	}
	if err := durable.WriteFile(footprintPath(d), data, 0o600); err != nil {
		return fmt.Errorf("note what is made outside %s: %w", d.Data, err)
	}
	return nil
}

// loadFootprint returns what [Note] wrote, empty when nothing is known.
func loadFootprint(d dirs.Dirs) footprint {
	var f footprint
	if data, err := os.ReadFile(footprintPath(d)); err == nil {
		// A broken note only means that empty directories stay.
		_ = json.Unmarshal(data, &f)
	}
	return f
}

// removeOutside removes what the machine left in shared directories, and those
// of them that it made and that are empty now.
func removeOutside(d dirs.Dirs, f footprint) error {
	var errs []error
	errs = append(errs, removeEntries("/var/log/containers", func(path string) bool {
		target, err := os.Readlink(path)
		return err == nil && strings.HasPrefix(target, d.PodLogs()+"/")
	}))
	errs = append(errs, removeEntries("/var/lib/cni/results", func(path string) bool {
		data, err := os.ReadFile(path)
		if err != nil {
			return false
		}
		var result struct {
			NetNS string `json:"netns"`
		}
		return json.Unmarshal(data, &result) == nil && strings.HasPrefix(result.NetNS, d.Run+"/")
	}))
	made := map[string]bool{}
	for _, dir := range f.Made {
		made[dir] = true
	}
	if made["/var/lib/kubelet/device-plugins"] {
		for _, name := range []string{"kubelet.sock", "kubelet_internal_checkpoint"} {
			errs = append(errs, removeFile(filepath.Join("/var/lib/kubelet/device-plugins", name)))
		}
	}
	for i := len(outside) - 1; i >= 0; i-- {
		if made[outside[i]] {
			// Not empty means that somebody else uses it by now.
			_ = os.Remove(outside[i])
		}
	}
	return errors.Join(errs...)
}

func removeEntries(dir string, mine func(path string) bool) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for files in %s: %w", dir, err)
	}
	var errs []error
	for _, e := range entries {
		if path := filepath.Join(dir, e.Name()); mine(path) {
			errs = append(errs, removeFile(path))
		}
	}
	return errors.Join(errs...)
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove a trace: %w", err)
	}
	return nil
}
