package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"minimega/internal/cluster"
	"minimega/internal/cluster/share"
	"minimega/internal/command"
	"minimega/internal/errs"
	"minimega/internal/network"
	"minimega/internal/vlan"
	"minimega/pkg/iomeshage"
	"minimega/pkg/meshage"
)

// Mesh is how a daemon finds others, and whom it lets in.
type Mesh struct {
	KeyFile   string // "" for none
	Open      bool   // let everybody in
	Context   string
	Port      int
	Degree    int           // -1 for as many as are good
	MSA       time.Duration // how long what is known of lost hosts is kept
	Broadcast string
	Dial      []string
}

// mesh is this daemon's part among others.
type mesh struct {
	cluster *cluster.Cluster
	vlans   *share.VLANs
	overlay *share.Overlay
	logs    *share.Logs
	files   *iomeshage.Service
	key     *meshage.Key
	node    *meshage.Node
}

// joinMesh starts this host's node and lets it serve what the parts offer. It
// comes after all of them, so that nothing is asked of them too early.
func (d *Daemon) joinMesh(ctx context.Context, net *network.Manager) error {
	m := &d.mesh
	node, err := d.startNode(ctx)
	if err != nil {
		return err
	}
	m.node = node
	d.parts.Push("mesh", node.Close)
	if err := net.SetOverlay(ctx, network.Overlay{ClusterID: m.clusterID(d.cfg.Mesh.Context)}); err != nil {
		return err
	}
	m.vlans.Join(node)
	m.overlay.Join(node)
	m.files.Join(node)
	m.cluster.Join(node)
	d.parts.Push("agreement on VLANs", m.vlans.Close)
	d.parts.Push("overlay", m.overlay.Close)
	d.dialMesh()
	if head := d.cfg.HeadNode; head != "" && head != m.cluster.Host() {
		return m.logs.SendTo(head)
	}
	return nil
}

// startNode listens on the port of the mesh. A daemon that keeps to this host
// takes another when that is taken: nobody looks for it there.
func (d *Daemon) startNode(ctx context.Context) (*meshage.Node, error) {
	c := d.cfg.Mesh
	if c.KeyFile != "" {
		var err error
		if d.mesh.key, err = meshage.LoadKey(c.KeyFile); err != nil {
			return nil, fmt.Errorf("-mesh-key: %w", err)
		}
	}
	o := meshage.Options{Name: d.mesh.cluster.Host(), Context: c.Context, Port: c.Port, Degree: c.Degree, MSATimeout: c.MSA, Broadcast: c.Broadcast,
		Key: d.mesh.key, Open: c.Open, Log: d.log}
	if o.Key != nil || o.Open {
		o.IdentityFile = filepath.Join(d.cfg.Base, "mesh-identity")
	}
	node, err := meshage.New(ctx, o)
	switch {
	case err == nil || !errors.Is(err, syscall.EADDRINUSE):
	case o.Key == nil && !o.Open:
		o.Port = 0
		node, err = meshage.New(ctx, o)
	default:
		err = fmt.Errorf("%w (another minimega? -port names another port)", err)
	}
	return node, err
}

// dialAgain is how long to wait before a host that did not answer is tried again.
const dialAgain = 5 * time.Second

// dialMesh connects to the hosts of the command line, each as soon as it is there.
func (d *Daemon) dialMesh() {
	ctx, cancel := context.WithCancel(context.Background())
	var dialling sync.WaitGroup
	for _, host := range d.cfg.Mesh.Dial {
		dialling.Go(func() {
			for {
				once, done := context.WithTimeout(ctx, dialAgain)
				err := d.mesh.node.Dial(once, host)
				done()
				if err == nil {
					return
				}
				d.log.Info("a host of -mesh-dial cannot be reached; it is tried again", "host", host, "err", err)
				select {
				case <-time.After(dialAgain):
				case <-ctx.Done():
					return
				}
			}
		})
	}
	d.parts.Push("dials", func() error { cancel(); dialling.Wait(); return nil })
}

// renumber moves what is connected to VLANs that got another number.
func (d *Daemon) renumber(deps *command.Deps) func(context.Context, []vlan.Renumber) {
	return func(ctx context.Context, moves []vlan.Renumber) {
		list := make([]network.Renumbering, len(moves))
		for i, m := range moves {
			list[i] = network.Renumbering{Alias: m.Qualified(), Old: m.Old, New: m.New}
			d.log.Warn("another host had the number of a VLAN first; what is connected here moves", "vlan", m.Qualified(), "from", m.Old, "to", m.New)
		}
		if err := errors.Join(deps.VMs.Renumber(ctx, list), deps.Net.Renumber(ctx, list)); err != nil {
			d.log.Error("interfaces did not move to the new number of their VLAN", "err", err)
		}
		deps.NS.Renumber(list)
	}
}

// tunnels connects a bridge with those of the same name on other hosts by
// tunnels with a key; without hosts it removes these. A bridge that it made is
// there afterwards only if nothing failed.
func (m *mesh) tunnels(net *network.Manager) func(ctx context.Context, bridge, kind string, key uint32, hosts []string) (made bool, err error) {
	return func(ctx context.Context, bridge, kind string, key uint32, hosts []string) (made bool, err error) {
		ours := slices.DeleteFunc(net.Tunnels(bridge), func(t network.Tunnel) bool { return t.Key != key })
		if len(hosts) == 0 {
			return false, net.Unlinked(ctx, bridge, ours)
		}
		var to []network.Tunnel
		for _, member := range m.cluster.Members() {
			if !slices.Contains(hosts, member.Name) {
				continue
			}
			remote, err := netip.ParseAddr(member.Address)
			if err != nil {
				return false, errs.New(errs.State, "the address of host %s is not known yet", member.Name)
			}
			to = append(to, network.Tunnel{Kind: kind, Remote: remote, Key: key})
		}
		known := hasBridge(net, bridge)
		if _, err = net.Linked(ctx, bridge, to); err == nil {
			return !known, nil
		}
		if !known && hasBridge(net, bridge) {
			err = errors.Join(err, net.DestroyBridge(context.WithoutCancel(ctx), bridge))
		}
		return false, err
	}
}

func hasBridge(net *network.Manager, name string) bool {
	return slices.ContainsFunc(net.Bridges(), func(b network.BridgeInfo) bool { return b.Name == name })
}

// clusterID tells the overlays of different meshes on one network apart.
func (m *mesh) clusterID(name string) uint16 {
	secret := []byte(nil)
	if m.key != nil {
		secret, _ = m.key.MarshalText() // never fails
	}
	sum := sha256.Sum256(append(append(secret, 0), name...))
	return binary.BigEndian.Uint16(sum[:]) >> 4
}

// commands is the part of it that commands show and change.
func (m *mesh) commands() command.Mesh {
	if m.node == nil {
		return nil
	}
	return m.node
}
