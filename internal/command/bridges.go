package command

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"minimega/internal/errs"
	"minimega/internal/network"
	"minimega/pkg/minicli"
)

// bridges is the family about the bridges that VLANs live on.
func bridges(d *Deps) []Command {
	sug := map[string]Completer{"bridge": d.bridgeNames}
	return []Command{
		{Patterns: []string{"bridge"}, Short: "show bridges",
			Long: "Bridges come into being when they are first named. They belong to the host, not to a namespace.", Run: d.listBridges},
		{Patterns: []string{"bridge <config,> <bridge> <config>"}, Short: "set a property of a bridge",
			Long: "The property is key=value, as the bridge's datapath knows it.", Suggest: sug, Run: d.configBridge},
		{Patterns: []string{"bridge <trunk,> <bridge> <interface>"}, Short: "connect a bridge to a network card",
			Long: "All VLANs of the bridge go over the card, tagged.", Suggest: sug,
			Run: func(ctx context.Context, c *Call) (*minicli.Response, error) {
				return done(d.Net.Trunk(ctx, c.Str("bridge"), c.Str("interface")))
			}},
		{Patterns: []string{"bridge <notrunk,> <bridge> <interface>"}, Short: "undo `bridge trunk`",
			Long: "Takes the card off the bridge again.", Suggest: sug,
			Run: func(ctx context.Context, c *Call) (*minicli.Response, error) {
				return done(d.Net.Untrunk(ctx, c.Str("bridge"), c.Str("interface")))
			}},
		{Patterns: []string{"bridge <tunnel,> <vxlan,gre> <bridge> <remote ip> [key]"}, Short: "connect a bridge to one on another host",
			Long: "Both ends must use the same kind and key. The tunnel carries all VLANs of the bridge.", Suggest: sug, Run: d.tunnel},
		{Patterns: []string{"bridge <notunnel,> <bridge> <interface>"}, Short: "undo `bridge tunnel`",
			Long: "Removes a tunnel by the name that `bridge` shows.", Suggest: sug,
			Run: func(ctx context.Context, c *Call) (*minicli.Response, error) {
				return done(d.Net.Untunnel(ctx, c.Str("bridge"), c.Str("interface")))
			}},
		{Patterns: []string{"bridge <destroy,> <bridge>"}, Short: "remove a bridge",
			Long: "What is connected to it is left unconnected.", Suggest: sug,
			Run: func(ctx context.Context, c *Call) (*minicli.Response, error) {
				return done(d.Net.DestroyBridge(ctx, c.Str("bridge")))
			}},
	}
}

func (d *Deps) bridgeNames(_ *Call, prefix string) []string {
	var names []string
	for _, b := range d.Net.Bridges() {
		names = append(names, b.Name)
	}
	return withPrefix(names, prefix)
}

func (d *Deps) listBridges(ctx context.Context, _ *Call) (*minicli.Response, error) {
	if err := d.Net.EnsureBridge(ctx, network.DefaultBridge); err != nil {
		return nil, err
	}
	var rows [][]string
	for _, b := range d.Net.Bridges() {
		config, err := json.Marshal(b.Config)
		if err != nil {
			return nil, err
		}
		rows = append(rows, []string{b.Name, strconv.FormatBool(b.Preexisting), fmt.Sprint(b.VLANs), fmt.Sprint(b.Trunks), fmt.Sprint(b.Tunnels), "[]", string(config)})
	}
	return table([]string{"bridge", "preexisting", "vlans", "trunks", "tunnels", "bonds", "config"}, rows)
}

func (d *Deps) configBridge(ctx context.Context, c *Call) (*minicli.Response, error) {
	key, value, ok := strings.Cut(c.Str("config"), "=")
	if !ok || key == "" {
		return nil, errs.New(errs.Invalid, "invalid config: `%s` (write key=value)", c.Str("config"))
	}
	return done(d.Net.ConfigureBridge(ctx, c.Str("bridge"), key, value))
}

func (d *Deps) tunnel(ctx context.Context, c *Call) (*minicli.Response, error) {
	remote, err := netip.ParseAddr(c.Str("remote"))
	if err != nil {
		return nil, errs.New(errs.Invalid, "invalid remote IP: `%s`", c.Str("remote"))
	}
	t := network.Tunnel{Kind: "vxlan", Remote: remote}
	if c.Chose("gre") {
		t.Kind = "gre"
	}
	if c.Has("key") {
		key, err := strconv.ParseUint(c.Str("key"), 10, 32)
		if err != nil {
			return nil, errs.New(errs.Invalid, "invalid key: `%s` (a number below 2^32)", c.Str("key"))
		}
		t.Key = uint32(key)
	}
	_, err = d.Net.Tunnel(ctx, c.Str("bridge"), t)
	return done(err)
}
