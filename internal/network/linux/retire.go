package linux

import (
	"context"
	"slices"
	"time"

	"minimega/internal/network"
)

const (
	// lingerTime is how long a bridge device without ports stays after those of
	// containers have gone: making and removing one is the larger part of the
	// network of a container that comes alone.
	lingerTime = 3 * time.Second
	// passTime is how long the devices of a container may take to go with its
	// network namespace, and passPoll how often that is looked at.
	passTime = time.Second
	passPoll = 25 * time.Millisecond
)

var _ network.Retirer = (*Datapath)(nil)

// Retire waits for devices to go with the namespaces of their other ends: the
// kernel removes a pair as soon as no process is left in one of them, many in
// one go, and would do most of it again for us. Those that stay, because
// somebody holds the namespace, are removed.
func (d *Datapath) Retire(ctx context.Context, ports []network.Port) error {
	d.passed(ctx, ports)
	segments, doomed := d.take(ports)
	doomed = slices.DeleteFunc(doomed, func(index int) bool { return !d.space.has(index) })
	err := d.remove(ctx, doomed)
	if rest := d.linger(segments); len(rest) > 0 {
		return d.remove(ctx, rest)
	}
	return err
}

// passed returns when none of the devices is there any more, or ctx ends or
// patience does.
func (d *Datapath) passed(ctx context.Context, ports []network.Port) {
	t := time.NewTicker(passPoll)
	defer t.Stop()
	ctx, cancel := context.WithTimeout(ctx, passTime)
	defer cancel()
	for at := 0; at < len(ports); {
		if !d.space.has(ports[at].Index) {
			at++
			continue
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// take forgets ports, and returns what they were on and their devices.
func (d *Datapath) take(ports []network.Port) (segments []*segment, devices []int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range ports {
		if s, ok := d.ports[p.Index]; ok {
			segments = append(segments, s)
			devices = append(devices, p.Index)
			delete(d.ports, p.Index)
		}
	}
	return segments, devices
}

// linger takes one port off each of the segments. Those that nobody needs any
// more go later, unless there are new ports; what cannot stay is returned.
func (d *Datapath) linger(segments []*segment) []int {
	var now []*segment
	d.mu.Lock()
	for _, s := range segments {
		switch {
		case s == nil:
		case d.closed || !s.own || !d.currentLocked(s):
			now = append(now, s)
		case s.ports > 1:
			s.ports--
		default:
			s.ports = 0
			d.expireLaterLocked(s)
		}
	}
	d.mu.Unlock()
	return d.release(now...)
}

func (d *Datapath) currentLocked(s *segment) bool {
	b := d.bridges[s.bridge]
	return b != nil && b.segments[s.vlan] == s
}

func (d *Datapath) expireLaterLocked(s *segment) {
	d.idle.Add(1)
	s.idle = time.AfterFunc(lingerTime, func() {
		defer d.idle.Done()
		if err := d.remove(context.Background(), d.expire(s)); err != nil {
			d.log.Warn("cannot remove a bridge device", "err", err)
		}
	})
}

// wakeLocked keeps a segment that was about to go.
func (d *Datapath) wakeLocked(s *segment) {
	if s.idle != nil && s.idle.Stop() {
		d.idle.Done()
	}
	s.idle = nil
}

// expire forgets a segment that still has no ports, and returns its devices.
func (d *Datapath) expire(s *segment) []int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s.ports > 0 || !d.currentLocked(s) {
		return nil
	}
	d.wakeLocked(s)
	d.forgetLocked(s)
	d.changedLocked()
	return s.devicesLocked()
}

// Settle removes the bridge devices that wait for new ports.
func (d *Datapath) Settle(ctx context.Context) error {
	var idle []*segment
	d.mu.Lock()
	for _, b := range d.bridges {
		for _, s := range b.segments {
			if s.idle != nil {
				idle = append(idle, s)
			}
		}
	}
	d.mu.Unlock()
	var doomed []int
	for _, s := range idle {
		doomed = append(doomed, d.expire(s)...)
	}
	return d.remove(ctx, doomed)
}
