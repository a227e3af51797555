package container

import (
	"errors"
	"os"
	"testing"

	"minimega/internal/errs"
)

// A container has the UUID of its VM where machines have theirs, and cannot
// change the host's file that says so.
func TestUUID(t *testing.T) {
	if _, err := os.Stat(uuidPath); err != nil {
		t.Skip("this machine shows no UUID, and its containers none")
	}
	b := newBench(t)
	for _, users := range []bool{false, true} {
		for _, args := range [][]string{{"read", uuidPath, "11111111-2222-3333-4444-555555555555"}, {"keeps", uuidPath}} {
			c := b.config(args...)
			c.UserNS = users
			m, err := b.engine.Launch(t.Context(), b.spec(c))
			if users && errors.Is(err, errs.Unsupported) {
				t.Log(err) // an older tmpfs
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			b.endAfter(m)
			if err := m.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			if code, shown := b.wait(m.(*Machine)); code != 0 {
				t.Errorf("userns %v: %s", users, shown)
			}
		}
	}
}
