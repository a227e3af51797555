package rfbplay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"regexp"
	"runtime"
	"strings"
	"sync"

	"minimega/internal/errs"
)

// pngSink writes numbered PNG files, a file per period. Files of a screen that
// does not change are one file with several names.
type pngSink struct {
	pattern string
	next    int64 // number of the next file, from 1
	jobs    chan pngJob
	wg      sync.WaitGroup

	mu   sync.Mutex // guards the fields below
	made []string
	err  error
}

// maxFiles bounds what one recording can fill a disk with: a day, ten a second.
const maxFiles = 1_000_000

type pngJob struct {
	screen *image.RGBA // a copy
	first  int64
	n      int64
}

var numberVerb = regexp.MustCompile(`%0?[0-9]?d`)

// newPNGs understands path as the name of a file with a %d in it, as in
// frame-%05d.png; without one, the number is put before the extension.
func newPNGs(path string) (*pngSink, error) {
	verbs := numberVerb.FindAllString(path, -1)
	switch {
	case len(verbs) == 0 && !strings.Contains(path, "%"):
		path = path[:len(path)-len(".png")] + "-%06d" + path[len(path)-len(".png"):]
	case len(verbs) != 1 || strings.Count(path, "%") != 1:
		return nil, errs.New(errs.Invalid, "%s: one %%d, as in frame-%%05d.png, stands for the number of the frame", path)
	}
	p := &pngSink{pattern: path, next: 1, jobs: make(chan pngJob)}
	for range runtime.GOMAXPROCS(0) {
		p.wg.Go(p.work)
	}
	return p, nil
}

func (p *pngSink) frame(ctx context.Context, screen *image.RGBA, _ change, n int64) error {
	p.mu.Lock()
	err := p.err
	p.mu.Unlock()
	if err != nil {
		return err
	}
	if p.next+n > maxFiles {
		return errs.WithRemedy(errs.New(errs.Invalid, "%s would become more than %d files", p.pattern, int64(maxFiles)),
			"choose a lower -rate, or make a film")
	}
	m := image.NewRGBA(screen.Rect)
	copy(m.Pix, screen.Pix)
	select {
	case p.jobs <- pngJob{m, p.next, n}:
	case <-ctx.Done():
		return ctx.Err()
	}
	p.next += n
	return nil
}

func (p *pngSink) work() {
	e := png.Encoder{CompressionLevel: png.BestSpeed, BufferPool: &oneBuffer{}}
	var c colours
	var buf bytes.Buffer
	for j := range p.jobs {
		buf.Reset()
		err := e.Encode(&buf, paletted(&c, j.screen))
		if err == nil {
			err = p.write(buf.Bytes(), j)
		}
		if err != nil {
			p.mu.Lock()
			p.err = errors.Join(p.err, err)
			p.mu.Unlock()
		}
	}
}

// paletted is m with a palette if it has few colours: smaller, and faster to compress.
func paletted(c *colours, m *image.RGBA) image.Image {
	if !c.exact(m, m.Rect) {
		return m
	}
	palette := make(color.Palette, len(c.palette))
	for i, v := range c.palette {
		palette[i] = color.RGBA{uint8(v >> 16), uint8(v >> 8), uint8(v), 255}
	}
	return &image.Paletted{Pix: c.pix, Stride: m.Rect.Dx(), Rect: m.Rect, Palette: palette}
}

// write makes the files of a job. What is there already is not touched.
func (p *pngSink) write(data []byte, j pngJob) error {
	first := fmt.Sprintf(p.pattern, j.first)
	if err := p.create(first, data); err != nil {
		return err
	}
	for i := j.first + 1; i < j.first+j.n; i++ {
		name := fmt.Sprintf(p.pattern, i)
		if err := os.Link(first, name); err == nil {
			p.add(name)
		} else if err := p.create(name, data); err != nil { // a file system without links
			return err
		}
	}
	return nil
}

func (p *pngSink) create(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, os.ErrExist) {
		return errs.WithRemedy(errs.New(errs.Exists, "%s is there already", name), "remove it, or choose another name")
	}
	if err != nil {
		return errs.New(errs.Invalid, "cannot make %s: %w", name, plainError(err))
	}
	p.add(name)
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil {
		return errs.New(errs.Resource, "cannot write %s: %w", name, plainError(err))
	}
	return nil
}

func (p *pngSink) add(name string) {
	p.mu.Lock()
	p.made = append(p.made, name)
	p.mu.Unlock()
}

func (p *pngSink) finish() (string, error) {
	close(p.jobs)
	p.wg.Wait()
	if p.err != nil {
		p.remove()
		return "", p.err
	}
	return fmt.Sprintf("%d frames, %s to %s", p.next-1, fmt.Sprintf(p.pattern, 1), fmt.Sprintf(p.pattern, p.next-1)), nil
}

func (p *pngSink) abandon() {
	close(p.jobs)
	p.wg.Wait()
	p.remove()
}

func (p *pngSink) remove() {
	for _, name := range p.made {
		_ = os.Remove(name)
	}
}

// oneBuffer lets an encoder keep its memory.
type oneBuffer struct{ b *png.EncoderBuffer }

func (o *oneBuffer) Get() *png.EncoderBuffer  { return o.b }
func (o *oneBuffer) Put(b *png.EncoderBuffer) { o.b = b }
