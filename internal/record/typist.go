package record

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"minimega/internal/errs"
	"minimega/pkg/vnc"
)

// typist sends input to a machine and knows what it holds down.
type typist struct {
	c       *vnc.Client
	updates chan struct{}
	wg      sync.WaitGroup

	mu   sync.Mutex          // guards the fields below, and the order of what is sent
	held map[uint32]struct{} // keys; nil once they have been released for good
	last vnc.PointerEvent
}

var errTypistGone = errs.New(errs.State, "its connection to the screen is being closed")

// newTypist connects with RFB 3.3, and shares the screen with others.
func newTypist(ctx context.Context, t Target) (*typist, error) {
	c, err := vnc.Dial(ctx, t.Proxy.Dial, vnc.Options{Version33: true, Discard: true, Encodings: []vnc.Encoding{vnc.EncRaw}})
	if err != nil {
		return nil, errs.New(errs.Unreachable, "its screen does not answer: %w", err)
	}
	y := &typist{c: c, held: map[uint32]struct{}{}, updates: make(chan struct{}, 1)}
	y.wg.Go(y.listen)
	return y, nil
}

// listen takes what the server says, so that it never waits for us.
func (y *typist) listen() {
	defer close(y.updates)
	for {
		m, err := y.c.Next()
		if err != nil {
			return
		}
		if _, ok := m.(vnc.Update); ok {
			select {
			case y.updates <- struct{}{}:
			default:
			}
		}
	}
}

func (y *typist) key(e vnc.KeyEvent) error {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.held == nil {
		return errTypistGone
	}
	if e.Down {
		y.held[e.Keysym] = struct{}{}
	} else {
		delete(y.held, e.Keysym)
	}
	return y.c.Key(e)
}

func (y *typist) pointer(e vnc.PointerEvent) error {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.held == nil {
		return errTypistGone
	}
	y.last = e
	return y.c.Pointer(e)
}

// settleTime bounds the wait for a server to have taken all input.
const settleTime = 3 * time.Second

// close releases what is held down, waits until the server has taken all input
// (it may drop what it has not read when the connection ends), and leaves.
func (y *typist) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = y.c.Close() })
	defer stop()
	err := y.release()
	if err == nil {
		err = y.settle(ctx)
	}
	_ = y.c.Close()
	y.wg.Wait()
	return err
}

// release lets go of all keys and buttons; nothing is sent after that.
func (y *typist) release() error {
	y.mu.Lock()
	defer y.mu.Unlock()
	var failed []error
	for _, k := range slices.Sorted(maps.Keys(y.held)) {
		failed = append(failed, y.c.Key(vnc.KeyEvent{Keysym: k}))
	}
	if y.last.Buttons != 0 {
		y.last.Buttons = 0
		failed = append(failed, y.c.Pointer(y.last))
	}
	y.held = nil
	return errors.Join(failed...)
}

// settle waits for an answer that shows that all before was read. QEMU answers
// at once to being told of extended keys, but sends pixels, which every server
// has, only at its next look at the screen, seconds later if that is idle.
func (y *typist) settle(ctx context.Context) error {
	err := errors.Join(y.c.SetEncodings([]vnc.Encoding{vnc.EncRaw, vnc.EncExtendedKey}), y.c.RequestPixel())
	if err != nil {
		return err
	}
	select {
	case _, ok := <-y.updates:
		if !ok {
			return errs.New(errs.Unreachable, "the screen closed the connection before it had taken all input")
		}
	case <-ctx.Done():
	}
	return nil
}

// Type types text on an en-us keyboard of t: printable ASCII, newline, tab,
// backspace, escape. Anything else is refused (errs.Invalid) before the first
// key. It returns when the machine has taken the keys; long text takes its
// time, since QEMU loses keys that come too fast.
func (m *Manager) Type(ctx context.Context, t Target, text string) error {
	if err := m.typeText(ctx, t, text); err != nil {
		return errs.InVM(errs.AtStep(err, "type"), t.Name)
	}
	return nil
}

func (m *Manager) typeText(ctx context.Context, t Target, text string) error {
	if t.Proxy == nil {
		return noScreen(t, "type")
	}
	for _, r := range text {
		if !vnc.Typeable(r) {
			return errs.New(errs.Invalid, "cannot type %q: an en-us keyboard has no key for it", r)
		}
	}
	ctx, leave, err := m.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	y, err := newTypist(ctx, t)
	if err != nil {
		return err
	}
	err = vnc.Type(ctx, vnc.TypeKeys(text), y.key)
	return errors.Join(err, y.close(context.WithoutCancel(ctx)))
}

// enter makes Close end and wait for work that is not a job.
func (m *Manager) enter(ctx context.Context) (context.Context, func(), error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, nil, errs.New(errs.State, "recordings are shutting down")
	}
	m.wg.Add(1)
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(m.ctx, cancel)
	return ctx, func() { stop(); cancel(); m.wg.Done() }, nil
}
