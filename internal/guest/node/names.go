package node

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
)

// nic is a network interface with a device behind it.
type nic struct {
	name   string
	device string // path of its device in sysfs
}

// nameInterfaces calls the network devices eth0, eth1 ... in the order of
// their places on the bus. The kernel's own order is that of the drivers.
func nameInterfaces() error {
	nics, err := listNICs()
	if err != nil {
		return fmt.Errorf("name interfaces: %w", err)
	}
	slices.SortFunc(nics, func(a, b nic) int { return compareDevices(a.device, b.device) })
	var bad []error
	for i, n := range nics { // two rounds, for eth0 may be somebody else's still
		if n.name != fmt.Sprintf("eth%d", i) {
			bad = append(bad, rename(n.name, fmt.Sprintf("mm-eth%d", i)))
		}
	}
	for i, n := range nics {
		if n.name != fmt.Sprintf("eth%d", i) {
			bad = append(bad, rename(fmt.Sprintf("mm-eth%d", i), fmt.Sprintf("eth%d", i)))
		}
	}
	return errors.Join(bad...)
}

func rename(from, to string) error {
	link, err := netlink.LinkByName(from)
	if err == nil {
		err = netlink.LinkSetName(link, to)
	}
	if err != nil {
		return fmt.Errorf("rename %s to %s: %w", from, to, err)
	}
	return nil
}

func listNICs() ([]nic, error) {
	ifs, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var nics []nic
	for _, i := range ifs {
		device, err := filepath.EvalSymlinks("/sys/class/net/" + i.Name + "/device")
		if errors.Is(err, os.ErrNotExist) {
			continue // lo and other interfaces without a device
		}
		if err != nil {
			return nil, err
		}
		nics = append(nics, nic{i.Name, device})
	}
	return nics, nil
}

// compareDevices orders device paths, number-wise within equal words.
func compareDevices(a, b string) int {
	as, bs := strings.Split(a, "/"), strings.Split(b, "/")
	return slices.CompareFunc(as, bs, func(x, y string) int {
		wx, wy := strings.TrimRight(x, "0123456789"), strings.TrimRight(y, "0123456789")
		if wx == wy {
			return cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(x, y))
		}
		return cmp.Compare(x, y)
	})
}
