package vm

import "math"

// Tolerates returns the most VMs that the living ones of this host accept here
// by their coschedule limits, themselves included; 0 for any number.
func (m *Manager) Tolerates() int {
	least := 0
	for _, v := range m.List("") {
		v.mu.Lock()
		if c := v.config.Coschedule; v.state.Alive() && c >= 0 && c < math.MaxInt32 && (least == 0 || int(c)+1 < least) {
			least = int(c) + 1
		}
		v.mu.Unlock()
	}
	return least
}
