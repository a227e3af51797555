package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/rogpeppe/go-internal/testscript"

	"minimega/internal/vm/android/androidtest"
)

// cmdAndroid makes an Android SDK with a stand-in for the emulator, and what
// belongs to it:
//
//	android sdk                    $WORK/sdk and, for daemons started later, the home $WORK/home
//	android avd NAME [BEHAVIOUR]   a virtual device
//	android kill                   ends all emulators by force
func cmdAndroid(ts *testscript.TestScript, neg bool, args []string) {
	h := theHost(ts)
	dir, home := ts.MkAbs("sdk"), ts.MkAbs("home")
	switch {
	case len(args) == 1 && args[0] == "sdk":
		_, err := androidtest.Make(dir, home)
		ts.Check(err)
		h.env = append(h.env, "HOME="+home, "ANDROID_AVD_HOME=", "ANDROID_USER_HOME=")
	case len(args) > 1 && args[0] == "avd":
		sdk := &androidtest.SDK{Dir: dir, Home: home}
		ts.Check(sdk.AVD(args[1], append(args, "")[2]))
	case len(args) == 1 && args[0] == "kill":
		for _, pid := range h.processes() {
			if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil && exe == filepath.Join(dir, "emulator", "emulator") {
				ts.Check(syscall.Kill(pid, syscall.SIGKILL))
			}
		}
	default:
		ts.Fatalf("android: unknown words %q", args)
	}
}
