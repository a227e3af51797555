package kvm

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// KVMStatus tells whether guests run under KVM.
type KVMStatus struct {
	Works  bool
	Reason string // why not, one sentence; "" when it works
}

// probeGuest is the code of the test guest, see probe.asm.
//
//go:embed probe.bin
var probeGuest []byte

// guestSteps words the letters that the test guest writes.
var guestSteps = map[byte]string{
	'R': "real mode", 'L': "64-bit mode", 'I': "an exception", 'F': "a page fault", 'M': "model-specific registers",
	'S': "floating point", 'T': "timer interrupts", 'U': "a system call", '.': "plain instructions",
}

// How long the test guest may take. It needs a tenth of a second; one that
// does its plain work, however slowly, is given the longer time, since the
// host may just be busy.
const (
	guestTime  = time.Second
	guestBusy  = 4 * time.Second
	guestStart = 10 * time.Second // for QEMU itself to begin
	guestDone  = 33               // exit status, see isa-debug-exit
)

// kvmProbe finds out once, and again only when it could not.
type kvmProbe struct {
	device string // /dev/kvm
	forced string
	dir    string // cache, "" for none
	turn   chan struct{}

	mu    sync.Mutex
	found *KVMStatus
}

func newKVMProbe(o Options) *kvmProbe {
	return &kvmProbe{device: "/dev/kvm", forced: o.Accel, dir: o.CacheDir, turn: make(chan struct{}, 1)}
}

// status returns what was found, after a probe if need be. When ctx ends
// before that, it says so.
func (p *kvmProbe) status(ctx context.Context) KVMStatus {
	switch p.forced {
	case "kvm":
		return KVMStatus{Works: true}
	case "tcg":
		return KVMStatus{Reason: "TCG was asked for"}
	}
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return KVMStatus{Reason: "KVM was not probed: " + ctx.Err().Error()}
	}
	if s := p.known(); s != nil {
		return *s
	}
	s, final := p.probe(ctx)
	if final {
		p.mu.Lock()
		p.found = &s
		p.mu.Unlock()
	}
	return s
}

func (p *kvmProbe) known() *KVMStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.found
}

// probe tells whether KVM works, and whether that will stay so.
func (p *kvmProbe) probe(ctx context.Context) (s KVMStatus, final bool) {
	f, err := os.OpenFile(p.device, os.O_RDWR|syscall.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return KVMStatus{Reason: p.device + " does not exist: the processor or the BIOS offers no virtualisation, or the module kvm is not loaded"}, true
	case err != nil:
		return KVMStatus{Reason: err.Error()}, true
	}
	_ = f.Close()
	path, err := findQEMU("")
	if err != nil {
		return KVMStatus{Reason: "KVM was not probed: " + err.Error()}, false
	}
	name := "kvm-" + bootID()
	if loadCache(p.dir, name, &s) {
		return s, true
	}
	r, err := runGuest(ctx, path, "kvm", "host")
	if err != nil {
		return KVMStatus{Reason: "KVM was not probed: " + err.Error()}, false
	}
	s = KVMStatus{Works: r.finished, Reason: r.reason()}
	if !r.timeout { // the host may have been too busy: ask again after a restart
		storeCache(p.dir, name, s)
	}
	return s, true
}

// bootID names this run of the kernel.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "unknown"
	}
	return filepath.Base(strings.TrimSpace(string(b)))
}

// guestResult is how the test guest fared.
type guestResult struct {
	finished bool
	timeout  bool
	steps    string // letters
	words    string // of QEMU
}

func (r guestResult) reason() string {
	if r.finished {
		return ""
	}
	got := "did not start"
	if n := len(r.steps); n > 0 {
		got = "got no further than " + guestSteps[r.steps[n-1]]
	}
	switch {
	case r.timeout:
		got += " in time"
	case r.words != "":
		got += ": " + r.words
	}
	return "/dev/kvm is there, but a test guest " + got
}

// runGuest runs the test guest with an accelerator until it ends, fails or
// takes too long. An error means that it could not be run.
func runGuest(ctx context.Context, qemu, accelerator, cpu string) (guestResult, error) {
	rom, err := guestROM()
	if err != nil {
		return guestResult{}, err
	}
	defer rom.Close()
	run, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(run, qemu, "-accel", accelerator, "-cpu", cpu, "-M", "pc", "-m", "16",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-bios", "/proc/self/fd/3",
		"-debugcon", "stdio", "-device", "isa-debug-exit,iobase=0xf4,iosize=4")
	more := make(chan struct{}, 1)
	out, words := &guestOutput{more: more}, &guestOutput{more: more}
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles, cmd.WaitDelay = out, words, []*os.File{rom}, time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // it may spin for ever
	if err := cmd.Start(); err != nil {
		return guestResult{}, err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // its status is read below
	}()
	timeout := watchGuest(out, words, more, ended)
	cancel()
	<-ended
	if err := ctx.Err(); err != nil {
		return guestResult{}, err
	}
	return guestResult{
		finished: cmd.ProcessState.ExitCode() == guestDone, timeout: timeout,
		steps: out.letters(), words: clean(firstLine(words.String())),
	}, nil
}

// watchGuest returns when the guest has ended or failed, or true when its time
// is over.
func watchGuest(out, words *guestOutput, more, ended <-chan struct{}) (timeout bool) {
	t := time.NewTimer(guestStart)
	defer t.Stop()
	started, busy := false, false
	for {
		select {
		case <-ended:
			return false
		case <-more:
			if strings.Contains(words.String(), "KVM internal error") {
				return false
			}
			if !started && out.letters() != "" {
				started = true
				t.Reset(guestTime)
			}
		case <-t.C:
			if busy || !strings.Contains(out.letters(), ".") {
				return true
			}
			busy = true
			t.Reset(guestBusy)
		}
	}
}

// guestROM returns a BIOS image in memory: the guest at its start and, in the
// last 16 bytes, where a processor begins, a jump to it.
func guestROM() (*os.File, error) {
	rom := make([]byte, 64<<10)
	copy(rom, probeGuest)
	copy(rom[len(rom)-16:], []byte{0xea, 0, 0, 0, 0xf0}) // jmp f000:0000
	fd, err := unix.MemfdCreate("kvm-probe", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd: %w", err)
	}
	f := os.NewFile(uintptr(fd), "kvm-probe")
	if _, err := f.Write(rom); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// guestOutput collects a little output and tells when there is more.
type guestOutput struct {
	more chan<- struct{}

	mu  sync.Mutex
	buf []byte
}

func (g *guestOutput) Write(p []byte) (int, error) {
	g.mu.Lock()
	g.buf = append(g.buf, p[:min(len(p), 4096-len(g.buf))]...)
	g.mu.Unlock()
	select {
	case g.more <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (g *guestOutput) String() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return string(g.buf)
}

// letters returns the steps that the guest reported.
func (g *guestOutput) letters() string {
	return strings.Map(func(r rune) rune {
		if r < 0x80 && guestSteps[byte(r)] != "" {
			return r
		}
		return -1
	}, g.String())
}
