package cmdline

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	prefix, addr := netip.MustParsePrefix, netip.MustParseAddr
	for _, c := range []struct {
		line string
		want Params
		bad  int
	}{
		{line: "", want: Params{Addresses: []Address{{Method: DHCP}}}},
		{line: "console=ttyS0 quiet ip=10.0.0.1/24\n", want: Params{Addresses: []Address{{"eth0", Static, prefix("10.0.0.1/24")}}}},
		{line: "hostname=a.b-c ip=eth1:fd00::5/64 ip=eth0:dhcp ip=none gw=10.0.0.254 gw=fd00::1 dns=1.1.1.1,9.9.9.9", want: Params{
			Hostname:  "a.b-c",
			Addresses: []Address{{"eth1", Static, prefix("fd00::5/64")}, {"eth0", DHCP, netip.Prefix{}}, {"", None, netip.Prefix{}}},
			Gateways:  []netip.Addr{addr("10.0.0.254"), addr("fd00::1")},
			DNS:       []netip.Addr{addr("1.1.1.1"), addr("9.9.9.9")},
		}},
		{line: "minimega.ip=fd00::5/64", want: Params{Addresses: []Address{{"eth0", Static, prefix("fd00::5/64")}}}},
		{line: `login="ann:a b"`, want: Params{User: "ann", Password: "a b", Addresses: []Address{{Method: DHCP}}}},
		{line: "forward=1 ip=veth1:10.0.0.1/24 visit=10.0.0.2,http://a/b visit=c", want: Params{Forward: true,
			Addresses: []Address{{"eth1", Static, prefix("10.0.0.1/24")}}, Visit: []string{"10.0.0.2", "http://a/b", "c"}}},
		{line: "forward=x forward=0 ip=vveth0:dhcp", bad: 2, want: Params{Addresses: []Address{{Method: DHCP}}}},
		{line: "ip=10.0.0.1 ip=eth0 ip=br0:dhcp ip=eth0:1.2.3.4/33 hostname=-x hostname= gw=foo dns=1.1.1.1,x login=a login=:b", bad: 10,
			want: Params{Addresses: []Address{{Method: DHCP}}}},
	} {
		got, bad := Parse(c.line)
		if len(bad) != c.bad {
			t.Errorf("%q: %d errors: %v", c.line, len(bad), bad)
		}
		if d := cmp.Diff(c.want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
			cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
			t.Errorf("%q: %s", c.line, d)
		}
	}
}

func TestFor(t *testing.T) {
	p, _ := Parse("ip=dhcp ip=eth1:10.0.0.1/24 ip=eth1:10.0.1.1/24 ip=eth2:none")
	for iface, want := range map[string]int{"eth0": 1, "eth1": 2, "veth1": 2, "eth2": 0, "veth2": 0, "eth3": 1} {
		if got := p.For(iface); len(got) != want {
			t.Errorf("%s: %v", iface, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"ip=eth0:10.0.0.1/24 hostname=x", `login="a:b c" ip=dhcp`, "ip=eth99999:dhcp", "gw=,", `"`, "minimega.minimega.ip=none"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		p, _ := Parse(line)
		if len(p.Addresses) == 0 {
			t.Error("no address and not even DHCP")
		}
		for _, a := range p.Addresses {
			if a.Method == Static && (!a.Prefix.IsValid() || !ValidIface(a.Iface)) || a.Method != Static && a.Iface != "" && !ValidIface(a.Iface) {
				t.Errorf("bad address %+v", a)
			}
		}
		if p.Hostname != "" && !ValidHostname(p.Hostname) {
			t.Errorf("bad hostname %q", p.Hostname)
		}
	})
}
