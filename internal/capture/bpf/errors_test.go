package bpf

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
)

// What both compilers refuse, and what ours says about it.
var refused = []struct {
	expr  string
	pos   int // from 0
	token string
	says  string
}{
	{"tcp prot 80", 4, "prot", "expected and, or"},
	{"port", 4, "", "a port number"},
	{"port foo", 5, "foo", "a port number"},
	{"port 70000", 5, "70000", "65535"},
	{"host example.com", 5, "example.com", "names are not looked up"},
	{"host", 4, "", "an address"},
	{"host 1.2.3.4.5", 5, "1.2.3.4.5", "an address"},
	{"host 1.2.3.256", 5, "1.2.3.256", "an address"},
	{"host fe80:::1", 5, "fe80:::1", "no IPv6 address"},
	{"host 1.2.3.4/32", 12, "/", "net only"},
	{"net 10.1.2.3/8", 4, "10.1.2.3", "outside the mask"},
	{"net 10.0.0.0/33", 13, "33", "0 to 32"},
	{"net fe80::1/10", 4, "fe80::1", "outside the mask"},
	{"net fe80::/129", 11, "129", "0 to 128"},
	{"net 10.0.0.0 mask 255", 18, "255", "255.255.255.0"},
	{"(tcp", 4, "", `expected ")"`},
	{"tcp)", 3, ")", "end of the filter"},
	{"tcp and", 7, "", "expected a condition"},
	{"and tcp", 0, "and", "expected a keyword"},
	{"tcp or or udp", 7, "or", "expected a keyword"},
	{"tcp udp", 4, "udp", "expected and, or"},
	{"not", 3, "", "expected a condition"},
	{"80", 0, "80", "needs a qualifier"},
	{"tcp and 80", 8, "80", "needs a qualifier"},
	{"1.2.3.4", 0, "1.2.3.4", "qualifier before it"},
	{"tcp[13", 6, "", `"]"`},
	{"tcp[13] & 2", 11, "", "expected a comparison"},
	{"tcp[0:3] = 1", 6, "3", "1, 2 or 4"},
	{"tcp[] = 1", 4, "]", "expected a number"},
	{"tcp[13] =", 9, "", "expected a number"},
	{"1 = 2 = 3", 6, "=", "end of the filter"},
	{"5 / 0 = 1", 2, "/", "division by zero"},
	{"ip[0] << 32 = 1", 6, "<<", "31 bits"},
	{"vlan 4096", 5, "4096", "4095"},
	{"less", 4, "", "length"},
	{"ether host 10.0.0.1", 11, "10.0.0.1", "Ethernet address"},
	{"host 00:11:22:33:44:55", 5, "00:11:22:33:44:55", "ether host"},
	{"ip host fe80::1", 8, "fe80::1", "goes with ip6"},
	{"ip6 host 10.0.0.1", 9, "10.0.0.1", "ip, arp or rarp"},
	{"tcp host 1.2.3.4", 9, "1.2.3.4", "not with tcp"},
	{"icmp port 5", 10, "5", "no ports"},
	{"arp proto 5", 10, "5", "no protocol"},
	{"tcp broadcast", 0, "tcp", "broadcast goes with"},
	{"arp multicast", 0, "arp", "multicast goes with"},
	{"ether", 5, "", "after ether"},
	{"tcp port ntp", 9, "ntp", "over udp only"},
	{"portrange 1-x", 10, "1-x", "range of ports"},
	{"tcp # udp", 4, "#", "no meaning"},
	{`\`, 0, `\`, "expected a name"},
	{"ether proto foo", 12, "foo", "protocol number"},
	{"0x = 5", 0, "0x", "expected a keyword"},
	{"host 4294967296", 5, "4294967296", "an address"},
	{"gateway foo", 0, "gateway", "not supported"},
	{"ah[0] = 1", 0, "ah", "not supported"},
}

func TestErrorsNameTheirPlace(t *testing.T) {
	for _, c := range refused {
		_, err := Compile(c.expr, 100)
		var s *SyntaxError
		if !errors.As(err, &s) {
			t.Errorf("%q: %v", c.expr, err)
			continue
		}
		if s.Pos != c.pos || s.Token != c.token || !strings.Contains(s.Msg, c.says) {
			t.Errorf("%q: at %d %q: %s", c.expr, s.Pos, s.Token, s.Msg)
		}
		out, err := exec.Command("tcpdump", "-n", "-y", "EN10MB", "-ddd", "--", c.expr).CombinedOutput()
		if err == nil {
			t.Errorf("tcpdump takes %q: %s", c.expr, out)
		}
	}
}

// What tcpdump takes and we do not, by choice: each says that it is not supported.
func TestUnsupportedSaysSo(t *testing.T) {
	for _, expr := range []string{"inbound", "mpls", "pppoes", "geneve", "llc", "aarp", "ip protochain 6", "tcp and outbound"} {
		if _, err := Compile(expr, 100); err == nil || !strings.Contains(err.Error(), "not supported") {
			t.Errorf("%q: %v", expr, err)
		}
	}
}

func TestFiltersAreBounded(t *testing.T) {
	for name, expr := range map[string]string{
		"text":        strings.Repeat("tcp or ", MaxFilter/7) + "tcp port 80",
		"program":     strings.TrimSuffix(strings.Repeat("port 80 or ", 800), " or "),
		"parentheses": strings.Repeat("(", 5000) + "tcp" + strings.Repeat(")", 5000),
		"nots":        strings.Repeat("!", 5000) + "tcp",
		"minuses":     strings.Repeat("- ", 5000) + "1 = 1",
		"accesses":    strings.Repeat("ip[", 3000) + "0" + strings.Repeat("]", 3000) + " = 0",
		"arithmetic":  "1 = " + strings.Repeat("(1+", 3000) + "1" + strings.Repeat(")", 3000),
		"right":       "1 = " + strings.Repeat("1 ^ ", 3000) + "1",
	} {
		if _, err := Compile(expr, 100); err == nil || len(err.Error()) > 300 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A program too long for short jumps gets long ones and still says the same.
func TestLongFilters(t *testing.T) {
	frames := packets()
	for _, expr := range []string{
		strings.Repeat("tcp port 81 or ", 60) + "host 10.1.2.3",
		"not (" + strings.Repeat("host 1.2.3.4 or net 9.0.0.0/8 or ", 80) + "arp)",
		strings.Repeat("not src port 99 and ", 100) + "udp",
		"icmp and (" + strings.Repeat("ip[8] = 1 or ", 300) + "ip[8] = 64)",
	} {
		prog, err := Compile(expr, 262144)
		if err != nil {
			t.Fatal(err)
		}
		if len(prog) < 300 {
			t.Errorf("only %d instructions", len(prog))
		}
		if compareWith(t, expr, prog, frames) == 0 {
			t.Errorf("%.40q... matches nothing", expr)
		}
	}
}
