package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"minimega/internal/prompt/ptytest"
)

// attach starts the program's prompt on a terminal.
func attach(t *testing.T, d *daemon, flags ...string) *ptytest.Terminal {
	t.Helper()
	cmd := exec.Command(filepath.Join(program(t), "minimega"), append([]string{"-base", d.base, "-attach"}, flags...)...)
	cmd.Env = append(os.Environ(), "CLI_TEST_MAIN=1", "GORACE=atexit_sleep_ms=0", "PAGER=cat")
	return ptytest.Start(t, cmd)
}

func TestAttach(t *testing.T) {
	d := start(t)
	p := attach(t, d)
	prompt := "minimega:" + d.base + "/minimega$ "
	p.Expect("`disconnect` or Ctrl-D")
	p.Expect(prompt)
	p.Send("echo hello\r")
	p.Expect("\r\nhello\r\n")
	p.Expect(prompt)
	p.Send("vm sta\t")
	p.Expect("vm start ")
	p.Send("al\t\r")
	p.Expect("Error (box): no luck with vm start alpha")
	p.Expect(prompt)
	p.Send("vm st\t\t")
	p.Expect("start")
	p.Expect("stop")
	p.Send("\x03") // clears the line
	p.Expect("^C")
	p.Expect(prompt)
	p.Send("\x1b[A\x1b[A\r") // twice Up: the line before the last
	p.Expect("\r\nhello\r\n")
	p.Expect(prompt)
	p.Send("quit\r")
	p.Expect("CAUTION")
	p.Expect(prompt)
	p.Send("disconnect\r")
	if status := p.Wait(); status != 0 {
		t.Errorf("status %d", status)
	}
	if !p.Echoes() {
		t.Error("the terminal is not as it was")
	}
	if got := strings.Join(d.commands(), "|"); strings.Contains(got, "quit") {
		t.Errorf("sent %s", got)
	}
}

func TestAttachHistoryOfDaemon(t *testing.T) {
	p := attach(t, start(t), "-namespace", "foo")
	p.Expect("/minimega[foo]$ ")
	p.Send("\x1b[A\r")
	p.Expect("\r\nfrom history\r\n")
	p.Expect("[foo]$ ")
	p.Send("vm sto\t")
	p.Expect("vm stop ")
	p.Send("\x15\x04") // clears the line; end
	if status := p.Wait(); status != 0 {
		t.Errorf("status %d", status)
	}
}

func TestAttachPages(t *testing.T) {
	p := attach(t, start(t))
	p.Expect("$ ")
	p.Send("many\r")
	p.Expect("-- sending 200 lines to cat --")
	p.Expect("last\r\n")
	p.Expect("$ ")
	p.Send("\x04")
	p.Wait()
}

// What another host says does not command the terminal.
func TestAttachControlCharacters(t *testing.T) {
	p := attach(t, start(t))
	p.Expect("$ ")
	p.Send("sly\r")
	p.Expect("clear\\x1b[2J\tout\r\n")
	p.Expect("Error (box): clear\\x1b[2J\\u009bJerr\r\n")
	p.Expect("$ ")
	p.Send("\x04")
	p.Wait()
}

// Ctrl-C gives a command up, and the prompt is there again.
func TestAttachInterrupt(t *testing.T) {
	d := start(t)
	p := attach(t, d)
	p.Expect("$ ")
	p.Send("wait\r")
	p.Expect("waiting")
	p.Send("\x03")
	p.Expect("interrupted")
	p.Expect("$ ")
	p.Send("echo on\r")
	p.Expect("\r\non\r\n")
	p.Send("quit\rquit\r")
	if status := p.Wait(); status != 0 {
		t.Errorf("status %d", status)
	}
}

// The shells as people use them: keys go in, and the line is what is on screen.
func TestCompletionScripts(t *testing.T) {
	shells := map[string][]string{
		"bash": {"bash", "--noprofile", "--norc", "-i"},
		"zsh":  {"zsh", "-f", "-i"},
		"fish": {"fish", "--no-config", "-i"},
	}
	load := map[string]string{
		"bash": "source <(minimega completion bash); bind 'set enable-bracketed-paste off'; PS1='ready> '\r",
		"zsh":  "autoload -U compinit; compinit -u -D; source <(minimega completion zsh); PS1='ready> '\r",
		"fish": "minimega completion fish | source; function fish_prompt; echo 'ready> '; end\r",
	}
	for name, args := range shells {
		t.Run(name, func(t *testing.T) {
			if _, err := exec.LookPath(args[0]); err != nil {
				t.Skip(name + " is not installed")
			}
			d := start(t)
			cmd := exec.Command(args[0], args[1:]...)
			home := t.TempDir()
			cmd.Env = append(os.Environ(), "CLI_TEST_MAIN=1", "GORACE=atexit_sleep_ms=0", "HOME="+home, "XDG_CONFIG_HOME="+home, "XDG_DATA_HOME="+home,
				"PATH="+program(t)+":"+os.Getenv("PATH"), "BASE="+d.base, "LC_ALL=C.UTF-8")
			p := ptytest.Start(t, cmd)
			p.Send(load[name])
			p.Expect("ready> ")
			p.Expect("ready> ")
			// A command of the language, and a name with a colon, where bash cuts words.
			p.Send("minimega -base " + d.base + " -e vm sta\t")
			p.Expect("vm start")
			p.Send("bet\t")
			p.Expect("beta:1")
			p.Send("\r")
			p.Expect("no luck with vm start beta:1")
			p.Expect("ready> ")
			p.Send("minimega -base=" + d.base + " -e vm start big\t")
			p.Send("\r")
			p.Expect(`no luck with vm start "big vm"`)
			p.Expect("ready> ")
			// A whole command in quotes.
			p.Send("minimega -base " + d.base + " -e 'vm sto\t")
			p.Expect("vm stop'")
			// Flags, with the daemon or without.
			p.Send("\x15minimega -abss\t")
			p.Expect("-abssnapshot")
			p.Send("\x15minimega -base /nonexistent -e vm sta\t\t")
			quiet(t, p)
			p.Send("\x15exit\r")
		})
	}
}

// quiet checks that what is typed without a daemon costs no time and brings no
// complaint.
func quiet(t *testing.T, p *ptytest.Terminal) {
	t.Helper()
	timer := time.NewTimer(700 * time.Millisecond)
	defer timer.Stop()
	<-timer.C
	if out := p.Output(); strings.Contains(out, "no minimega") || strings.Contains(out, "command not found") {
		t.Errorf("complains: %q", out)
	}
}
