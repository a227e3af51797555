package network

import (
	"net/netip"
	"testing"
)

const (
	arpFrame = "\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x08\x06" +
		"\x00\x01\x08\x00\x06\x04\x00\x01\x02\x00\x00\x00\x00\x01\x0a\x00\x00\x05\x00\x00\x00\x00\x00\x00\x0a\x00\x00\x01"
	ndFrame = "\x33\x33\xff\x00\x00\x02\x02\x00\x00\x00\x00\x01\x86\xdd" +
		"\x60\x00\x00\x00\x00\x20\x3a\xff" +
		"\xfd\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x05" +
		"\xff\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\xff\x00\x00\x02" +
		"\x87\x00\x00\x00\x00\x00\x00\x00\xfd\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02" +
		"\x01\x01\x02\x00\x00\x00\x00\x01"
)

// with returns frame with bytes replaced from at on.
func with(frame string, at int, bytes string) string {
	return frame[:at] + bytes + frame[at+len(bytes):]
}

func TestClaim(t *testing.T) {
	unspecified := "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	for name, c := range map[string]struct{ frame, want string }{
		"ARP":                      {arpFrame, "10.0.0.5"},
		"ARP reply":                {with(arpFrame, 21, "\x02"), "10.0.0.5"},
		"ARP in another's name":    {with(arpFrame, 22, "\x02\x00\x00\x00\x00\x02"), ""},
		"ARP probe":                {with(arpFrame, 28, "\x00\x00\x00\x00"), ""},
		"ARP from broadcast":       {with(arpFrame, 28, "\xff\xff\xff\xff"), ""},
		"ARP from loopback":        {with(arpFrame, 28, "\x7f\x00\x00\x01"), ""},
		"ARP of another link":      {with(arpFrame, 15, "\x06"), ""},
		"ARP cut short":            {arpFrame[:41], ""},
		"solicitation":             {ndFrame, "fd00::5"},
		"trying out an address":    {with(ndFrame, 22, unspecified), "fd00::2"},
		"advertisement":            {with(ndFrame, 54, "\x88"), "fd00::2"},
		"solicitation from afar":   {with(ndFrame, 21, "\x40"), ""},
		"router advertisement":     {with(ndFrame, 54, "\x86"), ""},
		"advertisement of a group": {with(with(ndFrame, 54, "\x88"), 62, "\xff"), ""},
		"solicitation cut short":   {ndFrame[:70], ""},
		"another protocol":         {with(arpFrame, 12, "\x08\x00"), ""},
		"nothing":                  {"", ""},
	} {
		mac, addr, ok := claim([]byte(c.frame))
		if ok != (c.want != "") || ok && (addr.String() != c.want || mac != [6]byte{2, 0, 0, 0, 0, 1}) {
			t.Errorf("%s: got %v %v %v, want %q", name, mac, addr, ok, c.want)
		}
	}
}

func FuzzClaim(f *testing.F) {
	f.Add([]byte(arpFrame))
	f.Add([]byte(ndFrame))
	f.Add([]byte(with(ndFrame, 54, "\x88")))
	f.Fuzz(func(t *testing.T, frame []byte) {
		mac, addr, ok := claim(frame)
		if !ok {
			return
		}
		if !addr.IsValid() || addr.IsUnspecified() || addr.IsMulticast() || addr.IsLoopback() || addr.Zone() != "" {
			t.Fatalf("claimed %v", addr)
		}
		if mac != [6]byte(frame[6:12]) {
			t.Fatal("not the sender of the frame")
		}
	})
}

func TestSeeKeepsToTheNIC(t *testing.T) {
	s := &snooper{ports: map[int]*snooped{}}
	s.watch(3, "02:00:00:00:00:01")
	s.watch(4, "02:00:00:00:00:02")
	for index := range 6 {
		s.see(index, []byte(arpFrame))
		s.see(index, []byte(ndFrame))
	}
	if ip4, ip6 := s.addresses(3); ip4 != "10.0.0.5" || ip6 != "fd00::5" {
		t.Errorf("got %s %s", ip4, ip6)
	}
	if ip4, ip6 := s.addresses(4); ip4+ip6 != "" {
		t.Errorf("learned %s %s from another NIC's frames", ip4, ip6)
	}
	if len(s.ports) != 2 {
		t.Errorf("frames made state: %d ports", len(s.ports))
	}
	local := netip.MustParseAddr("fe80::1").As16()
	s.see(3, []byte(with(ndFrame, 22, string(local[:]))))
	if _, ip6 := s.addresses(3); ip6 != "fd00::5" {
		t.Errorf("a link-local address replaced the global one: %s", ip6)
	}
	s.watch(3, "02:00:00:00:00:09") // another NIC: what was learned is not its
	if ip4, ip6 := s.addresses(3); ip4+ip6 != "" {
		t.Errorf("kept %s %s", ip4, ip6)
	}
	s.forget(3)
	s.forget(4)
	if len(s.ports) != 0 {
		t.Error("forgotten ports are kept")
	}
}
