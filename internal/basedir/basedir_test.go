package basedir

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
)

func options(path string) Options {
	return Options{Path: path, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
}

// open opens a base directory that the test may use as it likes.
func open(t *testing.T, o Options) *Dir {
	t.Helper()
	d, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func mode(t *testing.T, path string) uint32 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Mode & 0o7777
}

func TestPrivate(t *testing.T) {
	base := filepath.Join(t.TempDir(), "a", "base")
	old := unix.Umask(0)
	defer unix.Umask(old)
	d := open(t, options(base))
	l, err := d.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, want := range map[string]uint32{".": 0o700, SocketName: 0o600, PidName: 0o600, lockName: 0o600} {
		if got := mode(t, filepath.Join(base, name)); got != want {
			t.Errorf("mode of %s: %04o, want %04o", name, got, want)
		}
	}
	pid, err := os.ReadFile(filepath.Join(base, PidName))
	if want := strconv.Itoa(os.Getpid()); err != nil || string(pid) != want {
		t.Errorf("pid file: %q, %v, want %q", pid, err, want)
	}
	c, err := net.Dial("unix", filepath.Join(base, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(base)
	if err != nil || len(left) != 1 || left[0].Name() != lockName {
		t.Errorf("after Close: %v, %v", left, err)
	}
}

func TestGroup(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may give a directory to any group")
	}
	o := options(filepath.Join(t.TempDir(), "base"))
	o.Group = "54321"
	d := open(t, o)
	defer d.Close()
	l, err := d.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, want := range map[string]uint32{".": 0o2750, SocketName: 0o660} {
		path := filepath.Join(d.Path(), name)
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			t.Fatal(err)
		}
		if st.Gid != 54321 || st.Mode&0o7777 != want {
			t.Errorf("%s: group %d mode %04o, want 54321 %04o", name, st.Gid, st.Mode&0o7777, want)
		}
	}
}

func TestUnknownGroup(t *testing.T) {
	o := options(filepath.Join(t.TempDir(), "base"))
	o.Group = "no-such-group-here"
	if _, err := Open(o); !errors.Is(err, errs.NotFound) {
		t.Errorf("got %v", err)
	}
}

func TestRefusals(t *testing.T) {
	tests := []struct {
		name string
		make func(t *testing.T, dir string) (base string)
		want string
		root bool
	}{
		{"other owner", func(t *testing.T, dir string) string {
			base := mkdir(t, dir, "base", 0o700)
			chown(t, base, 12345)
			return base
		}, "belongs to user 12345", true},
		{"writable by all", func(t *testing.T, dir string) string {
			return mkdir(t, dir, "base", 0o777)
		}, "can be written by every user (mode 0777)", false},
		{"symbolic link", func(t *testing.T, dir string) string {
			return link(t, mkdir(t, dir, "real", 0o700), dir, "base")
		}, "it is a symbolic link", false},
		{"link of another user on the way", func(t *testing.T, dir string) string {
			mkdir(t, dir, "real", 0o700)
			l := link(t, filepath.Join(dir, "real"), dir, "way")
			chown(t, l, 12345)
			return filepath.Join(l, "base")
		}, "symbolic link", true},
		{"parent writable by all", func(t *testing.T, dir string) string {
			return filepath.Join(mkdir(t, dir, "open", 0o777), "base")
		}, "every user can replace it", false},
		{"file", func(t *testing.T, dir string) string {
			return write(t, dir, "base")
		}, "it is not a directory", false},
		{"shared directory", func(t *testing.T, dir string) string {
			base := mkdir(t, dir, "base", 0o755)
			write(t, base, "thesis.tex")
			return base
		}, "holds other files and is open to other users (mode 0755)", false},
		{"link loop", func(t *testing.T, dir string) string {
			return filepath.Join(link(t, filepath.Join(dir, "loop"), dir, "loop"), "base")
		}, "too many symbolic links", false},
		{"file in the way of the socket", func(t *testing.T, dir string) string {
			base := mkdir(t, dir, "base", 0o700)
			write(t, base, SocketName)
			return base
		}, "is no socket", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.root && os.Geteuid() != 0 {
				t.Skip("only root may make what belongs to others")
			}
			base := tt.make(t, t.TempDir())
			d, err := Open(options(base))
			if err == nil {
				d.Close()
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %q, want %q in it", err, tt.want)
			}
		})
	}
}

// Links made by root or by the owner are how systems are set up.
func TestOwnLinkOnTheWay(t *testing.T) {
	dir := t.TempDir()
	mkdir(t, dir, "real", 0o700)
	link(t, "real", dir, "way")
	open(t, options(filepath.Join(dir, "way", "base"))).Close()
	if got := mode(t, filepath.Join(dir, "real", "base")); got != 0o700 {
		t.Errorf("mode %04o", got)
	}
}

// A base directory of an earlier version was open to a group.
func TestTightens(t *testing.T) {
	base := mkdir(t, t.TempDir(), "base", 0o770)
	write(t, base, PidName)
	write(t, base, "vlans")
	open(t, options(base)).Close()
	if got := mode(t, base); got != 0o700 {
		t.Errorf("mode %04o", got)
	}
}

func TestStaleSocket(t *testing.T) {
	base := mkdir(t, t.TempDir(), "base", 0o700)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(base, SocketName), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	open(t, options(base)).Close()
}

