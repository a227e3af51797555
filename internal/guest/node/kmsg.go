package node

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
)

// kmsgHandler sends log records to the kernel's log, where `dmesg` and the
// boot messages are (Documentation/ABI/testing/dev-kmsg).
type kmsgHandler struct {
	out   *os.File // nil if there is no kernel log
	attrs string
}

func newKmsgHandler() slog.Handler {
	f, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
	if err != nil {
		f = os.Stderr
	}
	return &kmsgHandler{out: f}
}

func (h *kmsgHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

func (h *kmsgHandler) Handle(_ context.Context, r slog.Record) error {
	level := 6 // informational, as in syslog(2)
	switch {
	case r.Level >= slog.LevelError:
		level = 3
	case r.Level >= slog.LevelWarn:
		level = 4
	}
	text := r.Message + h.attrs
	r.Attrs(func(a slog.Attr) bool {
		text += fmt.Sprintf(" %s=%v", a.Key, a.Value)
		return true
	})
	var err error
	for _, line := range strings.Split(text, "\n") {
		if len(line) > 900 { // the kernel refuses records above 1 KiB
			line = line[:900]
		}
		_, err = fmt.Fprintf(h.out, "<%d>minimega: %s\n", level, line)
	}
	return err
}

func (h *kmsgHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	for _, a := range attrs {
		c.attrs += fmt.Sprintf(" %s=%v", a.Key, a.Value)
	}
	return &c
}

func (h *kmsgHandler) WithGroup(string) slog.Handler { return h }
