// Command emulator stands in for the emulator of the Android SDK in tests. It
// runs no guest: it takes the emulator's options, and speaks its console
// protocol, QEMU's control protocol and the first message of adb, as far as
// the Android documentation describes them. How it misbehaves is chosen by the
// line `standin=` in config.ini of the virtual device, see behaviours.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// behaviours are the values of `standin=`.
var behaviours = []string{
	"",            // as it should be
	"exit",        // ends at once, with an error
	"exit-late",   // ends after the control socket was used
	"no-qmp",      // never makes the control socket
	"no-console",  // never opens the console
	"mute",        // opens the console and says nothing
	"garbage",     // sends an endless line on the console
	"other-name",  // is another device
	"other-token", // wants a token that nobody knows
	"no-token",    // wants none
	"runs",        // does not care for -S
	"stubborn",    // does not end when asked to
	"refuses",     // refuses to start the device
}

func main() {
	fmt.Fprintln(os.Stderr, run(os.Args[1:]))
	os.Exit(1)
}

// run returns only when something is wrong.
func run(args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	if err := o.redirect(); err != nil {
		return err
	}
	fmt.Println("INFO         | Android emulator version 0 (stand-in)")
	settings, dir, err := findAVD(o.avd)
	if err != nil {
		return err
	}
	if !slices.Contains(behaviours, settings["standin"]) {
		return fmt.Errorf("PANIC: unknown behaviour %q", settings["standin"])
	}
	if err := lock(dir, o.readOnly); err != nil {
		return err
	}
	d := &device{name: o.avd, behaviour: settings["standin"], running: !o.paused, port: o.port}
	if d.behaviour == "exit" {
		return errors.New("ERROR        | Your device does not have enough disk space to run avd")
	}
	if d.behaviour == "runs" {
		d.running = true
	}
	d.started = d.running
	if err := d.open(o); err != nil {
		return err
	}
	select {} // until killed
}

// options are what the command line says.
type options struct {
	avd, log       string
	port           int
	readOnly       bool
	paused         bool // QEMU's -S
	qmp, pid       string
	waitForControl bool
}

func parse(args []string) (*options, error) {
	o := &options{port: 5554}
	for len(args) > 0 {
		name, value := args[0], ""
		if len(args) > 1 {
			value = args[1]
		}
		args = args[1:]
		switch name {
		case "-avd":
			o.avd = value
		case "-port":
			o.port, _ = strconv.Atoi(value)
		case "-stdouterr-file":
			o.log = value
		case "-gpu", "-memory":
		case "-no-window", "-writable-system", "-no-audio":
			continue
		case "-read-only":
			o.readOnly = true
			continue
		case "-qemu":
			return o, o.parseQEMU(args)
		default:
			return nil, fmt.Errorf("unknown option: %s\nplease use -help for a list of valid options", name)
		}
		args = args[min(1, len(args)):]
	}
	return o, nil
}

// parseQEMU reads what stands behind -qemu, as far as it matters here.
func (o *options) parseQEMU(args []string) error {
	for i, a := range args {
		value := ""
		if i+1 < len(args) {
			value = args[i+1]
		}
		switch a {
		case "-vnc", "-vga":
			return fmt.Errorf("qemu-system-x86_64: %s: the emulator has its own display", a)
		case "-S":
			o.paused = true
		case "-pidfile":
			o.pid = value
		case "-qmp":
			path, rest, _ := strings.Cut(strings.TrimPrefix(value, "unix:"), ",")
			o.qmp, o.waitForControl = path, !strings.Contains(rest, "wait=off")
		}
	}
	return nil
}

// redirect sends what is printed to the log.
func (o *options) redirect() error {
	if o.log == "" {
		return nil
	}
	f, err := os.Create(o.log)
	if err != nil {
		return err
	}
	defer f.Close()
	return errors.Join(unix.Dup3(int(f.Fd()), 1, 0), unix.Dup3(int(f.Fd()), 2, 0))
}

// findAVD reads the settings of a virtual device.
func findAVD(name string) (settings map[string]string, dir string, err error) {
	home := os.Getenv("ANDROID_AVD_HOME")
	if home == "" {
		home = filepath.Join(os.Getenv("HOME"), ".android", "avd")
	}
	ini, err := readINI(filepath.Join(home, name+".ini"))
	if err != nil {
		return nil, "", fmt.Errorf("PANIC: Unknown AVD name [%s], use -list-avds to see valid list", name)
	}
	settings, err = readINI(filepath.Join(ini["path"], "config.ini"))
	return settings, ini["path"], err
}

func readINI(path string) (map[string]string, error) {
	b, err := os.ReadFile(path)
	values := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			values[k] = v
		}
	}
	return values, err
}

// lock keeps others from the device, unless all only read it. The lock goes
// with the process.
func lock(dir string, shared bool) error {
	fd, err := unix.Open(filepath.Join(dir, "multiinstance.lock"), unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	how := unix.LOCK_EX
	if shared {
		how = unix.LOCK_SH
	}
	if unix.Flock(fd, how|unix.LOCK_NB) != nil {
		return errors.New("ERROR        | Running multiple emulators with the same AVD is an experimental feature.\n" +
			"Please use -read-only flag to enable this feature")
	}
	return nil
}
