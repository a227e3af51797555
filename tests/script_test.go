package tests

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"minimega/internal/guest"
	system "minimega/internal/host"
	"minimega/internal/host/hosttest"
)

// program is the real minimega, built once for all scripts.
var program string

// programsEnv names a directory with programs that are built already, for
// machines without Go.
const programsEnv = "MINIMEGA_TEST_PROGRAMS"

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "mmtests")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if built := os.Getenv(programsEnv); built != "" {
		program = filepath.Join(built, "minimega")
		return m.Run()
	}
	program = filepath.Join(dir, "minimega")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", dir, "minimega/cmd/minimega", "minimega/cmd/rfbplay", "minimega/tests/testdata/dhcpd", "minimega/tests/testdata/pasteagent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building minimega: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// Each script has a host of its own: a network namespace in which its daemons
// run. Afterwards nothing may be left: no process, link or mount.
func TestScripts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces, taps")
	}
	kernel, err := guest.FindKernel()
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			h, err := newHost(env.WorkDir)
			if err != nil {
				return err
			}
			env.Values[hostKey{}] = h
			env.Defer(func() {
				for _, left := range h.close() {
					t.Errorf("%s: left behind: %s", filepath.Base(env.WorkDir), left)
				}
			})
			env.Setenv("PATH", filepath.Dir(program)+string(os.PathListSeparator)+env.Getenv("PATH"))
			env.Setenv("BASE", filepath.Join(env.WorkDir, "base"))
			env.Setenv("FILES", filepath.Join(env.WorkDir, "base", "files"))
			env.Setenv("KERNEL", kernel.Path)
			env.Setenv("EXE", program)
			env.Setenv("DHCPD", filepath.Join(filepath.Dir(program), "dhcpd"))
			env.Setenv("PASTEAGENT", filepath.Join(filepath.Dir(program), "pasteagent"))
			env.Setenv("TERM", "xterm")
			return os.MkdirAll(filepath.Join(env.WorkDir, "tmp"), 0o755)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"daemon": cmdDaemon, "halt": cmdHalt, "crash": cmdCrash, "endvm": cmdEndVM, "qmp": cmdQMP, "gone": cmdGone, "mm": cmdMM, "until": cmdUntil, "answers": cmdAnswers, "send": cmdSend, "type": cmdType, "inhost": cmdInHost, "vnc": cmdVNC, "serial": cmdSerial,
			"android":  cmdAndroid,
			"ordinary": cmdOrdinary,
			"root":     cmdRoot, "console": cmdConsole, "shown": cmdShown,
			"registry": cmdRegistry,
			"tpm":      cmdTPM,
		},
	})
}

type hostKey struct{}

// host is the machine of one script.
type host struct {
	netns, work string
	env         []string // of its daemons, beside ours
	machine     hosttest.Machine
	before      hosttest.Snapshot
	daemons     []*daemon
	registry    *store      // nil before the first image
	tpm         *standInTPM // nil before there is one
}

// daemon is a minimega that a script started.
type daemon struct {
	process *os.Process
	ended   chan struct{} // closed once it has been waited for
	err     error         // valid then
}

// end asks it to end, and reports whether it did.
func (d *daemon) end() bool {
	_ = d.process.Signal(syscall.SIGTERM)
	select {
	case <-d.ended:
		return true
	case <-time.After(2 * time.Minute):
		return false
	}
}

func newHost(work string) (*host, error) {
	h := &host{netns: fmt.Sprintf("mmt%d-%d", os.Getpid(), time.Now().UnixNano()%1e6), work: work}
	if out, err := exec.Command("ip", "netns", "add", h.netns).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("ip netns add: %v: %s", err, out)
	}
	if out, err := h.command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("ip link set lo up: %v: %s", err, out)
	}
	h.machine = hosttest.Machine{Marks: []string{work, h.netns, baseHash(filepath.Join(work, "base"))}, Netns: h.netns, Temps: []string{filepath.Join(work, "tmp")}}
	h.before = h.machine.Take()
	return h, nil
}

// baseHash is how the control groups of a base directory's containers are named.
func baseHash(base string) string {
	sum := sha256.Sum256([]byte(base))
	return hex.EncodeToString(sum[:])[:8]
}

func (h *host) command(args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", h.netns}, args...)...)
}

// close ends what still runs, removes the host and tells what was left on it.
func (h *host) close() (left []string) {
	for _, d := range h.daemons {
		if !d.end() {
			left = append(left, "a daemon that does not end")
		}
	}
	left = append(left, h.machine.Left(h.before)...)
	for _, pid := range h.processes() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	_ = exec.Command("ip", "netns", "del", h.netns).Run()
	return left
}

// processes returns those that have the script's directory on their command line.
func (h *host) processes() (pids []int) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline")); err == nil && bytes.Contains(line, []byte(h.work+"/")) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func theHost(ts *testscript.TestScript) *host { return ts.Value(hostKey{}).(*host) }

