package linux

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// remove deletes devices; one that is gone already is no error. The kernel
// waits several times until no CPU uses a device (RCU), but only once for all
// that go in one request, so they are gathered in a group of their own first. By
// that, a later daemon knows them if this one dies in between.
func (d *Datapath) remove(ctx context.Context, indices []int) error {
	indices = slices.DeleteFunc(indices, func(i int) bool { return i <= 0 }) // never was there
	if len(indices) == 0 {
		return nil
	}
	ctx = context.WithoutCancel(ctx) // half removed helps nobody
	group := d.doomGroup()
	var reqs []*nl.NetlinkRequest
	for _, index := range indices {
		reqs = append(reqs, setGroup(index, group))
	}
	left := 0
	for _, err := range d.nl.do(ctx, reqs) {
		if !errors.Is(err, unix.ENODEV) {
			left++
		}
	}
	if left == 0 {
		return nil
	}
	err := d.nl.all(ctx, []*nl.NetlinkRequest{deleteGroup(group)})
	if err == nil {
		return nil
	}
	if err = d.removeEach(ctx, indices); err != nil {
		d.mu.Lock()
		for _, index := range indices {
			d.ports[index] = nil // so that it is tried again
		}
		d.mu.Unlock()
	}
	return err
}

// doomGroup returns a group for devices that are to go together.
func (d *Datapath) doomGroup() uint32 { return d.doom + d.nextDoom.Add(1)%groupsEach }

// removeEach is for a kernel that does not remove by group.
func (d *Datapath) removeEach(ctx context.Context, indices []int) error {
	var reqs []*nl.NetlinkRequest
	for _, index := range indices {
		reqs = append(reqs, deleteLink(index))
	}
	var failed []error
	for i, err := range d.nl.do(ctx, reqs) {
		if err != nil && !errors.Is(err, unix.ENODEV) {
			failed = append(failed, fmt.Errorf("cannot remove interface %d: %w", indices[i], err))
		}
	}
	return errors.Join(failed...)
}
