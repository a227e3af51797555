package namespace

import (
	"slices"
	"strconv"

	"minimega/internal/errs"
	"minimega/pkg/ranges"
)

func itoa(i int) string { return strconv.Itoa(i) }

// Hosts returns the hosts of the namespace, sorted.
func (n *Namespace) Hosts() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Sorted(slices.Values(n.hosts))
}

// AddHosts adds hosts by name or range. `all` means every peer, of which a
// daemon on its own has none.
func (n *Namespace) AddHosts(spec string) error {
	hosts, err := n.expandHosts(spec)
	if err != nil {
		return err
	}
	for _, h := range hosts {
		if h != n.registry.opts.Host && h != "all" {
			return errs.New(errs.NotFound, "unknown host: `%s`", h)
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, h := range hosts {
		if h != "all" && !slices.Contains(n.hosts, h) {
			n.hosts = append(n.hosts, h)
		}
	}
	return nil
}

// DelHosts removes hosts; unknown ones are passed over, `all` removes every one.
func (n *Namespace) DelHosts(spec string) error {
	hosts, err := n.expandHosts(spec)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts = slices.DeleteFunc(n.hosts, func(h string) bool {
		return slices.Contains(hosts, h) || slices.Contains(hosts, "all")
	})
	return nil
}

func (n *Namespace) expandHosts(spec string) ([]string, error) {
	hosts, err := ranges.Split(spec)
	if err != nil {
		return nil, errs.New(errs.Invalid, "invalid hosts -- %w", err)
	}
	for i, h := range hosts {
		if h == "localhost" {
			hosts[i] = n.registry.opts.Host
		}
	}
	return hosts, nil
}

// HasHost reports whether a host is in the namespace.
func (n *Namespace) HasHost(host string) bool { return slices.Contains(n.Hosts(), host) }

// Load returns how the load of a host is measured.
func (n *Namespace) Load() string { n.mu.Lock(); defer n.mu.Unlock(); return n.load }

// SetLoad chooses one of Loads.
func (n *Namespace) SetLoad(metric string) { n.mu.Lock(); n.load = metric; n.mu.Unlock() }

// AddBridge connects the bridges of this name on all hosts of the namespace.
// With one host there is nothing to connect, but the bridge counts as connected.
func (n *Namespace) AddBridge(bridge string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.bridges[bridge] = true
	return nil
}

// DelBridge undoes AddBridge.
func (n *Namespace) DelBridge(bridge string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.bridges[bridge] {
		return errs.New(errs.NotFound, "bridge is not associated with namespace")
	}
	delete(n.bridges, bridge)
	return nil
}
