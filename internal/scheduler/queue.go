package scheduler

// queue is a heap of hosts, the least loaded first.
type queue struct {
	states []state
	hosts  []int32
}

// less compares two hosts: load, then number of VMs, then their order.
func (q *queue) less(a, b int32) bool {
	x, y := &q.states[a], &q.states[b]
	if x.load != y.load {
		return x.load < y.load
	}
	if x.vms != y.vms {
		return x.vms < y.vms
	}
	return a < b
}

// order makes a heap of hosts that were appended.
func (q *queue) order() {
	for i := len(q.hosts)/2 - 1; i >= 0; i-- {
		q.down(i)
	}
}

// down moves a host whose load grew to its place.
func (q *queue) down(i int) {
	h := q.hosts
	moving := h[i]
	for {
		child := 2*i + 1
		if child >= len(h) {
			break
		}
		if child+1 < len(h) && q.less(h[child+1], h[child]) {
			child++
		}
		if !q.less(h[child], moving) {
			break
		}
		h[i] = h[child]
		i = child
	}
	h[i] = moving
}

func (q *queue) push(host int32) {
	q.hosts = append(q.hosts, host)
	h := q.hosts
	for i := len(h) - 1; i > 0; {
		parent := (i - 1) / 2
		if !q.less(h[i], h[parent]) {
			break
		}
		h[i], h[parent] = h[parent], h[i]
		i = parent
	}
}

// pop drops the first host.
func (q *queue) pop() {
	last := len(q.hosts) - 1
	q.hosts[0] = q.hosts[last]
	q.hosts = q.hosts[:last]
	if last > 0 {
		q.down(0)
	}
}
