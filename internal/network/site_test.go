package network_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"minimega/internal/host/lab"
	"minimega/internal/network"
	"minimega/internal/network/linux"
)

// site is a host of a lab with a manager of its own.
type site struct {
	*lab.Host
	base string
	m    *network.Manager
	log  *strings.Builder
}

// sites makes hosts on a common wire, each with a manager, and checks at the end
// that nothing is left on them.
func sites(t *testing.T, o lab.Options) []*site {
	t.Helper()
	l := lab.Make(t, o)
	var list []*site
	for _, h := range l.Hosts {
		s := &site{Host: h, base: t.TempDir()}
		s.start(t)
		list = append(list, s)
		t.Cleanup(func() {
			if err := s.m.Close(context.Background()); err != nil {
				t.Error(err)
			}
			if left := s.links(t, "eth0", "lo"); left != "" {
				t.Errorf("%s is left with %s", h.Name, left)
			}
		})
	}
	return list
}

// start makes a manager in the host, as a daemon does that starts there.
func (s *site) start(t *testing.T) {
	t.Helper()
	s.log = &strings.Builder{}
	log := slog.New(slog.NewTextHandler(io.MultiWriter(t.Output(), s.log), nil))
	err := s.Do(func() error {
		dp, err := linux.New(s.base, log)
		if err != nil {
			return err
		}
		s.m, err = network.New(dp, network.Options{Base: s.base, Log: log})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// links names the interfaces of the host but for some.
func (s *site) links(t *testing.T, but ...string) string {
	t.Helper()
	var names []string
	err := s.Do(func() error {
		list, err := netlink.LinkList()
		for _, l := range list {
			if !strings.Contains(strings.Join(but, " "), l.Attrs().Name) {
				names = append(names, l.Type()+" "+l.Attrs().Name)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(names, ", ")
}

// station is a network namespace at the inner end of a container's port.
type station struct {
	ip   netip.Addr
	tap  string
	ns   netns.NsHandle
	port network.Port
}

// station makes one on a VLAN of a host, for a namespace.
func (s *site) station(t *testing.T, namespace string, vlan int, cidr string) *station {
	t.Helper()
	return s.stationOn(t, network.PortSpec{Namespace: namespace, VLAN: vlan}, cidr)
}

func (s *site) stationOn(t *testing.T, spec network.PortSpec, cidr string) *station {
	t.Helper()
	st := &station{ip: netip.MustParsePrefix(cidr).Addr()}
	onThread(t, func() error {
		var err error
		st.ns, err = netns.New()
		return err
	})
	t.Cleanup(func() { st.ns.Close() })
	space := os.NewFile(uintptr(must(st.dup())), "netns")
	defer space.Close()
	spec.Kind, spec.Space, spec.Inside = network.Container, space, "veth0"
	ports, err := s.m.Create(t.Context(), []network.PortSpec{spec})
	if err != nil {
		t.Fatal(err)
	}
	st.port, st.tap = ports[0], ports[0].Name
	flags := []string{"addr", "add", cidr, "dev", "veth0"}
	if st.ip.Is6() {
		flags = append(flags, "nodad")
	}
	st.run(t, "ip", flags...)
	st.run(t, "ip", "link", "set", "veth0", "up")
	return st
}

func (st *station) dup() (int, error) {
	f, err := netns.GetFromPath(st.path())
	return int(f), err
}

func (st *station) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(st.ns)) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// onThread runs f on a thread that nobody uses afterwards.
func onThread(t *testing.T, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func (st *station) command(name string, args ...string) ([]byte, error) {
	return exec.Command("nsenter", append([]string{"--net=" + st.path(), name}, args...)...).CombinedOutput()
}

func (st *station) run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := st.command(name, args...); err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}

// pings reports whether a ping of so many bytes, not to be fragmented, is answered.
func (st *station) pings(to *station, size int) bool { return st.pingsWithin(to, size, "10") }

func (st *station) pingsWithin(to *station, size int, seconds string) bool {
	_, err := st.command("ping", "-n", "-q", "-c", "1", "-W", seconds, "-M", "do", "-s", strconv.Itoa(size), to.ip.String())
	return err == nil
}

// reaches waits for a ping to be answered.
func (st *station) reaches(t *testing.T, to *station) {
	t.Helper()
	for range 40 {
		if st.pingsWithin(to, 56, "1") {
			return
		}
	}
	t.Errorf("%v does not reach %v", st.ip, to.ip)
}

func (st *station) misses(t *testing.T, to *station) {
	t.Helper()
	if st.pingsWithin(to, 56, "0.3") {
		t.Errorf("%v reaches %v", st.ip, to.ip)
	}
}
