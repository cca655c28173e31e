package machine

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// writer is the environment variable that makes the test's program a process
// which writes to its standard error and bounds it.
const writer = "TEST_LOG"

func TestMain(m *testing.M) {
	path := os.Getenv(writer)
	if path == "" {
		os.Exit(m.Run())
	}
	go func() {
		_ = boundLog(context.Background(), path, 1000, time.Millisecond, slog.New(slog.DiscardHandler))
	}()
	pace := time.NewTicker(500 * time.Microsecond)
	for i := range 400 {
		fmt.Fprintf(os.Stderr, "line %d\n", i)
		<-pace.C
	}
	panic("the end")
}

// What a process writes stays within two files, no line of those is torn, and
// the words with which it dies are the last.
func TestBoundLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "emerald.log")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), writer+"="+path)
	cmd.Stdout, cmd.Stderr = f, f
	if err := cmd.Run(); err == nil {
		t.Fatal("the process did not panic")
	}
	files, err := filepath.Glob(path + "*")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{path, path + ".1"}, files); diff != "" {
		t.Fatalf("files, -want +got:\n%s", diff)
	}
	old, err := os.ReadFile(path + ".1")
	if err != nil {
		t.Fatal(err)
	}
	if len(old) < 1000 || len(old) > 2500 {
		t.Errorf("the old file has %d bytes, want a little over 1000", len(old))
	}
	now, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := lastError(string(now)); got != "panic: the end" {
		t.Errorf("last words %q in %q", got, now)
	}
	// The new file goes on where the old one ends.
	lines := strings.Split(strings.TrimSpace(string(old)), "\n")
	var end int
	if _, err := fmt.Sscanf(lines[len(lines)-1], "line %d", &end); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("line %d\n", end+1); end < 399 && !strings.HasPrefix(string(now), want) {
		t.Errorf("the new file begins %q, want %q", strings.SplitN(string(now), "\n", 2)[0], want)
	}
}

func TestLastError(t *testing.T) {
	tests := map[string]struct{ log, want string }{
		"none":          {"{\"msg\":\"starting\"}\n", ""},
		"given up":      {"{}\nemerald: open the lock: no room\n", "open the lock: no room"},
		"panic":         {"{}\npanic: bad page\n\ngoroutine 1 [running]:\nmain.main()\n", "panic: bad page"},
		"the last wins": {"emerald: first\n{}\nemerald: second\n", "second"},
		"empty":         {"", ""},
		"logged":        {"{\"level\":\"ERROR\",\"msg\":\"start\",\"err\":\"no room\"}\n{\"level\":\"INFO\",\"msg\":\"bye\"}\n", "start: no room"},
	}
	for name, tt := range tests {
		if got := lastError(tt.log); got != tt.want {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}
