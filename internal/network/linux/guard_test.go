package linux

import (
	"log/slog"
	"testing"
)

// A kernel that takes the one program takes the other: else sysctls would do
// its work, unseen.
func TestGuardLoads(t *testing.T) {
	g := newGuard(slog.New(slog.DiscardHandler))
	defer g.close()
	if g.prog >= 0 && g.port < 0 {
		t.Error("the program of ports is refused")
	}
}
