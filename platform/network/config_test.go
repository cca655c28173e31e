package network_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/emerald-platform/emerald/platform/dirs"
	"github.com/emerald-platform/emerald/platform/network"
)

// FuzzReadConfig gives the machine any file as its network configuration.
func FuzzReadConfig(f *testing.F) {
	for _, s := range []string{`{"plugins":[{"podCIDRs":["10.42.0.0/24"],"stateDir":"/s"}]}`, `{"plugins":[{}]}`, `{"plugins":null}`, "null", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, content string) {
		d := dirs.Dirs{Data: t.TempDir(), Run: t.TempDir()}
		path := network.ConfigPath(d)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := network.ReadConfig(d)
		if (c == nil) != (err != nil) {
			t.Errorf("%q is %+v, %v", content, c, err)
		}
		if c != nil && len(c.PodCIDRs) == 0 {
			t.Errorf("%q was taken, and has no addresses", content)
		}
	})
}
