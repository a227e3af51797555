package command

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strconv"
	"sync"

	"minimega/internal/errs"
	"minimega/internal/host"
	"minimega/pkg/minicli"
)

// profiles writes profiles of the daemon. There is one CPU profile at a time:
// the runtime has no more.
type profiles struct {
	files string

	mu  sync.Mutex // guards cpu
	cpu *os.File   // where the running CPU profile goes
}

// Debug are the commands that look into the daemon itself; files is the files
// directory, where profiles go.
func Debug(files string) []Command {
	p := &profiles{files: files}
	return []Command{{
		Patterns: []string{"debug", "debug <memory,> <file>", "debug <goroutine,> <file>", "debug <cpu,> <start,> <file>", "debug <cpu,> <stop,>"},
		Short:    "look into the daemon",
		Long:     "Without an argument it shows figures of the Go runtime. Otherwise it writes a profile for `go tool pprof` to a file in the files directory: of memory, of goroutines, or of the time between `cpu start` and `cpu stop`.",
		Run: func(_ context.Context, c *Call) (*minicli.Response, error) {
			switch {
			case c.Chose("memory"):
				return done(p.snapshot("heap", c.Str("file")))
			case c.Chose("goroutine"):
				return done(p.snapshot("goroutine", c.Str("file")))
			case c.Chose("start"):
				return done(p.start(c.Str("file")))
			case c.Chose("stop"):
				return done(p.stop())
			}
			return table([]string{"goversion", "goroutines", "cgocalls"}, [][]string{{
				runtime.Version(), strconv.Itoa(runtime.NumGoroutine()), strconv.FormatInt(runtime.NumCgoCall(), 10),
			}})
		},
	}}
}

// path is where a profile goes: in the files directory, or wherever an
// absolute path says.
func (p *profiles) path(name string) (string, error) {
	switch {
	case filepath.IsAbs(name):
		return filepath.Clean(name), nil
	case !filepath.IsLocal(name):
		return "", errs.New(errs.Invalid, "%q leads out of the files directory", name)
	}
	return filepath.Join(p.files, name), nil
}

// snapshot writes one of the runtime's profiles as it is now.
func (p *profiles) snapshot(profile, name string) error {
	path, err := p.path(name)
	if err != nil {
		return err
	}
	if profile == "heap" {
		runtime.GC() // without it the figures are those of the last collection
	}
	var b bytes.Buffer
	if err := pprof.Lookup(profile).WriteTo(&b, 0); err != nil {
		return err
	}
	return host.WriteFile(path, b.Bytes(), 0o600)
}

func (p *profiles) start(name string) error {
	path, err := p.path(name)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cpu != nil {
		return errs.New(errs.State, "CPU profile still running")
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		f.Close()
		os.Remove(path)
		return errs.New(errs.State, "CPU profile still running")
	}
	p.cpu = f
	return nil
}

func (p *profiles) stop() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cpu == nil {
		return errs.New(errs.State, "CPU profile not running")
	}
	pprof.StopCPUProfile()
	f := p.cpu
	p.cpu = nil
	return f.Close()
}
