// Package share keeps what all hosts of a mesh should know alike: which number
// a VLAN's alias has, over which hosts the VLANs of a namespace reach, and the
// log, where one host gets that of others.
package share

import (
	"context"
	"sync"
	"time"

	"minimega/pkg/meshage"
)

// none is the progress, or answer, of requests that have none.
type none struct{}

// followers runs something whenever a member joins or leaves, one event after
// the other for each, and waits for all at Close.
type followers struct {
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

func newFollowers() *followers {
	f := &followers{}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	return f
}

// follow calls do for each event, from a goroutine of its own.
func (f *followers) follow(mesh meshage.Mesh, do func(ctx context.Context, e meshage.Event)) {
	events := make(chan meshage.Event, 4096)
	stop := mesh.Watch(func(e meshage.Event) {
		select {
		case events <- e:
		case <-f.ctx.Done():
		}
	})
	f.wg.Go(func() {
		defer stop()
		for {
			select {
			case e := <-events:
				do(f.ctx, e)
			case <-f.ctx.Done():
				return
			}
		}
	})
}

// every calls do from time to time.
func (f *followers) every(d time.Duration, do func(ctx context.Context)) {
	f.wg.Go(func() {
		t := time.NewTicker(d)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				do(f.ctx)
			case <-f.ctx.Done():
				return
			}
		}
	})
}

func (f *followers) close() {
	f.cancel()
	f.wg.Wait()
}
