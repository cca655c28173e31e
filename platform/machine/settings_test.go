package machine

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/emerald-platform/emerald/platform/dirs"
)

// FuzzLoadSettings gives the machine any file as its settings, as a power loss
// may leave one: what it takes can be checked and is kept as it was read.
func FuzzLoadSettings(f *testing.F) {
	for _, s := range []string{`{"node":"one","address":"192.0.2.1","domain":"emerald.localhost"}`, `{"dataVersion":99}`, `{"address":"::1"}`, "null", "", "{"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, content string) {
		d := dirs.Dirs{Data: t.TempDir()}
		if err := os.MkdirAll(filepath.Dir(settingsPath(d)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(settingsPath(d), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := LoadSettings(d)
		if err != nil {
			return
		}
		if s.Check() == nil && (s.Node == "" || s.Domain == "" || net.ParseIP(s.Address) == nil) {
			t.Errorf("%q passes as settings: %+v", content, s)
		}
		spec, err := wish(d)
		if spec != nil || err != nil {
			t.Errorf("there is a wish, %+v, %v, and nobody had one", spec, err)
		}
		if err := os.WriteFile(wishPath(d), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if spec, err := wish(d); (spec == nil) != (err != nil) {
			t.Errorf("%q as a wish is %+v, %v", content, spec, err)
		}
	})
}

// FuzzLastError gives it a log in which anything can be: pods' names and images
// get there.
func FuzzLastError(f *testing.F) {
	for _, s := range []string{"emerald: no disk\n", "panic: x\n\ngoroutine 1", `{"level":"ERROR","msg":"m","err":"e"}`, "{", "\n\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, log string) {
		if got := lastError(log); len(got) > 2*len(log)+2 {
			t.Errorf("%q became %q", log, got)
		}
		programMapping(log, "/x")
	})
}
