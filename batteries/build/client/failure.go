package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"

	buildkit "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/solver/errdefs"
	digest "github.com/opencontainers/go-digest"
)

// StepError is a build that failed by its own fault.
type StepError struct {
	// File and Line are the place in the Dockerfile, "" and 0 when unknown.
	File string
	Line int

	// Excerpt is that place with the lines around it.
	Excerpt string

	// Step is the failed step as the progress names it.
	Step string

	// Output is the last of what the step printed.
	Output string

	cause error
}

// Error returns everything a person needs to mend the build.
func (e *StepError) Error() string {
	var b strings.Builder
	if e.File != "" {
		fmt.Fprintf(&b, "%s:%d: ", e.File, e.Line)
	}
	fmt.Fprintf(&b, "build failed: %v", e.cause)
	if e.Excerpt != "" {
		fmt.Fprintf(&b, "\n\n%s", strings.TrimRight(e.Excerpt, "\n"))
	}
	if e.Output != "" {
		fmt.Fprintf(&b, "\n\nthe step's last output:\n%s", indent(e.Output))
	}
	return b.String()
}

// Unwrap returns BuildKit's error.
func (e *StepError) Unwrap() error { return e.cause }

func indent(s string) string {
	return "  " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n  ")
}

const (
	keepOutput = 4 << 10 // bytes of a step's output that an error repeats
	keepLines  = 20
)

// recorder remembers of a build's progress what an error or a result tells. It
// is safe for concurrent use.
type recorder struct {
	mu       sync.Mutex
	failed   *buildkit.Vertex
	output   map[digest.Digest][]byte
	warnings []string
}

func (r *recorder) add(s *buildkit.SolveStatus) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, v := range s.Vertexes {
		// The steps that were cancelled because of the first say so too.
		if v.Error != "" && r.failed == nil && !strings.HasSuffix(v.Error, context.Canceled.Error()) {
			r.failed = v
		}
	}
	for _, l := range s.Logs {
		if r.output == nil {
			r.output = map[digest.Digest][]byte{}
		}
		out := append(r.output[l.Vertex], l.Data...)
		if len(out) > keepOutput {
			out = bytes.Clone(out[len(out)-keepOutput:])
		}
		r.output[l.Vertex] = out
	}
	for _, w := range s.Warnings {
		r.warnings = append(r.warnings, string(w.Short))
	}
}

func (r *recorder) notes() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.warnings
}

// explain turns a failed solve into the error its user reads.
func (r *recorder) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("build cancelled: %w", context.Cause(ctx))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e := &StepError{cause: rootCause(err)}
	if sources := errdefs.Sources(err); len(sources) > 0 {
		s := sources[len(sources)-1]
		if s.Info != nil {
			e.File = s.Info.Filename
		}
		if len(s.Ranges) > 0 && s.Ranges[0].Start != nil {
			e.Line = int(s.Ranges[0].Start.Line)
		}
		var excerpt strings.Builder
		if s.Print(&excerpt) == nil {
			// Print starts with the place, which the message has already.
			_, text, _ := strings.Cut(excerpt.String(), "\n")
			e.Excerpt = strings.Trim(text, "-\n")
		}
	}
	if r.failed != nil {
		e.Step = r.failed.Name
		lines := bytes.Split(bytes.TrimRight(r.output[r.failed.Digest], "\n"), []byte("\n"))
		if len(lines) > keepLines {
			lines = lines[len(lines)-keepLines:]
		}
		e.Output = string(bytes.Join(lines, []byte("\n")))
	}
	if e.File == "" && e.Step == "" {
		// No step failed: the builder or the way to it did.
		return fmt.Errorf("build: %w", err)
	}
	return e
}

// plainWords say what BuildKit's words mean for who wrote the Dockerfile.
var plainWords = []struct {
	words *regexp.Regexp
	plain string
}{
	{regexp.MustCompile(`^(?:failed to solve: |dockerfile parse error: |rpc error: code = \w+ desc = )+`), ""},
	{regexp.MustCompile(`^(?:failed to compute cache key: )?failed to calculate checksum of ref \S+: ("[^"]*"): not found$`),
		"$1 is not in the folder that is built, or its .dockerignore leaves it out"},
	{regexp.MustCompile(`^(?:\S+: )?failed to resolve source metadata for (\S+): `), "base image $1 cannot be had: "},
	{regexp.MustCompile(`^failed to push (\S+): (?:unknown: )?`), "push $1: "},
	{regexp.MustCompile(`unexpected status from \w+ request to \S+: 502 Bad Gateway`), "its registry cannot be reached from here"},
	{regexp.MustCompile(`^.*no space left on device.*$`),
		"the disk of the machine that builds is full: make room on it; what builds keep goes with: emerald registry gc"},
}

// rootCause says what went wrong without BuildKit's "failed to solve: " and the
// like.
func rootCause(err error) error {
	text := err.Error()
	for _, w := range plainWords {
		text = w.words.ReplaceAllString(text, w.plain)
	}
	if text == err.Error() {
		return err
	}
	return &shortened{error: err, text: text}
}

// shortened is an error that reads differently.
type shortened struct {
	error
	text string
}

func (e *shortened) Error() string { return e.text }
func (e *shortened) Unwrap() error { return errors.Unwrap(e.error) }
