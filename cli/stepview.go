package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/emerald-platform/emerald/platform/machine"
)

// stepView shows how a machine comes up: on a terminal a list that changes in
// place, elsewhere a line for each step that is done.
type stepView struct {
	out     io.Writer
	live    bool
	lines   int // how many the live view has drawn
	printed map[string]bool
	last    machine.State
}

func newStepView(out io.Writer) *stepView {
	return &stepView{out: out, live: isTerminal(out), printed: map[string]bool{}}
}

// isTerminal tells whether a person watches w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb"
}

func (v *stepView) show(state machine.State) {
	v.last = state
	if !v.live {
		for _, s := range state.Steps {
			if s.Done && !v.printed[s.Name] {
				v.printed[s.Name] = true
				fmt.Fprintf(v.out, "ready: %s (%s)\n", s.Name, seconds(s.Seconds))
			}
			if s.Error != "" && !v.printed[s.Name+s.Error] {
				v.printed[s.Name+s.Error] = true
				fmt.Fprintf(v.out, "%s: %s\n", s.Name, s.Error)
			}
		}
		return
	}
	var b strings.Builder
	if v.lines > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", v.lines)
	}
	for _, s := range state.Steps {
		b.WriteString("\r\x1b[2K" + stepLine(s) + "\n")
	}
	v.lines = len(state.Steps)
	fmt.Fprint(v.out, b.String())
}

// note prints a line that stays, above what the live view draws next.
func (v *stepView) note(text string) {
	fmt.Fprintln(v.out, text)
	v.lines = 0
}

func stepLine(s machine.Step) string {
	switch {
	case s.Done:
		return fmt.Sprintf("  \x1b[32m●\x1b[0m %-24s \x1b[2m%s\x1b[0m", s.Name, seconds(s.Seconds))
	case s.Error != "":
		return fmt.Sprintf("  \x1b[31m●\x1b[0m %-24s %s", s.Name, clip(s.Error, 50))
	default:
		return fmt.Sprintf("  ○ %-24s \x1b[2m%s\x1b[0m", s.Name, clip(s.Waits, 50))
	}
}

func seconds(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(10 * time.Millisecond).String()
}

// clip shortens s to n characters.
func clip(s string, n int) string {
	r := []rune(strings.ReplaceAll(s, "\n", " "))
	if len(r) <= n {
		return string(r)
	}
	return string(r[:n-1]) + "…"
}
