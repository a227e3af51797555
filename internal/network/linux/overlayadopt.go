package linux

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"minimega/internal/network"
)

const (
	overlayWord = ", overlay "
	fromWord    = " from "
	wireWord    = "minimega: wire to "
)

// overlayText follows the description of a segment in that of its overlay;
// parseOverlay reads both.
func overlayText(conf network.Overlay) string {
	text := overlayWord + strconv.Itoa(int(conf.ClusterID))
	if conf.Local.IsValid() {
		text += fromWord + conf.Local.String()
	}
	return text
}

func parseOverlay(text string) (bridge string, vlan int, conf network.Overlay, ok bool) {
	i := strings.LastIndex(text, overlayWord)
	if i < 0 {
		return "", 0, conf, false
	}
	if bridge, vlan, ok = parseSegment(text[:i]); !ok {
		return "", 0, conf, false
	}
	number, from, local := strings.Cut(text[i+len(overlayWord):], fromWord)
	id, err := strconv.ParseUint(number, 10, 12)
	if err == nil && local {
		conf.Local, err = netip.ParseAddr(from)
	}
	conf.ClusterID = uint16(id)
	return bridge, vlan, conf, err == nil
}

// adoptOverlaysLocked takes in the overlays that are complete, so that what
// passes through them goes on. Whom they reach is set anew before anything
// else, by who knows. Others are removed with all that nobody claims.
func (d *Datapath) adoptOverlaysLocked(l *legacy) {
	for _, dev := range l.ours {
		name, vlan, conf, ok := parseOverlay(dev.alias)
		if !ok || dev.kind != "vxlan" || d.bridges[name] == nil {
			continue
		}
		s := d.bridges[name].segments[vlan]
		wire, wired := l.wires[dev.index]
		if s == nil || s.overlay != nil || !wired && !dev.six && d.guard.prog >= 0 {
			continue
		}
		s.overlay = &overlay{conf: conf, made: conf, six: dev.six, index: dev.index, adopted: true}
		s.extra[overlayTunnel] = dev.index
		if wired {
			s.extra[overlayTunnel+wireOf] = wire.index
		}
	}
}

// keepOverlay takes the devices of a segment's overlay off those to be removed.
func (l *legacy) keepOverlay(s *segment) {
	if s.overlay == nil {
		return
	}
	delete(l.ours, s.overlay.index)
	if wire, ok := l.ours[s.extra[overlayTunnel+wireOf]]; ok {
		delete(l.ours, wire.peer)
		delete(l.ours, wire.index)
	}
}

// wireText describes a wire by the index of the device at its end.
func wireText(to int) string { return fmt.Sprintf("%s%d", wireWord, to) }

func parseWire(text string) (to int, ok bool) {
	number, ok := strings.CutPrefix(text, wireWord)
	to, err := strconv.Atoi(number)
	return to, ok && err == nil && to > 0
}
