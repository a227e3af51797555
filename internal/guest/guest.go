// Package guest is the built-in guest: a small Linux machine made of this
// program, a kernel and its drivers. Main is what the program does as the
// guest's first process; Command makes its initrd and disk images.
//
// The kernel command line, as package cmdline describes it, says how the guest
// is to be called, addressed and entered.
package guest

import (
	"context"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"

	"minimega/internal/guest/cmdline"
	"minimega/internal/guest/node"
	"minimega/internal/guest/shell"
)

// IsInit reports whether this process is the first of a guest, so that Main
// is what it should do.
func IsInit() bool { return os.Getpid() == 1 && len(os.Args) > 0 && os.Args[0] == "/init" }

// Main runs the guest. In a container it returns when that is to end, in a
// machine only if the kernel refuses to switch the
// machine off, and then not before it was asked again; PID 1 must not end.
func Main() int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	setEnvironment()
	if inContainer() {
		return containerMain(ctx)
	}
	m := node.Boot(ctx)
	quietKernel(m)
	for _, name := range []string{"tty1", "ttyS0", "hvc0"} {
		m.Go(ctx, "console "+name, func(ctx context.Context) error { return serveConsole(ctx, m, name) })
	}
	for {
		if err := m.WaitPower(); err != nil {
			m.Log.Error(err.Error())
		}
	}
}

func setEnvironment() {
	os.Clearenv() // the kernel puts the words of its command line there
	for k, v := range map[string]string{
		"PATH": "/bin:/sbin:/usr/bin:/usr/sbin", "HOME": "/root", "TERM": "linux",
		// The DHCP client spins until the kernel's random numbers are good,
		// which in a VM may be never; for its use any will do.
		"UROOT_NOHWRNG": "1",
	} {
		os.Setenv(k, v)
	}
}

// quietKernel keeps all but errors of the kernel's messages off the consoles,
// which belong to people now.
func quietKernel(m *node.Machine) {
	const errorsOnly = 4
	if _, _, err := unix.Syscall(unix.SYS_SYSLOG, unix.SYSLOG_ACTION_CONSOLE_LEVEL, 0, errorsOnly); err != 0 {
		m.Log.Warn("set console log level: " + err.Error())
	}
}

func serveConsole(ctx context.Context, m *node.Machine, name string) error {
	f, width, height, err := shell.OpenTTY("/dev/" + name)
	if err != nil { // the machine has no such device, or nothing behind it
		<-ctx.Done()
		return nil
	}
	defer f.Close()
	stop := context.AfterFunc(ctx, func() { f.Close() })
	defer stop()
	return shell.Console{
		Device: f, Name: name, Width: width, Height: height,
		User: m.Params.User, Password: m.Params.Password, System: system{m},
	}.Serve(ctx)
}

// system is the machine as the shell sees it.
type system struct{ *node.Machine }

func (s system) Run(cmd *exec.Cmd) error { return s.Procs.Run(cmd) }

func (s system) Configure(iface string, want []cmdline.Address) error {
	return s.Net.Configure(iface, want)
}
