package capture

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"minimega/internal/capture/pcap"
	"minimega/internal/errs"
	"minimega/internal/journal"
	"minimega/internal/undo"
	"minimega/internal/version"
)

// Manager owns the captures of a daemon.
type Manager struct {
	log     *slog.Logger
	dir     string           // of the journal
	journal *journal.Journal // for a later process; nil keeps nothing

	mu       sync.Mutex // guards the fields below
	captures []*running // in the order of their start
	starting []os.FileInfo
	closed   bool
	starts   sync.WaitGroup // captures between reservation and start
	watchers sync.WaitGroup // goroutines that take ended captures off the list
}

// New makes a manager without captures.
func New(log *slog.Logger) *Manager { return &Manager{log: log} }

// StartLink captures the interface ifname, in both directions, until it is
// stopped or the interface disappears. On an error nothing has changed: no
// file was made, and one that existed is as it was.
func (m *Manager) StartLink(ctx context.Context, spec Spec, ifname string) error {
	return m.startLink(ctx, spec, ifname, nil)
}

func (m *Manager) startLink(ctx context.Context, spec Spec, ifname string, old *resumption) error {
	return m.start(ctx, spec, old, func(c *running) error {
		c.iface = ifname
		if err := c.ring.filter(c.sel.forInterface()); err != nil {
			return err
		}
		if old.keeps() { // all else is as it was
			c.ring.look(ifname)
			return nil
		}
		index, err := linkIndex(ifname)
		if err != nil {
			return errs.New(errs.NotFound, "cannot capture: %w", err)
		}
		if err := c.ring.bind(index); err != nil {
			return err
		}
		return c.ring.promiscuous(index, true)
	}, nil)
}

// StartLinks captures all links of a bridge into one file, each frame once:
// where it enters the bridge. In pcap frames of a link with a VLAN carry its
// 802.1Q tag; in pcapng each link is an interface. The filter looks at frames
// as they are on the link, and its first `vlan` at the link's VLAN.
func (m *Manager) StartLinks(ctx context.Context, spec Spec, links LinkSource) error {
	return m.startLinks(ctx, spec, links, nil)
}

func (m *Manager) startLinks(ctx context.Context, spec Spec, links LinkSource, old *resumption) error {
	return m.start(ctx, spec, old, func(c *running) error {
		if old.keeps() {
			return nil // the links are those of before until it runs
		}
		if err := c.ring.filter(acceptUpTo(0)); err != nil {
			return err
		}
		return c.ring.bind(0)
	}, links)
}

// start does the steps that all captures have in common; attach connects the
// ring. One that goes on where an earlier process left it has old.
func (m *Manager) start(ctx context.Context, spec Spec, old *resumption, attach func(*running) error, links LinkSource) error {
	if err := spec.check(); err != nil {
		return err
	}
	c := &running{spec: spec, log: m.log, done: make(chan struct{}), ended: make(chan struct{}), head: make([]byte, 0, 32)}
	enc := pcap.ForFile(spec.Path, "minimega "+version.Version)
	if links != nil {
		_, separate := enc.(pcap.NG)
		c.set = newLinkSet(links, separate)
	}
	var f *os.File
	created := false
	return undo.Run(ctx,
		undo.Step{Name: "capture filter", Do: func(context.Context) (err error) {
			c.sel, err = newSelector(spec.Options)
			return err
		}},
		undo.Step{Name: "open capture file", Do: func(context.Context) (err error) {
			if f, created, err = openFile(spec.Path); err != nil {
				return err
			}
			if c.file, err = f.Stat(); err != nil {
				return errors.Join(err, discard(f, created))
			}
			return nil
		}, Undo: func() error { return discard(f, created) }},
		undo.Step{Name: "reserve capture file",
			Do:   func(context.Context) error { return m.reserve(c.file, spec.Path) },
			Undo: func() error { m.release(c.file); return nil }},
		undo.Step{Name: "open packet socket", Do: func(context.Context) error { return socketError(c.open(ringBlocks(m.running()), old)) },
			Undo: func() error { return errors.Join(c.ring.close(), c.mem.close(), c.shared.Close()) }},
		undo.Step{Name: "attach to interface", Do: func(context.Context) error { return socketError(attach(c)) }},
		undo.Step{Name: "begin capture file", Do: func(context.Context) error { return m.begin(c, f, enc, old) }},
	)
}

// running is how many captures there are.
func (m *Manager) running() int { m.mu.Lock(); defer m.mu.Unlock(); return len(m.captures) }

// begin writes the head of the file and starts the capture.
func (m *Manager) begin(c *running, f *os.File, enc pcap.Encoder, old *resumption) error {
	head := enc.Header(nil, c.spec.Snaplen)
	if c.set == nil {
		head = enc.AddInterface(head, pcap.Interface{Name: c.iface, Filter: c.spec.Filter, Snaplen: c.spec.Snaplen})
	}
	if err := m.beginFile(c, f, enc, head, old); err != nil {
		return err
	}
	m.hold(c, old)
	c.sink = newSink(f, enc, c.mem, c.wake)
	if old.keeps() && c.set != nil {
		c.recall(head)
	}
	failed := c.follow() // from now on nothing is missed
	m.mu.Lock()
	m.captures = append(m.captures, c)
	m.mu.Unlock()
	go c.run(failed)
	m.watchers.Go(func() { m.reap(c) })
	m.release(c.file)
	return nil
}

