//go:build e2e

// Package road walks the road from a bare machine to apps behind HTTPS, as the
// README describes it, and away again.
package road

import (
	"strings"
	"testing"
	"time"

	"github.com/emerald-platform/emerald/e2e/fixture"
)

func TestRoad(t *testing.T) {
	m := fixture.Boot(t)
	m.Eventually("the node is ready", 10*time.Second, m.NodeReady)

	t.Run("verify proves what the picture promises", func(t *testing.T) {
		m.Emerald("verify")
	})
	browser := m.Browser()
	for _, example := range []string{"go", "node", "python", "static"} {
		t.Run("deploy examples/"+example, func(t *testing.T) {
			out := m.Emerald("deploy", "../../examples/"+example)
			url := lastLine(out)
			if want := "https://" + example + ".emerald.localhost"; url != want {
				t.Fatalf("deploy printed %q, want %q", url, want)
			}
			m.Get(browser, url+"/")
		})
	}
	t.Run("an ordinary Dockerfile that installs with apt and runs as root", func(t *testing.T) {
		url := lastLine(m.Emerald("deploy", "testdata/nginx"))
		if page := m.Get(browser, url+"/"); !strings.Contains(page, "Welcome to nginx") {
			t.Errorf("%s answers %q, want nginx's welcome", url, page)
		}
	})
	t.Run("an image that is in the registry already", func(t *testing.T) {
		url := lastLine(m.Emerald("deploy", "registry.emerald.localhost/default/go:latest", "--name", "copy"))
		m.Get(browser, url+"/")
	})
	t.Run("a broken Dockerfile names its line and leaves nothing", func(t *testing.T) {
		_, errOut, err := m.Try("deploy", "testdata/broken")
		if err == nil || !strings.Contains(errOut, "Dockerfile") {
			t.Errorf("deploy: %v, %q, want an error that names the Dockerfile", err, errOut)
		}
		if _, _, err := m.Try("app", "show", "broken"); err == nil {
			t.Error("the app exists")
		}
	})
	t.Run("the machine's process is killed, and the app serves", func(t *testing.T) {
		m.KillProcess("machine.lock")
		m.Get(browser, "https://go.emerald.localhost/")
		m.Emerald(append([]string{"up"}, m.UpFlags()...)...)
		m.Get(browser, "https://go.emerald.localhost/")
	})
	t.Run("up again changes nothing", func(t *testing.T) {
		m.Emerald(append([]string{"up"}, m.UpFlags()...)...)
	})
	m.Emerald("down", "--wipe", "--yes")
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}
