package record

import (
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"minimega/pkg/vnc"
)

// A recording is compressed in batches. What a batch has so far is in a file
// beside the journal's entry as well, written as it comes and not compressed, so
// that a daemon that is killed has lost nothing that it had received. That file
// begins with the inode and the length of the recording before the batch, behind
// which everything in the recording counts for nothing, and the offset of the
// last chunk in it; chunks follow as in the recording.
const (
	tailHead  = 24
	batchTime = time.Second
	batchSize = 8 << 20 // bytes
)

// tail is that file. Nil is none: nothing is ever taken up.
type tail struct {
	f     *os.File // nil if it cannot be written
	inode uint64   // of the recording
	size  int64    // of whole chunks, and the head
}

// openTail makes the file for what follows the first length bytes of a
// recording. On an error the tail is there, but batches have a chunk each.
func openTail(path string, recording *os.File, length int64, last time.Duration) (*tail, error) {
	if path == "" {
		return nil, nil
	}
	t := &tail{}
	info, err := recording.Stat()
	if err == nil {
		t.inode = inode(info)
		t.f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	}
	if err != nil {
		return &tail{}, err
	}
	return t, t.begin(length, last)
}

func inode(info fs.FileInfo) uint64 { return info.Sys().(*syscall.Stat_t).Ino }

// begin starts a batch. Killed between its two steps, it leaves an empty file,
// which tells nothing: the recording is complete then. After an error there is
// no file.
func (t *tail) begin(length int64, last time.Duration) error {
	if t == nil || t.f == nil {
		return nil
	}
	t.size = tailHead
	var head [tailHead]byte
	binary.BigEndian.PutUint64(head[:], t.inode)
	binary.BigEndian.PutUint64(head[8:], uint64(length))
	binary.BigEndian.PutUint64(head[16:], uint64(last))
	err := t.f.Truncate(0)
	if err == nil {
		_, err = t.f.WriteAt(head[:], 0)
	}
	if err == nil {
		return nil
	}
	err = errors.Join(err, os.Remove(t.f.Name()), t.f.Close())
	t.f = nil
	return err
}

// chunk adds a chunk in one go. It reports whether that makes it safe.
func (t *tail) chunk(at time.Duration, data []byte) (safe bool) {
	if t == nil || t.f == nil {
		return t == nil
	}
	head := vnc.AppendChunkHead(nil, at, len(data))
	want := len(head) + len(data) + len(vnc.ChunkEnd)
	n, err := unix.Pwritev(int(t.f.Fd()), [][]byte{head, data, []byte(vnc.ChunkEnd)}, t.size)
	if err != nil || n != want {
		return false
	}
	t.size += int64(n)
	return true
}

// full reports whether there is so much that the batch should end early.
func (t *tail) full() bool { return t != nil && t.size > batchSize }

// close closes the file, which the journal's entry takes with it.
func (t *tail) close() error {
	if t == nil || t.f == nil {
		return nil
	}
	return t.f.Close()
}

// mend makes a recording whole with what a tail at path has: the recording ends
// where the batch began, and the batch follows, compressed. It reports false if
// there is no tail that tells, or another file by now, and returns the offset of
// the last chunk.
func mend(recording *os.File, path string) (last time.Duration, done bool, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) || path == "" {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	defer f.Close()
	var head [tailHead]byte
	if _, err := io.ReadFull(f, head[:]); err != nil {
		return 0, false, nil
	}
	length, last := int64(binary.BigEndian.Uint64(head[8:])), time.Duration(binary.BigEndian.Uint64(head[16:]))
	info, err := recording.Stat()
	if err != nil {
		return 0, false, err
	}
	if inode(info) != binary.BigEndian.Uint64(head[:]) || length < 0 || last < 0 || info.Size() < length {
		return 0, false, nil
	}
	if err := recording.Truncate(length); err != nil {
		return 0, false, err
	}
	if _, err := recording.Seek(length, io.SeekStart); err != nil {
		return 0, false, err
	}
	at, err := vnc.PackFB(f, recording, fbUpdate)
	return max(at, last), err == nil, err
}
