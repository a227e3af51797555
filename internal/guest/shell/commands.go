package shell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"minimega/internal/guest/cmdline"
	"minimega/internal/guest/node"
)

// builtin is a command of the shell itself.
type builtin struct {
	usage string
	help  string
	run   func(ctx context.Context, s *session, args []string, out io.Writer) error
}

// builtins is a function, for help refers to it.
func builtins() map[string]builtin {
	return map[string]builtin{
		"help":     {"help [COMMAND]", "this list, or one command's line of it", runHelp},
		"ip":       {"ip [IFACE ADDR/BITS|dhcp|none]", "show the interfaces, or configure one", runIP},
		"ping":     {"ping [-c COUNT] HOST", "ICMP echo, until ctrl-C", runPing},
		"wget":     {"wget URL [FILE]", "fetch by HTTP; to nowhere without FILE", runFetch},
		"get":      {"get URL", "fetch by HTTP and print", runGet},
		"ls":       {"ls [-l] [PATH]", "list a directory", runLs},
		"cd":       {"cd [DIR]", "change the directory", runCd},
		"pwd":      {"pwd", "print the directory", runPwd},
		"cat":      {"cat FILE...", "print files", runCat},
		"rm":       {"rm FILE...", "remove files", runRm},
		"echo":     {"echo WORD...", "print the words", runEcho},
		"ps":       {"ps", "list processes", runPs},
		"uptime":   {"uptime", "time since boot, load, memory", runUptime},
		"hostname": {"hostname [NAME]", "print or set the name", runHostname},
		"dmesg":    {"dmesg", "print the kernel's log", runDmesg},
		"date":     {"date", "print the time (UTC)", runDate},
		"clear":    {"clear", "clear the screen", runClear},
		"paint":    {"paint [SECONDS]", "paint the screen without end, or so long", runPaint},
		"load":     {"load [SECONDS]", "keep a processor busy without end, or so long", runLoad},
		"sleep":    {"sleep SECONDS", "wait", runSleep},
		"poweroff": {"poweroff", "switch the machine off", runPowerOff},
		"reboot":   {"reboot", "start the machine again", runReboot},
		"exit":     {"exit", "end this session", nil},
		"logout":   {"logout", "the same", nil},
	}
}

func runHelp(_ context.Context, _ *session, args []string, out io.Writer) error {
	all := builtins()
	var names []string
	for n := range all {
		names = append(names, n)
	}
	if len(args) > 0 {
		if _, ok := all[args[0]]; !ok {
			return fmt.Errorf("no command %q", args[0])
		}
		names = args[:1]
	}
	sort.Strings(names)
	for _, n := range names {
		fmt.Fprintf(out, "%-32s %s\n", all[n].usage, all[n].help)
	}
	if len(args) == 0 {
		fmt.Fprint(out, "Other words name programs. COMMAND > FILE, >> FILE and ; work.\n")
	}
	return nil
}

func runIP(_ context.Context, s *session, args []string, out io.Writer) error {
	if len(args) == 0 {
		return showInterfaces(out)
	}
	if len(args) != 2 || !cmdline.ValidIface(args[0]) {
		return errors.New("want IFACE and ADDRESS/BITS, dhcp or none")
	}
	a, err := cmdline.ParseAddress(args[0] + ":" + args[1])
	if err != nil {
		return err
	}
	return s.System.Configure(args[0], []cmdline.Address{a})
}

func showInterfaces(out io.Writer) error {
	ifs, err := node.Interfaces()
	if err != nil {
		return err
	}
	for _, i := range ifs {
		state := "down"
		if i.Up {
			state = "up"
		}
		fmt.Fprintf(out, "%-6s %-4s %s", i.Name, state, i.MAC)
		for _, a := range i.Addresses {
			fmt.Fprintf(out, " %s", a)
		}
		fmt.Fprintln(out)
	}
	return nil
}

func runEcho(_ context.Context, _ *session, args []string, out io.Writer) error {
	_, err := fmt.Fprintln(out, strings.Join(args, " "))
	return err
}

