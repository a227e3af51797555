package host

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"minimega/internal/errs"
)

// Check is one thing the daemon needs of its machine. Whoever needs it brings
// the check along.
type Check struct {
	Name string
	// Optional marks what minimega can do without: worth a note, not an error.
	Optional bool
	// Run returns what is wrong, with its remedy (errs.WithRemedy), or nil.
	Run func(ctx context.Context) error
	// Fix, if set, does what is safe to do about it without asking.
	Fix func(ctx context.Context) error
}

// Finding is a check that did not pass.
type Finding struct {
	Check Check
	Err   error
}

// String is the finding on one line.
func (f Finding) String() string { return f.Check.Name + ": " + f.Err.Error() }

// checkTimeout bounds a single check.
const checkTimeout = 10 * time.Second

// RunChecks runs all checks and returns those that did not pass.
func RunChecks(ctx context.Context, checks []Check) []Finding {
	var found []Finding
	for _, c := range checks {
		ctx, cancel := context.WithTimeout(ctx, checkTimeout)
		if err := c.Run(ctx); err != nil {
			found = append(found, Finding{c, err})
		}
		cancel()
	}
	return found
}

// BasicChecks are those of the machine itself: kernel, programs, tun, bridges
// and room under dir, the base directory.
func BasicChecks(dir string) []Check {
	return []Check{
		{Name: "kernel", Run: func(context.Context) error { return checkKernel(3, 18) }},
		Program("qemu-img", "qemu-utils"),
		{Name: "tun", Run: func(context.Context) error { return checkTun("/dev/net/tun") }, Fix: modprobe("tun")},
		{Name: "bridge", Run: checkBridge, Fix: modprobe("bridge")},
		{Name: "disk space", Run: func(context.Context) error { return checkSpace(dir, 1<<30) }},
	}
}

// Program checks that a program is in $PATH; pkg is the Debian package that
// has it.
func Program(name, pkg string) Check {
	return Check{Name: name, Run: func(context.Context) error {
		_, err := exec.LookPath(name)
		if err != nil {
			err = errs.WithRemedy(errs.Wrap(errs.NotFound, err), "install "+pkg)
		}
		return err
	}}
}

// QEMU checks that there is a QEMU for this machine's processor.
func QEMU() Check {
	names := []string{"kvm", "qemu-kvm", "qemu-system-" + qemuArch()}
	return Check{Name: "qemu", Run: func(context.Context) error {
		for _, n := range names {
			if _, err := exec.LookPath(n); err == nil {
				return nil
			}
		}
		return errs.WithRemedy(errs.New(errs.NotFound, "none of %s is in $PATH, no VM can start", strings.Join(names, ", ")), "install qemu-system-x86, or what your distribution calls it")
	}}
}

func qemuArch() string {
	switch runtime.GOARCH {
	case "amd64":
		return "x86_64"
	case "arm64":
		return "aarch64"
	}
	return runtime.GOARCH
}

func checkKernel(major, minor int) error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	release := unix.ByteSliceToString(u.Release[:])
	if a, b, ok := kernelVersion(release); ok && (a < major || a == major && b < minor) {
		return errs.WithRemedy(errs.New(errs.Unsupported, "kernel version does not meet minimum: %s < %d.%d", release, major, minor), "boot a newer kernel")
	}
	return nil
}

// kernelVersion reads the first two numbers of a release such as 6.1.0-13-amd64.
func kernelVersion(release string) (major, minor int, ok bool) {
	f := strings.FieldsFunc(release, func(r rune) bool { return r < '0' || r > '9' })
	if len(f) < 2 {
		return 0, 0, false
	}
	major, err1 := strconv.Atoi(f[0])
	minor, err2 := strconv.Atoi(f[1])
	return major, minor, err1 == nil && err2 == nil
}

func checkTun(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return errs.WithRemedy(errs.New(errs.Unsupported, "no taps for VMs: %w", err), "run as root and `modprobe tun`; in a container, pass the device in")
	}
	return f.Close()
}

// checkBridge makes a bridge in a network namespace of its own.
func checkBridge(context.Context) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err == nil {
			err = tryBridge()
			if netns.Set(home) == nil {
				runtime.UnlockOSThread() // else the thread ends with the goroutine
			}
			home.Close()
		}
		result <- err
	}()
	return <-result
}

// tryBridge leaves the calling thread in a new network namespace.
func tryBridge() error {
	own, err := netns.New()
	if err != nil {
		return errs.WithRemedy(errs.New(errs.Permission, "no network namespace: %w", err), "run as root")
	}
	defer own.Close()
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "probe"}}); err != nil {
		return errs.WithRemedy(errs.New(errs.Unsupported, "no bridge: %w", err), "run as root and `modprobe bridge`")
	}
	return nil
}

func checkSpace(dir string, least uint64) error {
	var st unix.Statfs_t
	for unix.Statfs(dir, &st) != nil { // before the first start it is not there yet
		up := filepath.Dir(dir)
		if up == dir {
			return fmt.Errorf("no file system at %s", dir)
		}
		dir = up
	}
	free := st.Bavail * uint64(st.Bsize)
	if free < least {
		return errs.WithRemedy(errs.New(errs.Resource, "%d MiB left in %s", free>>20, dir), "remove files there or choose another -base")
	}
	return nil
}
