package linux

import (
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"minimega/internal/errs"
	"minimega/internal/host/hosttest"
	"minimega/internal/network"
	"minimega/internal/network/networktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func asDatapath(t testing.TB) network.Datapath { return newDatapath(t) }

func newDatapath(t testing.TB) *Datapath {
	t.Helper()
	dir := t.TempDir()
	hosttest.Machine{Marks: []string{dir}, Alone: true}.Check(t)
	d, err := New(dir, slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestSuite(t *testing.T) { networktest.Suite(t, asDatapath) }

// TestFullBridge fills a bridge beyond what the kernel takes: the failure comes
// in the middle of a batch, and leaves what was there before.
func TestFullBridge(t *testing.T) {
	networktest.Host(t)
	d := newDatapath(t)
	defer closeClean(t, d)
	some, err := d.Create(t.Context(), []network.PortSpec{{Kind: network.Tap, Bridge: "br_a", VLAN: 1}})
	if err != nil {
		t.Fatal(err)
	}
	before := networktest.Links(t)
	_, err = d.Create(t.Context(), slices.Repeat([]network.PortSpec{{Kind: network.Tap, Bridge: "br_a", VLAN: 1}}, 1030))
	if !errors.Is(err, errs.Resource) || !strings.Contains(err.Error(), "1023 ports") {
		t.Errorf("a full bridge gave: %v", err)
	}
	if diff := cmp.Diff(before, networktest.Links(t)); diff != "" {
		t.Errorf("a failed Create left (-before +now):\n%s", diff)
	}
	if err := d.Move(t.Context(), some[0], "br_b", 1); err != nil {
		t.Error(err)
	}
}