func runPs(_ context.Context, _ *session, _ []string, out io.Writer) error {
	fmt.Fprintf(out, "%5s %5s S %8s COMMAND\n", "PID", "PPID", "RSS")
	for _, p := range node.Processes() {
		cmd := p.Command
		if cmd == "" {
			cmd = "[" + p.Name + "]"
		}
		fmt.Fprintf(out, "%5d %5d %s %7dK %s\n", p.PID, p.Parent, p.State, p.RSS>>10, cmd)
	}
	return nil
}

func runUptime(_ context.Context, _ *session, _ []string, out io.Writer) error {
	var si unix.Sysinfo_t
	if err := unix.Sysinfo(&si); err != nil {
		return err
	}
	load := func(i int) float64 { return float64(si.Loads[i]) / (1 << 16) }
	_, err := fmt.Fprintf(out, "up %s, load %.2f %.2f %.2f, memory %d of %d MiB free\n",
		time.Duration(si.Uptime)*time.Second, load(0), load(1), load(2),
		si.Freeram*uint64(si.Unit)>>20, si.Totalram*uint64(si.Unit)>>20)
	return err
}

func runHostname(_ context.Context, _ *session, args []string, out io.Writer) error {
	if len(args) == 0 {
		_, err := fmt.Fprintln(out, hostname())
		return err
	}
	if !cmdline.ValidHostname(args[0]) {
		return errors.New("a hostname has 1 to 64 letters, digits, dots and dashes")
	}
	return unix.Sethostname([]byte(args[0]))
}

func runDmesg(_ context.Context, _ *session, _ []string, out io.Writer) error {
	buf := make([]byte, 1<<20)
	n, err := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, buf)
	if err != nil {
		return err
	}
	_, err = out.Write(buf[:n])
	return err
}

func runDate(_ context.Context, _ *session, _ []string, out io.Writer) error {
	_, err := fmt.Fprintln(out, time.Now().UTC().Format(time.RFC1123))
	return err
}

func runClear(_ context.Context, _ *session, _ []string, out io.Writer) error {
	_, err := io.WriteString(out, "\x1b[2J\x1b[H")
	return err
}

func runSleep(ctx context.Context, _ *session, args []string, _ io.Writer) error {
	if len(args) != 1 {
		return errors.New("want SECONDS")
	}
	d, err := seconds(args)
	if err != nil {
		return err
	}
	wait(ctx, d)
	return nil
}

// seconds reads an optional duration; without one it is a very long time.
func seconds(args []string) (time.Duration, error) {
	if len(args) == 0 {
		return 100 * 365 * 24 * time.Hour, nil
	}
	n, err := strconv.ParseFloat(args[0], 64)
	if err != nil || !(n >= 0 && n < 1e9) {
		return 0, fmt.Errorf("%q is no number of seconds", args[0])
	}
	return time.Duration(n * float64(time.Second)), nil
}

func runPowerOff(ctx context.Context, s *session, _ []string, out io.Writer) error {
	fmt.Fprintln(out, "Switching off.")
	s.System.PowerOff()
	wait(ctx, time.Minute)
	return nil
}

func runReboot(ctx context.Context, s *session, _ []string, out io.Writer) error {
	fmt.Fprintln(out, "Starting again.")
	s.System.Reboot()
	wait(ctx, time.Minute)
	return nil
}

// runProgram runs a file, found as given or in the usual directories.
func (s *session) runProgram(ctx context.Context, args []string, out io.Writer) error {
	file, err := s.lookPath(args[0])
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, file, args[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, out, out
	cmd.Env = []string{"PATH=/bin:/sbin:/usr/bin:/usr/sbin", "HOME=/root", "TERM=linux"}
	cmd.WaitDelay = time.Second // a child's child may keep the pipe open
	return s.System.Run(cmd)
}

func (s *session) lookPath(name string) (string, error) {
	if strings.Contains(name, "/") {
		return s.path(name), nil
	}
	for _, dir := range []string{"/bin", "/sbin", "/usr/bin", "/usr/sbin"} {
		file := filepath.Join(dir, name)
		if st, err := os.Stat(file); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", errors.New("no such command; type help")
}
