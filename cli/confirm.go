package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// errNotConfirmed says that the user did not agree.
var errNotConfirmed = errors.New("not confirmed: nothing was done: add --yes to do it without asking")

// confirm asks the user, unless yes. Where nobody can answer, nobody agreed.
func (e *env) confirm(yes bool, question string) error {
	if yes {
		return nil
	}
	in, ok := e.in.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return errNotConfirmed
	}
	fmt.Fprintf(e.err, "%s [y/N] ", question)
	answer, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the answer: %w", err)
	}
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return errNotConfirmed
	}
	return nil
}
