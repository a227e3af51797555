package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
)

// Diagnosis is a finding for programs.
type Diagnosis struct {
	Check    string    `json:"check"`
	Optional bool      `json:"optional"` // minimega can do without
	Kind     errs.Kind `json:"kind"`
	Text     string    `json:"text"`
	Remedy   string    `json:"remedy,omitempty"`
	Fixable  bool      `json:"fixable"` // `check fix` does it
	Fixed    bool      `json:"fixed"`
}

// Diagnosis tells what was found. The text is without the remedy.
func (f Finding) Diagnosis() Diagnosis {
	facts := errs.FactsOf(f.Err)
	text := strings.TrimSuffix(f.Err.Error(), " ("+facts.Remedy+")")
	return Diagnosis{Check: f.Check.Name, Optional: f.Check.Optional, Kind: facts.Kind, Text: text, Remedy: facts.Remedy, Fixable: f.Check.Fix != nil}
}

// Fix does what can be done safely about a finding and looks again. It returns
// what is still wrong.
func (f Finding) Fix(ctx context.Context) error {
	if f.Check.Fix == nil {
		return f.Err
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	if err := f.Check.Fix(ctx); err != nil {
		return errors.Join(f.Err, fmt.Errorf("it could not be fixed: %w", err))
	}
	return f.Check.Run(ctx)
}

// wantFiles is how many descriptors a daemon with a thousand VMs needs: a
// handful for each.
const wantFiles = 16384

// OpenFiles checks the limit on descriptors, which bounds how many VMs there
// can be. The fix raises it for this process, as far as the system lets it.
func OpenFiles() Check {
	return Check{Name: "open files", Optional: true,
		Run: func(context.Context) error {
			var l unix.Rlimit
			if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
				return err
			}
			return enoughFiles(l.Cur)
		},
		Fix: func(context.Context) error {
			var l unix.Rlimit
			if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
				return err
			}
			if unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: wantFiles, Max: max(wantFiles, l.Max)}) == nil {
				return nil
			}
			return unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: l.Max, Max: l.Max})
		}}
}

func enoughFiles(limit uint64) error {
	if limit >= wantFiles {
		return nil
	}
	return errs.WithRemedy(errs.New(errs.Resource, "this process may open %d files, enough for about %d VMs", limit, limit/16),
		fmt.Sprintf("start minimega with `ulimit -n %d`, or LimitNOFILE=%d under systemd", wantFiles, wantFiles))
}

// Firewall checks whether the host's firewall sees what guests send to each
// other. Other programs rely on it (Docker does), so it is not ours to change.
func Firewall() Check { return firewall("/proc/sys/net/bridge/bridge-nf-call-iptables") }

func firewall(path string) Check {
	return Check{Name: "firewall", Optional: true, Run: func(context.Context) error {
		on, err := os.ReadFile(path)
		if err != nil || strings.TrimSpace(string(on)) == "0" {
			return nil // no such thing here
		}
		return errs.WithRemedy(errs.New(errs.State, "this host's firewall sees what guests send to each other, and may drop it"),
			"sysctl net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0, unless containers of this host need it")
	}}
}

// modprobe loads a module of the kernel.
func modprobe(module string) func(context.Context) error {
	return func(ctx context.Context) error {
		out, err := exec.CommandContext(ctx, "modprobe", module).CombinedOutput()
		if err != nil {
			return fmt.Errorf("modprobe %s: %w: %s", module, err, strings.TrimSpace(string(out)))
		}
		return nil
	}
}
