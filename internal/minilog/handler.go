package minilog

import (
	"context"
	"log/slog"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// handler is the slog.Handler of a Log. It is immutable: With… copies it.
type handler struct {
	log   *Log
	attrs string // rendered, each with a blank in front
	group string // prefix of the keys to come, with its dot
}

// Enabled reports whether anybody would see a record of that level.
func (h *handler) Enabled(_ context.Context, level slog.Level) bool {
	return h.log.active.Load() && level >= h.log.Level()
}

// Handle writes one record to all targets.
func (h *handler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString(printable(r.Message))
	b.WriteString(h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		appendAttr(&b, h.group, a)
		return true
	})
	h.log.write(&entry{time: r.Time, level: r.Level, source: source(r.PC), text: b.String()})
	return nil
}

// WithAttrs returns a handler that adds attrs to each record.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	var b strings.Builder
	b.WriteString(h.attrs)
	for _, a := range attrs {
		appendAttr(&b, h.group, a)
	}
	return &handler{log: h.log, attrs: b.String(), group: h.group}
}

// WithGroup returns a handler that puts name and a dot before the keys to come.
func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	return &handler{log: h.log, attrs: h.attrs, group: h.group + name + "."}
}

func appendAttr(b *strings.Builder, prefix string, a slog.Attr) {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, sub := range v.Group() {
			appendAttr(b, prefix, sub)
		}
		return
	}
	if a.Equal(slog.Attr{}) {
		return
	}
	b.WriteByte(' ')
	b.WriteString(printable(prefix + a.Key))
	b.WriteByte('=')
	b.WriteString(quoted(v.String()))
}

// quoted is s as a value: quoted where it would not be read as one word.
func quoted(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if s == "" || strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r == '"' || r == '=' || !strconv.IsPrint(r)
	}) {
		return strconv.Quote(s)
	}
	return s
}

// printable keeps a message from forging lines or driving the reader's
// terminal: further lines are indented, control characters escaped.
func printable(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if !strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return s
	}
	var b strings.Builder
	for _, r := range strings.TrimRight(s, "\n") {
		switch {
		case r == '\n':
			b.WriteString("\n\t")
		case r == '\t' || strconv.IsPrint(r):
			b.WriteRune(r)
		default:
			q := strconv.QuoteRune(r)
			b.WriteString(q[1 : len(q)-1])
		}
	}
	return b.String()
}

// source is `file.go:NN` of the caller.
func source(pc uintptr) string {
	if pc == 0 {
		return "-:0"
	}
	f, _ := runtime.CallersFrames([]uintptr{pc}).Next()
	return filepath.Base(f.File) + ":" + strconv.Itoa(f.Line)
}

// entry is a record, ready to be printed.
type entry struct {
	time   time.Time
	level  slog.Level
	source string
	text   string
	// foreign is true for a record of another host.
	foreign bool
}

// prologue is what stands before the text, with the time in the given layout.
func (e *entry) prologue(layout string) string {
	return e.time.Format(layout) + " " + strings.ToUpper(LevelName(e.level)) + " " + e.source + ": "
}

func (e *entry) line() string { return e.prologue("2006/01/02 15:04:05") + e.text }
