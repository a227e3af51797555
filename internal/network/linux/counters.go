package linux

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"minimega/internal/network"
)

// See linux/if_link.h: struct if_stats_msg and struct rtnl_link_stats64.
const (
	sizeofIfStatsMsg = 12
	statsLink64      = 1
)

type ifStatsMsg struct{ filter uint32 }

func (ifStatsMsg) Len() int { return sizeofIfStatsMsg }

func (m ifStatsMsg) Serialize() []byte {
	b := make([]byte, sizeofIfStatsMsg)
	binary.NativeEndian.PutUint32(b[8:], m.filter)
	return b
}

// Counters reads the counters of all devices in one dump (RTM_GETSTATS).
func (d *Datapath) Counters(ctx context.Context) (map[int]network.Counters, error) {
	all := map[int]network.Counters{}
	r := nl.NewNetlinkRequest(unix.RTM_GETSTATS, 0)
	r.AddData(ifStatsMsg{filter: 1 << (statsLink64 - 1)})
	err := d.nl.dump(ctx, r, func(body []byte) {
		if index, c, ok := parseStats(body); ok {
			all[index] = c
		}
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read interface counters: %w", err)
	}
	return all, nil
}

// parseStats reads one answer. What a device receives, the guest has sent.
func parseStats(body []byte) (int, network.Counters, bool) {
	if len(body) < sizeofIfStatsMsg {
		return 0, network.Counters{}, false
	}
	for kind, value := range attributes(body[sizeofIfStatsMsg:]) {
		if kind != statsLink64 || len(value) < 8*8 {
			continue
		}
		at := func(i int) uint64 { return binary.NativeEndian.Uint64(value[8*i:]) }
		return int(binary.NativeEndian.Uint32(body[4:])), network.Counters{
			TxPackets: at(0), RxPackets: at(1), TxBytes: at(2), RxBytes: at(3),
			TxDropped: at(6), RxDropped: at(7),
		}, true
	}
	return 0, network.Counters{}, false
}
