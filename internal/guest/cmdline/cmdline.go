// Package cmdline reads what the kernel command line tells the built-in guest.
//
//	hostname=NAME            name of the machine
//	ip=[ethN:]ADDR/BITS      a static address, IPv4 or IPv6; without ethN: of eth0
//	ip=[ethN:]dhcp           DHCP on that interface; without ethN: on all of them
//	ip=[ethN:]none           only bring it up; without ethN: all of them
//	gw=ADDR  dns=ADDR,...    default gateway and name servers
//	login=USER:PASSWORD      consoles ask for these before they give a shell
//	forward=1                pass on packets for others (IPv4)
//	visit=URL,...            fetch these pages again and again, once a second
//
// In a container, ethN is what the interface vethN is called here.
// Words may be repeated, and written minimega.ip= and so on where the kernel
// itself takes ip= to be its own. Without any ip= it is ip=dhcp.
package cmdline

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Method is how an interface gets its address.
type Method string

// The methods.
const (
	Static Method = "static"
	DHCP   Method = "dhcp"
	None   Method = "none"
)

// Address is one ip= word.
type Address struct {
	Iface  string // "" means every interface (never for Static)
	Method Method
	Prefix netip.Prefix // of Static
}

// Params is what the guest was told.
type Params struct {
	Hostname  string
	Addresses []Address
	Gateways  []netip.Addr
	DNS       []netip.Addr
	User      string // "" means that consoles ask for no login
	Password  string
	Forward   bool
	Visit     []string // URLs
}

// Parse reads a command line. Words it does not know are the kernel's or
// somebody else's; those it cannot read are left out and named in the errors.
func Parse(line string) (Params, []error) {
	var p Params
	var bad []error
	for _, word := range split(line) {
		key, value, ok := strings.Cut(strings.TrimPrefix(word, "minimega."), "=")
		if !ok {
			continue
		}
		if err := p.set(key, value); err != nil {
			bad = append(bad, fmt.Errorf("kernel command line: %s: %w", word, err))
		}
	}
	if len(p.Addresses) == 0 {
		p.Addresses = []Address{{Method: DHCP}}
	}
	return p, bad
}

func (p *Params) set(key, value string) error {
	switch key {
	case "hostname":
		if !ValidHostname(value) {
			return fmt.Errorf("a hostname has 1 to 64 letters, digits, dots and dashes")
		}
		p.Hostname = value
	case "ip":
		a, err := ParseAddress(value)
		if err != nil {
			return err
		}
		p.Addresses = append(p.Addresses, a)
	case "gw":
		return addAddrs(&p.Gateways, value)
	case "dns":
		return addAddrs(&p.DNS, value)
	case "login":
		user, password, ok := strings.Cut(value, ":")
		if !ok || user == "" {
			return fmt.Errorf("want USER:PASSWORD")
		}
		p.User, p.Password = user, password
	case "forward":
		if value != "0" && value != "1" {
			return fmt.Errorf("want 0 or 1")
		}
		p.Forward = value == "1"
	case "visit":
		p.Visit = append(p.Visit, strings.FieldsFunc(value, func(r rune) bool { return r == ',' })...)
	}
	return nil
}

// ParseAddress reads the value of ip=.
func ParseAddress(value string) (Address, error) {
	var a Address
	if name, rest, ok := strings.Cut(value, ":"); ok && ValidIface(name) {
		a.Iface, value = common(name), rest
	}
	switch value {
	case string(DHCP), string(None):
		a.Method = Method(value)
		return a, nil
	}
	prefix, err := netip.ParsePrefix(value)
	if err != nil {
		return a, fmt.Errorf("want [ethN:]ADDRESS/BITS, dhcp or none")
	}
	if a.Iface == "" {
		a.Iface = "eth0"
	}
	a.Method, a.Prefix = Static, prefix
	return a, nil
}

// For returns the addresses that concern the interface, its own before those
// of all; "none" for itself silences those of all.
func (p Params) For(iface string) []Address {
	iface = common(iface)
	var own, all []Address
	for _, a := range p.Addresses {
		switch a.Iface {
		case iface:
			own = append(own, a)
		case "":
			all = append(all, a)
		}
	}
	if own == nil {
		own = all
	}
	return slices.DeleteFunc(own, func(a Address) bool { return a.Method == None })
}

// ValidIface reports whether name is one the guest gives to an interface.
func ValidIface(name string) bool {
	n, ok := strings.CutPrefix(common(name), "eth")
	_, err := strconv.ParseUint(n, 10, 16)
	return ok && err == nil
}

// common is the name of an interface here: containers have veth0 for eth0.
func common(iface string) string {
	if strings.HasPrefix(iface, "veth") {
		return iface[1:]
	}
	return iface
}

// ValidHostname reports whether the kernel and DNS would take name.
func ValidHostname(name string) bool {
	if name == "" || len(name) > 64 || name[0] == '-' || name[0] == '.' {
		return false
	}
	for _, c := range name {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_') {
			return false
		}
	}
	return true
}

func addAddrs(to *[]netip.Addr, value string) error {
	var addrs []netip.Addr
	for _, v := range strings.Split(value, ",") {
		a, err := netip.ParseAddr(v)
		if err != nil {
			return fmt.Errorf("%q is no IP address", v)
		}
		addrs = append(addrs, a)
	}
	*to = append(*to, addrs...)
	return nil
}

// split cuts a command line at blanks outside of double quotes, as the kernel
// does (lib/cmdline.c), and drops the quotes.
func split(line string) []string {
	var words []string
	var word strings.Builder
	quoted, started := false, false
	for _, c := range line {
		switch {
		case c == '"':
			quoted, started = !quoted, true
		case !quoted && (c == ' ' || c == '\t' || c == '\n'):
			if started {
				words = append(words, word.String())
			}
			word.Reset()
			started = false
		default:
			word.WriteRune(c)
			started = true
		}
	}
	if started {
		words = append(words, word.String())
	}
	return words
}
