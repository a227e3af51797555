package tests

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"minimega/internal/host/hosttest"
	"minimega/internal/host/lab"
	"minimega/pkg/miniclient"
)

// What the hosts of the tests of deploy share: the user that may use sudo, and
// his password.
const (
	deployUser     = "mmdave"
	deployPassword = "corr3ct-h0rse"
	deployBase     = "/tmp/mm" // base directory on the other hosts
)

// deployment is a daemon on the first of several hosts, the others of which
// run sshd.
type deployment struct {
	*testing.T
	lab   *lab.Lab
	boss  *lab.Daemon
	hosts []*lab.Host // with sshd
	dir   string      // keys and settings of all
	spy   *spy
}

// sshd(8) on hosts of their own, with users and files that the machine does not have.
func newDeployment(t *testing.T, hosts int) *deployment {
	t.Helper()
	for _, name := range []string{"/usr/sbin/sshd", "sudo", "ssh-keygen", "ssh-agent", "perl"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Fatalf("%v: setup/debian installs it", err)
		}
	}
	t.Setenv("SSH_AUTH_SOCK", "")
	l := lab.Make(t, lab.Options{Hosts: hosts + 1, Own: []string{"/tmp", "/run"}, Keep: []string{filepath.Dir(program)}})
	d := &deployment{T: t, lab: l, hosts: l.Hosts[1:], dir: l.Dir}
	d.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", d.file("id"))
	for name, line := range map[string]string{
		"passwd":  deployUser + ":x:23456:23456::/tmp:/bin/sh\n",
		"group":   deployUser + ":x:23456:\n",
		"shadow":  deployUser + ":" + crypted(t, deployPassword) + ":19000:0:99999:7:::\n",
		"sudoers": "root ALL=(ALL) ALL\n" + deployUser + " ALL=(ALL) ALL\n",
	} {
		text, _ := os.ReadFile("/etc/" + name)
		if name == "sudoers" {
			text = []byte("Defaults use_pty\n")
		}
		d.write(name, string(text)+line, 0o600)
	}
	for _, name := range []string{"passwd", "group"} {
		must(t, os.Chmod(d.file(name), 0o644))
	}
	for _, h := range d.hosts {
		d.sshd(h)
	}
	home := filepath.Join(l.Hosts[0].Dir, "home")
	must(t, os.MkdirAll(filepath.Join(home, ".ssh"), 0o700))
	l.Hosts[0].Env = []string{"HOME=" + home}
	d.run(program, "mesh", "key", d.file("meshkey"))
	boss, err := l.Hosts[0].Start(t.Context(), program, "-level", "debug", "-v", "-mesh-key", d.file("meshkey"))
	must(t, err)
	lab.StopAfter(t, boss)
	d.boss, d.spy = boss, watchFor(t, deployPassword)
	d.must("deploy flags -base=" + deployBase)
	return d
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (d *deployment) file(name string) string { return filepath.Join(d.dir, name) }

func (d *deployment) write(name, text string, mode os.FileMode) {
	d.Helper()
	must(d.T, os.WriteFile(d.file(name), []byte(text), mode))
}

func (d *deployment) run(args ...string) string {
	d.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		d.Fatalf("%q: %v: %s", args, err, out)
	}
	return string(out)
}

func (d *deployment) inside(h *lab.Host, script string) string {
	d.Helper()
	out, err := h.Command(d.Context(), "sh", "-c", script).CombinedOutput()
	if err != nil {
		d.Fatalf("%s: %s: %v: %s", h.Name, script, err, out)
	}
	return strings.TrimSpace(string(out))
}

func crypted(t *testing.T, password string) string {
	out, err := exec.Command("perl", "-e", `print crypt($ARGV[0], '$6$saltsalt$')`, password).Output()
	must(t, err)
	return string(out)
}

