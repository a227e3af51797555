package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

type powerState int

const (
	powerOff powerState = unix.LINUX_REBOOT_CMD_POWER_OFF
	reboot   powerState = unix.LINUX_REBOOT_CMD_RESTART
)

// PowerOff asks for the machine to be switched off.
func (m *Machine) PowerOff() { m.request(powerOff) }

// Reboot asks for the machine to start again.
func (m *Machine) Reboot() { m.request(reboot) }

func (m *Machine) request(s powerState) {
	select {
	case m.power <- s:
	default: // one is on its way
	}
}

// WaitPower waits until somebody asks for the machine to be switched off or to
// start again, and does it. It returns only if the kernel refuses.
func (m *Machine) WaitPower() error { return m.shutdown(<-m.power) }

// shutdown ends all processes, writes back, and asks the kernel for the rest.
// It returns only if the kernel refuses.
func (m *Machine) shutdown(s powerState) error {
	m.Log.Info("going down")
	endProcesses()
	unix.Sync()
	unmountAll()
	if err := unix.Reboot(int(s)); err != nil {
		return fmt.Errorf("power: %w", err)
	}
	return nil
}

func endProcesses() {
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		if !othersRun() {
			return
		}
		unix.Kill(-1, sig)
		for end := time.Now().Add(2 * time.Second); othersRun() && time.Now().Before(end); {
			pause(context.Background(), 20*time.Millisecond)
		}
	}
}

func othersRun() bool {
	for _, p := range Processes() {
		if p.PID != os.Getpid() && p.Command != "" && p.State != "Z" {
			return true
		}
	}
	return false
}

// unmountAll unmounts what somebody mounted on top of what we did, so that a
// disk is left clean.
func unmountAll() {
	data, err := os.ReadFile("/proc/mounts")
	if err != nil {
		return
	}
	lines := strings.Split(string(data), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		f := strings.Fields(lines[i])
		if len(f) > 1 && strings.HasPrefix(f[0], "/dev/") {
			unix.Unmount(f[1], 0) // a busy one was synced
		}
	}
}

// watchCtrlAltDel takes the key combination as a wish to switch off: the
// kernel sends SIGINT to PID 1 instead of resetting at once.
func (m *Machine) watchCtrlAltDel(ctx context.Context) error {
	pressed := make(chan os.Signal, 1)
	signal.Notify(pressed, unix.SIGINT)
	defer signal.Stop(pressed)
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF); err != nil {
		return err
	}
	select {
	case <-pressed:
		m.Log.Info("ctrl-alt-del pressed")
		m.PowerOff()
	case <-ctx.Done():
	}
	return nil
}

// watchButtons waits for the ACPI power button, which the kernel shows as a
// keyboard with one key. Devices that appear later are found too.
func (m *Machine) watchButtons(ctx context.Context) error {
	watched := map[string]bool{}
	for ctx.Err() == nil {
		files, err := filepath.Glob("/dev/input/event*")
		if err != nil {
			return err
		}
		for _, f := range files {
			if !watched[f] {
				watched[f] = true
				m.Go(ctx, f, func(ctx context.Context) error { return m.watchButton(ctx, f) })
			}
		}
		pause(ctx, 2*time.Second)
	}
	return nil
}

// Input events, as in linux/input-event-codes.h.
const (
	eventSize = 24
	evKey     = 1
	keyPower  = 116
)

func (m *Machine) watchButton(ctx context.Context, file string) error {
	f, err := os.Open(file)
	if errors.Is(err, os.ErrNotExist) {
		<-ctx.Done()
		return nil
	}
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { f.Close() })
	defer stop()
	defer f.Close()
	buf := make([]byte, eventSize*16)
	for {
		n, err := f.Read(buf)
		if err != nil {
			return err
		}
		for e := buf[:n]; len(e) >= eventSize; e = e[eventSize:] {
			kind, code := binary.NativeEndian.Uint16(e[16:]), binary.NativeEndian.Uint16(e[18:])
			if kind == evKey && code == keyPower && binary.NativeEndian.Uint32(e[20:]) == 1 {
				m.Log.Info("power button pressed")
				m.PowerOff()
			}
		}
	}
}
