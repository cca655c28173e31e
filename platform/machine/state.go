package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/emerald-platform/emerald/platform/dirs"
)

// State is what the machine's process says about itself on its socket.
type State struct {
	// Revision grows with every change.
	Revision int64 `json:"revision"`
	// PID is the process that is the machine; Version what it runs.
	PID     int    `json:"pid"`
	Version string `json:"version"`
	// Binary tells builds apart that carry the same version.
	Binary string `json:"binary,omitempty"`
	// Steps are what it does to come up, in the order they began.
	Steps []Step `json:"steps"`
	// Ready is true once every step is done.
	Ready bool `json:"ready"`
	// Took is how long, in seconds, it took until all were done for the first
	// time, 0 before.
	Took float64 `json:"took,omitempty"`
	// Failure is why it does nothing now, nil while it lives.
	Failure *Failure `json:"failure,omitempty"`
}

// Step is one thing the machine does to come up.
type Step struct {
	Name string `json:"name"`
	// Waits says what it waits for now, "" when it just works.
	Waits string `json:"waits,omitempty"`
	Done  bool   `json:"done"`
	// Error is why the last try did not work; the machine keeps trying.
	Error string `json:"error,omitempty"`
	// Began is when, Seconds how long it took once it is done.
	Began   time.Time `json:"began"`
	Seconds float64   `json:"seconds,omitempty"`
}

// board keeps the state and wakes whoever follows it.
type board struct {
	mu      sync.Mutex
	state   State
	began   time.Time
	changed chan struct{} // closed and replaced on every change
}

func newBoard(version, binary string, steps ...string) *board {
	b := &board{began: time.Now(), changed: make(chan struct{})}
	b.state = State{PID: os.Getpid(), Version: version, Binary: binary}
	for _, name := range steps {
		b.state.Steps = append(b.state.Steps, Step{Name: name, Began: time.Now()})
	}
	return b
}

// update changes the step called name, adding it when it is new.
func (b *board) update(name string, change func(*Step)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := 0
	for i < len(b.state.Steps) && b.state.Steps[i].Name != name {
		i++
	}
	if i == len(b.state.Steps) {
		b.state.Steps = append(b.state.Steps, Step{Name: name, Began: time.Now()})
	}
	before := b.state.Steps[i]
	change(&b.state.Steps[i])
	if b.state.Steps[i] == before {
		return
	}
	step := &b.state.Steps[i]
	if before.Done && !step.Done {
		step.Began, step.Seconds = time.Now(), 0 // it does its work anew
	}
	if step.Done && !before.Done {
		step.Seconds = time.Since(step.Began).Seconds()
		step.Waits, step.Error = "", ""
	}
	b.wake()
}

// fail records that the parts have ended.
func (b *board) fail(f Failure) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state.Failure = &f
	b.wake()
}

// drop removes a step that will never be done, such as a battery turned off.
func (b *board) drop(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	kept := slices.DeleteFunc(slices.Clone(b.state.Steps), func(s Step) bool { return s.Name == name })
	if len(kept) != len(b.state.Steps) {
		b.state.Steps = kept
		b.wake()
	}
}

// wake makes a change visible. The caller holds the lock.
func (b *board) wake() {
	b.state.Ready = b.state.Failure == nil && !slices.ContainsFunc(b.state.Steps, func(s Step) bool { return !s.Done })
	if b.state.Ready && b.state.Took == 0 {
		b.state.Took = time.Since(b.began).Seconds()
	}
	b.state.Revision++
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *board) done(name string) { b.update(name, func(s *Step) { s.Done = true }) }

// after returns the state as soon as its revision is above the given one, or
// as it is when ctx ends.
func (b *board) after(ctx context.Context, revision int64) State {
	for {
		b.mu.Lock()
		state, changed := b.state, b.changed
		state.Steps = append([]Step(nil), state.Steps...)
		b.mu.Unlock()
		if state.Revision > revision {
			return state
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return state
		}
	}
}

func socketPath(d dirs.Dirs) string { return d.InRun("machine.sock") }

// serveState answers GET /state?after=REVISION on the machine's socket, which
// only root can reach, until ctx ends.
func serveState(ctx context.Context, d dirs.Dirs, b *board, log *slog.Logger) error {
	path := socketPath(d)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the old socket: %w", err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("listen on the machine's socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		listener.Close()
		return fmt.Errorf("protect the machine's socket: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /state", func(w http.ResponseWriter, r *http.Request) {
		revision, err := strconv.ParseInt(r.URL.Query().Get("after"), 10, 64)
		if err != nil {
			revision = -1
		}
		// A follower asks again; a quiet connection does not live for ever.
		wait, cancel := context.WithTimeout(r.Context(), 20*time.Second)
		defer cancel()
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(b.after(wait, revision)); err != nil {
			log.Debug("answer a follower", "error", err)
		}
	})
	server := &http.Server{Handler: mux, BaseContext: func(net.Listener) context.Context { return ctx }, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the machine's socket: %w", err)
	}
	return nil
}

// ErrDown means that no machine answers on its socket.
var ErrDown = errors.New("emerald is not running on this machine")

// Follow returns the state of the machine in these directories as soon as its
// revision is above after; use -1 for the state as it is. The error wraps
// [ErrDown] when nothing answers.
func Follow(ctx context.Context, d dirs.Dirs, after int64) (State, error) {
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socketPath(d))
		},
	}}
	query := url.Values{"after": {strconv.FormatInt(after, 10)}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://machine/state?"+query.Encode(), nil)
	if err != nil {
		return State{}, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return State{}, fmt.Errorf("%w: %w", ErrDown, err)
	}
	defer resp.Body.Close()
	var state State
	if err := json.NewDecoder(resp.Body).Decode(&state); err != nil {
		return State{}, fmt.Errorf("read the machine's state: %w", err)
	}
	return state, nil
}
