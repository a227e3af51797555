package image

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/term"
)

// size writes a number of bytes for people.
func size(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}

// show prints how far an import is until the returned function is called: in
// one line that changes on a terminal, else now and then a line.
func (t *tool) show(ctx context.Context, m *Meter) func() {
	f, ok := t.stderr.(*os.File)
	terminal := ok && term.IsTerminal(int(f.Fd()))
	every, start, end := 5*time.Second, "", "\n"
	if terminal {
		every, start, end = 200*time.Millisecond, "\r\x1b[K", ""
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	began := time.Now()
	go func() {
		defer close(done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				fmt.Fprint(t.stderr, start, progress(m, time.Since(began)), end)
			}
		}
	}()
	return func() {
		cancel()
		<-done
		fmt.Fprintln(t.stderr, start+progress(m, time.Since(began)))
	}
}

// progress words how far an import is.
func progress(m *Meter, took time.Duration) string {
	read, total, ready, layers := m.Progress()
	rate := float64(read) / max(took.Seconds(), 1e-3)
	of := ""
	if total > 0 {
		of = fmt.Sprintf(" of %s (%d%%)", size(total), min(100, read*100/total))
	}
	return fmt.Sprintf("%d of %d layers, %s%s, %s/s", ready, layers, size(read), of, size(int64(rate)))
}
