// Command capture floods a link between two network namespaces with UDP and
// captures it, in turn with this project's capture and with `tcpdump -w`. It
// prints what was sent, what each captured and what each says it dropped, and
// the ratio of the medians. It needs root and tcpdump, leaves nothing behind
// and ends within rounds × 2 × (seconds + a few).
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// role is set in the environment of the processes this program starts of itself.
const role = "BENCH_CAPTURE_ROLE"

func main() {
	var o options
	flag.IntVar(&o.rounds, "rounds", 5, "rounds per program, 1 to 100")
	flag.IntVar(&o.seconds, "seconds", 1, "seconds of flood per round, 1 to 30")
	flag.IntVar(&o.size, "size", 1000, "bytes of an IP packet, 60 to 1500")
	flag.StringVar(&o.dir, "dir", "", "directory for the files; a temporary one by default")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "capture:", err)
		os.Exit(1)
	}
}

type options struct {
	rounds, seconds, size int
	dir                   string
}

func run(o options) error {
	if as := os.Getenv(role); as != "" {
		// The kernel's own IPv6 chatter would blur the figures.
		_ = os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
		if as == "flood" {
			return flood(o)
		}
		return measure(o)
	}
	if o.rounds < 1 || o.rounds > 100 || o.seconds < 1 || o.seconds > 30 || o.size < 60 || o.size > 1500 {
		return fmt.Errorf("rounds, seconds or size out of range; see -help")
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("network namespaces need root")
	}
	if _, err := exec.LookPath("tcpdump"); err != nil {
		return fmt.Errorf("the peer is missing: apt-get install tcpdump")
	}
	// The child lives in a network namespace of its own, so that all interfaces
	// go with it; an interrupt reaches it as the same process group.
	signal.Ignore(os.Interrupt)
	c := again("capture")
	c.Stdout = os.Stdout
	return c.Run()
}

// again is this program once more, in a new network namespace, in another role.
func again(as string) *exec.Cmd {
	c := exec.Command("/proc/self/exe", os.Args[1:]...)
	c.Env = append(os.Environ(), role+"="+as)
	c.Stderr = os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	return c
}
