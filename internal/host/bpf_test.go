package host

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLoadBPFInterrupted: the kernel gives up checking a program when a signal
// comes, as those do by which the Go runtime interrupts threads.
func TestLoadBPFInterrupted(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	tid := unix.Gettid()
	stop := make(chan struct{})
	var signals sync.WaitGroup
	signals.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Tgkill(os.Getpid(), tid, unix.SIGURG)
			}
		}
	})
	defer signals.Wait()
	defer close(stop)
	pass := []uint64{0x00b7, 0x95} // r0 = 0; exit
	for i := range 500 {
		fd, err := LoadBPF(unix.BPF_PROG_TYPE_SCHED_CLS, pass)
		if errors.Is(err, unix.EPERM) {
			t.Skip(err)
		}
		if err != nil {
			t.Fatalf("program %d: %v", i, err)
		}
		unix.Close(fd)
	}
}
