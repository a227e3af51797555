package record

import (
	"context"
	"sync/atomic"
	"time"

	"minimega/internal/journal"
)

// job is one recording or playback.
type job struct {
	key    key
	vm     int
	path   string
	output bool // path is written
	entry  *journal.Entry

	items  atomic.Int64
	bytes  atomic.Int64
	player *player // of a playback

	// Written under the manager's lock before the goroutine starts.
	doomed  bool // somebody ended it while it started
	started bool
	start   time.Time
	cancel  context.CancelFunc

	done chan struct{} // closed at the end
	err  error         // why it ended; valid after done
}

func newJob(kind string, t Target, path string, output bool) *job {
	return &job{key: key{kind, t.Namespace, t.Name}, vm: t.ID, path: path, output: output, done: make(chan struct{})}
}

// running tells whether the job has not ended; one that is about to start counts.
func (j *job) running() bool {
	select {
	case <-j.done:
		return false
	default:
		return true
	}
}

// end stops the job, waits for it, and returns why it had failed.
func (j *job) end() error {
	j.cancel()
	<-j.done
	return j.err
}

func (j *job) info() Info {
	i := Info{Name: j.key.name, Namespace: j.key.namespace, Type: j.key.kind, Filename: j.path,
		Items: j.items.Load(), Bytes: j.bytes.Load()}
	var d time.Duration
	if j.started {
		d = time.Since(j.start)
	}
	if j.player == nil {
		i.Time = d.Round(time.Second).String()
	} else {
		i.Time = j.player.clock.describe()
	}
	return i
}
