package tests

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"minimega/internal/host/hosttest"
)

// ordinaryID is a user and group that nobody else has.
const ordinaryID = 4321

// cmdOrdinary runs a program as a user without any rights, in the script's
// network namespace; the script's directory becomes that user's. With -detach
// it is a daemon that stays; -kill kills the last of these by force, -kill outer
// the process that it was started as.
func cmdOrdinary(ts *testscript.TestScript, neg bool, args []string) {
	h := theHost(ts)
	if args[0] == "-kill" {
		last := h.daemons[len(h.daemons)-1]
		pid := last.process.Pid
		if len(args) == 1 { // not the outer one, but the daemon itself
			pid = child(ts, child(ts, pid))
		}
		ts.Check(syscall.Kill(pid, syscall.SIGKILL))
		<-last.ended
		return
	}
	ts.Check(errors.Join(os.Chown(h.work, ordinaryID, ordinaryID), os.Chown(filepath.Join(h.work, "tmp"), ordinaryID, ordinaryID),
		passable(h.work), passable(filepath.Dir(program))))
	id := strconv.Itoa(ordinaryID)
	as := []string{"setpriv", "--reuid", id, "--regid", id, "--clear-groups", "--"}
	if args[0] == "-detach" {
		cmd := h.command(append(append(as, program, "-nostdin", "-base", ts.Getenv("BASE")), args[1:]...)...)
		ts.Check(h.stay(cmd, ts.Getenv("BASE"), ts.MkAbs("daemon.log"), ts.MkAbs(".")))
		return
	}
	cmd := h.command(append(as, args...)...)
	err := ts.Exec(cmd.Args[0], cmd.Args[1:]...)
	if (err != nil) != neg {
		ts.Fatalf("%q: %v", args, err)
	}
}

// child returns the only child of a process.
func child(ts *testscript.TestScript, pid int) int {
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // each thread has its own
	ts.Check(err)
	var all []byte
	for _, l := range lists {
		text, err := os.ReadFile(l)
		if !errors.Is(err, os.ErrNotExist) { // a thread may end
			ts.Check(err)
		}
		all = append(all, text...)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(all)))
	ts.Check(err)
	return n
}

// Where the kernel forbids namespaces to users, the setting is named.
func TestNoNamespaces(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: another user, settings of the kernel")
	}
	if err := passable(filepath.Dir(program)); err != nil {
		t.Fatal(err)
	}
	ids := []syscall.SysProcIDMap{{Size: 1 << 16}} // everybody as himself, but with settings of their own
	for _, kind := range []string{"user", "net"} {
		cmd := exec.Command("sh", "-c", fmt.Sprintf("echo 0 >/proc/sys/user/max_%s_namespaces && exec setpriv --reuid %d --regid %[2]d --clear-groups -- %s demo",
			kind, ordinaryID, program))
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true}
		cmd.Dir = "/"
		out, err := cmd.CombinedOutput()
		want := "user.max_" + kind + "_namespaces=0 forbids it (run as root, or `sysctl user.max_" + kind + "_namespaces=10000` as root)"
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("%v, %s; want %q", err, out, want)
		}
	}
}

// Who asks for help gets it, on stdout and without namespaces, and nothing else.
func TestHelpOfWords(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: another user")
	}
	if err := passable(filepath.Dir(program)); err != nil {
		t.Fatal(err)
	}
	id := strconv.Itoa(ordinaryID)
	for _, line := range []string{"-h", "demo -h", "demo -stay -help", "guest -h", "guest rootfs -h", "image -h", "image pull -h",
		"mesh -h", "mesh key -h", "mesh join --help", "completion -h"} {
		var out, complaint strings.Builder
		cmd := exec.Command("setpriv", append([]string{"--reuid", id, "--regid", id, "--clear-groups", "--", program}, strings.Fields(line)...)...)
		cmd.Dir, cmd.Stdout, cmd.Stderr = t.TempDir(), &out, &complaint
		if err := cmd.Run(); err != nil || !strings.HasPrefix(out.String(), "usage: minimega") || complaint.Len() > 0 {
			t.Errorf("minimega %s: %v, %q, %q", line, err, out.String(), complaint.String())
		}
	}
	for _, line := range []string{"demo -nosuch", "demo word"} {
		cmd := exec.Command("setpriv", append([]string{"--reuid", id, "--regid", id, "--clear-groups", "--", program}, strings.Fields(line)...)...)
		cmd.Dir = "/"
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.HasPrefix(string(out), "minimega demo: ") || !strings.HasSuffix(string(out), "(minimega demo -h tells the flags)\n") {
			t.Errorf("minimega %s: %v, %q", line, err, out)
		}
	}
}

