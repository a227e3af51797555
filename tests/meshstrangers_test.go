package tests

import (
	"crypto/rand"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"minimega/internal/host/lab"
	"minimega/pkg/miniclient"
)

// TestMeshStrangers: who has another key, or none, is in no mesh and learns
// nothing of it; a second host of one name is told apart and named; garbage on
// the mesh's port harms nobody; and a range with a host that is not there is
// refused as a whole.
func TestMeshStrangers(t *testing.T) {
	m := newMesh(t, 3)
	m.whole()
	d := m.daemon(0)
	if _, err := m.do(d, "ns add-hosts n[2-9]"); err == nil || !strings.Contains(err.Error(), "unknown host: `n4`") {
		t.Errorf("a range with hosts that are not there: %v", err)
	}
	if got := m.must(d, "ns hosts"); strings.Contains(got[0].Response, "n9") {
		t.Errorf("hosts: %s", got[0].Response)
	}
	got, err := m.do(d, "mesh send n[2-9] version")
	if done := len(got) - len(miniclient.Responses(got).Failed()); done != 2 || err == nil || !strings.Contains(err.Error(), "Error (n9)") {
		t.Errorf("a command for hosts that are not there: done by %d hosts, %v", done, err)
	}
	m.garbage(m.lab.Hosts[2], m.lab.Hosts[0])
	if got := m.must(d, "mesh send all version"); len(got) != 2 {
		t.Errorf("after garbage: %d answers", len(got))
	}

	// One leaves, and what comes instead is not let in.
	must(t, m.daemon(2).Stop())
	two := m.all()[:2]
	m.see(2, two)
	other := filepath.Join(m.lab.Dir, "otherkey")
	if out, err := m.lab.Hosts[0].Command(t.Context(), program, "mesh", "key", other).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for what, flags := range map[string][]string{
		"another key": {"-mesh-key", other, "-mesh-dial", "n1"}, "no key": {"-mesh-dial", "n1", "-degree", "2"},
		"an open mesh": {"-mesh-open", "-degree", "2", "-mesh-dial", "n1"},
	} {
		s, err := m.lab.Hosts[2].Start(t.Context(), program, flags...)
		if err != nil {
			t.Errorf("with %s: %v", what, err)
			continue
		}
		if _, err := m.do(s, "mesh dial n1"); err == nil || !strings.Contains(err.Error(), "another mesh key") {
			t.Errorf("with %s: n1 is dialled: %v", what, err)
		}
		m.alone(what, s, two)
		must(t, s.Stop())
	}

	must(t, m.lab.Hosts[2].Command(t.Context(), "hostname", "n2").Run())
	m.twin(two)
}

// twin starts a second n2 on the third host. Who it is cannot be told, so what
// is meant for n2 goes to neither, and says why; everything else goes on.
func (m *mesh) twin(two []*lab.Daemon) {
	m.Helper()
	twin, err := m.lab.Hosts[2].Start(m.Context(), program, append([]string{"-level", "warn", "-v"}, m.flags...)...)
	must(m.T, err)
	m.see(3, two)
	addresses := []string{m.lab.Hosts[1].IP.String(), m.lab.Hosts[2].IP.String()}
	m.until("a command for n2 tells that there are two", func() (string, bool) {
		_, err := m.do(two[0], "mesh send n2 version")
		return fmt.Sprint(err), err != nil && strings.Contains(err.Error(), addresses[0]) && strings.Contains(err.Error(), addresses[1])
	})
	if got := m.must(two[0], "check"); len(got) != 1 || !strings.Contains(got[0].Response, "several hosts of the mesh have one name") {
		m.Errorf("check says %+v", got)
	}
	if got := m.must(two[1], "mesh send n1 version"); len(got) != 1 {
		m.Errorf("n1 answers %d times", len(got))
	}
	m.until("the second n2 says so, too", func() (string, bool) {
		said := twin.Output()
		return said, strings.Contains(said, "two hosts have one name")
	})
	must(m.T, twin.Stop())
	m.see(2, two)
	if got := m.must(two[0], "mesh send n2 version"); len(got) != 1 || got[0].Host != "n2" {
		m.Errorf("after the second n2 has gone: %v", got)
	}
}

// alone checks for a while that a daemon sees nobody, and nobody sees it.
func (m *mesh) alone(what string, s *lab.Daemon, others []*lab.Daemon) {
	m.Helper()
	for until := time.Now().Add(2 * time.Second); time.Now().Before(until); time.Sleep(50 * time.Millisecond) {
		if got := m.must(s, "mesh status")[0].Tabular[0][0]; got != "1" {
			m.Errorf("with %s: it sees %s hosts", what, got)
			return
		}
		for _, d := range others {
			if got := m.must(d, "mesh status")[0].Tabular[0][0]; got != "2" {
				m.Errorf("with %s: %s sees %s hosts", what, d.Host.Name, got)
				return
			}
		}
	}
}

// garbage sends what is no message to the mesh's port of another host.
func (m *mesh) garbage(from, to *lab.Host) {
	m.Helper()
	junk := make([]byte, 64<<10)
	_, _ = rand.Read(junk)
	for _, text := range [][]byte{junk, []byte("GET / HTTP/1.1\r\n\r\n"), make([]byte, 1<<10), []byte("/multistream/1.0.0\n"), nil} {
		for _, network := range []string{"tcp", "udp"} {
			must(m.T, from.Do(func() error {
				c, err := net.Dial(network, to.IP.String()+":9000")
				if err != nil {
					return err
				}
				defer c.Close()
				_, _ = c.Write(text[:min(len(text), 1400)])
				if network == "tcp" {
					_, _ = c.Write(text)
				}
				return nil
			}))
		}
	}
}
