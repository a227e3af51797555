package shell

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// OpenTTY opens a terminal for Console, which echoes, edits and ends lines
// itself. It returns the size in
// characters, zero where the terminal does not know (a serial line).
func OpenTTY(path string) (f *os.File, width, height int, err error) {
	f, err = os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, 0, err
	}
	if err := setRaw(f); err != nil {
		f.Close()
		return nil, 0, 0, fmt.Errorf("%s is no working terminal: %w", path, err)
	}
	width, height = size(f)
	return f, width, height, nil
}

func setRaw(f *os.File) error {
	return control(f, func(fd int) error {
		t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err != nil {
			return err
		}
		t.Iflag = unix.IGNBRK
		t.Oflag = 0
		t.Lflag = 0
		t.Cflag |= unix.CREAD | unix.CLOCAL // a serial line without a modem
		t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
		return unix.IoctlSetTermios(fd, unix.TCSETS, t)
	})
}

func size(f *os.File) (width, height int) {
	err := control(f, func(fd int) error {
		ws, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
		if err == nil {
			width, height = int(ws.Col), int(ws.Row)
		}
		return err
	})
	if err != nil {
		return 0, 0
	}
	return width, height
}

func control(f *os.File, fn func(fd int) error) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := c.Control(func(fd uintptr) { inner = fn(int(fd)) }); err != nil {
		return err
	}
	return inner
}

// lineEnds writes \n as \r\n, which terminals want, unless that is there.
type lineEnds struct {
	w    io.Writer
	last byte
}

func (l *lineEnds) Write(p []byte) (int, error) {
	out := make([]byte, 0, len(p)+len(p)/16)
	last := l.last
	for _, b := range p {
		if b == '\n' && last != '\r' {
			out = append(out, '\r')
		}
		out = append(out, b)
		last = b
	}
	if _, err := l.w.Write(out); err != nil {
		return 0, err
	}
	l.last = last
	return len(p), nil
}
