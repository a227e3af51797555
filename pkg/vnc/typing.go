package vnc

import (
	"context"
	"time"
)

// QEMU takes a key each 10 ms of the guest's time, more slowly on a busy host,
// and holds a queue of about 340 (1024 entries, three per key); what comes
// faster is lost, and nothing tells. The pace stays well below both.
const (
	typeBurst = 100                   // keys sent at once
	typeEvery = 20 * time.Millisecond // one more key after that
)

// Type sends keys through send, no faster than QEMU can take them.
func Type(ctx context.Context, keys []KeyEvent, send func(KeyEvent) error) error {
	start := time.Now()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for i, k := range keys {
		if wait := time.Until(start.Add(time.Duration(i-typeBurst) * typeEvery)); wait > 0 {
			timer.Reset(wait)
			select {
			case <-ctx.Done():
			case <-timer.C:
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := send(k); err != nil {
			return err
		}
	}
	return nil
}

// typist types what a client's clipboard held, beside the client's own input.
type typist struct {
	texts  chan string
	cancel context.CancelFunc
	done   chan struct{}
}

// maxTexts is how many clipboard texts may wait to be typed.
const maxTexts = 4

// typeText queues text. It is called by the client's goroutine alone.
func (s *session) typeText(c CutText) {
	if s.typist == nil {
		ctx, cancel := context.WithCancel(s.proxy.ctx)
		s.typist = &typist{texts: make(chan string, maxTexts), cancel: cancel, done: make(chan struct{})}
		go s.typeTexts(ctx, s.typist)
	}
	if c.Truncated {
		s.log.Warn("clipboard text is too long to be typed whole", "typed bytes", len(c.Text))
	}
	select {
	case s.typist.texts <- c.Text:
	default:
		s.log.Warn("clipboard text is not typed: earlier ones still are", "bytes", len(c.Text))
	}
}

func (s *session) typeTexts(ctx context.Context, t *typist) {
	defer close(t.done)
	for {
		select {
		case <-ctx.Done():
			return
		case text := <-t.texts:
			err := Type(ctx, TypeKeys(text), func(k KeyEvent) error {
				s.publish(k)
				return s.write(k.Append(nil))
			})
			if err != nil {
				return // the connection ends, and says so
			}
		}
	}
}

// stopTyping ends the typist, if there is one, and waits for it.
func (s *session) stopTyping() {
	if s.typist == nil {
		return
	}
	s.typist.cancel()
	<-s.typist.done
	s.typist = nil
}
