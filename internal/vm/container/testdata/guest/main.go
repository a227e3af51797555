// Command guest is init of the containers of tests: its first argument says
// what to do, and its exit status whether that went as it should.
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	do := actions[os.Args[1]]
	if do == nil {
		fmt.Println("no such action:", os.Args[1])
		os.Exit(2)
	}
	if err := do(os.Args[2:]); err != nil {
		fmt.Printf("%s: %v\n", os.Args[1], err)
		time.Sleep(50 * time.Millisecond) // for the console to be read
		os.Exit(1)
	}
}

var actions = map[string]func(args []string) error{
	"echo":      echo,
	"node":      node,
	"sleep":     forever,
	"exit":      func(args []string) error { n, err := strconv.Atoi(args[0]); os.Exit(n); return err },
	"show":      show,
	"write":     func(args []string) error { return os.WriteFile(args[0], []byte(args[1]), 0o644) },
	"read":      read,
	"fifo":      fifo,
	"count":     count,
	"processes": processes,
	"mounts":    mounts,
	"kernel":    kernel,
	"devices":   devices,
	"files":     files,
	"chroot":    chroot,
	"self":      self,
	"network":   network,
	"forks":     forks,
	"memory":    memory,
	"burn":      burn,
	"bomb":      bomb,
	"privilege": privilege,
}

func echo([]string) error {
	fmt.Println("ready")
	_, err := io.Copy(os.Stdout, os.Stdin)
	return err
}

// node gives the first interface an address, serves its host name on port 80,
// and does what is typed: reach ADDRESS, address IFACE=ADDRESS, exit.
func node(args []string) error {
	if err := configure("veth0", net.ParseIP(args[0])); err != nil {
		return err
	}
	l, err := net.Listen("tcp", ":80")
	if err != nil {
		return err
	}
	go serve(l)
	var word, arg string
	for {
		if _, err := fmt.Scanln(&word, &arg); err != nil && word == "" {
			return err
		}
		switch word {
		case "reach":
			c, err := reach(arg + ":80")
			if err != nil {
				fmt.Println("result: cannot", "reach", arg)
				continue
			}
			b, _ := io.ReadAll(c)
			c.Close()
			fmt.Printf("result: reached %s\n", b)
		case "address":
			iface, ip, _ := strings.Cut(arg, "=")
			if err := configure(iface, net.ParseIP(ip)); err != nil {
				fmt.Println("result: cannot configure", iface, err)
				continue
			}
			fmt.Println("result: configured", iface)
		case "exit":
			return nil
		}
	}
}

// reach connects to a server that may still have to start.
func reach(addr string) (net.Conn, error) {
	for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		c, err := net.DialTimeout("tcp", addr, time.Until(deadline))
		if err == nil || time.Until(deadline) < 100*time.Millisecond {
			return c, err
		}
	}
}

func serve(l net.Listener) {
	name, _ := os.Hostname()
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, name)
		c.Close()
	}
}

// configure sets an address of a /24 and sets the interface up, see netdevice(7).
func configure(name string, ip net.IP) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	set := func(call uint, ip net.IP) error {
		r, err := unix.NewIfreq(name)
		if err == nil {
			err = r.SetInet4Addr(ip.To4())
		}
		if err == nil {
			err = unix.IoctlIfreq(fd, call, r)
		}
		return err
	}
	up, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	up.SetUint16(unix.IFF_UP)
	return errors.Join(set(unix.SIOCSIFADDR, ip), set(unix.SIOCSIFNETMASK, net.IPv4(255, 255, 255, 0)), unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, up))
}

// show prints what a container sees of itself.
func show([]string) error {
	host, err := os.Hostname()
	fmt.Println("hostname:", host, "pid:", os.Getpid(), "env:", len(os.Environ()), "uid:", os.Getuid())
	links, err2 := net.Interfaces()
	for _, l := range links {
		fmt.Println("link:", l.Name, l.HardwareAddr, l.Flags&net.FlagUp)
	}
	cwd, err3 := os.Getwd()
	fmt.Println("cwd:", cwd)
	for _, path := range []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/console", "/dev/ptmx", "/dev/shm/x"} {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		f.Close()
	}
	return errors.Join(err, err2, err3)
}

