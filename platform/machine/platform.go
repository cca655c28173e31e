package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/emerald-platform/emerald/api/v1alpha1"
	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/kit/durable"
	"github.com/emerald-platform/emerald/platform/dirs"
)

// Site returns what batteries on the machine with these directories, domain and
// image are rendered with.
func Site(d dirs.Dirs, domain, image string) battery.Site {
	return battery.Site{
		Domain: domain, Image: image, ClusterDomain: ClusterDomain,
		DNSAddress: DNSAddress, RegistryAddress: RegistryAddress, DataDir: d.Data,
	}
}

// wishPath is where the spec of the Platform object waits for a cluster that
// can take it.
func wishPath(d dirs.Dirs) string { return d.InData("platform.json") }

// Wish keeps the settings that the Platform object shall have. The next start
// writes them into the cluster, before anything is installed, and forgets them.
func Wish(d dirs.Dirs, spec v1alpha1.PlatformSpec) error {
	raw, err := json.Marshal(spec)
	if err != nil {
		return fmt.Errorf("keep the platform's settings: %w", err)
	}
	if err := durable.WriteFile(wishPath(d), raw, 0o600); err != nil {
		return fmt.Errorf("keep the platform's settings: %w", err)
	}
	return nil
}

// wish returns what [Wish] kept, nil when there is nothing.
func wish(d dirs.Dirs) (*v1alpha1.PlatformSpec, error) {
	raw, err := os.ReadFile(wishPath(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the platform's new settings: %w", err)
	}
	spec := &v1alpha1.PlatformSpec{}
	if err := json.Unmarshal(raw, spec); err != nil {
		return nil, fmt.Errorf("read the platform's new settings %s: %w: give them again with: emerald up --config FILE", wishPath(d), err)
	}
	return spec, nil
}

// forgetWish is called when the cluster has taken it.
func forgetWish(d dirs.Dirs) error {
	if err := os.Remove(wishPath(d)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget the platform's new settings: %w", err)
	}
	return nil
}