// sshd starts an sshd on a host and waits until it listens.
func (d *deployment) sshd(h *lab.Host) {
	d.Helper()
	for _, name := range []string{"passwd", "group", "shadow", "sudoers"} {
		mode := map[string]string{"sudoers": "440"}[name]
		if mode != "" {
			must(d.T, os.Chmod(d.file(name), 0o440))
		}
		d.inside(h, fmt.Sprintf("mount --bind %s /etc/%s", d.file(name), name))
	}
	d.inside(h, "mkdir -m 755 -p /run/sshd && install -m 644 "+d.file("id.pub")+" /run/sshd/authorized_keys")
	d.hostKey(h)
	must(d.T, os.WriteFile(h.Path("/run/sshd/config"), []byte(strings.Join([]string{
		"HostKey /run/sshd/key", "AuthorizedKeysFile /run/sshd/authorized_keys", "StrictModes no", "UsePAM no", "PidFile /run/sshd/pid",
		"PermitRootLogin yes", "PasswordAuthentication yes", "KbdInteractiveAuthentication no", "LogLevel ERROR", "",
	}, "\n")), 0o600))
	log, err := os.Create(d.file(h.Name + ".sshd.log"))
	must(d.T, err)
	defer log.Close()
	cmd := h.Command(context.WithoutCancel(d.Context()), "/usr/sbin/sshd", "-D", "-e", "-f", "/run/sshd/config")
	cmd.Stdout, cmd.Stderr = log, log
	must(d.T, cmd.Start())
	d.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for until := time.Now().Add(60 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := h.Do(func() error {
			c, err := net.Dial("tcp", "127.0.0.1:22")
			if err == nil {
				c.Close()
			}
			return err
		})
		if err == nil {
			return
		}
		if time.Now().After(until) {
			text, _ := os.ReadFile(log.Name())
			d.Fatalf("sshd on %s: %v: %s", h.Name, err, text)
		}
	}
}

// hostKey makes the key that a host's sshd shows from its next start on.
func (d *deployment) hostKey(h *lab.Host) {
	d.Helper()
	_ = os.Remove(h.Path("/run/sshd/key"))
	d.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", h.Path("/run/sshd/key"))
}

// know writes the known_hosts of the daemon's user.
func (d *deployment) know(hosts ...*lab.Host) {
	d.Helper()
	var text strings.Builder
	for _, h := range hosts {
		key, err := os.ReadFile(h.Path("/run/sshd/key.pub"))
		must(d.T, err)
		fmt.Fprintf(&text, "%s %s", h.Name, key)
	}
	must(d.T, os.WriteFile(filepath.Join(d.lab.Hosts[0].Dir, "home/.ssh/known_hosts"), []byte(text.String()), 0o600))
}

// must runs a command that has to work and returns its text.
func (d *deployment) must(command string) string {
	d.Helper()
	text, err := d.do(command)
	if err != nil {
		d.Fatalf("%s: %v", command, err)
	}
	return text
}

func (d *deployment) do(command string) (string, error) {
	ctx, cancel := context.WithTimeout(d.Context(), 2*time.Minute)
	defer cancel()
	c, err := d.boss.Dial(ctx)
	if err != nil {
		return "", err
	}
	defer c.Close()
	list, err := c.Do(ctx, command)
	var text strings.Builder
	for _, r := range list {
		text.WriteString(r.Rendered)
	}
	return text.String(), err
}

// fails runs a command that must not work, for a reason that says all of wants,
// and leaves nothing on the hosts.
func (d *deployment) fails(command string, wants ...string) {
	d.Helper()
	text, err := d.do(command)
	if err == nil {
		d.Errorf("%s: worked:\n%s", command, text)
		return
	}
	for _, want := range wants {
		if !strings.Contains(err.Error(), want) {
			d.Errorf("%s: %q is not in the error:\n%v", command, want, err)
		}
	}
	if strings.Contains(err.Error(), deployPassword) {
		d.Errorf("%s: the password is in the error: %v", command, err)
	}
}

// clean checks that no file of a deployment is on hosts.
func (d *deployment) clean(hosts ...*lab.Host) {
	d.Helper()
	for _, h := range hosts {
		if got := d.inside(h, "ls /tmp"); strings.Contains(got, "minimega_deploy_") {
			d.Errorf("left on %s: %s", h.Name, got)
		}
	}
}

