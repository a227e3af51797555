package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// space is a set of namespaces that a process holds. The process waits for the
// end of its input, which comes when the lab closes it or itself has ended.
type space struct {
	cmd   *exec.Cmd
	input io.WriteCloser
}

// hold waits after the set-up until it is told to end; $0 says whose it is. If
// it is not told, because the lab's process was killed, it ends what is left.
const hold = `
echo ready
read -r told && exit 0
mine=$(readlink /proc/self/ns/net)
for p in /proc/[0-9]*; do
	if [ "${p#/proc/}" != $$ ] && [ "$(readlink "$p/ns/net")" = "$mine" ]; then kill -9 "${p#/proc/}"; fi
done
`

// open makes namespaces (CLONE_NEW flags) and runs a shell script in them to
// set them up.
func open(ctx context.Context, flags uintptr, mark, setup string) (*space, error) {
	cmd := exec.Command("sh", "-ec", setup+hold, mark)
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: flags}
	cmd.Dir = "/"
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &space{cmd: cmd, input: input}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	line, err := bufio.NewReader(output).ReadString('\n')
	stop()
	if err != nil || line != "ready\n" {
		err = s.close()
		return nil, errors.Join(fmt.Errorf("cannot set up its namespaces: %s", strings.TrimSpace(said.String())), err, ctx.Err())
	}
	return s, nil
}

func (s *space) pid() int { return s.cmd.Process.Pid }

// namespace is the path of one of the namespaces: net, uts or mnt.
func (s *space) namespace(kind string) string { return fmt.Sprintf("/proc/%d/ns/%s", s.pid(), kind) }

func (s *space) close() error {
	_, _ = io.WriteString(s.input, "end\n")
	_ = s.input.Close()
	return s.cmd.Wait()
}

func (s *space) setHostname(name string) error {
	f, err := os.Open(s.namespace("uts"))
	if err != nil {
		return err
	}
	defer f.Close()
	return onThread(unix.CLONE_NEWUTS, int(f.Fd()), func() error { return unix.Sethostname([]byte(name)) })
}

// onThread calls f on a thread that is in another namespace for that time.
func onThread(kind, fd int, f func() error) error {
	file := map[int]string{unix.CLONE_NEWNET: "net", unix.CLONE_NEWUTS: "uts"}[kind]
	runtime.LockOSThread()
	was, err := os.Open("/proc/thread-self/ns/" + file)
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer was.Close()
	if err := unix.Setns(fd, kind); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	err = f()
	if back := unix.Setns(int(was.Fd()), kind); back != nil {
		return errors.Join(err, back) // the thread stays locked, to end with its goroutine
	}
	runtime.UnlockOSThread()
	return err
}

// mounts is the script that gives a host its mounts.
func (h *Host) mounts(o Options) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("mkdir -p %s", quote(h.Dir))
	line("mount --make-rslave /")
	cgroups := quote(filepath.Join(h.Dir, ".cgroup"))
	line("mkdir %s; mount --rbind /sys/fs/cgroup %s", cgroups, cgroups)
	line("mount -t sysfs sysfs /sys; mount --move %s /sys/fs/cgroup; rmdir %s", cgroups, cgroups)
	line("mount --bind %s /etc/hosts", quote(h.lab.hostsFile()))
	nameless := quote(filepath.Join(h.lab.Dir, "resolv.conf")) // no name servers: what is in no file is unknown at once
	line("if [ -e /etc/resolv.conf ]; then : >>%s; mount --bind %s /etc/resolv.conf; fi", nameless, nameless)
	for _, own := range o.Own {
		h.own(line, own, append(o.Keep, h.lab.Dir))
	}
	return b.String()
}

// own gives the host a directory of its own in the place of dir.
func (h *Host) own(line func(string, ...any), dir string, keep []string) {
	mine := h.Path(dir)
	line("mkdir -p %s; chmod --reference=%s %s", quote(mine), quote(dir), quote(mine))
	line("mount --bind %s %s", quote(mine), quote(mine))
	for _, k := range keep {
		rel, err := filepath.Rel(dir, k)
		if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
			continue
		}
		at := filepath.Join(mine, rel)
		line("mkdir -p %s", quote(filepath.Dir(at)))
		line("if [ -d %s ]; then mkdir -p %s; else : >%s; fi", quote(k), quote(at), quote(at))
		line("mount --rbind %s %s", quote(k), quote(at))
	}
	line("mount --rbind %s %s", quote(mine), quote(dir))
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// emptying is how long processes may take to die of SIGKILL.
const emptying = 5 * time.Second

// empty kills what still runs in the host.
func (h *Host) empty() error {
	for until := time.Now().Add(emptying); ; time.Sleep(5 * time.Millisecond) {
		pids := h.processes()
		if len(pids) == 0 {
			return nil
		}
		if time.Now().After(until) {
			return fmt.Errorf("host %s: processes %v do not end", h.Name, pids)
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}

// processes are those in the host's network or mount namespace that can still
// be killed, except for the one that holds these.
func (h *Host) processes() (pids []int) {
	net, _ := os.Readlink(h.namespace("net"))
	mnt, _ := os.Readlink(h.namespace("mnt"))
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == h.pid() {
			continue
		}
		dir := filepath.Join("/proc", e.Name(), "ns")
		n, _ := os.Readlink(filepath.Join(dir, "net")) // "" for a zombie
		m, _ := os.Readlink(filepath.Join(dir, "mnt"))
		if n != "" && (n == net || m == mnt) {
			pids = append(pids, pid)
		}
	}
	return pids
}
