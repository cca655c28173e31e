package picture

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Look says how the picture is drawn.
type Look struct {
	// Color draws with ANSI colours; for terminals only.
	Color bool
	// Width is the number of columns there are; 0 is 80.
	Width int
}

// mark is how a state is drawn.
type mark struct{ sign, color string }

var marks = map[State]mark{
	Proven:  {"✓", "\x1b[32m"},
	Ready:   {"●", "\x1b[36m"},
	Partly:  {"◐", "\x1b[33m"},
	Missing: {"·", "\x1b[2m"},
	Failed:  {"✗", "\x1b[31m"},
}

const (
	bold  = "\x1b[1m"
	dim   = "\x1b[2m"
	reset = "\x1b[0m"
)

// paint wraps text in a colour when there are colours.
func (l Look) paint(color, text string) string {
	if !l.Color || text == "" {
		return text
	}
	return color + text + reset
}

// Mark returns the sign of a state, coloured.
func (l Look) Mark(s State) string { return l.paint(marks[s].color, marks[s].sign) }

// Bold and Dim return text that stands out, or back.
func (l Look) Bold(text string) string { return l.paint(bold, text) }

// Dim returns text that stands back; see Bold.
func (l Look) Dim(text string) string { return l.paint(dim, text) }

// cell is the width that a column needs at least.
const cell = 38

// Render draws the picture: the groups with their rows in as many columns as
// fit, then the sum, then what is worth saying about rows that are neither
// proven nor simply missing.
func Render(w io.Writer, entries []Entry, l Look) error {
	if l.Width <= 0 {
		l.Width = 80
	}
	columns := max(l.Width/(cell+1), 1)
	by := map[int]Entry{}
	for _, e := range entries {
		by[e.Number] = e
	}
	var b strings.Builder
	for _, g := range Groups {
		fmt.Fprintln(&b, l.Bold(g.Name))
		l.grid(&b, g.Rows, by, columns)
	}
	fmt.Fprintf(&b, "\n%s\n", l.sum(entries))
	for _, e := range entries {
		if e.State == Failed || e.State == Partly || e.State == Missing && e.Note != "to come" {
			note := e.Feature + ": " + strings.ReplaceAll(e.Note, "\n", " ")
			fmt.Fprintf(&b, "%s %s\n", l.Mark(e.State), Wrap(note, l.Width-2, "  "))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// grid draws rows column by column, as `ls` does.
func (l Look) grid(b *strings.Builder, rows []Row, by map[int]Entry, columns int) {
	lines := (len(rows) + columns - 1) / columns
	width := l.Width / columns
	for line := range lines {
		for column := range columns {
			i := column*lines + line
			if i >= len(rows) {
				continue
			}
			e := by[rows[i].Number]
			name := clip(rows[i].Feature, width-4)
			text := name
			if e.State == Missing || e.State == "" {
				text = l.Dim(name)
			}
			fmt.Fprintf(b, "  %s %s", l.Mark(e.State), text)
			if column < columns-1 && i+lines < len(rows) {
				b.WriteString(strings.Repeat(" ", max(width-4-utf8.RuneCountInString(name), 1)))
			}
		}
		b.WriteByte('\n')
	}
}

// sum counts the states, and is the legend of their marks at the same time.
func (l Look) sum(entries []Entry) string {
	count := map[State]int{}
	for _, e := range entries {
		count[e.State]++
	}
	var b strings.Builder
	used := 0
	for _, s := range []State{Proven, Ready, Partly, Failed, Missing} {
		if count[s] == 0 && s != Proven {
			continue
		}
		text := fmt.Sprintf(" %d %s", count[s], s)
		n := 1 + utf8.RuneCountInString(text)
		switch {
		case used == 0:
		case used+3+n > l.Width:
			b.WriteByte('\n')
			used = 0
		default:
			b.WriteString("   ")
			used += 3
		}
		b.WriteString(l.Mark(s) + text)
		used += n
	}
	return b.String()
}

// clip shortens s to n characters.
func clip(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:max(n-1, 0)]) + "…"
}

// Wrap breaks s at spaces into lines of at most width characters; those after
// the first begin with indent.
func Wrap(s string, width int, indent string) string {
	var b strings.Builder
	used := 0
	for i, word := range strings.Fields(s) {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case used+1+n > width:
			b.WriteString("\n" + indent)
			used = 0
		default:
			b.WriteByte(' ')
			used++
		}
		b.WriteString(word)
		used += n
	}
	return b.String()
}
