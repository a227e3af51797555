package vnc

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// MaxKBLine bounds a line of a kb file in bytes: a picture in base64 fits.
const MaxKBLine = 16 << 20

// KBEvent is one event of a kb file: KeyEvent, PointerEvent, LoadFile,
// WaitForIt, ClickIt or Note.
type KBEvent interface{ kbEvent() }

// LoadFile plays another kb file, named relative to the one that names it.
type LoadFile struct{ Path string }

// WaitForIt waits until Image, a path or a picture in base64, is on the screen.
type WaitForIt struct {
	Timeout time.Duration
	Image   string
}

// ClickIt waits like WaitForIt and presses the left button at the centre of the match.
type ClickIt struct {
	Timeout time.Duration
	Image   string
}

// Note is a comment that whoever plays the file is shown.
type Note struct{ Text string }

func (KeyEvent) kbEvent()     {}
func (PointerEvent) kbEvent() {}
func (LoadFile) kbEvent()     {}
func (WaitForIt) kbEvent()    {}
func (ClickIt) kbEvent()      {}
func (Note) kbEvent()         {}

// KBLine is one event with the time to let pass before it.
type KBLine struct {
	Delta time.Duration
	Event KBEvent
	Line  int // in its file, from 1
}

// ErrKBLine marks a line that could not be understood; the lines after it can be read.
var ErrKBLine = errors.New("not a kb event")

// KBReader reads a kb file.
type KBReader struct {
	r    *bufio.Reader
	line int
}

// NewKBReader reads kb events from r.
func NewKBReader(r io.Reader) *KBReader { return &KBReader{r: bufio.NewReaderSize(r, 64<<10)} }

// Next returns the next event, io.EOF after the last one, or an error that is
// ErrKBLine and can be passed over by calling Next again. Any other error is final.
func (k *KBReader) Next() (KBLine, error) {
	for {
		text, err := k.readLine()
		if err != nil {
			return KBLine{}, err
		}
		l, ok, err := parseKBLine(text)
		if err != nil {
			return KBLine{}, fmt.Errorf("line %d: %w", k.line, err)
		}
		if ok {
			l.Line = k.line
			return l, nil
		}
	}
}

// readLine returns the next line without its end.
func (k *KBReader) readLine() (string, error) {
	var long []byte
	k.line++
	for {
		part, err := k.r.ReadSlice('\n')
		if len(long)+len(part) > MaxKBLine {
			return "", fmt.Errorf("line %d is longer than %d bytes", k.line, MaxKBLine)
		}
		switch {
		case err == nil && long == nil:
			return strings.TrimSpace(string(part)), nil
		case err == nil, errors.Is(err, io.EOF) && len(long)+len(part) > 0:
			return strings.TrimSpace(string(append(long, part...))), nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return "", err
		}
		long = append(long, part...)
	}
}

// parseKBLine understands one line; ok is false for what is not an event.
func parseKBLine(s string) (l KBLine, ok bool, err error) {
	if note, found := strings.CutPrefix(s, "#:"); found {
		return KBLine{Event: Note{Text: strings.TrimSpace(note)}}, true, nil
	}
	delta, event, found := strings.Cut(s, ":")
	if !found || strings.HasPrefix(s, "#") {
		return KBLine{}, false, nil
	}
	if l.Delta, err = parseKBTime(delta); err != nil {
		return KBLine{}, false, err
	}
	l.Event, err = ParseKBEvent(event)
	return l, err == nil, err
}

// parseKBTime takes nanoseconds or a Go duration, neither negative.
func parseKBTime(s string) (time.Duration, error) {
	s = strings.TrimSpace(s)
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n >= 0 {
		return time.Duration(n), nil
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return d, nil
	}
	return 0, fmt.Errorf("%w: %.40q is neither nanoseconds nor a duration like 1.5s", ErrKBLine, s)
}

