package cli

import (
	"io"
	"os"

	"golang.org/x/term"

	"github.com/emerald-platform/emerald/picture"
)

// lookOf says how to draw on w: in colour and as wide as the window where a
// person watches, plainly elsewhere. NO_COLOR is honoured (no-color.org).
func lookOf(w io.Writer) picture.Look {
	look := picture.Look{}
	if !isTerminal(w) {
		return look
	}
	look.Color = os.Getenv("NO_COLOR") == ""
	if f, ok := w.(*os.File); ok {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			look.Width = min(width, 160)
		}
	}
	return look
}
