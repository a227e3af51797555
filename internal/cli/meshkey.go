package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"

	"minimega/pkg/meshage"
)

const meshUsage = `usage: minimega mesh key FILE                  make a key, for a new mesh
       minimega [-context C] [-port P] mesh token FILE [address...]
                                               print a line that carries the key, to let another host join
       minimega mesh join FILE                 read such a line from standard input and write its key to FILE

A daemon that is started with -mesh-key FILE meets those with the same key and context, and nobody else.
Whoever has the key, or a token, is a member with all rights.
`

// MeshCommand runs `minimega mesh …`, which makes keys and passes them on. It
// returns the exit status.
func MeshCommand(c Config, args []string, std Stdio) int {
	if len(args) == 0 || args[0] == "help" || slices.ContainsFunc(args, asksHelp) {
		fmt.Fprint(std.Out, meshUsage)
		return 0
	}
	run := map[string]func(Config, []string, Stdio) error{"key": meshKey, "token": meshToken, "join": meshJoin}[args[0]]
	if run == nil || len(args) < 2 || len(args) > 2 && args[0] != "token" {
		fmt.Fprint(std.Err, meshUsage)
		return 2
	}
	if err := run(c, args[1:], std); err != nil {
		fmt.Fprintln(std.Err, "minimega:", err)
		return 1
	}
	return 0
}

func meshKey(_ Config, args []string, std Stdio) error {
	key, err := meshage.GenerateKey()
	if err != nil {
		return err
	}
	if err := key.Save(args[0]); err != nil {
		return err
	}
	fmt.Fprintf(std.Out, "%s holds the key of a new mesh. Start minimega with -mesh-key %s here,\nand pass the key on with: minimega mesh token %s\n", args[0], args[0], args[0])
	return nil
}

func meshToken(c Config, args []string, std Stdio) error {
	key, err := meshage.LoadKey(args[0])
	if err != nil {
		return err
	}
	at, err := meshAddresses(args[1:], uint16(c.Port))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(std.Out, key.Token(at, c.Context))
	return err
}

// meshAddresses reads the addresses that are given, or finds those of this host.
func meshAddresses(given []string, port uint16) (at []netip.AddrPort, err error) {
	for _, text := range given {
		a, err := netip.ParseAddrPort(text)
		if err != nil {
			ip, e := netip.ParseAddr(text)
			if e != nil {
				return nil, fmt.Errorf("%q is no address: %w", text, errors.Join(e))
			}
			a = netip.AddrPortFrom(ip, port)
		}
		at = append(at, a)
	}
	if len(given) > 0 {
		return at, nil
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("find this host's addresses: %w", err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				at = append(at, netip.AddrPortFrom(ip.Unmap(), port))
			}
		}
	}
	return at[:min(len(at), maxTokenAddresses)], nil
}

// maxTokenAddresses keeps a token a line that can be copied by hand.
const maxTokenAddresses = 4

func meshJoin(_ Config, args []string, std Stdio) error {
	in := bufio.NewReader(io.LimitReader(std.In, 64<<10))
	line, err := in.ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	key, at, context, err := meshage.ParseToken(strings.TrimSpace(line))
	if err != nil {
		return fmt.Errorf("standard input holds no token of `minimega mesh token`: %w", err)
	}
	if err := key.Save(args[0]); err != nil {
		return err
	}
	flags := []string{"-mesh-key " + args[0]}
	if context != DefaultContext {
		flags = append(flags, "-context "+context)
	}
	var dial []string
	for _, a := range at {
		dial = append(dial, a.String())
	}
	fmt.Fprintf(std.Out, "%s holds the key. Start minimega with: minimega %s\n", args[0], strings.Join(flags, " "))
	if len(dial) > 0 {
		fmt.Fprintf(std.Out, "On another network than the host of the token add: -mesh-dial %s\n", strings.Join(slices.Compact(dial), ","))
	}
	return nil
}
