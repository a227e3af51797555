package tests

import (
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// clockEnv lets TestClock set the clock of the machine it runs on.
const clockEnv = "MINIMEGA_TEST_CLOCK"

// Hosts whose clock is an hour off, or jumps, stay in the mesh and find it
// again, and agree on files and VLANs.
func TestClock(t *testing.T) {
	if os.Getenv(clockEnv) == "" {
		t.Skip("sets the machine's clock: runs in a guest, in TestUnderDebiansKernel")
	}
	g := newGroup(t, 2)
	for i, by := range []time.Duration{time.Hour, -2 * time.Hour} {
		now := unix.NsecToTimeval(time.Now().Add(by).UnixNano())
		must(t, unix.Settimeofday(&now))
		for start := time.Now(); time.Since(start) < 3*time.Second; time.Sleep(100 * time.Millisecond) {
			for n := range g.daemons {
				g.want(n, fmt.Sprintf("n%d: 2", n+1), ".columns size mesh status")
			}
			g.want(0, "n2: here", "mesh send n2 echo here")
		}
		must(t, g.daemons[1].Stop())
		d, err := g.daemons[1].Host.Start(t.Context(), program, g.flags()...)
		must(t, err)
		g.daemons[1] = d
		g.meet()
		name := fmt.Sprint("f", i)
		g.put(i%2, name, []byte(name))
		g.do(1-i%2, "vm config disk file:"+name)
		g.has(1-i%2, name, []byte(name))
		vlan := fmt.Sprintf("vm config net lan%d", i)
		g.do(0, "namespace lab "+vlan)
		want := g.run(0, "namespace lab .columns vlan .filter alias=lan%d vlans", i)
		g.await(1, want[len("n1: "):], fmt.Sprintf("namespace lab .columns vlan .filter alias=lan%d vlans", i))
	}
}
