package prompt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/term"
)

// Page prints text with a newline. When out is a terminal that text would
// fill at least twice, a pager shows it: $PAGER, or less.
func Page(ctx context.Context, out io.Writer, text string) error {
	text = Shown(out, text)
	n := strings.Count(text, "\n")
	tty, rows := terminalRows(out)
	if tty == nil || n < 2*rows {
		_, err := fmt.Fprintln(out, text)
		return err
	}
	pager := strings.Fields(os.Getenv("PAGER"))
	if len(pager) == 0 {
		pager = []string{"less"}
	}
	path, err := exec.LookPath(pager[0])
	if err != nil {
		_, err := fmt.Fprintln(out, text)
		return err
	}
	fmt.Fprintf(out, "-- sending %d lines to %s --\n", n+1, strings.Join(pager, " "))
	cmd := exec.CommandContext(ctx, path, pager[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(text+"\n"), tty, tty
	err = cmd.Run()
	if errors.Is(err, syscall.EPIPE) {
		return nil // left before the end
	}
	var status *exec.ExitError
	if errors.As(err, &status) {
		return nil // what a pager ends with is its own affair
	}
	return err
}

// terminalRows returns the terminal behind out and its height, or nil.
func terminalRows(out io.Writer) (*os.File, int) {
	f, ok := out.(*os.File)
	if !ok {
		return nil, 0
	}
	_, rows, err := term.GetSize(int(f.Fd()))
	if err != nil || rows == 0 {
		return nil, 0
	}
	return f, rows
}
