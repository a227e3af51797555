package membership

import "time"

// slowest is how many times slower than configured heartbeats may become.
const slowest = 4

// Machine is the membership of one node. It is not safe for use by several
// goroutines at once. Times given to it must not go back; what comes from
// time.Now does not, whatever happens to the clock.
type Machine struct{ cfg Config }

// New makes a machine that has no links yet.
func New(cfg Config, now time.Time) (*Machine, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	return &Machine{cfg: cfg}, nil
}

// Handle takes in one event.
func (m *Machine) Handle(now time.Time, e Event) []Action { return nil }

// Tick does what is due. It may be called at any time, and is wanted at Next.
func (m *Machine) Tick(now time.Time) []Action { return nil }

// Next returns when the machine wants its next Tick. It may change with every
// Handle and Tick.
func (m *Machine) Next() time.Time { return time.Time{} }
