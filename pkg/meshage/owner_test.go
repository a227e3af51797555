package meshage_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"minimega/pkg/meshage"
)

// Without a key, another user of this host is not let in, and is told so.
func TestOtherUserOfThisHost(t *testing.T) {
	if to := os.Getenv("MESH_DIAL"); to != "" { // as the other user
		n := start(t, meshage.Options{Name: "guest"})
		t.Log("dialled:", n.Dial(t.Context(), to))
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	dir, err := os.MkdirTemp("", "meshage-user-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	binary, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(dir, "test")
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(copied, binary, 0o755); err != nil {
		t.Fatal(err)
	}
	root := start(t, meshage.Options{Name: "root"})
	for uid, want := range map[uint32]string{65534: "dial 127.0.0.1", 0: "dialled: <nil>"} {
		cmd := exec.CommandContext(t.Context(), copied, "-test.run=^TestOtherUserOfThisHost$", "-test.v")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "MESH_DIAL="+on(root), "GOCOVERDIR="+dir)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("user %d: %v\n%s", uid, err, out)
		}
		if uid != 0 && len(root.Members()) != 1 {
			t.Error("another user is a member")
		}
	}
}
