package capture

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// hurry lets a goroutine run ahead of other work on a busy host while it has
// more to do than it keeps up with: what a capture misses cannot be had again.
// At rest it costs no thread. It belongs to the goroutine.
type hurry struct{ on bool }

// ahead is the nice value in a hurry: some nine times the share of others.
const ahead = -10

// set starts or ends the hurry. Without the right to it nothing changes.
func (h *hurry) set(on bool) {
	if on == h.on {
		return
	}
	if on {
		runtime.LockOSThread() // the nice value is the thread's
		if unix.Setpriority(unix.PRIO_PROCESS, 0, ahead) != nil {
			runtime.UnlockOSThread()
			return
		}
		h.on = true
		return
	}
	// A thread that cannot be made ordinary again ends with its goroutine.
	if unix.Setpriority(unix.PRIO_PROCESS, 0, 0) == nil {
		runtime.UnlockOSThread()
		h.on = false
	}
}