// beginFile makes the file ready and notes the capture in the journal.
func (m *Manager) beginFile(c *running, f *os.File, enc pcap.Encoder, head []byte, old *resumption) (err error) {
	if old != nil {
		c.started, c.entry = old.started, old.entry
		return old.resume(c.mem, f, enc, head, c.spec.Snaplen)
	}
	if err := begin(f, head); err != nil {
		return err
	}
	*c.mem.word(wordInode) = inode(c.file)
	c.mem.file.store(record4{0, uint64(len(head)), 0, 0})
	c.started = time.Now()
	c.entry, err = m.journal.Add(saved{c.spec, c.iface, c.started})
	return err
}

// hold gives the capture its holder. Without one it does all else.
func (m *Manager) hold(c *running, old *resumption) {
	var err error
	switch {
	case old.keeps():
		c.holder = old.kept.holder
	case c.entry != nil:
		c.holder, err = hold(c.entry.Path(), c.shared, c.ring.file)
	}
	if err = errors.Join(err, c.shared.Close()); err != nil {
		m.log.Warn("a capture will lose packets if minimega is killed: nobody holds its socket", "path", c.spec.Path, "error", err)
	}
}

// discard closes a file that is not to be captured to, and removes it if it is ours.
func discard(f *os.File, created bool) error {
	err := f.Close()
	if created {
		err = errors.Join(err, os.Remove(f.Name()))
	}
	return err
}

// socketError gives an error of a packet socket its kind.
func socketError(err error) error {
	switch {
	case err == nil || errs.KindOf(err) != errs.Internal:
		return err
	case errors.Is(err, os.ErrPermission):
		return errs.WithRemedy(errs.Wrap(errs.Permission, err), "capturing needs root or CAP_NET_RAW")
	case errors.Is(err, unix.ENOMEM), errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		return errs.Wrap(errs.Resource, err)
	}
	return err
}

// reserve makes sure that one capture writes to a file, under whatever name.
func (m *Manager) reserve(file os.FileInfo, path string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return errs.New(errs.State, "captures are being shut down")
	}
	taken := slices.ContainsFunc(m.starting, func(o os.FileInfo) bool { return os.SameFile(o, file) })
	for _, c := range m.captures {
		if os.SameFile(c.file, file) && !c.over() {
			taken = true
		}
	}
	if taken {
		return errs.WithRemedy(errs.New(errs.Exists, "%s is being captured to already", path), "stop that capture or choose another file")
	}
	m.starting = append(m.starting, file)
	m.starts.Add(1)
	return nil
}

// release ends a reservation.
func (m *Manager) release(file os.FileInfo) {
	defer m.starts.Done()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.starting = slices.DeleteFunc(m.starting, func(o os.FileInfo) bool { return os.SameFile(o, file) })
}

// reap takes a capture off the list when it ends, unless it failed: then it
// stays, with its error, until it is stopped.
func (m *Manager) reap(c *running) {
	<-c.done
	if c.err == nil {
		m.forget(c)
	}
}

func (m *Manager) forget(c *running) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.captures = slices.DeleteFunc(m.captures, func(o *running) bool { return o == c })
}

// List returns the captures in the order of their start.
func (m *Manager) List() []Info {
	m.mu.Lock()
	captures := slices.Clone(m.captures)
	m.mu.Unlock()
	infos := make([]Info, len(captures))
	for i, c := range captures {
		infos[i] = c.info()
	}
	return infos
}

// Stop ends the captures that match and waits until their files are complete.
// It returns how many there were. When ctx ends first, they end on their own.
func (m *Manager) Stop(ctx context.Context, match func(Spec) bool) (int, error) {
	m.mu.Lock()
	var ending []*running
	for _, c := range m.captures {
		if match(c.spec) {
			ending = append(ending, c)
		}
	}
	m.mu.Unlock()
	for _, c := range ending {
		c.stop()
	}
	for i, c := range ending {
		select {
		case <-c.done:
			m.forget(c)
		case <-ctx.Done():
			return i, ctx.Err()
		}
	}
	return len(ending), nil
}

// StopAll ends all captures of a namespace.
func (m *Manager) StopAll(ctx context.Context, namespace string) (int, error) {
	return m.Stop(ctx, func(s Spec) bool { return s.Namespace == namespace })
}

// Close ends all captures and refuses new ones.
func (m *Manager) Close(ctx context.Context) error {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.starts.Wait()
	if _, err := m.Stop(ctx, func(Spec) bool { return true }); err != nil {
		return err
	}
	m.watchers.Wait()
	return nil
}
