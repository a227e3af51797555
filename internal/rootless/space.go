package rootless

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"minimega/internal/errs"
)

// start starts the program again, as that stage, with these files beside the
// usual ones.
func start(stage string, namespaces uintptr, files ...*os.File) (*os.Process, error) {
	return os.StartProcess("/proc/self/exe", os.Args, &os.ProcAttr{
		Env: environ(stage), Files: append([]*os.File{os.Stdin, os.Stdout, os.Stderr}, files...),
		Sys: &syscall.SysProcAttr{Cloneflags: namespaces},
	})
}

// pass passes signals on until stop is called. Ctrl-C at a terminal goes to
// all of its foreground by itself.
func pass(p *os.Process) (stop func()) {
	signals, done := make(chan os.Signal, 4), make(chan struct{})
	signal.Notify(signals, unix.SIGTERM, unix.SIGHUP, unix.SIGINT)
	terminal := term.IsTerminal(int(os.Stdin.Fd()))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case s := <-signals:
				if s != os.Interrupt || !terminal {
					_ = p.Signal(s) // it may have ended
				}
			case <-done:
				return
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(done)
		<-ended
	}
}

// prepare mounts what shows processes and interfaces as they are in these
// namespaces, and sets up lo.
func prepare() error {
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	const quiet = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	for _, fs := range [][2]string{{"proc", "/proc"}, {"sysfs", "/sys"}} {
		if err := unix.Mount(fs[0], fs[1], fs[0], quiet, ""); err != nil {
			return fmt.Errorf("mount %s: %w", fs[1], err)
		}
	}
	if err := mountGroups(); err != nil {
		return err
	}
	// No firewall stands in a network of our own; kernels without that for
	// bridges lack the files.
	for _, name := range []string{"iptables", "ip6tables", "arptables"} {
		_ = os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-"+name, []byte("0"), 0)
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("set up lo: %w", err)
	}
	return nil
}

// settings are files below /proc/sys that forbid namespaces to users.
var settings = []struct {
	file, forbids, allows string
}{
	{"kernel/unprivileged_userns_clone", "0", "1"},
	{"kernel/apparmor_restrict_unprivileged_userns", "1", "0"},
	{"user/max_user_namespaces", "0", "10000"},
	{"user/max_net_namespaces", "0", "10000"},
	{"user/max_pid_namespaces", "0", "10000"},
	{"user/max_mnt_namespaces", "0", "10000"},
	{"user/max_ipc_namespaces", "0", "10000"},
}

// explain names the setting that is to blame for an error, if there is one.
func explain(dir string, err error) error {
	if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EACCES) {
		return err
	}
	for _, s := range settings {
		text, rerr := os.ReadFile(filepath.Join(dir, s.file))
		if rerr == nil && strings.TrimSpace(string(text)) == s.forbids {
			name := strings.ReplaceAll(s.file, "/", ".")
			return errs.WithRemedy(errs.New(errs.Permission, "%w: the kernel's setting %s=%s forbids it", err, name, s.forbids),
				"run as root, or `sysctl "+name+"="+s.allows+"` as root")
		}
	}
	return errs.WithRemedy(errs.Wrap(errs.Permission, err), "run as root")
}
