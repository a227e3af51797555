package lab

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"minimega/internal/host/hosttest"
)

// Real daemons run on hosts: each knows its own name and interfaces, may be
// killed and started again, and leaves nothing.
func TestDaemons(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
	binary := filepath.Join(t.TempDir(), "minimega")
	build := exec.Command("go", "build", "-o", binary, "minimega/cmd/minimega")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	hosttest.Machine{Marks: []string{filepath.Dir(binary)}}.Check(t)
	l := Make(t, Options{Hosts: 3})
	daemons, err := l.StartAll(t.Context(), binary, func(h *Host) []string { return []string{"-context", "of" + h.Name} })
	must(t, err)
	StopAfter(t, daemons...)
	for _, d := range daemons {
		answer, err := d.Do(t.Context(), "args")
		must(t, err)
		if answer[0].Host != d.Host.Name || !strings.Contains(strings.Join(answer[0].Tabular[0], " "), "of"+d.Host.Name) {
			t.Errorf("%s answers as %v", d.Host.Name, answer[0])
		}
	}
	d := daemons[1]
	if _, err := d.Do(t.Context(), "no such command"); err == nil || !strings.Contains(err.Error(), "Error (n2): invalid command") {
		t.Errorf("a failure: %v", err)
	}
	if _, err := d.Conn().Do(t.Context(), "vm launch kvm a"); err != nil {
		t.Error(err)
	}
	d.Kill()
	if d.Running() {
		t.Error("it runs on")
	}
	again, err := d.Host.Start(t.Context(), binary)
	must(t, err)
	if d.PID() == again.PID() || !again.Running() {
		t.Error("the same process")
	}
	if _, err = d.Host.Start(t.Context(), binary); err == nil || !strings.Contains(err.Error(), "runs on n2 already") {
		t.Errorf("a second one: %v", err)
	}
	must(t, again.Stop())
	must(t, again.Stop())
	_, err = d.Host.Start(t.Context(), binary, "-no-such-flag")
	if err == nil || !strings.Contains(err.Error(), "no-such-flag") {
		t.Errorf("with a bad flag: %v", err)
	}
	if _, err := l.StartAll(t.Context(), binary, func(*Host) []string { return []string{"-no-such-flag"} }); err == nil {
		t.Error("no error")
	}
}
