package tests

import (
	"testing"

	"minimega/internal/guest/guesttest"
)

// What depends on features of the kernel that the machine of the tests may lack
// is tested under Debian's kernel: tunnels and trunks.
func TestUnderDebiansKernel(t *testing.T) {
	guesttest.RunTests(t,
		guesttest.Package{Path: "minimega/internal/network/linux", Run: "^(TestGRE|TestVXLAN|TestTrunk)$"},
	)
}