// cmdDaemon starts a daemon with further flags and waits for its socket.
func cmdDaemon(ts *testscript.TestScript, neg bool, args []string) {
	h := theHost(ts)
	base := ts.Getenv("BASE")
	err := h.start(base, ts.MkAbs("daemon.log"), ts.MkAbs("."), append([]string{}, args...))
	if (err != nil) != neg {
		text, _ := os.ReadFile(ts.MkAbs("daemon.log"))
		ts.Fatalf("%v\n%s", err, text)
	}
}

// start starts a daemon in dir and waits for its socket.
func (h *host) start(base, log, dir string, flags []string) error {
	return h.stay(h.command(append([]string{program, "-nostdin", "-base", base}, flags...)...), base, log, dir)
}

// stay starts a program that is a daemon.
func (h *host) stay(cmd *exec.Cmd, base, log, dir string) error {
	out, err := os.Create(log)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr, cmd.Dir = out, out, dir
	cmd.Env = append(append(os.Environ(), "TMPDIR="+filepath.Join(h.work, "tmp")), h.env...)
	if err := cmd.Start(); err != nil {
		return err
	}
	d := &daemon{process: cmd.Process, ended: make(chan struct{})}
	h.daemons = append(h.daemons, d)
	go func() { d.err = cmd.Wait(); close(d.ended) }()
	deadline := time.After(2 * time.Minute)
	for {
		select {
		case <-d.ended:
			return fmt.Errorf("the daemon ended: %v", d.err)
		case <-deadline:
			return errors.New("no socket after two minutes")
		case <-time.After(5 * time.Millisecond):
		}
		if c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: filepath.Join(base, "minimega"), Net: "unix"}); err == nil {
			gone := system.ListenerGone(c)
			_ = c.Close()
			if !gone {
				return nil
			}
		}
	}
}

// cmdHalt ends the last daemon with SIGTERM and waits; `halt -9` kills it.
func cmdHalt(ts *testscript.TestScript, neg bool, args []string) {
	h := theHost(ts)
	last := h.daemons[len(h.daemons)-1]
	if len(args) == 1 && args[0] == "-9" {
		ts.Check(last.process.Kill())
		<-last.ended
		return
	}
	if !last.end() {
		ts.Fatalf("the daemon does not end")
	}
}

// client runs `minimega -e` with the words of one command.
func client(ts *testscript.TestScript, args []string) (stdout, stderr string, err error) {
	c := exec.Command(program, append([]string{"-base", ts.Getenv("BASE"), "-strict", "-e"}, args...)...)
	var out, errOut strings.Builder
	c.Stdout, c.Stderr, c.Dir = &out, &errOut, ts.MkAbs(".")
	err = c.Run()
	return out.String(), errOut.String(), err
}

// cmdMM runs a command; `! mm` wants it to fail. stdout and stderr are checked
// by the command after it, with `stdout` and `stderr`.
func cmdMM(ts *testscript.TestScript, neg bool, args []string) {
	err := ts.Exec(program, append([]string{"-base", ts.Getenv("BASE"), "-strict", "-e"}, args...)...)
	if neg && err == nil {
		ts.Fatalf("minimega -e %q succeeded", args)
	}
	if !neg && err != nil {
		ts.Fatalf("minimega -e %q: %v", args, err)
	}
}

// cmdUntil runs a command again and again until its output contains a text:
// until TEXT COMMAND...
func cmdUntil(ts *testscript.TestScript, neg bool, args []string) {
	deadline := time.Now().Add(3 * time.Minute)
	for {
		out, errOut, _ := client(ts, args[1:])
		if strings.Contains(out, args[0]) != neg {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%q does not come: %s%s", args[0], out, errOut)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// cmdSend sends a file to the socket as it is and stores what comes back:
// send IN OUT. The connection is half closed after the last byte.
func cmdSend(ts *testscript.TestScript, neg bool, args []string) {
	in, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	nc, err := (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(ts.Getenv("BASE"), "minimega"))
	ts.Check(err)
	defer nc.Close()
	c := nc.(*net.UnixConn)
	ts.Check(c.SetDeadline(time.Now().Add(3 * time.Minute)))
	go func() {
		_, _ = c.Write(in) // a daemon that closes early is what some scripts want
		_ = c.CloseWrite()
	}()
	var out bytes.Buffer
	if _, err := out.ReadFrom(c); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		ts.Fatalf("read: %v", err)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), out.Bytes(), 0o644))
}

// cmdAnswers waits until an address answers a ping from the script's host:
// answers ADDRESS.
func cmdAnswers(ts *testscript.TestScript, neg bool, args []string) {
	h := theHost(ts)
	for end := time.Now().Add(3 * time.Minute); time.Now().Before(end); {
		if h.command("ping", "-n", "-q", "-c", "1", "-W", "5", args[0]).Run() == nil {
			return
		}
	}
	ts.Fatalf("%s does not answer", args[0])
}

// cmdInHost runs a program in the script's network namespace.
func cmdInHost(ts *testscript.TestScript, neg bool, args []string) {
	err := ts.Exec("ip", append([]string{"netns", "exec", theHost(ts).netns}, args...)...)
	if (err != nil) != neg {
		ts.Fatalf("%q: %v", args, err)
	}
}
