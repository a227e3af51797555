package miniclient

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// maxLine bounds one message. The largest real ones, tables of tens of
// thousands of VMs, stay far below.
const maxLine = 1 << 30

var errLongLine = errors.New("message is larger than 1 GiB")

// lines cuts a stream into lines.
type lines struct {
	r     *bufio.Reader
	spare []byte
}

func newLines(r io.Reader) *lines { return &lines{r: bufio.NewReaderSize(r, 64<<10)} }

// next returns a line that stays the caller's.
func (l *lines) next() ([]byte, error) {
	line, err := l.peek()
	if err != nil {
		return nil, err
	}
	if len(l.spare) > 0 && &line[0] == &l.spare[0] {
		l.spare = nil // the caller's from now on
		return line, nil
	}
	return bytes.Clone(line), nil
}

// peek returns a line that lasts until the next call.
func (l *lines) peek() ([]byte, error) {
	line, err := l.r.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		return line, err
	}
	l.spare = l.spare[:0]
	for errors.Is(err, bufio.ErrBufferFull) {
		if len(l.spare) > maxLine {
			return nil, errLongLine
		}
		l.spare = append(l.spare, line...)
		line, err = l.r.ReadSlice('\n')
	}
	l.spare = append(l.spare, line...)
	return l.spare, err
}

// isLast reports whether a message ends an answer, by the keys that every
// message has after its text.
func isLast(line []byte) bool {
	line = bytes.TrimSuffix(line, []byte("\n"))
	if bytes.HasSuffix(line, []byte(`"Status":false}`)) || bytes.HasSuffix(line, []byte(`"Status":true}`)) {
		return bytes.HasSuffix(line, []byte(`"More":false,"Status":false}`)) // without a look at the rest, which may be long
	}
	i := bytes.LastIndex(line, []byte(`,"Suggest":[`))
	return i >= 0 && bytes.HasSuffix(line[:i], []byte(`"Status":false`))
}
