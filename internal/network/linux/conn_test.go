package linux

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"minimega/internal/errs"
	"minimega/internal/network"
	"minimega/internal/network/networktest"
)

func TestBatchTellsWhichFailed(t *testing.T) {
	networktest.Host(t)
	d := newDatapath(t)
	defer closeClean(t, d)
	lo, err := d.space.index("lo")
	if err != nil {
		t.Fatal(err)
	}
	var reqs []*nl.NetlinkRequest
	for i := range 3 * batch {
		index := lo
		if i%7 == 3 {
			index = 1 << 20
		}
		reqs = append(reqs, up(index))
	}
	for i, err := range d.nl.do(t.Context(), reqs) {
		if (err != nil) != (i%7 == 3) || err != nil && !errors.Is(err, unix.ENODEV) {
			t.Errorf("request %d: %v", i, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range d.nl.do(ctx, reqs) {
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("after the context ended: %v", err)
		}
	}
}

func TestKernelsWords(t *testing.T) {
	networktest.Host(t)
	d := newDatapath(t)
	defer closeClean(t, d)
	r := link(unix.RTM_NEWLINK, create, 0, 0, 0)
	info, _ := kind("nosuchkind")
	r.AddData(info)
	err := d.nl.all(t.Context(), []*nl.NetlinkRequest{r})
	if !errors.Is(err, unix.EOPNOTSUPP) || !strings.Contains(err.Error(), "Unknown device type") {
		t.Errorf("got %v", err)
	}
}

func TestAfterClose(t *testing.T) {
	networktest.Host(t)
	d := newDatapath(t)
	closeClean(t, d)
	if _, err := d.Counters(t.Context()); !errors.Is(err, errs.State) {
		t.Errorf("Counters after Close: %v", err)
	}
	_, err := d.Create(t.Context(), []network.PortSpec{{Kind: network.Tap, Bridge: "br_a", VLAN: 5}})
	if !errors.Is(err, errs.State) {
		t.Errorf("Create after Close: %v", err)
	}
	closeClean(t, d)
}

func FuzzParseStats(f *testing.F) {
	good := make([]byte, sizeofIfStatsMsg+4+25*8)
	binary.NativeEndian.PutUint16(good[sizeofIfStatsMsg:], uint16(len(good)-sizeofIfStatsMsg))
	binary.NativeEndian.PutUint16(good[sizeofIfStatsMsg+2:], statsLink64)
	f.Add(good)
	f.Add(good[:sizeofIfStatsMsg+5])
	f.Add([]byte("000000000000\x05\x00000"))
	f.Fuzz(func(t *testing.T, body []byte) {
		if index, c, ok := parseStats(body); !ok && (index != 0 || c != network.Counters{}) {
			t.Error("something from nothing")
		}
	})
}

func FuzzAckError(f *testing.F) {
	f.Add(uint16(0), []byte{0, 0, 0, 0})
	f.Add(uint16(unix.NLM_F_ACK_TLVS), append(make([]byte, 4+unix.SizeofNlMsghdr), 8, 0, 1, 0, 'h', 'i', 0, 0))
	f.Add(uint16(unix.NLM_F_ACK_TLVS), []byte("00000000000000000000\b\x00\x01\x000000"))
	f.Fuzz(func(t *testing.T, flags uint16, body []byte) {
		err := ackError(unix.NlMsghdr{Flags: flags}, body)
		if err == nil && (len(body) < 4 || binary.NativeEndian.Uint32(body) != 0) {
			t.Error("a failure was taken for success")
		}
	})
}
