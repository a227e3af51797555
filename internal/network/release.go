package network

import "context"

// Retirer is a Datapath that can wait for devices to go with the network
// namespace of their other end, which costs less than removing them.
type Retirer interface {
	// Retire is Delete for ports of containers that end. Once ctx has ended it
	// waits for nothing. A bridge without ports may stay for some moments, for
	// the next ones.
	Retire(ctx context.Context, ports []Port) error
	// Settle removes bridges that stayed.
	Settle(ctx context.Context) error
}

// leaving are ports that are forgotten and whose devices are to go; guarded by
// Manager.mu.
type leaving struct {
	ports    []Port
	removing bool               // one goroutine does it
	hurry    context.CancelFunc // of what it waits for
	hurried  int                // how many want all of it to be gone
	idle     chan struct{}      // closed by the goroutine at its end
}

// Release forgets ports at once and has their devices removed within moments,
// those of several callers in one go: the kernel takes its time over each
// removal, however many devices it is of. If one of the names is unknown it
// does nothing.
func (m *Manager) Release(ctx context.Context, names ...string) error {
	if err := m.begin(); err != nil {
		return err
	}
	defer m.ops.Done()
	taken, err := m.take(ctx, names)
	if err != nil {
		return err
	}
	defer give(taken)
	ports, err := m.unhook(ctx, taken)
	if err != nil {
		return err
	}
	m.forget(taken, ports)
	m.mu.Lock()
	defer m.mu.Unlock()
	l := &m.leaving
	l.ports = append(l.ports, ports...)
	if !l.removing {
		l.removing, l.idle = true, make(chan struct{})
		m.ops.Add(1)
		go m.removeLeaving()
	}
	return nil
}

// removeLeaving removes devices until there are none to remove.
func (m *Manager) removeLeaving() {
	defer m.ops.Done()
	for {
		ctx, cancel := context.WithCancel(context.Background())
		m.mu.Lock()
		l := &m.leaving
		ports := l.ports
		l.ports, l.hurry = nil, cancel
		if l.removing = len(ports) > 0; !l.removing {
			close(l.idle)
		}
		if l.hurried > 0 || m.closed {
			cancel()
		}
		m.mu.Unlock()
		if len(ports) == 0 {
			cancel()
			return
		}
		var err error
		if r, ok := m.dp.(Retirer); ok {
			err = r.Retire(ctx, ports)
		} else {
			err = m.dp.Delete(context.WithoutCancel(ctx), ports)
		}
		cancel()
		if err != nil {
			m.opts.Log.Warn("cannot remove taps", "err", err)
		}
	}
}

func (m *Manager) hurryLocked() {
	if m.leaving.hurry != nil {
		m.leaving.hurry()
	}
}

// Settle returns when the devices of all that was released have gone, and the
// bridges that nobody needs any more with them.
func (m *Manager) Settle(ctx context.Context) error {
	if err := m.begin(); err != nil {
		return err
	}
	defer m.ops.Done()
	m.mu.Lock()
	m.leaving.hurried++
	m.hurryLocked()
	removing, idle := m.leaving.removing, m.leaving.idle
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		m.leaving.hurried--
		m.mu.Unlock()
	}()
	if removing {
		select {
		case <-idle:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if r, ok := m.dp.(Retirer); ok {
		return r.Settle(ctx)
	}
	return nil
}
