package node

import (
	"context"
	"log/slog"
	"os"
	"strings"

	"minimega/internal/guest/cmdline"
)

// Contain is Boot in a container: the host has mounted, named and limited
// everything, and what is left are interfaces and services. The words are those
// of a kernel command line.
func Contain(ctx context.Context, words []string) *Machine {
	m := &Machine{Log: slog.New(consoleHandler{os.Stdout}), Procs: newProcs(), power: make(chan powerState, 1)}
	for i, w := range words {
		if key, value, ok := strings.Cut(w, "="); ok && strings.ContainsAny(value, " \t") {
			words[i] = key + `="` + value + `"`
		}
	}
	params, bad := cmdline.Parse(strings.Join(words, " "))
	m.Params = params
	m.logAll(bad)
	m.Net = newNet(params, m.Log)
	m.serve(ctx)
	return m
}

// WaitEnd waits until somebody asks for the end, and ends all other processes.
func (m *Machine) WaitEnd() {
	<-m.power
	endProcesses()
}

// consoleHandler writes what must be known to the console, where the shell has
// its prompt.
type consoleHandler struct{ to *os.File }

func (h consoleHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }

func (h consoleHandler) Handle(_ context.Context, r slog.Record) error {
	_, err := h.to.WriteString("\r\n" + strings.ReplaceAll(r.Message, "\n", "\r\n") + "\r\n")
	return err
}

func (h consoleHandler) WithAttrs([]slog.Attr) slog.Handler { return h }

func (h consoleHandler) WithGroup(string) slog.Handler { return h }
