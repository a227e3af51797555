package command

import (
	"context"
	"errors"
	"testing"
	"time"

	"minimega/internal/errs"
	"minimega/internal/host"
	"minimega/internal/version"
)

func machine() Machine {
	return Machine{
		Facts: func() host.Facts {
			return host.Facts{Name: "n", CPUs: 2, Load: "1 2 3", MemTotal: 10, MemUsed: 4, RxBps: 1.25, Limit: -1, Uptime: time.Minute}
		},
		Args: func() ([]string, []string) { return []string{"base", "v"}, []string{"/b", "true"} },
		Quit: func(time.Duration) {},
	}
}

func TestVersionAndArgs(t *testing.T) {
	c := newClient(t, Misc(machine()), Flags())
	c.expect("version", "h1: minimega "+version.String())
	c.expect(".csv true .annotate false args", "base,v\n/b,true")
}

func TestQuit(t *testing.T) {
	m := machine()
	var delays []time.Duration
	m.Quit = func(d time.Duration) { delays = append(delays, d) }
	c := newClient(t, Misc(m))
	c.refuse("quit x", `strconv.Atoi: parsing "x": invalid syntax`)
	c.refuse("quit -1", "invalid delay -1 (0 to 31536000 seconds)")
	c.expect("quit 3", "h1: quitting after 3 seconds")
	if _, _, err := c.runCtx(t.Context(), "quit"); !errors.Is(err, ErrNoReply) || len(c.batches) != 0 {
		t.Errorf("%v, %v", err, c.batches)
	}
	if len(delays) != 2 || delays[0] != 3*time.Second || delays[1] != 0 {
		t.Errorf("delays %v", delays)
	}
}

func TestCheck(t *testing.T) {
	check := func(name string, optional bool, err error) host.Check {
		return host.Check{Name: name, Optional: optional, Run: func(context.Context) error { return err }}
	}
	m := machine()
	m.Checks = []host.Check{check("fine", false, nil)}
	newClient(t, Misc(m)).expect("check", "")

	m.Checks = []host.Check{
		check("kvm", true, errs.WithRemedy(errors.New("slow"), "enable it")),
		check("qemu", false, errs.WithRemedy(errors.New("missing"), "install it")),
		check("tun", false, errors.New("missing")),
	}
	c := newClient(t, Misc(m))
	out, bad := c.run("check")
	if bad != "qemu: missing (install it)\ntun: missing" || c.batches[0].Resps[0].Response != "kvm: slow (enable it)" {
		t.Errorf("got %q, %q", out, bad)
	}
}

func TestHost(t *testing.T) {
	c := newClient(t, Misc(machine()), Flags())
	c.expect(".csv true .annotate false host", "cpus,load,memused,memtotal,rx,tx,vms,vmlimit,androidvms,cpucommit,memcommit,netcommit,uptime\n"+
		"2,1 2 3,4,10,1.2,0.0,0,-1,0,0,0,0,1m0s")
	if f, ok := c.batches[0].Resps[0].Data.(host.Facts); !ok || f.Name != "n" {
		t.Errorf("data %+v", c.batches[0].Resps[0].Data)
	}
	for _, line := range []string{"host name n", "host load 1 2 3", "host vmlimit -1", "host uptime 1m0s", "host memused 4", "host cpus 2", "host rx 1.2"} {
		key, value, _ := cutAfter(line, 2)
		c.expect(key, "h1: "+value)
	}
}

// cutAfter cuts s after its first n words.
func cutAfter(s string, n int) (before, after string, ok bool) {
	for i := range s {
		if s[i] == ' ' {
			if n--; n == 0 {
				return s[:i], s[i+1:], true
			}
		}
	}
	return s, "", false
}
