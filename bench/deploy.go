package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// greeting is the line of examples/go that is changed.
var greeting = regexp.MustCompile(`const greeting = "[^"]*"`)

// deploy measures how long a one-line change takes to its users.
func (b *bench) deploy(ctx context.Context) (*report, error) {
	m, err := b.bootedMachine(ctx)
	if err != nil {
		return nil, err
	}
	source := filepath.Join(b.work, "go")
	if err := os.CopyFS(source, os.DirFS(filepath.Join(b.root, "examples", "go"))); err != nil {
		return nil, fmt.Errorf("copy the example: %w", err)
	}
	authority, err := m.run(ctx, "trust", "--print")
	if err != nil {
		return nil, err
	}
	browser, err := m.Browser([]byte(authority))
	if err != nil {
		return nil, err
	}
	browser.Timeout = 5 * time.Second
	b.say("the first deploy, with everything to be made")
	first, err := m.deployChange(ctx, browser, source, "Hello for the first time")
	if err != nil {
		return nil, err
	}
	var change series
	for i := range b.runs {
		took, err := m.deployChange(ctx, browser, source, fmt.Sprintf("Hello number %d", i+1))
		if err != nil {
			return nil, err
		}
		change = append(change, took.Seconds())
		b.say("deploy %d of %d: %.2f s", i+1, b.runs, change[i])
	}
	r := new(report)
	r.say("Median of %d changes, on the machine of the sections above.", b.runs)
	r.table([]string{"from `emerald deploy` until the new version answers", "Emerald", "smallest–largest", "goal"}, [][]string{
		{"a one-line change to examples/go", seconds(change.median()), change.spread(" s"), r.goal(change.median() <= 10, "a one-line change", seconds(change.median()), "≤ 10 s")},
		{"the first time, base image included", seconds(first.Seconds()), "", ""},
	})
	return r, nil
}

// deployChange changes the greeting, deploys, and returns how long it took until
// the app's URL showed it.
func (m *machine) deployChange(ctx context.Context, browser *http.Client, source, text string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	main := filepath.Join(source, "main.go")
	raw, err := os.ReadFile(main)
	if err != nil {
		return 0, err
	}
	if !greeting.Match(raw) {
		return 0, fmt.Errorf("%s has no line that begins with: const greeting", main)
	}
	if err := os.WriteFile(main, greeting.ReplaceAll(raw, []byte(`const greeting = "`+text+`"`)), 0o644); err != nil {
		return 0, err
	}
	began := time.Now()
	ended := make(chan error, 1)
	go func() {
		_, err := m.run(ctx, "deploy", source)
		if err != nil {
			cancel()
		}
		ended <- err
	}()
	err = poll(ctx, 20*time.Millisecond, func() bool { return shows(ctx, browser, "https://go.emerald.localhost/", text) })
	took := time.Since(began)
	if deployErr := <-ended; deployErr != nil {
		return 0, deployErr
	}
	return took, err
}

// shows tells whether a page has a text.
func shows(ctx context.Context, browser *http.Client, url, text string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	resp, err := browser.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return err == nil && resp.StatusCode == http.StatusOK && strings.Contains(string(body), text)
}