func TestLiveSocket(t *testing.T) {
	base := mkdir(t, t.TempDir(), "base", 0o700)
	l, err := net.Listen("unix", filepath.Join(base, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := Open(options(base)); err == nil || err.Error() != alreadyRunning {
		t.Fatalf("got %v", err)
	}
	o := options(base)
	o.Force = true
	open(t, o).Close()
}

func TestHeld(t *testing.T) {
	o := options(filepath.Join(t.TempDir(), "base"))
	d := open(t, o)
	for _, o.Force = range []bool{false, true} {
		_, err := Open(o)
		if !errors.Is(err, errs.State) || !strings.HasPrefix(err.Error(), alreadyRunning) ||
			!strings.Contains(err.Error(), fmt.Sprintf("process %d uses", os.Getpid())) {
			t.Errorf("force %v: %v", o.Force, err)
		}
	}
	d.Close()
	open(t, o).Close()
}

// Of daemons that start at the same moment, one wins.
func TestRace(t *testing.T) {
	o := options(filepath.Join(t.TempDir(), "base"))
	var wg sync.WaitGroup
	won := make(chan *Dir, 16)
	for range cap(won) {
		wg.Go(func() {
			if d, err := Open(o); err == nil {
				won <- d
			}
		})
	}
	wg.Wait()
	if len(won) != 1 {
		t.Fatalf("%d won", len(won))
	}
	(<-won).Close()
}

func TestLongPath(t *testing.T) {
	d := open(t, options(filepath.Join(t.TempDir(), strings.Repeat("x", 100), "base")))
	defer d.Close()
	if _, err := d.Listen(); !errors.Is(err, errs.Invalid) {
		t.Errorf("got %v", err)
	}
}

// A daemon that was killed leaves its files; the next start takes over.
func TestKilled(t *testing.T) {
	base := filepath.Join(t.TempDir(), "base")
	cmd := exec.Command(os.Args[0], "-test.run=^TestHolder$")
	cmd.Env = append(os.Environ(), "BASEDIR_TEST_HOLD="+base, "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 5)
	if _, err := io.ReadFull(out, buf); err != nil || string(buf) != "held\n" {
		t.Fatalf("%q %v", buf, err)
	}
	if _, err := Open(options(base)); err == nil {
		t.Error("two hold it")
	}
	cmd.Process.Signal(syscall.SIGKILL)
	cmd.Wait()
	if _, err := os.Lstat(filepath.Join(base, SocketName)); err != nil {
		t.Error(err)
	}
	open(t, options(base)).Close()
}

// TestHolder is the child of TestKilled.
func TestHolder(t *testing.T) {
	base := os.Getenv("BASEDIR_TEST_HOLD")
	if base == "" {
		return
	}
	d := open(t, options(base))
	if _, err := d.Listen(); err != nil {
		t.Fatal(err)
	}
	fmt.Println("held")
	select {}
}

// Close must not take away the socket of whoever took over.
func TestCloseLeavesOthers(t *testing.T) {
	d := open(t, options(filepath.Join(t.TempDir(), "base")))
	l, err := d.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sock := filepath.Join(d.Path(), SocketName)
	os.Remove(sock)
	write(t, d.Path(), SocketName)
	os.WriteFile(filepath.Join(d.Path(), PidName), []byte("1"), 0o600)
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	for _, n := range []string{SocketName, PidName} {
		if _, err := os.Lstat(filepath.Join(d.Path(), n)); err != nil {
			t.Error(err)
		}
	}
}

func mkdir(t *testing.T, dir, name string, perm uint32) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := unix.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Chmod(path, perm); err != nil {
		t.Fatal(err)
	}
	return path
}

func write(t *testing.T, dir, name string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func link(t *testing.T, target, dir, name string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
	return path
}

func chown(t *testing.T, path string, uid int) {
	t.Helper()
	if err := os.Lchown(path, uid, uid); err != nil {
		t.Fatal(err)
	}
}

func TestInUse(t *testing.T) {
	o := options(filepath.Join(t.TempDir(), "base"))
	d := open(t, o)
	for _, want := range []bool{true, false} {
		bases, err := InUse()
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(bases, d.Path()) != want {
			t.Errorf("in use %v: %v", want, bases)
		}
		d.Close()
	}
}

// A socket that a daemon left, when it was killed, to a process that it was just
// starting is no daemon, although it takes connections.
func TestRemnant(t *testing.T) {
	base := filepath.Join(t.TempDir(), "base")
	if err := os.Mkdir(base, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestLeaver$")
	cmd.Env = append(os.Environ(), "BASEDIR_TEST_LEAVE="+filepath.Join(base, SocketName), "GORACE=atexit_sleep_ms=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	word, _, _ := strings.Cut(string(out), "\n")
	pid, err := strconv.Atoi(word)
	if err != nil {
		t.Fatal(err)
	}
	heir, err := os.FindProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer heir.Kill()
	if c, err := net.Dial("unix", filepath.Join(base, SocketName)); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
	open(t, options(base)).Close()
}

// TestLeaver is the child of TestRemnant.
func TestLeaver(t *testing.T) {
	path := os.Getenv("BASEDIR_TEST_LEAVE")
	if path == "" {
		return
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	heir := exec.Command("sleep", "60")
	heir.ExtraFiles = []*os.File{f}
	if err := heir.Start(); err != nil {
		t.Fatal(err)
	}
	fmt.Println(heir.Process.Pid)
	os.Exit(0)
}