func read(args []string) error {
	b, err := os.ReadFile(args[0])
	if err == nil && strings.TrimSpace(string(b)) != args[1] {
		err = fmt.Errorf("%s holds %q, not %q", args[0], b, args[1])
	}
	return err
}

// fifo sends back what comes through the first fifo through the second.
func fifo([]string) error {
	b, err := os.ReadFile("/dev/fifos/fifo0")
	if err != nil {
		return err
	}
	f, err := os.OpenFile("/dev/fifos/fifo1", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}

// count prints a number for ever, more often than a test looks.
func count([]string) error {
	for i := 0; ; i++ {
		fmt.Println("tick", i)
		time.Sleep(5 * time.Millisecond)
	}
}

// refused wants an error, one of those given if there are any.
func refused(what string, err error, want ...error) error {
	if err == nil {
		return fmt.Errorf("BROKEN OUT: %s succeeded", what)
	}
	for _, w := range want {
		if errors.Is(err, w) {
			return nil
		}
	}
	if len(want) > 0 {
		return fmt.Errorf("%s: %w, expected %v", what, err, want)
	}
	return nil
}

// processes looks for those of the host; the argument is the pid of one.
func processes(args []string) error {
	host, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	var failed []error
	entries, err := os.ReadDir("/proc")
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && pid != os.Getpid() {
			failed = append(failed, fmt.Errorf("sees process %d", pid))
		}
	}
	return errors.Join(append(failed, err,
		refused("signal to the host", unix.Kill(host, 0), unix.ESRCH),
		refused("a parent", map[bool]error{true: unix.ESRCH}[os.Getppid() == 0], unix.ESRCH),
		refused("trace of the host", unix.PtraceAttach(host), unix.ESRCH, unix.EPERM),
	)...)
}

func mounts([]string) error {
	try := func(what string, trap uintptr, args ...uintptr) error {
		var a [6]uintptr
		copy(a[:], args)
		_, _, errno := unix.Syscall6(trap, a[0], a[1], a[2], a[3], a[4], a[5])
		if errno == 0 {
			return refused(what, nil)
		}
		return refused(what, errno, unix.EPERM, unix.ENOSYS)
	}
	root := uintptr(unsafe.Pointer(unsafe.StringData("/\x00")))
	spaces := uintptr(unix.CLONE_NEWUSER | unix.CLONE_NEWNS)
	return errors.Join(
		refused("mount of tmpfs", unix.Mount("t", "/tmp", "tmpfs", 0, ""), unix.EPERM),
		refused("bind mount", unix.Mount("/proc", "/mnt", "", unix.MS_BIND, ""), unix.EPERM),
		refused("remount", unix.Mount("", "/proc/sys", "", unix.MS_REMOUNT|unix.MS_BIND, ""), unix.EPERM),
		refused("unmount of a mask", unix.Unmount("/proc/sys", unix.MNT_DETACH), unix.EPERM),
		refused("pivot_root", unix.PivotRoot("/", "/"), unix.EPERM),
		refused("unshare", unix.Unshare(unix.CLONE_NEWUSER), unix.EPERM),
		try("clone into a user namespace", unix.SYS_CLONE, spaces|uintptr(unix.SIGCHLD)),
		try("clone3", unix.SYS_CLONE3, root, 88),
		try("setns", unix.SYS_SETNS, 0, 0),
		try("fsopen", unix.SYS_FSOPEN, root, 0),
		try("open_tree", unix.SYS_OPEN_TREE, 0, root, unix.OPEN_TREE_CLONE),
		try("move_mount", unix.SYS_MOVE_MOUNT),
		try("mount_setattr", unix.SYS_MOUNT_SETATTR),
		try("open_by_handle_at", unix.SYS_OPEN_BY_HANDLE_AT),
		try("a call that is newer than the filter", 1000),
		try("a call of x32", 1<<30|39),
	)
}

