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
	t.Run("up again changes nothing", func(t *testing.T) {
		m.Emerald(append([]string{"up"}, m.UpFlags()...)...)
	})
	m.Emerald("down", "--wipe", "--yes")
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}