// running checks that a minimega runs on hosts as that user, and ends it.
func (d *deployment) running(uid string, hosts ...*lab.Host) {
	d.Helper()
	for _, h := range hosts {
		c, err := miniclient.Dial(d.Context(), h.Path(deployBase))
		if err != nil {
			d.Errorf("no minimega on %s: %v", h.Name, err)
			continue
		}
		answer, err := c.Do(d.Context(), "version")
		if err != nil || answer[0].Resp[0].Host != h.Name {
			d.Errorf("minimega on %s: %v, %v", h.Name, answer, err)
		}
		if got := d.inside(h, "stat -c %u "+deployBase); got != uid {
			d.Errorf("on %s it runs as user %s, want %s", h.Name, got, uid)
		}
		if got := d.inside(h, "stat -c '%a %n' /tmp/minimega_deploy_*[0-9]; cmp "+program+" /tmp/minimega_deploy_*[0-9]"); !strings.HasPrefix(got, "700 ") {
			d.Errorf("on %s: %s", h.Name, got)
		}
		_, _ = c.Do(d.Context(), "quit")
		c.Close()
		d.inside(h, "while [ -e "+deployBase+"/minimega ]; do sleep 0.01; done; rm -f /tmp/minimega_deploy_*")
	}
}

// TestDeploy deploys to real sshd, in all the ways to log in, and with what can
// go wrong.
func TestDeploy(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces, sshd")
	}
	hosttest.Machine{Marks: []string{"mm-deploy-test"}}.Check(t)
	d := newDeployment(t, 4)
	n2, n3, n4, n5 := d.hosts[0], d.hosts[1], d.hosts[2], d.hosts[3]

	if got := d.must("deploy flags"); !strings.HasSuffix(got, ": -base=/tmp/mm -nostdin=true") {
		t.Errorf("flags: %s", got)
	}
	d.must("clear deploy flags")
	got := d.must("deploy flags")
	for _, want := range []string{"n1: -headnode=n1 -", " -base=" + d.boss.Base + " ", " -nostdin=true ", " -level=debug "} {
		if !strings.Contains(got, want) {
			t.Errorf("default flags: no %q in %s", want, got)
		}
	}
	d.fails("deploy flags -no-such-flag", "no-such-flag")
	d.fails("deploy flags -e version", "version")
	d.must("deploy flags -base=" + deployBase)

	// Who is not known gets nothing.
	d.fails("deploy launch n2", "no key to log in with", "SSH_AUTH_SOCK", "PASSWORD")
	d.fails("deploy n[2-3] root "+deployPassword, "n2: connect: its host key ssh-ed25519 SHA256:", "is not known", "ssh-keyscan n2", "deploy hostkeys new", "n3: ")
	d.know(n2, n3, n4, n5)

	// Password.
	d.fails("deploy n2 "+deployUser+" wrong", "n2: connect: user "+deployUser+" is not let in with this password")
	d.clean(n2)
	d.deploys("deploy n2 "+deployUser+" "+deployPassword+" sudo", "0", n2)
	d.fails("deploy launch n2 "+deployUser+" sudo", "no key")
	for _, want := range []string{"deploy n2 " + deployUser + " **** sudo", "deploy n2 " + deployUser + " ****"} {
		if got := d.must("history"); !strings.Contains(got, want) || strings.Contains(got, deployPassword) {
			t.Errorf("history: no %q in\n%s", want, got)
		}
	}

	d.agent()
	d.mesh(n2, n3, n4)
	d.fails("deploy launch n2 "+deployUser+" sudo", "n2: sudo: sudo: a password is required", "deploy HOSTS USER PASSWORD sudo")
	d.clean(n2)
	d.must(`.env SSH_AUTH_SOCK ""`)
	d.keyFile()
	d.deploys("deploy launch n3", "0", n3)

	// One that is there already, one that cannot be reached, one with a full
	// disk, one where nothing may be executed; and two that are well.
	d.deploys("deploy launch n2", "")
	d.inside(n3, "mount -t tmpfs -o size=1m tmpfs /tmp")
	d.inside(n4, "mount -o remount,bind,noexec /tmp")
	must(t, n5.Cut())
	d.fails("deploy launch n[2-5],nowhere", "not started on 5 of 5 hosts",
		"n2: start: a minimega runs there already", "n3: send the program: ", "No space left on device",
		"n4: start: ", "Permission denied", "n5: connect: ", "nowhere: connect: ", "lookup nowhere")
	d.inside(n3, "umount /tmp")
	d.inside(n4, "mount -o remount,bind,exec /tmp")
	must(t, n5.Join())
	d.clean(n3, n4, n5)
	if got := d.inside(n2, "ls /tmp/minimega_deploy_* | wc -l"); got != "1" {
		t.Errorf("files on n2: %s", got)
	}
	d.running("0", n2)

	d.endsAtOnce(n2)
	d.changedKey(n2, n3)

	d.must("deploy flags -level=warn")
	d.must("clear all")
	if got := d.must("deploy flags"); strings.Contains(got, "warn") {
		t.Errorf("after clear all: %s", got)
	}
	if log := d.boss.Output(); strings.Contains(log, deployPassword) || !strings.Contains(log, "minimega deployed") {
		t.Errorf("log: %s", log)
	}
	if seen := d.spy.seen(); seen != "" {
		t.Errorf("the password is on a command line or in an environment: %s", seen)
	}
}

