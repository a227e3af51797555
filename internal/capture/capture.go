// Package capture writes what passes network interfaces to capture files,
// without libpcap: a packet socket with a memory-mapped ring, a filter in the
// kernel, and a writer that the ring never waits for. A Manager owns all
// captures of a daemon, of single interfaces and of bridges, whose links come
// and go. What the kernel had to drop is counted and shown. Beside each capture a
// process holds socket and memory, so that nothing is lost when the daemon is
// killed and started again.
package capture

import (
	"fmt"
	"path/filepath"
	"time"

	"minimega/internal/capture/bpf"
	"minimega/internal/errs"
)

// KindPcap is the Spec.Kind of packet captures.
const KindPcap = "pcap"

// DefaultSnaplen is how many bytes of a packet are kept when none are given.
const DefaultSnaplen = 1600

// Options say which packets are kept, and how much of them.
type Options struct {
	Snaplen int    // bytes of each packet; 0 means DefaultSnaplen
	Filter  string // pcap-filter(7); "" keeps all
}

// Spec describes a capture to start. Either VM and Interface or Bridge say
// whose it is; they are labels here.
type Spec struct {
	Namespace string
	Kind      string // KindPcap; "" means that
	Bridge    string
	VM        string
	VMID      int
	Interface int    // index of the VM's interface
	Path      string // pcapng when it ends in .pcapng, else pcap; overwritten
	Options
}

// Link is a network interface of a bridge.
type Link struct {
	Name string
	VLAN int // number of its VLAN, 0 for none
	// Host marks the bridge's own interface: what the host sends goes out there,
	// while all other links are watched for what comes in.
	Host bool
}

// LinkSource is the changing set of links of a bridge.
type LinkSource interface {
	// Links returns the links of now, which exist, and a channel that is closed
	// when they change. It does not wait for anything.
	Links() ([]Link, <-chan struct{})
}

// Info is the state of a capture.
type Info struct {
	Spec
	Mode     string // of netflow; "" for pcap
	Compress bool
	Started  time.Time
	Packets  uint64 // written to the file
	Bytes    uint64 // of those packets, as written
	Drops    uint64 // packets that matched and that the kernel had no room for
	Err      error  // why the capture ended by itself; nil while it runs
}

// check completes the spec and refuses what can never work.
func (s *Spec) check() error {
	if s.Kind == "" {
		s.Kind = KindPcap
	}
	if s.Kind != KindPcap {
		return errs.New(errs.Unsupported, "capture of kind %q", s.Kind)
	}
	if s.Path == "" {
		return errs.New(errs.Invalid, "capture needs a file to write to")
	}
	if s.Snaplen < 0 || s.Snaplen > bpf.DefaultSnaplen {
		return errs.New(errs.Invalid, "snaplen %d: it must lie between 1 and %d bytes, or be 0 for %d", s.Snaplen, bpf.DefaultSnaplen, DefaultSnaplen)
	}
	if s.Snaplen == 0 {
		s.Snaplen = DefaultSnaplen
	}
	path, err := filepath.Abs(s.Path)
	if err != nil {
		return fmt.Errorf("capture to %s: %w", s.Path, err)
	}
	s.Path = path
	return nil
}
