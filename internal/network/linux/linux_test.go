package linux

import (
	"log/slog"
	"testing"

	"go.uber.org/goleak"

	"minimega/internal/network"
	"minimega/internal/network/networktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func asDatapath(t testing.TB) network.Datapath { return newDatapath(t) }

func newDatapath(t testing.TB) *Datapath {
	t.Helper()
	d, err := New(t.TempDir(), slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestSuite(t *testing.T) { networktest.Suite(t, asDatapath) }