// deploys runs a command that works, on all hosts, and ends what it started;
// that it leaves running if no user is given.
func (d *deployment) deploys(command, uid string, hosts ...*lab.Host) {
	d.Helper()
	got := d.must(command)
	for _, h := range hosts {
		if !strings.Contains(got, h.Name) {
			d.Errorf("%s: no line of %s:\n%s", command, h.Name, got)
		}
	}
	if strings.Contains(got, "failed") || strings.Count(got, "running") < len(hosts) {
		d.Errorf("%s:\n%s", command, got)
	}
	d.running(uid, hosts...)
}

// mesh deploys to hosts which then are a mesh with the daemon: they got its key.
func (d *deployment) mesh(hosts ...*lab.Host) {
	d.Helper()
	d.must("deploy flags -base=" + deployBase + " -mesh-key " + d.file("meshkey"))
	d.deploys("deploy launch n[2-4] root", "")
	for until := time.Now().Add(60 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		list := d.must(".annotate false mesh list all")
		if strings.HasSuffix(list, "n[2-4]") {
			break
		}
		if time.Now().After(until) {
			d.Fatalf("the mesh: %s", list)
		}
	}
	d.sendsPassword(hosts[0])
	if got := d.must("mesh send n[2-4] version"); !strings.Contains(got, "n[2-4]: minimega 4.") {
		d.Errorf("version: %s", got)
	}
	for _, h := range hosts {
		if got := d.inside(h, "stat -c %a /tmp/minimega_deploy_*.key; cmp "+d.file("meshkey")+" /tmp/minimega_deploy_*.key"); got != "600" {
			d.Errorf("key on %s: %s", h.Name, got)
		}
	}
	d.running("0", hosts...)
	d.must("deploy flags -base=" + deployBase)
}

// sendsPassword has another host deploy with a password: it must not be in that
// one's log.
func (d *deployment) sendsPassword(h *lab.Host) {
	d.Helper()
	d.must("mesh send " + h.Name + " log file /tmp/deploy.log")
	d.must("mesh send " + h.Name + " log level debug")
	d.fails("mesh send "+h.Name+" deploy "+h.Name+" "+deployUser+" "+deployPassword, "connect")
	if log := d.inside(h, "cat /tmp/deploy.log; rm /tmp/deploy.log"); strings.Contains(log, deployPassword) || !strings.Contains(log, deployUser+" ****") {
		d.Errorf("log of %s: %s", h.Name, log)
	}
}

