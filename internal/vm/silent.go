package vm

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"sync/atomic"
	"time"

	"minimega/internal/errs"
	"minimega/internal/host"
)

const (
	// silentTag is in the tag `error` of a VM whose machine does not answer.
	silentTag = "QEMU does not answer; still trying"
	// retryTime is between two attempts to reach it.
	retryTime = time.Second
)

// silent stands for a machine whose process runs but does not answer its new
// daemon, as when it was stopped by a signal or waits for a disk. It can be
// ended, and nothing else. The process and its files stay as they are.
type silent struct {
	*host.Proc
	v      *VM
	i      *instance
	killed atomic.Bool
}

func (s *silent) Start(context.Context) error { return s.refuse() }
func (s *silent) Stop(context.Context) error  { return s.refuse() }

// QMP has nobody to go to, which is what `vm why` asks for.
func (s *silent) QMP(context.Context, json.RawMessage) (json.RawMessage, error) {
	return nil, s.refuse()
}

func (s *silent) refuse() error {
	return errs.WithRemedy(errs.New(errs.State, silentTag), "wait, or `vm kill` it")
}

// Kill ends it by force: it would not hear a request.
func (s *silent) Kill(ctx context.Context) error {
	s.killed.Store(true)
	return s.v.manager.end(ctx, s.i)
}

// Err tells why the process ended.
func (s *silent) Err() error {
	if s.killed.Load() {
		return nil
	}
	return s.v.manager.remains(s.v)
}

// answering is Machine, but for one that does not answer: what that can do, it
// cannot say.
func (v *VM) answering() (Machine, error) {
	m, err := v.Machine()
	if s, ok := m.(*silent); ok {
		err = s.refuse()
	}
	return m, err
}

// mute reports whether an error means that a machine has not answered, rather
// than that it never will.
func mute(err error) bool {
	return errors.Is(err, errs.Unreachable) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// wait leaves a machine that does not answer alone, and goes on trying to take
// it over. The VM stays in the state in which it was left.
func (v *VM) wait(i *instance, why error) error {
	p, err := host.AdoptProc(i.pid())
	if err != nil {
		err = v.manager.end(context.Background(), i) // it has just gone
		v.lastState(v.manager.remains(v))
		return err
	}
	s := &silent{Proc: p, v: v, i: i}
	ended := make(chan struct{})
	v.mu.Lock()
	v.machine, v.ended = s, ended
	v.mu.Unlock()
	v.SetTag("error", silentTag)
	v.manager.watchers.Add(1)
	go func() { v.watch(v.keepTrying(s), ended) }()
	return why
}

// keepTrying returns the machine once it answers; what stands for it, when it
// has ended or the manager closes.
func (v *VM) keepTrying(s *silent) Machine {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	v.manager.watchers.Go(func() {
		select {
		case <-s.Done():
		case <-v.manager.closing:
		case <-ctx.Done():
		}
		cancel()
	})
	for {
		select {
		case <-ctx.Done():
			return s
		case <-time.After(retryTime):
		}
		m, c, state, err := v.reach(ctx, s.i)
		if err != nil {
			continue
		}
		if err := v.take(ctx); err != nil { // it is being killed, or minimega ends
			_ = m.Close()
			return s
		}
		v.mu.Lock()
		now := v.config.Clone() // it may have been changed meanwhile
		now.Disks, now.CdromPath = c.Disks, c.CdromPath
		if v.adding != nil && len(c.Networks) > len(now.Networks) { // it is plugged in
			now.Networks = append(now.Networks, *v.adding)
		}
		forgetSilence(now)
		v.config, v.machine, v.state, v.adding = now, m, state, nil
		v.mu.Unlock()
		v.give()
		v.writeConfig()
		v.setStateIfAlive(state)
		v.log().Info("a machine that did not answer was taken over")
		_ = s.Close() // the machine has its own watch of the process
		return m
	}
}

// forgetSilence drops the tag of a machine that answers.
func forgetSilence(c *Config) {
	if c.Tags["error"] == silentTag {
		c.Tags = maps.Clone(c.Tags)
		delete(c.Tags, "error")
	}
}
