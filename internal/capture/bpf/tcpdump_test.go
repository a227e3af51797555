package bpf

import (
	"bytes"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/bpf"
)

// filters that both compilers take.
var filters = []string{
	"", "ip", "ip6", "arp", "rarp", "tcp", "udp", "sctp", "icmp", "icmp6", "igmp", "igrp", "pim", "vrrp", "ah", "esp",
	"atalk", "decnet", "lat", "moprc", "mopdl", "stp", "iso",
	"host 10.1.2.3", "src host 10.1.2.3", "dst host 10.1.2.3", "src or dst host 10.1.2.3", "src and dst host 10.1.2.3",
	"dst or src 10.1.2.3", "src 10.1.2.3", "dst 192.168.1.7", "host 0x0a010203", "host 10.1", "src 10", "host not 10.1.2.3",
	"ip host 10.1.2.3", "arp host 10.1.2.3", "rarp host 192.168.1.7", "arp src host 10.0.0.1", "ip src 10.1.2.3",
	"net 10.1", "net 10", "src net 10.0.0.0/8", "dst net 192.168.0.0 mask 255.255.0.0", "net 0.0.0.0/0", "arp net 10",
	"src and dst net 10.1.0.0/16", "net 10.1.2.3", "net 10.1.2.3/32", "ip net 172.16", "net 1.2.3.0/24",
	"host fe80::1", "src host 2001:db8::7", "ip6 dst host ff02::2", "net fe80::/10", "net 2001:db8::/32", "net ::/0",
	"src net ff02::/16", "ip6 host 2001:db8::7", "src and dst fe80::1", "net fe80::1/128", "net 2001:db8::/33",
	"port 80", "src port 80", "dst port 53", "tcp port 80", "udp port 53", "sctp port 22", "tcp src port 443",
	"udp dst port 67", "src and dst port 22", "dst or src port 443", "port 0", "port 65535", "port not 80",
	"portrange 22-80", "src portrange 1000-2000", "tcp portrange 80-22", "udp dst portrange 53-53", "portrange 80",
	"tcp src or dst portrange 1-100", "port 80 or 443", "tcp port 80 or 443 or 22", "port (80 or 443)", "port ((80))",
	"port 80 or not 443", "host 10.1.2.3 or 8.8.8.8", "src host 10.1.2.3 and not 192.168.1.7", "port http", "tcp port ssh",
	"udp port domain", "port ntp or bootps", "port 80 and host 10.1.2.3 or 192.168.1.7",
	"ether host 00:11:22:33:44:55", "ether src 00:11:22:33:44:55", "ether dst 2:0:0:0:0:2", "ether dst ff:ff:ff:ff:ff:ff",
	"ether src or dst host 02-00-00-00-00-09", "ether host 0200.0000.0002", "ether broadcast", "broadcast", "ether multicast",
	"multicast", "ip multicast", "ip6 multicast", "ip broadcast", "not broadcast and not multicast", "link host 2:0:0:0:0:2",
	"ether proto 0x800", "ether proto 0x88cc", `ether proto \ip`, `ether proto \arp or 0x86dd`, "ether proto 0x42", "ether proto 100",
	`ether proto \stp`, "ether proto 0xfe", "ether proto 1500", "ether proto 1501",
	"proto 6", "ip proto 17", "ip6 proto 58", `ip proto \tcp`, `ip6 proto \udp`, `proto \sctp`, "ip proto 47 or 89", "proto 255",
	"ip proto gre", "ip proto ospf", "ip proto 300",
	"less 60", "greater 60", "less 14 or greater 1000", "len = 54", "len > 60 and len <= 100", "len - 14 < 40", "len != 60",
	"vlan", "vlan 5", "vlan 16", "vlan 5 and ip", "vlan and tcp port 80", "vlan 5 and vlan 10", "vlan and vlan and ip",
	"not vlan", "vlan or ip", "vlan 5 or vlan 16", "tcp or vlan 5", "not vlan and ip", "vlan (5)", "vlan 0x10 and udp",
	"vlan and ether host 00:11:22:33:44:55", "vlan 5 and host 10.1.2.3", "vlan and icmp6", "vlan and arp host 10.1.2.3",
	"vlan and ip[0] & 0xf != 5", "vlan and tcp[13] & 2 != 0", "vlan and not vlan and ip",
	"tcp[13] & 2 != 0", "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0", "tcp[tcpflags] == tcp-syn", "(tcp[13] & 0x12) = 0x12",
	"tcp[0:2] = 80", "tcp[2:2] > 1000", "tcp[4:4] = 1", "udp[0:2] = 53", "udp[4:2] >= 20", "sctp[0:2] = 80", "icmp[0] = 8",
	"icmp[icmptype] = icmp-echo or icmp[icmptype] == icmp-echoreply", "icmp[icmpcode] != 0", "icmp6[0] = 128",
	"icmp6[icmp6type] = icmp6-neighborsolicit", "igmp[0] = 1", "ip[0] & 0xf != 5", "ip[8] < 64", "ip[6:2] & 0x1fff = 0",
	"ip[9] = 6", "ip[12:4] = 0x0a010203", "ip6[6] = 44", "ip6[40] = 6", "ip6[8:4] = 0xfe800000", "arp[6:2] = 1", "arp[7] = 2",
	"ether[0] & 1 != 0", "ether[12:2] = 0x0800", "ether[12:2] > 1500", "ether[0:4] = 0x02000000", "link[6] = 0",
	"ether[ether[0]] = 0", "ether[ip[0] & 0xf] = 2", "ip[ip[0] & 0xf] = 0", "tcp[tcp[12] >> 2] = 0x70", "tcp[(tcp[12] & 0xf0) >> 2:4] = 0x7061796c",
	"ether[len] = 0", "ether[len - 1] = 0", "udp[ip[0] - 69] = 4", "ip[2:2] - ((ip[0] & 0xf) << 2) > 30", "ip[0] + ip[1] = 0x45",
	"tcp[0:2] = tcp[2:2]", "tcp[0:2] > tcp[2:2]", "udp[0:2] <= udp[2:2]", "ip[12:4] != ip[16:4]", "tcp[0:2] < tcp[2:2]", "ip[8] * 2 = 128",
	"ip[2:2] / 10 = 6", "ip[2:2] % 10 = 4", "ether[0] ^ 3 = 1", "ip[0] | 0xf = 0x4f", "ip[8] >> 3 = 8", "ip[9] << 4 = 96",
	"ip[8] / (ip[9] - 6) = 5", "ip[2:2] % ip[9] = 2", "ip[8] - -1 = 65", "-ip[0] = 0xffffffbb", "ip[0] << ip[1] = 0x45", "ip[8] >> (ip[0] & 0xf) = 2",
	"len + len + len + len + len + len + len + len + len + len + len + len + len + len + len + len + len + len + len = 1406",
	"ip[0] - (ip[1] - (ip[9] - (ip[8] - len))) = 65", "(ip[8] + len) * (ip[0] - ip[9]) - (ip[8] + (len * ip[9])) > 100", "ip[ip[0] - (ip[9] + len)] = 1",
	"2 ^ 1 + 1 = 0", "6 | 2 ^ 2 = 6", "2 ^ 6 | 2 = 4", "7 - 5 % 3 = 5", "7 % 4 - 1 = 1", "2 * 7 % 4 = 6", "7 % 4 * 2 = 7", "1 & 2 ^ 2 = 0",
	"2 ^ 2 & 1 = 2", "8 - 4 - 2 = 2", "9 % 5 % 3 = 1", "2 + 3 * 4 = 14", "1 | 2 & 4 = 1", "1 << 2 + 1 = 8", "9 % 8 % 3 = 1", "(5) = 5", "80 = 80",
	"1 = 2 or ip", "1 = 1 and ip", "ip and 1 = 1", "ip or 1 = 2", "not 1 = 1 or tcp",
	"tcp and udp", "tcp or udp", "not tcp", "!tcp", "! tcp && ! udp", "not (tcp or udp)", "ip and not tcp", "tcp or udp and port 80",
	"tcp and port 80 or udp", "not tcp port 80 and udp", "(tcp or udp) and (port 80 or port 53)", "not not ip", "! ( ip || ip6 )",
	"tcp and not port 22", "ip and (tcp)", "(tcp[0] = 0) or (udp[0] = 4)", "((tcp[0]) + 1) = 1", "(tcp[0] + (1)) = 1", "((ip))", "(((5)) = 5)",
	"arp or icmp6", "arp or icmp or icmp6 or (udp port 67 or 68)", "icmp or arp or (ip and tcp[13] & 7 != 0)",
	"port 80 or 443+0 = 443", "(port 80) or (host 10.1.2.3 and not (arp or rarp))", "ether src 0:11:22:33:44:55 and ip and not dst net 10.0.0.0/8",
	"ip proto 6 and (ip[6:2] & 0x1fff != 0 or not tcp port 80)", "host 10.1.2.3 and host 192.168.1.7", "host 10.1.2.3 and 192.168.1.7",
	"tcp\nand\tport  80", "src host 10.1.2.3 && (dst port 80 || dst port 443) && !arp",
	"not port 80 and not port 443 and not port 22 and not port 53 and not arp and not icmp",
	"ip[0] & 0xf > 5 and tcp", "len >= 60 and vlan and port 80", "vlan 5 or port 80", "(vlan 5) and (port 80 or port 443)",
}

