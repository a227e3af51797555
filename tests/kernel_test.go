package tests

import (
	"testing"

	"minimega/internal/guest/guesttest"
)

// What depends on features of the kernel that the machine of the tests may lack
// is tested under Debian's kernel: tunnels and trunks, and containers where
// there are control groups of version 2 only. So is what needs a clock to set.
func TestUnderDebiansKernel(t *testing.T) {
	guesttest.RunTests(t,
		guesttest.Package{Path: "minimega/internal/network/linux", Run: "^(TestGRE|TestVXLAN|TestTrunk|TestHalfMadeCable)$"},
		guesttest.Package{Path: "minimega/internal/vm/container/cgroup", Run: "^(TestMakeLeavesNothing|TestHidden|TestDeviceProgram)$"},
		guesttest.Package{
			Path:     "minimega/internal/vm/container",
			Run:      "^TestIsolation$/^(Devices|Privilege|Writable|Vsock)$|^(TestUnified.*|TestKillPaused|TestAdopt|TestAdoptScreen|TestClean|TestUUID|TestHostileFrames.*|TestAddNetCutOff)$",
			Env:      []string{"CONTAINER_TEST_GUEST=" + guesttest.LabDir + "/guest"},
			Programs: map[string]string{"guest": "minimega/internal/vm/container/testdata/guest"},
		},
		guesttest.Package{
			Path: "minimega/tests", Run: "^(TestLentGroup|TestClock)$", Env: []string{programsEnv + "=" + guesttest.LabDir, clockEnv + "=1"},
			Programs: map[string]string{"minimega": "minimega/cmd/minimega"},
		},
	)
}
