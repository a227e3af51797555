package host

import (
	"bufio"
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// sampleEvery is how often the network counters are read; rates are those
// between the last two readings.
const sampleEvery = 3 * time.Second

// Monitor owns the goroutine that reads the network counters.
type Monitor struct {
	log    *slog.Logger
	commit func() Commit
	proc   string // /proc
	sys    string // /sys
	cancel context.CancelFunc
	done   chan struct{}

	mu   sync.Mutex // guards the fields below
	last sample
	rx   float64
	tx   float64
}

// sample is a reading of the counters of all physical interfaces.
type sample struct {
	at     time.Time
	rx, tx uint64 // bytes
}

// NewMonitor watches this host until Close. commit says what the VMs were
// promised.
func NewMonitor(log *slog.Logger, commit func() Commit) *Monitor {
	return newMonitor(log, commit, "/proc", "/sys")
}

func newMonitor(log *slog.Logger, commit func() Commit, proc, sys string) *Monitor {
	ctx, cancel := context.WithCancel(context.Background())
	m := &Monitor{log: log, commit: commit, proc: proc, sys: sys, cancel: cancel, done: make(chan struct{})}
	m.update(m.sample())
	go func() {
		defer close(m.done)
		t := time.NewTicker(sampleEvery)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				m.update(m.sample())
			case <-ctx.Done():
				return
			}
		}
	}()
	return m
}

// Close ends the goroutine.
func (m *Monitor) Close() error {
	m.cancel()
	<-m.done
	return nil
}

func (m *Monitor) rates() (rx, tx float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rx, m.tx
}

func (m *Monitor) update(s sample) {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.last
	m.last = s
	seconds := s.at.Sub(old.at).Seconds()
	// Counters go back when an interface disappears.
	if old.at.IsZero() || seconds <= 0 || s.rx < old.rx || s.tx < old.tx {
		m.rx, m.tx = 0, 0
		return
	}
	m.rx, m.tx = float64(s.rx-old.rx)/seconds, float64(s.tx-old.tx)/seconds
}

func (m *Monitor) sample() sample {
	s := sample{at: time.Now()}
	counters := interfaces(m.read("net/dev"))
	for name := range m.carriers(counters) {
		s.rx += counters[name][0]
		s.tx += counters[name][1]
	}
	return s
}

// interfaces reads received and sent bytes per interface from /proc/net/dev.
func interfaces(dev []byte) map[string][2]uint64 {
	all := map[string][2]uint64{}
	s := bufio.NewScanner(bytes.NewReader(dev))
	for s.Scan() {
		name, rest, ok := strings.Cut(s.Text(), ":")
		f := strings.Fields(rest)
		if !ok || len(f) < 9 {
			continue
		}
		rx, err1 := strconv.ParseUint(f[0], 10, 64)
		tx, err2 := strconv.ParseUint(f[8], 10, 64)
		if err1 == nil && err2 == nil {
			all[strings.TrimSpace(name)] = [2]uint64{rx, tx}
		}
	}
	return all
}

// carriers picks the interfaces through which traffic leaves the host, so that
// a packet that passes a tap, a bridge and a card counts once: those with a
// device behind them or, in a container that has none, what is no bridge, tap
// or loopback.
func (m *Monitor) carriers(all map[string][2]uint64) map[string]bool {
	cards, others := map[string]bool{}, map[string]bool{}
	for name := range all {
		dir := filepath.Join(m.sys, "class/net", filepath.Base(name))
		switch {
		case exists(dir + "/device"):
			cards[name] = true
		case name != "lo" && !exists(dir+"/bridge") && !exists(dir+"/tun_flags"):
			others[name] = true
		}
	}
	if len(cards) > 0 {
		return cards
	}
	return others
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