// tcpdumpProgram is what libpcap makes of a filter.
func tcpdumpProgram(t *testing.T, expr string, flags ...string) []bpf.RawInstruction {
	t.Helper()
	args := append([]string{"-y", "EN10MB", "-s", "262144", "-ddd"}, flags...)
	out, err := exec.Command("tcpdump", append(args, "--", expr)...).CombinedOutput()
	if strings.Contains(string(out), "rejects all packets") {
		return []bpf.RawInstruction{{Op: ret}}
	}
	if err != nil {
		t.Fatalf("tcpdump on %q: %v: %s", expr, err, out)
	}
	var prog []bpf.RawInstruction
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		var i bpf.RawInstruction
		if n, _ := fmt.Sscanf(line, "%d %d %d %d", &i.Op, &i.Jt, &i.Jf, &i.K); n == 4 {
			if i.Op == neg { // x/net/bpf's VM does not know it
				i = bpf.RawInstruction{Op: mul, K: 0xffffffff}
			}
			prog = append(prog, i)
		}
	}
	return prog
}

// machine makes a program ready to run.
func machine(t *testing.T, expr string, prog []bpf.RawInstruction) func([]byte) int {
	t.Helper()
	dis, ok := bpf.Disassemble(prog)
	if !ok {
		t.Fatalf("%q: program does not disassemble: %v", expr, prog)
	}
	vm, err := bpf.NewVM(dis)
	if err != nil {
		t.Fatalf("%q: %v\n%v", expr, err, dis)
	}
	return func(p []byte) int {
		n, err := vm.Run(p)
		if err != nil {
			t.Fatalf("%q on %x: %v", expr, p, err)
		}
		return n
	}
}

