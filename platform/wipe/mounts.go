package wipe

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/emerald-platform/emerald/platform/dirs"
)

// mountPoint is one line of proc(5)'s mountinfo.
type mountPoint struct {
	path string
	// disk is true for a whole file system on a block device, which is what an
	// administrator mounts; the platform mounts those for pods only.
	disk bool
}

func mountPoints() ([]mountPoint, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	var out []mountPoint
	for line := range strings.Lines(string(data)) {
		// id parent major:minor root path options … - type source options
		left, right, _ := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if len(l) < 5 || len(r) < 2 {
			continue
		}
		out = append(out, mountPoint{path: unescape(l[4]), disk: l[3] == "/" && strings.HasPrefix(r[1], "/dev/")})
	}
	return out, nil
}

// mountsOf lists the machine's mounts below its directories, in the order in
// which they can be unmounted, as often as they are stacked. A disk that the
// administrator mounted there is not the machine's.
func mountsOf(d dirs.Dirs) ([]string, error) {
	points, err := mountPoints()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, p := range points {
		switch {
		case p.disk && !strings.HasPrefix(p.path, d.Kubelet()+"/"):
		case strings.HasPrefix(p.path, d.Data+"/"), strings.HasPrefix(p.path, d.Run+"/"):
			out = append(out, p.path)
		}
	}
	// Later mounts may be inside earlier ones, never the other way round.
	slices.Reverse(out)
	return out, nil
}

// leftovers lists what is in dir, besides the way to disks mounted there.
func leftovers(dir string) ([]string, error) {
	points, err := mountPoints()
	if err != nil {
		return nil, err
	}
	var out []string
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if e.IsDir() && slices.ContainsFunc(points, func(p mountPoint) bool { return below(p.path, path) }) {
			return nil
		}
		out = append(out, path)
		if e.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
	return out, err
}

// unescape undoes the octal escapes of proc(5).
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				out.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		out.WriteByte(s[i])
	}
	return out.String()
}

// unmountAll unmounts everything below the machine's directories. What is busy
// is detached: it goes when its last user does.
func unmountAll(d dirs.Dirs) error {
	var last error
	// Every round unmounts at least one, unless none can be.
	for {
		mounts, err := mountsOf(d)
		if err != nil {
			return err
		}
		if len(mounts) == 0 {
			return nil
		}
		done := 0
		for _, m := range mounts {
			err := unix.Unmount(m, unix.UMOUNT_NOFOLLOW)
			if errors.Is(err, unix.EBUSY) {
				err = unix.Unmount(m, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
			}
			if err != nil {
				last = fmt.Errorf("unmount %s: %w", m, err)
				continue
			}
			done++
		}
		if done == 0 {
			return last
		}
	}
}
