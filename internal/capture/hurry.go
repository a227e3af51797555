package capture

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// hurry lets a goroutine run ahead of other work on a busy host while it has
// more to do than it keeps up with: what a capture misses cannot be had again.
// At rest it costs no thread. It belongs to the goroutine.
type hurry struct {
	on    bool
	usual int // nice value of the thread before
}

// ahead is the nice value in a hurry: some nine times the share of others.
const ahead = -10

// set starts or ends the hurry. Without the right to it nothing changes.
func (h *hurry) set(on bool) {
	switch {
	case on == h.on:
	case on:
		runtime.LockOSThread() // the nice value is the thread's
		raw, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
		if err != nil || unix.Setpriority(unix.PRIO_PROCESS, 0, ahead) != nil {
			runtime.UnlockOSThread()
			return
		}
		h.on, h.usual = true, 20-raw
	case unix.Setpriority(unix.PRIO_PROCESS, 0, h.usual) == nil:
		runtime.UnlockOSThread() // else the thread ends with its goroutine
		h.on = false
	}
}