func TestVerdictsEqualTcpdumps(t *testing.T) {
	if _, err := exec.LookPath("tcpdump"); err != nil {
		t.Fatal("this test compares with tcpdump: apt-get install tcpdump")
	}
	frames := packets()
	if len(frames) < 300 || len(filters) < 100 {
		t.Fatalf("only %d frames and %d filters", len(frames), len(filters))
	}
	matched := 0
	for _, expr := range filters {
		prog, err := Compile(expr, 262144)
		if err != nil {
			t.Errorf("%q: %v", expr, err)
			continue
		}
		matched += compareWith(t, expr, prog, frames)
	}
	t.Logf("%d filters on %d frames, %d verdicts, %d matches", len(filters), len(frames), len(filters)*len(frames), matched)
}

// libpcap forgets the condition that a byte access implies when it is the right
// operand of arithmetic, and reads bytes of other protocols. We keep it.
func TestByteAccessOnTheRightKeepsItsProtocol(t *testing.T) {
	for expr, meant := range map[string]string{
		"len + ip[8] > 130":                     "ip and (len + ip[8] > 130)",
		"1 + tcp[13] = 3":                       "tcp and (ip[6:2] & 0x1fff = 0) and (1 + tcp[13] = 3)",
		"ip[0] + udp[1] > 70":                   "ip and udp and (ip[6:2] & 0x1fff = 0) and (ip[0] + udp[1] > 70)",
		"(len + ip[8]) - (1 + (3 * ip[9])) > 9": "ip and ((len + ip[8]) - (1 + (3 * ip[9])) > 9)",
	} {
		prog, err := Compile(expr, 262144)
		if err != nil {
			t.Fatal(err)
		}
		if compareWith(t, meant, prog, packets()) == 0 {
			t.Errorf("%q matches nothing", expr)
		}
	}
}

// compareWith compares with libpcap's programs, plain and optimized. They
// differ on frames that are cut short, where one of them has to agree.
func compareWith(t *testing.T, expr string, prog []bpf.RawInstruction, frames [][]byte) (matched int) {
	t.Helper()
	ours := machine(t, expr, prog)
	plain := machine(t, expr, tcpdumpProgram(t, expr, "-O"))
	optimized := machine(t, expr, tcpdumpProgram(t, expr))
	bad := 0
	for _, f := range frames {
		got, want, want2 := ours(f), plain(f), optimized(f)
		if got != want && got != want2 {
			if bad++; bad <= 2 {
				t.Errorf("%q on %d bytes %s: got %d, tcpdump says %d, optimized %d", expr, len(f), hexOf(f), got, want, want2)
			}
		}
		if got != 0 {
			matched++
		}
	}
	return matched
}

func hexOf(b []byte) string {
	var s bytes.Buffer
	for _, c := range b[:min(len(b), 60)] {
		s.WriteString(strconv.FormatUint(uint64(c)|0x100, 16)[1:])
	}
	return s.String()
}

func tcpdumpTakes(expr string) bool {
	out, err := exec.Command("tcpdump", "-n", "-y", "EN10MB", "-ddd", "--", expr).CombinedOutput()
	return err == nil || strings.Contains(string(out), "rejects all packets")
}
