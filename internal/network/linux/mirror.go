package linux

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"minimega/internal/errs"
	"minimega/internal/network"
)

// Mirror sends a copy of every frame that goes in or out of one port to the
// outer end of another.
func (d *Datapath) Mirror(ctx context.Context, from, to network.Port) error {
	prog, err := loadMirror(to.Index)
	if err != nil {
		return noMirror(err)
	}
	defer unix.Close(prog) // the filters hold it
	err = d.nl.all(ctx, []*nl.NetlinkRequest{newClsact(from.Index)})
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return noMirror(err)
	}
	priority := mirrorPriority(to)
	err = d.nl.all(ctx, []*nl.NetlinkRequest{
		newFilter(from.Index, clsactIngress, priority, prog), newFilter(from.Index, clsactEgress, priority, prog),
	})
	if err != nil {
		return errors.Join(noMirror(err), d.Unmirror(ctx, from, to))
	}
	return nil
}

func noMirror(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
		return errs.WithRemedy(errs.New(errs.Unsupported, "cannot mirror: this kernel lets us attach no BPF program: %w", err),
			"run as root; load `modprobe -a sch_ingress cls_bpf`")
	}
	return fmt.Errorf("cannot mirror: %w", err)
}

// mirrorPriority tells the filters of one mirror from those of others of the
// same source.
func mirrorPriority(to network.Port) uint32 {
	return uint32(to.Index)%0xfffe + 1
}

// Unmirror is the way back of Mirror. What is gone already is no error.
func (d *Datapath) Unmirror(ctx context.Context, from, to network.Port) error {
	var reqs []*nl.NetlinkRequest
	for _, parent := range []uint32{clsactIngress, clsactEgress} {
		reqs = append(reqs, deleteFilter(from.Index, parent, mirrorPriority(to)))
	}
	for _, err := range d.nl.do(context.WithoutCancel(ctx), reqs) {
		if err != nil && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("cannot end mirror: %w", err)
		}
	}
	return nil
}

// loadMirror loads `bpf_clone_redirect(skb, index, 0); return TC_ACT_UNSPEC`.
func loadMirror(index int) (int, error) {
	return loadProgram([]uint64{
		0x02b7 | uint64(uint32(index))<<32, // r2 = index
		0x03b7,                             // r3 = 0
		0x85 | 13<<32,                      // call bpf_clone_redirect
		0xb7 | 0xffffffff<<32,              // r0 = -1
		0x95,                               // exit
	})
}

func deleteFilter(index int, parent, priority uint32) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(unix.RTM_DELTFILTER, 0)
	proto := uint32(nl.Swap16(unix.ETH_P_ALL))
	r.AddData(&nl.TcMsg{Family: unix.AF_UNSPEC, Ifindex: int32(index), Parent: parent, Info: priority<<16 | proto})
	return r
}
