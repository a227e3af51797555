package linux

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"minimega/internal/errs"
	"minimega/internal/network"
)

// taps makes the devices of all ports of kind Tap. They become persistent only
// once they are marked as ours: if this process dies before, they go with it.
// No process is started meanwhile: it would have the descriptors until it
// executes its program, and a hypervisor would find its tap busy.
func (b *building) taps(ctx context.Context) error {
	if !slices.ContainsFunc(b.ports, func(p network.Port) bool { return p.Kind == network.Tap }) {
		return nil
	}
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	var open []*os.File
	var closers sync.WaitGroup
	defer closers.Wait()
	defer func() {
		for _, f := range open { // letting go of a tap waits for all CPUs: many do it at once
			closers.Go(func() { _ = f.Close() })
		}
	}()
	var marks []*nl.NetlinkRequest
	err := b.d.space.in(func() error {
		for i := range b.ports {
			p := &b.ports[i]
			if p.Kind != network.Tap {
				continue
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			f, err := b.d.newTap(p)
			if err != nil {
				return err
			}
			open = append(open, f)
			if p.Index, err = b.d.space.index(p.Name); err != nil {
				return err
			}
			marks = append(marks, describe(p.Index, b.d.mark+p.Owner))
		}
		return nil
	})
	if err == nil {
		err = wrap("cannot mark tap", b.d.nl.all(ctx, marks))
	}
	if err != nil {
		return err
	}
	return b.persist(open)
}

// persist keeps the taps beyond the descriptors that made them.
func (b *building) persist(open []*os.File) error {
	at := 0
	for _, p := range b.ports {
		if p.Kind != network.Tap {
			continue
		}
		if err := unix.IoctlSetInt(int(open[at].Fd()), unix.TUNSETPERSIST, 1); err != nil {
			return tapError(p.Name, err)
		}
		b.made = append(b.made, p.Index)
		at++
	}
	return nil
}

// newTap makes a tap, and finds a name for it if it has none. It never takes
// over a device that exists (IFF_TUN_EXCL).
func (d *Datapath) newTap(p *network.Port) (*os.File, error) {
	for {
		try := p.Name
		if try == "" {
			try = d.autoName()
		}
		f, err := openTap(try)
		if p.Name == "" && (errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EEXIST)) {
			continue
		}
		if err != nil {
			return nil, tapError(try, err)
		}
		p.Name = try
		return f, nil
	}
}

// autoName returns a name that was not tried before, and that no port of an
// earlier datapath had: the device of a container that has ended is gone before
// its owner knows, who would then delete the next one of that name.
func (d *Datapath) autoName() string {
	for {
		name := network.AutoName + strconv.FormatUint(uint64((d.nextTap.Add(1)-1)%maxTaps), 10)
		if !d.inherited[name] {
			return name
		}
	}
}

// maxTaps is how many names there are: IFNAMSIZ leaves seven digits.
const maxTaps = 1e7

// openTap follows Documentation/networking/tuntap.rst. The flags are those that
// QEMU sets when it opens the tap.
func openTap(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "/dev/net/tun")
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_TUN_EXCL)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func tapError(name string, err error) error {
	switch {
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EEXIST):
		return taken(name)
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV):
		return errs.WithRemedy(errs.New(errs.Unsupported, "cannot create tap %s: no /dev/net/tun: %w", name, err), "load it with `modprobe tun`")
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return errs.WithRemedy(errs.New(errs.Permission, "cannot create tap %s: %w", name, err), "run minimega as root or with CAP_NET_ADMIN")
	}
	return fmt.Errorf("cannot create tap %s: %w", name, err)
}

func taken(name string) error {
	return errs.WithRemedy(errs.New(errs.Exists, "an interface named %s exists already", name), "choose another name")
}

// pairs makes the devices of all ports of kind Host: a veth pair, the outer end
// under the name asked for.
func (b *building) pairs(ctx context.Context) error {
	var todo []*network.Port
	for i := range b.ports {
		if b.ports[i].Kind == network.Host {
			todo = append(todo, &b.ports[i])
		}
	}
	all := todo
	var outers []int
	for len(todo) > 0 {
		again, made, err := b.tryPairs(ctx, todo)
		outers = append(outers, made...)
		if err != nil {
			return err
		}
		todo = again
	}
	return b.setUpPairs(ctx, all, outers)
}

// tryPairs makes pairs in one batch. It returns those ports whose names turned
// out to be taken and that can try others, and the indices of the outer ends made.
func (b *building) tryPairs(ctx context.Context, todo []*network.Port) (again []*network.Port, made []int, err error) {
	var reqs []*nl.NetlinkRequest
	outer, inner := make([]string, len(todo)), make([]string, len(todo))
	for i, p := range todo {
		outer[i], inner[i] = p.Name, b.d.name()
		if p.Name == "" {
			outer[i] = b.d.autoName()
		}
		reqs = append(reqs, newVeth(outer[i], inner[i]))
	}
	for i, failed := range b.d.nl.do(ctx, reqs) {
		p := todo[i]
		switch {
		case failed == nil:
			var index int
			p.Name = outer[i]
			p.Index, err = b.d.pairIndices(err, inner[i], outer[i], &index)
			b.made = append(b.made, p.Index)
			made = append(made, index)
		case errors.Is(failed, unix.EEXIST) && (p.Name == "" || !b.d.space.exists(p.Name)):
			again = append(again, p)
		case err != nil: // one error is enough
		case errors.Is(failed, unix.EEXIST):
			err = taken(p.Name)
		default:
			err = fmt.Errorf("cannot create host tap %s: %w", outer[i], missing(failed, "veth"))
		}
	}
	return again, made, err
}

// pairIndices looks up both ends; an earlier error stays.
func (d *Datapath) pairIndices(err error, inner, outer string, outerIndex *int) (int, error) {
	index, err1 := d.space.index(inner)
	o, err2 := d.space.index(outer)
	*outerIndex = o
	return index, errors.Join(err, err1, err2)
}

// setUpPairs readies the outer ends for the host, which takes no word from
// guests on which addresses and routes it has.
func (b *building) setUpPairs(ctx context.Context, outers []*network.Port, indices []int) error {
	if len(indices) == 0 {
		return nil
	}
	err := b.d.space.in(func() error {
		var failed []error
		for _, p := range outers {
			failed = append(failed, sysctl("ipv6", p.Name, "accept_ra", "0"))
		}
		return errors.Join(failed...)
	})
	if err != nil {
		b.d.log.Warn("host taps listen to IPv6 router advertisements of guests", "err", err)
	}
	var quieten, ups []*nl.NetlinkRequest
	for _, index := range indices {
		quieten, ups = append(quieten, quiet(index)), append(ups, up(index))
	}
	err = first(b.d.nl.do(ctx, quieten))
	if err == nil || errors.Is(err, unix.EAFNOSUPPORT) {
		err = b.d.nl.all(ctx, ups)
	}
	return wrap("cannot set up host tap", err)
}
