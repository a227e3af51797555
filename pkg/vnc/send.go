package vnc

import (
	"context"
	"errors"
	"image"
	"time"
)

// send writes one message, which add appends.
func (c *Client) send(add func([]byte) []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.buf = add(c.buf[:0])
	_, err := c.conn.Write(c.buf)
	return err
}

// SetPixelFormat tells the server how to send pixels. Only the standard
// format, which NewClient sets, can be decoded.
func (c *Client) SetPixelFormat(f PixelFormat) error {
	return c.send(func(b []byte) []byte { return f.append(append(b, msgSetPixelFormat, 0, 0, 0)) })
}

// SetEncodings tells the server which encodings it may use.
func (c *Client) SetEncodings(encs []Encoding) error {
	return c.send(func(b []byte) []byte { return appendSetEncodings(b, encs) })
}

// Request asks for an update of area: the changes since the last one, or all of it.
func (c *Client) Request(incremental bool, area image.Rectangle) error {
	return c.send(func(b []byte) []byte {
		return appendUpdateRequest(b, incremental, area.Min.X, area.Min.Y, area.Dx(), area.Dy())
	})
}

// Key sends a key event.
func (c *Client) Key(e KeyEvent) error { return c.send(e.Append) }

// Pointer sends a pointer event.
func (c *Client) Pointer(e PointerEvent) error { return c.send(e.Append) }

// Cut sends a new content of the clipboard.
func (c *Client) Cut(e CutText) error { return c.send(e.Append) }

// Capture asks for the whole screen, waits for it and returns it; the next
// call of Next or Capture changes it.
func (c *Client) Capture(ctx context.Context) (*image.RGBA, error) {
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	seen := image.Rectangle{}
	for ask := true; ; {
		if ask {
			if err := c.Request(false, c.dec.screen.Rect); err != nil {
				return nil, errors.Join(ctx.Err(), err)
			}
		}
		m, err := c.Next()
		if err != nil {
			return nil, errors.Join(ctx.Err(), err)
		}
		u, ok := m.(Update)
		if ask = ok && u.Resized; ask {
			seen = image.Rectangle{}
			continue
		}
		seen = seen.Union(u.Area)
		if ok && c.dec.screen.Rect.In(seen) {
			return c.dec.screen, nil
		}
	}
}

// RequestPixel asks for one pixel. Its update tells that the server has read
// all that was sent before.
func (c *Client) RequestPixel() error { return c.Request(false, image.Rect(0, 0, 1, 1)) }