func kernel([]string) error {
	call := func(what string, trap uintptr) error {
		_, _, errno := unix.Syscall6(trap, 0, 0, 0, 0, 0, 0)
		if errno == 0 {
			return refused(what, nil)
		}
		return refused(what, errno, unix.EPERM, unix.ENOSYS)
	}
	failed := []error{
		call("init_module", unix.SYS_INIT_MODULE), call("finit_module", unix.SYS_FINIT_MODULE), call("delete_module", unix.SYS_DELETE_MODULE),
		call("kexec_load", unix.SYS_KEXEC_LOAD), call("bpf", unix.SYS_BPF), call("perf_event_open", unix.SYS_PERF_EVENT_OPEN),
		call("keyctl", unix.SYS_KEYCTL), call("userfaultfd", unix.SYS_USERFAULTFD), call("io_uring_setup", unix.SYS_IO_URING_SETUP),
		call("swapon", unix.SYS_SWAPON), call("reboot", unix.SYS_REBOOT), call("settimeofday", unix.SYS_SETTIMEOFDAY),
		call("syslog", unix.SYS_SYSLOG), call("acct", unix.SYS_ACCT),
		refused("typing into the terminal", unix.IoctlSetInt(0, unix.TIOCSTI, 0), unix.EPERM),
	}
	for _, path := range []string{"/proc/sys/kernel/hostname", "/proc/sys/kernel/core_pattern", "/proc/sys/vm/overcommit_memory",
		"/sys/kernel/uevent_helper", "/sys/class/net/lo/mtu", "/proc/irq/default_smp_affinity"} {
		if _, err := os.Stat(path); err == nil {
			failed = append(failed, refused("write to "+path, os.WriteFile(path, []byte("0"), 0), unix.EROFS, unix.EACCES, unix.EPERM))
		}
	}
	if f, err := os.OpenFile("/proc/sysrq-trigger", os.O_WRONLY, 0); err == nil {
		f.Close()
		failed = append(failed, errors.New("BROKEN OUT: sysrq"))
	}
	for _, path := range []string{"/proc/kcore", "/proc/keys", "/proc/timer_list"} {
		if b, err := os.ReadFile(path); err == nil && len(b) > 0 {
			failed = append(failed, fmt.Errorf("%s says %.20q", path, b))
		}
	}
	return errors.Join(failed...)
}

// devices makes nodes of the host's devices and opens them.
func devices([]string) error {
	var failed []error
	for _, d := range []struct {
		what         string
		mode         uint32
		major, minor uint32
	}{{"memory", unix.S_IFCHR, 1, 1}, {"kmsg", unix.S_IFCHR, 1, 11}, {"disk", unix.S_IFBLK, 254, 0}, {"loop", unix.S_IFBLK, 7, 0},
		{"kvm", unix.S_IFCHR, 10, 232}, {"tun", unix.S_IFCHR, 10, 200}, {"console", unix.S_IFCHR, 5, 1}, {"tty1", unix.S_IFCHR, 4, 1}} {
		for _, dir := range []string{"/", "/dev/"} {
			path := dir + "node"
			if err := unix.Mknod(path, d.mode|0o600, int(unix.Mkdev(d.major, d.minor))); err != nil {
				if text, _ := os.ReadFile("/proc/self/uid_map"); strings.Fields(string(text))[1] == "0" {
					failed = append(failed, err) // allowed: there is CAP_MKNOD
				}
				continue
			}
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			failed = append(failed, refused("open "+d.what+" in "+dir, err, unix.EPERM, unix.EACCES), os.Remove(path))
			if err == nil {
				f.Close()
			}
		}
	}
	return errors.Join(failed...)
}

// files tries to reach the file of the host that is the argument, by links in
// a volume and otherwise.
func files(args []string) error {
	secret := args[0]
	rel := strings.Repeat("../", 40) + secret[1:]
	failed := []error{os.Symlink(secret, "/vol/absolute"), os.Symlink(rel, "/vol/relative")}
	for _, path := range []string{secret, "/" + rel, "/vol/absolute", "/vol/relative", "/vol/" + rel, "/proc/1/root" + secret,
		"/proc/self/cwd" + "/" + rel, "/proc/1/fd/3/" + rel, "/proc/1/fd/4/" + rel} {
		_, err := os.ReadFile(path)
		failed = append(failed, refused("read of "+path, err))
	}
	for fd := 3; fd < 64; fd++ {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT != unix.S_IFIFO && !ours(fd) {
			target, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
			failed = append(failed, fmt.Errorf("holds descriptor %d: %s", fd, target))
		}
	}
	return errors.Join(failed...)
}

