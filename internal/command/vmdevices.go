package command

import (
	"context"
	"encoding/json"
	"path/filepath"
	"strconv"

	"minimega/internal/errs"
	"minimega/internal/host"
	"minimega/internal/vm"
	"minimega/pkg/minicli"
)

// vmDevices is the family that acts on the devices of one VM.
func vmDevices(d *Deps) []Command {
	name := map[string]Completer{"vm": d.vmNames}
	target := map[string]Completer{"vm": d.vmTargets, "vlan": d.vlanNames}
	return []Command{
		{
			Patterns: []string{"vm qmp <vm name> <qmp command>"},
			Short:    "send a QMP command to a VM",
			Long:     "Sends one JSON command to QEMU's control socket and prints the reply as it is, for example\nvm qmp foo '{ \"execute\": \"query-status\" }'",
			Scope:    VMTarget, Suggest: name, Run: d.qmp,
		},
		{
			Patterns: []string{"vm screenshot <vm name> [maximum dimension]", "vm screenshot <vm name> file <filename> [maximum dimension]"},
			Short:    "take a picture of a VM's screen",
			Long:     "Writes a PNG, by default `screenshot.png` in the VM's directory. A maximum dimension scales it down.\nA file without a directory lies in the files directory.",
			Scope:    VMTarget, Suggest: name, Run: d.screenshot,
		},
		{
			Patterns: []string{"vm net <connect,> <vm target> <tap position> <vlan> [bridge]"},
			Short:    "move a network interface to a VLAN",
			Long:     "Moves an interface, counted from 0, of running or paused VMs to a VLAN, on the bridge it is on unless one is named.\n" + targetHelp,
			Scope:    VMTarget, Suggest: target, Run: d.netConnect,
		},
		{
			Patterns: []string{"vm net <disconnect,> <vm target> <tap position>"},
			Short:    "take a network interface off its VLAN",
			Long:     "The interface stays in the VM, as if its cable were pulled. `vm net connect` puts it back.\n" + targetHelp,
			Scope:    VMTarget, Suggest: target, Run: d.netDisconnect,
		},
	}
}

func (d *Deps) qmp(ctx context.Context, c *Call) (*minicli.Response, error) {
	request := []byte(c.Str("qmp"))
	if !json.Valid(request) {
		var v any
		return nil, errs.New(errs.Invalid, "invalid JSON: %w", json.Unmarshal(request, &v))
	}
	m, err := d.machine(c)
	if err != nil {
		return nil, err
	}
	q, ok := m.(vm.QMPer)
	if !ok {
		return nil, errs.New(errs.Unsupported, "vm not KVM: %s", c.Str("vm"))
	}
	reply, err := q.QMP(ctx, request)
	if err != nil {
		return nil, err
	}
	return text(string(reply))
}

// machine returns the running machine of the call's `vm` argument.
func (d *Deps) machine(c *Call) (vm.Machine, error) {
	v, err := d.VMs.Find(c.Namespace, c.Str("vm"))
	if err != nil {
		return nil, err
	}
	return v.Machine()
}

func (d *Deps) screenshot(ctx context.Context, c *Call) (*minicli.Response, error) {
	limit := 0
	if s := c.Str("maximum"); s != "" {
		var err error
		if limit, err = strconv.Atoi(s); err != nil || limit < 0 {
			return nil, errs.New(errs.Invalid, "invalid maximum dimension: `%s` (a number of pixels)", s)
		}
	}
	v, err := d.VMs.Find(c.Namespace, c.Str("vm"))
	if err != nil {
		return nil, err
	}
	m, err := v.Machine()
	if err != nil {
		return nil, err
	}
	s, ok := m.(vm.Screenshotter)
	if !ok {
		return nil, errs.New(errs.Unsupported, "cannot take screenshot of %s", v.Type)
	}
	png, err := s.Screenshot(ctx, limit)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(v.Dir(), "screenshot.png")
	if c.Has("filename") {
		path = d.filesPath(c.Str("filename"))
	}
	if path != "/dev/null" {
		if err := host.WriteFile(path, png, 0o644); err != nil {
			return nil, errs.New(errs.Invalid, "cannot write the screenshot: %w", err)
		}
	}
	return &minicli.Response{Data: png}, nil
}

func (d *Deps) netConnect(ctx context.Context, c *Call) (*minicli.Response, error) {
	index, err := tapPosition(c)
	if err != nil {
		return nil, err
	}
	if _, err := d.VMs.Targets(c.Namespace, c.Str("vm")); err != nil {
		return nil, err // before an alias gets a VLAN
	}
	v, alias, err := d.VLANs.Resolve(c.Namespace, c.Str("vlan"))
	if err != nil {
		return nil, err
	}
	return done(d.VMs.ConnectNet(ctx, c.Namespace, c.Str("vm"), index, v, alias, c.Str("bridge")))
}

func (d *Deps) netDisconnect(ctx context.Context, c *Call) (*minicli.Response, error) {
	index, err := tapPosition(c)
	if err != nil {
		return nil, err
	}
	return done(d.VMs.DisconnectNet(ctx, c.Namespace, c.Str("vm"), index))
}

func tapPosition(c *Call) (int, error) {
	i, err := strconv.Atoi(c.Str("tap"))
	if err != nil {
		return 0, errs.New(errs.Invalid, "invalid tap position: `%s` (interfaces are counted from 0)", c.Str("tap"))
	}
	return i, nil
}
