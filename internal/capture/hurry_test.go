package capture

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestHurryEnds(t *testing.T) {
	needRoot(t)
	nice := func() int {
		raw, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
		if err != nil {
			t.Fatal(err)
		}
		return 20 - raw
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		var h hurry
		usual := nice()
		for range 2 {
			h.set(true)
			h.set(true)
			if h.on != (nice() == ahead) {
				t.Errorf("in a hurry %v: nice %d", h.on, nice())
			}
			h.set(false)
			if h.on || nice() != usual {
				t.Errorf("afterwards: nice %d, usual %d", nice(), usual)
			}
		}
	}()
	<-done
}