// With ranges in /etc/subuid and /etc/subgid there are further users.
func TestFurtherUsers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: another user, files of the system")
	}
	if _, err := exec.LookPath("newuidmap"); err != nil {
		t.Skip("needs newuidmap")
	}
	work := t.TempDir()
	h, err := newHost(work)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		for _, left := range h.close() {
			t.Errorf("left behind: %s", left)
		}
	}()
	base, ids := filepath.Join(work, "base"), filepath.Join(work, "ids")
	const nobody = 65534
	if err := errors.Join(passable(work), passable(filepath.Dir(program)), os.Mkdir(filepath.Join(work, "tmp"), 0o777), os.Chown(work, nobody, nobody),
		os.WriteFile(ids, []byte("nobody:200000:65536\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	// For this process and its children alone, the files are others.
	cmd := h.command("unshare", "-m", "sh", "-c", `mount --bind "$1" /etc/subuid && mount --bind "$1" /etc/subgid &&
		exec setpriv --reuid nobody --regid nogroup --clear-groups "$2" -nostdin -base "$3"`, "sh", ids, program, base)
	if err := h.stay(cmd, base, filepath.Join(work, "log"), work); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(program, "-base", base, "-strict", "-e", "shell", "cat", "/proc/self/uid_map").CombinedOutput()
	if got := strings.Fields(string(out)); err != nil || !slices.Contains(got, "200000") || !slices.Contains(got, "65536") {
		t.Errorf("%v, %s", err, out)
	}
}

// In a control group that the system lends to a user, containers can be paused,
// and have the limits for which there are controllers.
func TestLentGroup(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: another user, control groups")
	}
	group := lendGroup(t)
	work := t.TempDir()
	if err := errors.Join(passable(work), passable(filepath.Dir(program)), os.Chown(work, ordinaryID, ordinaryID)); err != nil {
		t.Fatal(err)
	}
	hosttest.Machine{Marks: []string{work, group}}.Check(t)
	base, root := filepath.Join(work, "base"), filepath.Join(work, "root")
	if out, err := exec.Command(program, "guest", "rootfs", "-o", root).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	id := strconv.Itoa(ordinaryID)
	cmd := exec.Command("sh", "-c", `echo $$ >"$1/cgroup.procs" && shift && exec "$@"`, "sh", group,
		"setpriv", "--reuid", id, "--regid", id, "--clear-groups", "--", program, "-nostdin", "-base", base)
	h := &host{work: work}
	t.Cleanup(func() {
		for _, d := range h.daemons {
			if !d.end() {
				t.Error("the daemon does not end")
			}
		}
	})
	if err := h.stay(cmd, base, filepath.Join(work, "log"), work); err != nil {
		t.Fatal(err)
	}
	mm := func(line string) string {
		t.Helper()
		out, err := exec.Command(program, append([]string{"-base", base, "-strict", "-e"}, strings.Fields(line)...)...).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v: %s", line, err, out)
		}
		return string(out)
	}
	mm("vm config filesystem " + root)
	mm("vm config memory 64")
	mm("vm config init /init ip=none")
	mm("vm launch container a")
	mm("vm start a")
	for _, c := range [][2]string{{"stop", "PAUSED"}, {"start", "RUNNING"}, {"stop", "PAUSED"}} {
		mm("vm " + c[0] + " a")
		if out := mm(".columns state vm info"); !strings.Contains(out, c[1]) {
			t.Errorf("after vm %s: %s", c[0], out)
		}
	}
	own, err := filepath.Glob(group + "/minimega/*/0")
	if err != nil || len(own) != 1 {
		t.Fatalf("groups of containers: %v %v", own, err)
	}
	have, err := os.ReadFile(filepath.Join(group, "cgroup.controllers"))
	if err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"cgroup.freeze": "1", "memory.max": "67108864", "cpu.max": "1000000 1000000", "pids.max": "4096"} {
		controller, _, _ := strings.Cut(file, ".")
		if controller != "cgroup" && !slices.Contains(strings.Fields(string(have)), controller) {
			out, _ := exec.Command(program, "-base", base, "-e", "check").CombinedOutput() // that something is missing is its status, too
			if !strings.Contains(string(out), controller) || !strings.Contains(string(out), "Delegate=yes") {
				t.Errorf("check says nothing of %s: %s", controller, out)
			}
			continue
		}
		if text, err := os.ReadFile(filepath.Join(own[0], file)); strings.TrimSpace(string(text)) != want || err != nil {
			t.Errorf("%s is %q, %v; want %q", file, text, err, want)
		}
	}
	mm("vm kill a")
	mm("vm flush")
	if _, err := os.Stat(own[0]); err == nil {
		t.Error("the container's group is left")
	}
}

// lendGroup makes a control group of version 2 that belongs to the ordinary
// user, as systemd does with Delegate=yes.
func lendGroup(t *testing.T) string {
	t.Helper()
	for _, top := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		have, err := os.ReadFile(filepath.Join(top, "cgroup.controllers"))
		if err != nil {
			continue
		}
		for _, c := range strings.Fields(string(have)) {
			if slices.Contains([]string{"cpu", "memory", "pids"}, c) {
				if err := os.WriteFile(filepath.Join(top, "cgroup.subtree_control"), []byte("+"+c), 0); err != nil {
					t.Fatal(err)
				}
			}
		}
		group := filepath.Join(top, fmt.Sprint("mmt", os.Getpid()))
		if err := os.Mkdir(group, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			err := syscall.Rmdir(group)
			for end := time.Now().Add(time.Minute); err != nil && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
				err = syscall.Rmdir(group)
			}
			if err != nil {
				t.Errorf("something is left in %s: %v", group, err)
			}
		})
		for _, file := range []string{"", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"} {
			if err := os.Chown(filepath.Join(group, file), ordinaryID, ordinaryID); err != nil {
				t.Fatal(err)
			}
		}
		return group
	}
	t.Skip("this system has no control groups of version 2")
	return ""
}

// passable lets everyone go through a directory and those above it that are
// ours.
func passable(dir string) error {
	for ; ; dir = filepath.Dir(dir) {
		st, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if st.Mode().Perm()&0o001 != 0 && st.Mode()&os.ModeSticky != 0 || dir == filepath.Dir(dir) {
			return nil
		}
		if own, ok := st.Sys().(*syscall.Stat_t); !ok || int(own.Uid) != os.Geteuid() && own.Uid != ordinaryID {
			continue
		}
		if err := os.Chmod(dir, st.Mode().Perm()|0o011); err != nil {
			return err
		}
	}
}
