package container

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"

	"golang.org/x/sys/unix"

	"minimega/internal/host/stage"
)

// screen is what a console showed last, for those who connect. It is in the
// memory of the keeper, too, and outlives the daemon there: the keeper's room
// (stage.RoomAddr) is written by way of /proc/PID/mem, a call for each piece of
// output and nothing before the first. It has two places of 2,048 bytes, used
// in turn:
//
//	4 bytes  CRC-32 (Castagnoli) of what follows
//	4 bytes  length of the text, at most 1,920
//	8 bytes  number, one more than that of the other place
//	text     as the container wrote it
//
// Numbers are in the byte order of the host. The place in order with the larger
// number counts, so that one half written is as good as none. A zeroed room has
// no place in order: nothing was shown yet.
//
// Once made, a screen belongs to the goroutine of the poller.
type screen struct {
	keeper *keeper
	lack   *shortage
	mem    int // memory of the keeper, -1 while it is not open
	lost   bool
	number uint64 // of the last place written
	place  []byte // to be written next: head and text; nil while there is none
}

const (
	scrollback = 1920 // bytes: a screen of 80 by 24
	placeSize  = 2048
	placeHead  = 16
	roomSize   = 2 * placeSize
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// newScreen returns the screen of a keeper, with what an earlier daemon left if
// the keeper is not our child. Where that fails the screen is of use, too: it is
// only not kept.
func newScreen(k *keeper, lack *shortage) (*screen, error) {
	s := &screen{keeper: k, lack: lack, mem: -1}
	if k.child {
		return s, nil
	}
	err := s.load()
	if err != nil {
		err = errors.Join(fmt.Errorf("what the console showed last: %w", err), s.close())
	}
	return s, err
}

// load reads what an earlier daemon left. Keepers of older versions have no
// room.
func (s *screen) load() error {
	if err := s.open(); err != nil {
		return err
	}
	// The keeper is still there, so the memory was its own.
	if err := unix.PidfdSendSignal(s.keeper.fd, 0, nil, 0); err != nil {
		return err
	}
	var room [roomSize]byte
	n, err := unix.Pread(s.mem, room[:], stage.RoomAddr)
	if errors.Is(err, unix.EIO) {
		return s.close()
	}
	s.read(room[:max(n, 0)])
	return err
}

// read takes the place that counts out of a room.
func (s *screen) read(room []byte) {
	for len(room) >= placeSize {
		place := room[:placeSize]
		room = room[placeSize:]
		size := binary.NativeEndian.Uint32(place[4:])
		if size > scrollback {
			continue
		}
		place = place[:placeHead+size]
		number := binary.NativeEndian.Uint64(place[8:])
		if binary.NativeEndian.Uint32(place) == crc32.Checksum(place[4:], castagnoli) && (s.place == nil || number > s.number) {
			s.number, s.place = number, append([]byte(nil), place...)
		}
	}
}

// text is what was shown last.
func (s *screen) text() []byte {
	if s.place == nil {
		return nil
	}
	return s.place[placeHead:]
}

// add appends what is shown.
func (s *screen) add(b []byte) {
	if len(b) > scrollback {
		b = b[len(b)-scrollback:]
	}
	if s.place == nil {
		s.place = make([]byte, placeHead, placeHead+len(b))
	}
	if over := len(s.text()) + len(b) - scrollback; over > 0 {
		s.place = append(s.place[:placeHead], s.place[placeHead+over:]...)
	}
	s.place = append(s.place, b...)
}

// save writes it into the keeper's memory. An error comes once, and nothing is
// kept from then on.
func (s *screen) save() error {
	if s.mem < 0 && !s.lost {
		if err := s.openLate(); err != nil {
			return err
		}
	}
	if s.mem < 0 {
		return nil
	}
	at := s.seal()
	n, err := unix.Pwrite(s.mem, s.place, stage.RoomAddr+at)
	if err != nil {
		err = fmt.Errorf("write to memory of process %d: %w", s.keeper.pid, err)
	}
	if err != nil || n == 0 { // 0: the keeper has ended
		return errors.Join(err, s.close())
	}
	return nil
}

// openLate opens the memory of a child. Without descriptors it does nothing:
// the next piece of output comes here again.
func (s *screen) openLate() error {
	select {
	case <-s.keeper.done: // its pid may be another's
		return s.close()
	default: // and is not before this goroutine reaps it
	}
	err := s.open()
	s.lack.note(err)
	switch {
	case err == nil, afterRefusal(err) == later:
		return nil
	case errors.Is(err, unix.ESRCH): // it has ended
		return s.close()
	}
	return errors.Join(err, s.close())
}

// seal writes the head of the place, and returns where in the room that belongs.
func (s *screen) seal() int64 {
	s.number++
	binary.NativeEndian.PutUint32(s.place[4:], uint32(len(s.text())))
	binary.NativeEndian.PutUint64(s.place[8:], s.number)
	binary.NativeEndian.PutUint32(s.place, crc32.Checksum(s.place[4:], castagnoli))
	return int64(s.number%2) * placeSize
}

func (s *screen) open() (err error) {
	path := fmt.Sprintf("/proc/%d/mem", s.keeper.pid)
	if s.mem, err = unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		err = &os.PathError{Op: "open", Path: path, Err: err}
	}
	return err
}

// close lets go of the memory of the keeper.
func (s *screen) close() error {
	s.lost = true
	if s.mem < 0 {
		return nil
	}
	fd := s.mem
	s.mem = -1
	return unix.Close(fd)
}
