package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// report is what one section found.
type report struct {
	parts  []string // paragraphs and tables, in Markdown
	missed []string // goals that were not reached, as one line each
}

// text returns the section's Markdown.
func (r *report) text() string { return strings.Join(r.parts, "\n\n") }

// say adds a paragraph.
func (r *report) say(format string, args ...any) {
	r.parts = append(r.parts, fmt.Sprintf(format, args...))
}

// goal returns the cell for a goal, and notes it when it is missed.
func (r *report) goal(met bool, what, figure, goal string) string {
	if met {
		return goal + ": met"
	}
	r.missed = append(r.missed, fmt.Sprintf("%s: %s, want %s", what, figure, goal))
	return goal + ": **missed**"
}

// table adds a table. Its columns are as wide as they need to be, so that it
// reads well as text; all but the first are to the right.
func (r *report) table(head []string, rows [][]string) {
	width := make([]int, len(head))
	for _, row := range append([][]string{head}, rows...) {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	var out strings.Builder
	line := func(row []string) {
		for i := range head {
			cell := ""
			if i < len(row) {
				cell = row[i]
			}
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				fmt.Fprintf(&out, "| %s%s ", cell, pad)
			} else {
				fmt.Fprintf(&out, "| %s%s ", pad, cell)
			}
		}
		out.WriteString("|\n")
	}
	line(head)
	for i := range head {
		if i == 0 {
			out.WriteString("|" + strings.Repeat("-", width[i]+2))
		} else {
			out.WriteString("|" + strings.Repeat("-", width[i]+1) + ":")
		}
	}
	out.WriteString("|\n")
	for _, row := range rows {
		line(row)
	}
	r.parts = append(r.parts, strings.TrimSuffix(out.String(), "\n"))
}

// writeSection replaces what is between a section's markers in the file.
func writeSection(path, name, text string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("write down %s: %w", name, err)
	}
	whole, err := replaceSection(string(raw), name, text)
	if err != nil {
		return fmt.Errorf("write %s into %s: %w", name, path, err)
	}
	if err := os.WriteFile(path, []byte(whole), 0o644); err != nil {
		return fmt.Errorf("write down %s: %w", name, err)
	}
	return nil
}

func replaceSection(whole, name, text string) (string, error) {
	begin, end := "<!-- bench:"+name+" -->\n", "<!-- /bench:"+name+" -->"
	before, rest, found := strings.Cut(whole, begin)
	_, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		return "", fmt.Errorf("it lacks the markers %q and %q", strings.TrimSpace(begin), end)
	}
	return before + begin + text + "\n" + end + after, nil
}

// series is one quantity, measured several times.
type series []float64

// median returns the middle one, or the mean of the two in the middle.
func (s series) median() float64 {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// over returns, for each round, this quantity as a multiple of the other: both
// were measured one after the other, so that what disturbed the machine in that
// round disturbed both.
func (s series) over(other series) series {
	out := make(series, 0, len(s))
	for i := range min(len(s), len(other)) {
		if other[i] > 0 {
			out = append(out, s[i]/other[i])
		}
	}
	return out
}

// spread returns the smallest and the largest.
func (s series) spread(unit string) string {
	if len(s) == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f–%.2f%s", slices.Min(s), slices.Max(s), unit)
}

func seconds(v float64) string { return fmt.Sprintf("%.2f s", v) }

func times(v float64) string { return fmt.Sprintf("%.2f×", v) }

func megabytes(bytes float64) string { return fmt.Sprintf("%.1f MB", bytes/1e6) }

// mebibytes is for memory, which everybody counts in those.
func mebibytes(kib float64) string { return fmt.Sprintf("%.0f MiB", kib/1024) }

func today() string { return time.Now().UTC().Format("2006-01-02 15:04 UTC") }