// ours tells descriptors of the Go runtime.
func ours(fd int) bool {
	target, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	return strings.HasPrefix(target, "anon_inode:") || strings.HasPrefix(target, "/proc/")
}

// chroot is the way out of a mere chroot.
func chroot(args []string) error {
	d, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(os.MkdirAll("/jail", 0o700), unix.Chroot("/jail"), unix.Fchdir(d)); err != nil {
		return err
	}
	for range 100 {
		if err := unix.Chdir(".."); err != nil {
			return err
		}
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	_, err = os.Stat(args[0])
	return refused("leaving the root", err, unix.ENOENT)
}

// self tries to write to the programs that made the container.
func self([]string) error {
	var failed []error
	for _, path := range []string{"/proc/self/exe", "/proc/1/exe"} {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		failed = append(failed, refused("write to "+path, err, unix.ETXTBSY, unix.EPERM, unix.EACCES))
		if err == nil {
			f.Close()
		}
	}
	target, err := os.Readlink("/proc/self/exe")
	if strings.Contains(target, "minimega") {
		failed = append(failed, fmt.Errorf("runs %s", target))
	}
	return errors.Join(append(failed, err)...)
}

// network tries to reach the host: its loopback port, and its abstract socket.
func network(args []string) error {
	var failed []error
	for _, addr := range []string{"127.0.0.1:" + args[0], "[::1]:" + args[0]} {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		failed = append(failed, refused("connection to the host's port", err))
		if err == nil {
			c.Close()
		}
	}
	_, err := net.Dial("unix", "@"+args[1])
	failed = append(failed, refused("connection to the host's socket", err, unix.ECONNREFUSED))
	links, err := net.Interfaces()
	for _, l := range links {
		if l.Name != "lo" && !strings.HasPrefix(l.Name, "veth") && !builtin[l.Name] {
			failed = append(failed, fmt.Errorf("sees %s", l.Name))
		}
	}
	return errors.Join(append(failed, err)...)
}

// builtin are links that some kernels make in every namespace.
var builtin = map[string]bool{"tunl0": true, "sit0": true, "ip6tnl0": true, "gre0": true, "gretap0": true, "erspan0": true, "ip_vti0": true,
	"ip6_vti0": true, "ip6gre0": true, "ifb0": true, "ifb1": true}

// forks makes processes until it cannot; the argument is the most that there may be.
func forks(args []string) error {
	most, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	for n := range most + 1 {
		_, err := syscall.ForkExec("/guest", []string{"guest", "sleep"}, &syscall.ProcAttr{})
		if err != nil {
			return refused("fork", err, unix.EAGAIN)
		}
		_ = n
	}
	return errors.New("BROKEN OUT: no limit of processes")
}

// memory wants more than there is: the child that does is killed, and not init.
func memory(args []string) error {
	if len(args) > 0 {
		b := make([]byte, 512<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		return nil
	}
	cmd := exec.Command("/guest", "memory", "child")
	// The child is to go first.
	err := cmd.Start()
	if err == nil {
		err = os.WriteFile(filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "oom_score_adj"), []byte("1000"), 0)
	}
	if err != nil {
		return err
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return nil
	}
	return fmt.Errorf("BROKEN OUT: 512 MB with a limit of 64: %v", err)
}

// privilege looks at what init has; the argument is the mask of capabilities.
func privilege(args []string) error {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	var failed []error
	for _, want := range []string{"NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t" + args[0], "CapPrm:\t" + args[0], "CapBnd:\t" + args[0],
		"CapInh:\t0000000000000000", "CapAmb:\t0000000000000000", "Groups:\t \n"} {
		if !strings.Contains(string(text), want) {
			failed = append(failed, fmt.Errorf("status lacks %q", want))
		}
	}
	groups, err := os.ReadFile("/proc/self/cgroup")
	if strings.Contains(string(groups), "minimega") {
		failed = append(failed, fmt.Errorf("sees its control group: %s", groups))
	}
	return errors.Join(append(failed, err)...)
}
