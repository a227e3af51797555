package linux

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"minimega/internal/errs"
)

const (
	ticks        = 100 // USER_HZ: the kernel takes times of bridges in hundredths of a second
	stpDelay     = 2   // seconds, the least that IEEE 802.1D allows
	maxAging     = 1000000
	agingSetting = "other_config:mac-aging-time"
)

// settings are those properties of an Open vSwitch bridge that a Linux bridge
// has, too.
var settings = map[string]func(data *nl.RtAttr, value string) error{
	"stp_enable":            stp,
	"rstp_enable":           stp, // Linux speaks only the older one; they understand each other
	"mcast_snooping_enable": snooping,
	agingSetting:            aging,
}

func stp(data *nl.RtAttr, value string) error {
	on, err := boolean(value)
	if on != 0 { // without STP there is no delay, whatever this says
		data.AddRtAttr(nl.IFLA_BR_FORWARD_DELAY, nl.Uint32Attr(stpDelay*ticks))
	}
	data.AddRtAttr(nl.IFLA_BR_STP_STATE, nl.Uint32Attr(uint32(on)))
	return err
}

func snooping(data *nl.RtAttr, value string) error {
	on, err := boolean(value)
	data.AddRtAttr(nl.IFLA_BR_MCAST_SNOOPING, nl.Uint8Attr(on))
	return err
}

func aging(data *nl.RtAttr, value string) error {
	seconds, err := strconv.ParseUint(value, 10, 32)
	if err != nil || seconds > maxAging {
		return errs.New(errs.Invalid, "not a number of seconds: %q", value)
	}
	data.AddRtAttr(nl.IFLA_BR_AGEING_TIME, nl.Uint32Attr(uint32(seconds*ticks)))
	return nil
}

func boolean(value string) (uint8, error) {
	switch value {
	case "true":
		return 1, nil
	case "false":
		return 0, nil
	}
	return 0, errs.New(errs.Invalid, "neither true nor false: %q", value)
}

// Configure sets a property of all segments of a bridge, those to come too.
func (d *Datapath) Configure(ctx context.Context, name, key, value string) error {
	if settings[key] == nil {
		return errs.WithRemedy(errs.New(errs.Unsupported, "a Linux bridge has no setting %q, only %q", key, slices.Sorted(maps.Keys(settings))),
			"use Open vSwitch for others")
	}
	if _, err := setting(0, key, value); err != nil {
		return err
	}
	d.mu.Lock()
	b := d.bridgeLocked(name)
	d.mu.Unlock()
	b.turn <- struct{}{}
	defer func() { <-b.turn }()

	d.mu.Lock()
	b.config[key] = value
	segments := slices.Collect(maps.Values(b.segments))
	d.mu.Unlock()
	for _, s := range segments {
		if s.made() {
			err := d.configure(ctx, s, key, value)
			if err != nil && d.current(b, s) {
				return err
			}
		}
	}
	return nil
}

// configure sets a property of one segment. What the host made is left alone.
func (d *Datapath) configure(ctx context.Context, s *segment, key, value string) error {
	if !s.own {
		return nil
	}
	r, err := setting(s.index, key, value)
	if err == nil {
		err = d.nl.all(ctx, []*nl.NetlinkRequest{r})
	}
	return wrap(fmt.Sprintf("cannot set %s of %s", key, s.bridge), err)
}

func setting(index int, key, value string) (*nl.NetlinkRequest, error) {
	r := link(unix.RTM_NEWLINK, 0, index, 0, 0)
	info, data := kind("bridge")
	err := settings[key](data, value)
	r.AddData(info)
	return r, err
}
