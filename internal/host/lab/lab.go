// Package lab is test support: it makes several hosts of one machine. A host
// is a network, UTS and mount namespace with a name, an address and a cable of
// its own; the cables end in a switch that is a namespace too, so nothing
// touches the network of the machine. Hosts share the machine's processes,
// users and files, but for the directories that Options.Own names. Everything
// hangs on the lab's process: when that ends, whatever way, so do the hosts.
package lab

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Options say what a lab is like.
type Options struct {
	Hosts  int    // 1 to MaxHosts
	Prefix string // of the hosts' names, which are prefix1, prefix2 and so on; "n" by default
	MTU    int    // of the cables, 1500 by default
	// Own are directories, such as /tmp, of which every host has one of its
	// own, empty at first, except for what Keep names.
	Own []string
	// Keep are existing files and directories that stay the machine's although
	// they lie in a directory of Own.
	Keep []string
}

// MaxHosts is how many hosts a lab can have.
const MaxHosts = 250

// Lab is a set of hosts that are connected by a switch.
type Lab struct {
	Hosts []*Host
	// Dir is a directory of the lab, the same on all hosts, removed by Close.
	Dir string
	// ID stands on the command line of the processes that hold the hosts, and
	// in the name of Dir.
	ID string

	sw      *space
	cables  *netlink.Handle // to the switch
	closing sync.Once
}

// Subnet is the network of every lab: host i has address 10.77.0.i.
var Subnet = netip.MustParsePrefix("10.77.0.0/24")

// Host is one host of a lab.
type Host struct {
	Name string
	IP   netip.Addr
	// Dir is a directory for files of this host, at the same place for all.
	Dir string
	// Env is what Command adds to the environment.
	Env []string

	lab *Lab
	n   int // from 1
	*space
}

// Make makes a lab for a test, which is skipped if the user is not root, and
// removes it when the test ends.
func Make(t testing.TB, o Options) *Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
	l, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// New makes a lab. The caller must be root.
func New(ctx context.Context, o Options) (*Lab, error) {
	if o.Hosts < 1 || o.Hosts > MaxHosts {
		return nil, fmt.Errorf("a lab of %d hosts: want 1 to %d", o.Hosts, MaxHosts)
	}
	if o.Prefix == "" {
		o.Prefix = "n"
	}
	if o.MTU == 0 {
		o.MTU = 1500
	}
	id := make([]byte, 4)
	if _, err := rand.Read(id); err != nil {
		return nil, err
	}
	l := &Lab{ID: "lab-" + hex.EncodeToString(id)}
	dir, err := os.MkdirTemp("", l.ID+"-")
	if err != nil {
		return nil, err
	}
	l.Dir = dir
	if err := l.build(ctx, o); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Lab) build(ctx context.Context, o Options) error {
	var table bytes.Buffer
	table.WriteString("127.0.0.1 localhost\n")
	for n := 1; n <= o.Hosts; n++ {
		h := &Host{Name: o.Prefix + strconv.Itoa(n), lab: l, n: n, IP: netip.AddrFrom4([4]byte{10, 77, 0, byte(n)})}
		h.Dir = filepath.Join(l.Dir, h.Name)
		fmt.Fprintf(&table, "%v %s\n", h.IP, h.Name)
		l.Hosts = append(l.Hosts, h)
	}
	if err := os.WriteFile(l.hostsFile(), table.Bytes(), 0o644); err != nil {
		return err
	}
	if err := l.startSwitch(ctx, o); err != nil {
		return err
	}
	errs := make([]error, len(l.Hosts))
	var starting sync.WaitGroup
	for i, h := range l.Hosts {
		starting.Go(func() { errs[i] = h.start(ctx, o) })
	}
	starting.Wait()
	return errors.Join(errs...)
}

func (l *Lab) hostsFile() string { return filepath.Join(l.Dir, "hosts") }

// Close ends every process in the hosts and removes the hosts.
func (l *Lab) Close() error {
	var failed []error
	l.closing.Do(func() {
		for _, h := range l.Hosts {
			if h.space != nil {
				failed = append(failed, h.empty(), h.space.close())
			}
		}
		if l.cables != nil {
			l.cables.Close()
		}
		if l.sw != nil {
			failed = append(failed, l.sw.close())
		}
		failed = append(failed, os.RemoveAll(l.Dir))
	})
	return errors.Join(failed...)
}

// start makes the namespaces of a host and plugs it in.
func (h *Host) start(ctx context.Context, o Options) error {
	s, err := open(ctx, unix.CLONE_NEWNET|unix.CLONE_NEWUTS|unix.CLONE_NEWNS, h.lab.ID+" "+h.Name, h.mounts(o))
	if err != nil {
		return fmt.Errorf("host %s: %w", h.Name, err)
	}
	h.space = s
	if err := s.setHostname(h.Name); err != nil {
		return fmt.Errorf("host %s: name: %w", h.Name, err)
	}
	if err := h.plug(o.MTU); err != nil {
		return fmt.Errorf("host %s: network: %w", h.Name, err)
	}
	return nil
}

// Command is a command that runs in the host, as exec.CommandContext is one
// that runs in the machine, looked up in the host's PATH; its Dir is the root
// directory, to be changed to what the host has too. Its process is the program itself, which gets SIGKILL when the lab's process dies.
func (h *Host) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	// A change of the mount namespace leads to its root directory.
	const enter = `ns=/proc/$0/ns; exec nsenter --net=$ns/net --uts=$ns/uts --mount=$ns/mnt -- ` +
		`sh -c 'cd "$0" && exec "$@"' "$PWD" "$@"`
	cmd := exec.CommandContext(ctx, "sh", append([]string{"-c", enter, strconv.Itoa(h.pid()), name}, args...)...)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), h.Env...)
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	return cmd
}

// Path is where the machine has a file of the host that lies in a directory of
// Options.Own.
func (h *Host) Path(path string) string { return filepath.Join(h.Dir, ".own", path) }

// Do calls f on a thread in the host's network namespace. Sockets that f itself
// opens belong to the host for ever; goroutines that f starts do not run there.
func (h *Host) Do(f func() error) error {
	ns, err := netns.GetFromPid(h.pid())
	if err != nil {
		return err
	}
	defer ns.Close()
	return onThread(unix.CLONE_NEWNET, int(ns), f)
}