// agent lets the daemon use an ssh-agent that has the key.
func (d *deployment) agent() {
	d.Helper()
	socket := filepath.Join(d.lab.Hosts[0].Dir, "agent")
	cmd := exec.Command("ssh-agent", "-D", "-a", socket)
	must(d.T, cmd.Start())
	d.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for until := time.Now().Add(60 * time.Second); time.Now().Before(until); time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			break
		}
	}
	add := exec.Command("ssh-add", "-q", d.file("id"))
	add.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
	if out, err := add.CombinedOutput(); err != nil {
		d.Fatalf("ssh-add: %v: %s", err, out)
	}
	d.must(".env SSH_AUTH_SOCK " + socket)
}

// keyFile puts the key where ssh(1) has it.
func (d *deployment) keyFile() {
	d.Helper()
	key, err := os.ReadFile(d.file("id"))
	must(d.T, err)
	must(d.T, os.WriteFile(filepath.Join(d.lab.Hosts[0].Dir, "home/.ssh/id_ed25519"), key, 0o600))
}

// endsAtOnce: a minimega that cannot run is said to, with its own reason.
func (d *deployment) endsAtOnce(h *lab.Host) {
	d.Helper()
	d.must("deploy flags -base=/proc/nothing")
	d.must("deploy stderr '/tmp/it said.log'")
	d.must("deploy stdout /tmp/out.log")
	if got := d.must("deploy stderr"); !strings.HasSuffix(got, "/tmp/it said.log") {
		d.Errorf("stderr: %s", got)
	}
	d.fails("deploy launch "+h.Name, h.Name+": start: it ended with status 1", "/proc/nothing")
	d.clean(h)
	d.fails("deploy stdout relative/path", "no absolute path")
	if got := d.inside(h, "cat /tmp/out.log"); !strings.Contains(got, "minimega 4.") {
		d.Errorf("standard output: %s", got)
	}
	d.must("deploy stderr /no/such/dir/log")
	d.fails("deploy launch "+h.Name, h.Name+": start: ", "/no/such/dir/log")
	d.must("deploy stderr /dev/null")
	d.must("deploy flags -base=" + deployBase)
}

// changedKey: new hosts can be trusted, hosts that changed never are.
func (d *deployment) changedKey(same, other *lab.Host) {
	d.Helper()
	d.know(same)
	d.must("deploy hostkeys new")
	if got := d.must("deploy hostkeys"); !strings.HasSuffix(got, "new") {
		d.Errorf("host keys: %s", got)
	}
	d.deploys(fmt.Sprintf("deploy launch %s,%s", same.Name, other.Name), "0", same, other)
	d.must("deploy hostkeys known")
	d.deploys("deploy launch "+other.Name, "0", other)
	d.hostKey(other)
	d.inside(other, "kill -HUP $(cat /run/sshd/pid)") // it starts anew
	for _, mode := range []string{"known", "new"} {
		d.must("deploy hostkeys " + mode)
		d.fails("deploy launch "+other.Name, other.Name+": connect: its host key is not the known one", "remove line 1 of "+d.boss.Base+"/ssh_known_hosts")
	}
	d.clean(other)
}

// spy looks for a text on all command lines and in all environments, all the time.
type spy struct {
	mu    sync.Mutex
	found string
}

func watchFor(t *testing.T, text string) *spy {
	s := &spy{}
	stop := make(chan struct{})
	var looking sync.WaitGroup
	looking.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				s.look(text)
			}
		}
	})
	t.Cleanup(func() { close(stop); looking.Wait() })
	return s
}

func (s *spy) look(text string) {
	files, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range files {
		for _, name := range []string{"cmdline", "environ"} {
			line, _ := os.ReadFile(filepath.Join(dir, name))
			if bytes.Contains(line, []byte(text)) {
				s.mu.Lock()
				s.found = string(bytes.ReplaceAll(line, []byte{0}, []byte{' '}))
				s.mu.Unlock()
			}
		}
	}
}

func (s *spy) seen() string { s.mu.Lock(); defer s.mu.Unlock(); return s.found }
