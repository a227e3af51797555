package capture

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"minimega/internal/capture/pcap"
	"minimega/internal/host"
	"minimega/internal/journal"
)

// lingers is how often records that wait for a busy writer are offered again;
// a reader of the file sees a packet within retireAfter plus this. As often an
// interface that is down is asked whether it still exists.
const lingers = 250 * time.Millisecond

// running is a capture on its way from ring to file. Its goroutine ends when
// it is told to stop, its interface disappears, or the file takes no more.
type running struct {
	spec    Spec
	started time.Time
	file    os.FileInfo // to know the file by
	entry   *journal.Entry
	log     *slog.Logger

	ring   *ring
	mem    *memory
	shared *os.File   // mem, for the holder
	holder *host.Proc // nil if there is none
	sink   *sink
	sel    *selector
	set    *linkSet // links of a bridge; nil for a single interface

	iface    string // name of the single interface
	stopping atomic.Bool
	done     chan struct{}  // closed at the end
	ended    chan struct{}  // closed shortly before, to end the watchers
	watchers sync.WaitGroup // goroutines that wait for changes of the links
	err      error          // why it ended by itself; read after done
	head     []byte         // addresses and tags of the frame being written
}

// open makes ring and memory, or takes what was kept.
func (c *running) open(blocks int, old *resumption) (err error) {
	if old.keeps() {
		k := old.kept
		c.mem, c.shared = k.mem, k.memory
		c.ring, err = adoptRing(k.socket, c.mem)
		k.mem, k.memory, k.socket = nil, nil, nil // ours now
	} else if c.mem, c.shared, err = newMemory(); err == nil {
		c.ring, err = openRing(blocks, c.mem)
	}
	if err != nil && c.mem != nil {
		err = errors.Join(err, c.mem.close(), c.shared.Close())
	}
	return err
}

// stop tells the capture to end; done says when it has.
func (c *running) stop() {
	c.stopping.Store(true)
	c.wake()
}

func (c *running) wake() { c.ring.wake() }

// run is the capture's goroutine. With an error it only ends.
func (c *running) run(err error) {
	defer close(c.done)
	if err == nil {
		err = c.loop()
	}
	gone := errors.Is(err, errGone)
	if err == nil || gone {
		c.finish()
	}
	close(c.ended)
	c.watchers.Wait()
	received, dropped := c.ring.stats()
	c.statistics(received, dropped)
	closeErr := errors.Join(c.ring.close(), c.sink.close())
	if f := c.sink.failure(); f != nil {
		err = f
	} else if gone {
		c.log.Info("capture ended: its interface disappeared", "path", c.spec.Path)
		err = nil
	}
	closeErr = errors.Join(closeErr, c.mem.close())
	if err := c.entry.Remove(); err != nil {
		c.log.Warn("a capture that ended will be taken up by the next minimega", "path", c.spec.Path, "error", err)
	}
	if err := endHolder(c.holder); err != nil {
		c.log.Warn("the process that holds a capture's socket remains", "path", c.spec.Path, "error", err)
	}
	if c.err = errors.Join(err, closeErr); c.err != nil {
		c.log.Error("capture ended", "path", c.spec.Path, "error", c.err)
	}
}

// loop moves packets until the capture ends.
func (c *running) loop() error {
	var h hurry
	defer func() { h.set(false) }()
	left := false
	for {
		// First the deadline, then the reasons to wake: none is missed.
		deadline := time.Time{}
		if left || c.ring.down() {
			deadline = time.Now().Add(lingers)
		}
		c.ring.wakeAt(deadline)
		if err := c.sink.failure(); err != nil || c.stopping.Load() {
			return err
		}
		if err := c.follow(); err != nil {
			return err
		}
		err := c.ring.wait()
		h.set(c.drain() > 1)
		left = c.sink.flush()
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
}

// drain takes the blocks that are ready, at most an eighth of the ring, and
// returns how many those were. A block goes back to the kernel once its records
// are in memory that survives us.
func (c *running) drain() (blocks int) {
	for ; blocks < c.ring.blocks/8 && c.ring.ready(); blocks++ {
		c.sink.reserve(blockSize)
		c.ring.walk(c.packet)
		c.sink.commit(c.ring.read + 1)
		c.ring.release()
	}
	return blocks
}

// finish takes in what the kernel has not passed on yet.
func (c *running) finish() {
	if err := c.ring.filter(acceptUpTo(0)); err != nil {
		c.log.Debug("capture goes on while it ends", "path", c.spec.Path, "error", err)
	}
	for c.drain() > 0 {
	}
	for until := time.Now().Add(2 * retireAfter); c.ring.pending() && time.Now().Before(until); {
		c.ring.wakeAt(until)
		err := c.ring.wait()
		for c.drain() > 0 {
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, errGone) {
			return
		}
	}
}

// packet writes one frame, if it is wanted, with the tags that belong to it.
func (c *running) packet(p *packet) {
	var l *link
	iface, vlan := 0, 0
	if c.set != nil {
		if l = c.set.at(p); l == nil {
			return
		}
		iface, vlan = l.number, l.Link.VLAN
	}
	if !c.sel.wants(p, vlan) {
		return
	}
	head, tail, length := c.head[:0], p.data, p.length
	if c.set != nil && !c.set.separate && vlan != 0 && len(tail) >= 12 {
		head, tail, length = appendTag(append(head, tail[:12]...), tpidDefault, uint16(vlan)), tail[12:], length+4
	}
	if p.tagged && len(p.data) >= 12 {
		if len(head) == 0 {
			head, tail = append(head, tail[:12]...), tail[12:]
		}
		head, length = appendTag(head, p.tpid, p.tci), length+4
	}
	head = head[:min(len(head), c.spec.Snaplen)]
	tail = tail[:min(len(tail), c.spec.Snaplen-len(head))]
	c.sink.packet(iface, p.sec, p.nsec, length, head, tail)
	if c.set != nil {
		c.set.count(l)
	}
}

// statistics ends the file with what was counted.
func (c *running) statistics(received, dropped uint64) {
	now := time.Now()
	if c.set == nil {
		s := pcap.Statistics{Start: c.started, End: now, Received: int64(received + dropped), Dropped: int64(dropped)}
		c.sink.record(func(b []byte) []byte { return c.sink.enc.Statistics(b, 0, s) })
		return
	}
	comment := fmt.Sprintf("%d packets dropped on all interfaces together", dropped)
	for number, n := range c.set.counts {
		s := pcap.Statistics{Start: c.started, End: now, Received: int64(n), Dropped: -1, Comment: comment}
		c.sink.record(func(b []byte) []byte { return c.sink.enc.Statistics(b, number, s) })
	}
}

// over reports whether the capture has ended.
func (c *running) over() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// info is the state of now.
func (c *running) info() Info {
	i := Info{Spec: c.spec, Started: c.started, Packets: c.sink.packets.Load(), Bytes: c.sink.bytes.Load()}
	_, i.Drops = c.ring.stats()
	if c.over() {
		i.Err = c.err
	}
	return i
}
