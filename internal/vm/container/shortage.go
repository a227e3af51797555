package container

import (
	"log/slog"
	"time"
)

// shortage says when descriptors or memory are lacking and when they are not
// any more. Who lacks them tries again ten times a second, and there may be a
// thousand who do: this is said once a minute at most. It belongs to the
// goroutine of the poller.
type shortage struct {
	log   *slog.Logger
	tries int       // in vain since it began
	said  bool      // that it began
	next  time.Time // when that may be said again
}

const shortagePause = time.Minute

// note takes the outcome of a try. One that succeeds ends the shortage.
func (s *shortage) note(err error) {
	switch {
	case err == nil:
		if s.said {
			s.log.Warn("consoles and agents of containers do not wait any more", "tries", s.tries)
		}
		s.tries, s.said = 0, false
	case afterRefusal(err) == later:
		s.tries++
		if now := time.Now(); !s.said && !now.Before(s.next) {
			s.said, s.next = true, now.Add(shortagePause)
			s.log.Warn("descriptors or memory are lacking: consoles and agents of containers wait; see `check`", "err", err)
		}
	}
}
