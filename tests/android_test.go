package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

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
		h.env = androidHome(home)
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

// The page about Android runs as written, with the stand-in in the place of
// the SDK that it names.
func TestAndroidPage(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces")
	}
	text, err := os.ReadFile("../docs/android.md")
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	sdk, err := androidtest.Make(filepath.Join(work, "sdk"), filepath.Join(work, "home"))
	if err != nil {
		t.Fatal(err)
	}
	if err := sdk.AVD("phone", ""); err != nil {
		t.Fatal(err)
	}
	h, err := newHost(work)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		for _, left := range h.close() {
			t.Errorf("left behind: %s", left)
		}
	}()
	h.env = androidHome(sdk.Home)
	base := filepath.Join(work, "base")
	if err := h.start(base, filepath.Join(work, "daemon.log"), work, nil); err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, b := range blocks(string(text)) {
		if b.lang == "minimega" {
			ran++
			runMinimega(t, base, work, strings.ReplaceAll(b.text, "/opt/android-sdk", sdk.Dir))
		}
	}
	if ran < 2 {
		t.Errorf("only %d blocks found", ran)
	}
}

// androidHome is the environment of a daemon whose devices are in a home.
func androidHome(home string) []string {
	return []string{"HOME=" + home, "ANDROID_AVD_HOME=", "ANDROID_USER_HOME="}
}