// ParseKBEvent understands one event of a kb file, without its time.
func ParseKBEvent(s string) (KBEvent, error) {
	kind, rest, _ := strings.Cut(strings.TrimSpace(s), ",")
	switch kind {
	case "KeyEvent":
		return parseKBKey(rest)
	case "PointerEvent":
		return parseKBPointer(rest)
	case "LoadFile":
		if rest == "" {
			return nil, fmt.Errorf("%w: LoadFile without a file", ErrKBLine)
		}
		return LoadFile{Path: rest}, nil
	case "WaitForIt":
		t, img, err := parseKBImage(rest)
		return WaitForIt{t, img}, err
	case "ClickItEvent":
		t, img, err := parseKBImage(rest)
		return ClickIt{t, img}, err
	}
	return nil, fmt.Errorf("%w: %.40q", ErrKBLine, kind)
}

func parseKBKey(s string) (KBEvent, error) {
	downText, name, ok := strings.Cut(s, ",")
	down, err := strconv.ParseBool(downText)
	if !ok || err != nil {
		return nil, fmt.Errorf("%w: KeyEvent,%.40q; want KeyEvent,<true|false>,<keysym>", ErrKBLine, s)
	}
	k, err := ParseKeysym(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrKBLine, err)
	}
	return KeyEvent{Down: down, Keysym: k}, nil
}

func parseKBPointer(s string) (KBEvent, error) {
	f := strings.Split(s, ",")
	if len(f) == 3 {
		buttons, err1 := strconv.ParseUint(f[0], 10, 8)
		x, err2 := strconv.ParseUint(f[1], 10, 16)
		y, err3 := strconv.ParseUint(f[2], 10, 16)
		if errors.Join(err1, err2, err3) == nil {
			return PointerEvent{Buttons: uint8(buttons), X: uint16(x), Y: uint16(y)}, nil
		}
	}
	return nil, fmt.Errorf("%w: PointerEvent,%.40q; want PointerEvent,<buttons 0-255>,<x>,<y>", ErrKBLine, s)
}

func parseKBImage(s string) (time.Duration, string, error) {
	timeout, img, _ := strings.Cut(s, ",")
	t, err := parseKBTime(timeout)
	if err == nil && img == "" {
		err = fmt.Errorf("%w: an image is missing", ErrKBLine)
	}
	return t, img, err
}

// FormatKBEvent is the inverse of ParseKBEvent, for all but Note.
func FormatKBEvent(e KBEvent) string {
	switch e := e.(type) {
	case KeyEvent:
		return fmt.Sprintf("KeyEvent,%t,%s", e.Down, KeysymName(e.Keysym))
	case PointerEvent:
		return fmt.Sprintf("PointerEvent,%d,%d,%d", e.Buttons, e.X, e.Y)
	case LoadFile:
		return "LoadFile," + e.Path
	case WaitForIt:
		return fmt.Sprintf("WaitForIt,%s,%s", e.Timeout, e.Image)
	case ClickIt:
		return fmt.Sprintf("ClickItEvent,%s,%s", e.Timeout, e.Image)
	}
	return ""
}

// KBWriter writes a kb file, each event at once: what was seen is on disk.
type KBWriter struct {
	w    io.Writer
	last time.Time
}

// NewKBWriter writes to w; the first event's time counts from start.
func NewKBWriter(w io.Writer, start time.Time) *KBWriter { return &KBWriter{w: w, last: start} }

// Write adds an event that happened at the given time.
func (k *KBWriter) Write(at time.Time, e KBEvent) error {
	delta := max(at.Sub(k.last), 0)
	k.last = k.last.Add(delta)
	_, err := fmt.Fprintf(k.w, "%d:%s\n", delta, FormatKBEvent(e))
	return err
}

// Note adds a comment that whoever plays the file is shown.
func (k *KBWriter) Note(text string) error {
	text = strings.NewReplacer("\n", " ", "\r", " ").Replace(text)
	_, err := fmt.Fprintf(k.w, "#: %s\n", text)
	return err
}
