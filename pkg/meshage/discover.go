package meshage

import (
	"net/netip"
	"time"

	"minimega/pkg/meshage/membership"
)

// maxHeard bounds the beacons that are looked at in a second.
const maxHeard = 500

// beacon has one sent, unless one is about to be.
func (n *Node) beacon(seeking bool) {
	select {
	case n.shout <- seeking:
	default:
	}
}

func (n *Node) sendBeacons() {
	failing := false
	for {
		var seeking bool
		select {
		case seeking = <-n.shout:
		case <-n.ctx.Done():
			return
		}
		b, err := n.seal.seal(beacon{id: n.id, port: n.port(), seeking: seeking})
		if err == nil {
			err = n.beacons.Send(b)
		}
		if err != nil && !failing && n.ctx.Err() == nil {
			n.log.Warn("cannot look for other hosts on the network", "err", err)
		}
		failing = err != nil
	}
}

// hearBeacons reads datagrams from anybody. Those not of this mesh cost one
// failed decryption.
func (n *Node) hearBeacons() {
	buffer := make([]byte, maxBeacon+1)
	second, heard := time.Now(), 0
	for {
		k, from, err := n.beacons.Receive(buffer)
		if err != nil {
			if n.ctx.Err() != nil || !pause(n.ctx, 10*time.Millisecond) {
				return
			}
			continue
		}
		if time.Since(second) > time.Second {
			second, heard = time.Now(), 0
		}
		if heard++; heard > maxHeard {
			continue
		}
		b, err := n.seal.open(buffer[:k])
		if err != nil || b.id == n.id {
			continue
		}
		n.handle(membership.Seen{ID: membership.ID(b.id), Addrs: []string{netip.AddrPortFrom(from, b.port).String()}, Seeking: b.seeking})
	}
}
