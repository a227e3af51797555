package hosttest

import (
	"os"
	"sync"
	"testing"
)

// Forks starts short-lived processes, several at a time, until the returned
// function is called. Each has, until it executes its program, all descriptors
// that are open in this process.
func Forks(t testing.TB) (stop func()) {
	t.Helper()
	end := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-end:
					return
				default:
				}
				p, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{})
				if err == nil {
					_, err = p.Wait()
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	return sync.OnceFunc(func() { close(end); wg.Wait() })
}
