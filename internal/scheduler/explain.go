package scheduler

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"minimega/internal/errs"
)

// explain says why a VM has no place and what would give it one; ask is what
// found that out.
func (p *Problem) explain(n *noFit, ask func(*Problem) (*Result, error)) error {
	hosts := n.candidates()
	if len(hosts) == 0 {
		return p.allDown()
	}
	if h := hosts[0]; n.placer.hosts[h].down { // only where it had to be there
		return p.downError(h)
	}
	name := p.Groups[n.seat.group].name(int(n.seat.vm))
	for _, r := range []resource{0, memory, cpus, vms} {
		if only := n.blockedBy(hosts, r); len(only) > 0 {
			if r == 0 {
				return n.crowded(only)
			}
			return errs.InVM(errs.WithRemedy(n.short(only, r), p.remedy(n, r, ask)), name)
		}
	}
	return errs.InVM(errs.WithRemedy(n.mixed(hosts), "add a host, or see `ns limit`"), name)
}

// candidates are the hosts where the VM could have been.
func (n *noFit) candidates() []int32 {
	if n.host >= 0 {
		return []int32{n.host}
	}
	var hosts []int32
	for i := range n.placer.hosts {
		if !n.placer.hosts[i].down {
			hosts = append(hosts, int32(i))
		}
	}
	return hosts
}

func (p *Problem) downError(host int32) error {
	h := &p.Hosts[host]
	return errs.New(errs.Unreachable, "VM scheduled on host `%s`, which can have none: %s", h.Name, h.Down)
}

func (p *Problem) allDown() error {
	var b strings.Builder
	for i := range p.Hosts {
		if i == 3 {
			fmt.Fprintf(&b, " and %d more", len(p.Hosts)-i)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s (%s)", p.Hosts[i].Name, p.Hosts[i].Down)
	}
	return errs.New(errs.Unreachable, "no host of the namespace can have VMs: %s", b.String())
}

// blockedBy returns the hosts that would hold the VM but for one thing: a
// resource, or 0 for the limits on sharing a host.
func (n *noFit) blockedBy(hosts []int32, r resource) []int32 {
	var only []int32
	for _, i := range hosts {
		h := &n.placer.hosts[i]
		if (r == 0) == !h.shares(&n.demand) && h.lacks(&n.demand) == r {
			only = append(only, i)
		}
	}
	return only
}

// crowded names the least loaded of the hosts whose VMs do not accept more.
func (n *noFit) crowded(hosts []int32) error {
	q := queue{n.placer.hosts, hosts}
	least := hosts[0]
	for _, h := range hosts {
		if q.less(h, least) {
			least = h
		}
	}
	limit := min(n.placer.hosts[least].tolerates, n.demand.tolerates) - 1
	return errs.New(errs.Resource, "too many VMs scheduled on %s for coschedule requirement of %d", n.placer.problem.Hosts[least].Name, limit)
}

// free is what a host still has of a resource.
func (s *state) free(r resource) int {
	switch r {
	case memory:
		return max(0, s.maxMem-s.mem)
	case cpus:
		return max(0, s.maxCPUs-s.cpus)
	}
	return max(0, s.maxVMs-s.vms)
}

// short says that the hosts have too little of a resource.
func (n *noFit) short(hosts []int32, r resource) error {
	most := hosts[0]
	for _, h := range hosts {
		if n.placer.hosts[h].free(r) > n.placer.hosts[most].free(r) {
			most = h
		}
	}
	what, free := "", n.placer.hosts[most].free(r)
	has := strconv.Itoa(free)
	switch r {
	case memory:
		what, has = fmt.Sprintf("needs %d MB", n.demand.mem), has+" MB"
	case cpus:
		what, has = "needs "+plural(n.demand.cpus, "CPU"), plural(free, "CPU")
	default:
		what = "needs a place"
		if n.demand.vms > 1 {
			what = "needs " + plural(n.demand.vms, "place")
		}
	}
	if n.demand.vms > 1 {
		what += fmt.Sprintf(" with the %s colocated with it", plural(n.demand.vms-1, "VM"))
	}
	return errs.New(errs.Resource, "%s; the most free is %s on host %s", what, has, n.placer.problem.Hosts[most].Name)
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

// mixed is the error where each host lacks something, none of them one thing
// alone.
func (n *noFit) mixed(hosts []int32) error {
	h := &n.placer.hosts[hosts[0]]
	var lacks []string
	r := h.lacks(&n.demand)
	if r&memory != 0 {
		lacks = append(lacks, fmt.Sprintf("%d of %d MB", h.free(memory), n.demand.mem))
	}
	if r&cpus != 0 {
		lacks = append(lacks, fmt.Sprintf("%d of %d CPUs", h.free(cpus), n.demand.cpus))
	}
	if r&vms != 0 {
		lacks = append(lacks, fmt.Sprintf("%d of %d places for VMs", h.free(vms), n.demand.vms))
	}
	if !h.shares(&n.demand) {
		lacks = append(lacks, "no more company that its VMs accept")
	}
	return errs.New(errs.Resource, "fits on none of %s; %s has %s", plural(len(hosts), "host"), n.placer.problem.Hosts[hosts[0]].Name, strings.Join(lacks, ", "))
}

// remedy says what to do about a lack. The limit it names is enough for the
// whole queue: it is what the queue takes where nothing limits that resource.
func (p *Problem) remedy(n *noFit, r resource, ask func(*Problem) (*Result, error)) string {
	what := map[resource]string{memory: "reduce memory", cpus: "reduce vcpus", vms: "launch fewer"}[r]
	if n.host >= 0 {
		what += ", schedule it elsewhere"
	} else {
		what += ", add a host"
	}
	free := *p
	word, set := "", ""
	switch r {
	case memory:
		word, free.Limits.Memory = "memory", 0
	case cpus:
		word, free.Limits.CPU = "cpu", 0
	default:
		word, free.Limits.VMs = "vms", 0
	}
	if p.Limits.Value(word) == none {
		return what // the host's own limit
	}
	if res, err := ask(&free); err == nil {
		set = res.needs(r)
	}
	if set == "" {
		return what + ", or raise `ns limit " + word + "`"
	}
	return what + ", or `ns limit " + word + " " + set + "`"
}

// needs is the limit of a resource that the result would keep, "" if none can
// be given.
func (r *Result) needs(what resource) string {
	most, count := 0.0, 0
	for i := range r.Hosts {
		h := &r.Hosts[i]
		if h.New == 0 {
			continue
		}
		count = max(count, h.VMs)
		switch what {
		case memory:
			most = max(most, float64(h.MemCommit)/float64(h.MemMB)) // infinite without memory
		case cpus:
			most = max(most, float64(h.CPUCommit)/float64(h.CPUs))
		}
	}
	if what == vms {
		return strconv.Itoa(count)
	}
	if most = math.Ceil(most*100-1e-9) / 100; most > maxRatio || math.IsNaN(most) {
		return ""
	}
	return strconv.FormatFloat(max(most, 0.01), 'f', -1, 64)
}

// warnings tells of hosts that get more VMs than their memory is for. Who set
// a limit for memory was asked already.
func (p *Problem) warnings(r *Result) []string {
	if p.Limits.Memory != 0 {
		return nil
	}
	var b strings.Builder
	count := 0
	for i := range r.Hosts {
		h := &r.Hosts[i]
		if h.New == 0 || h.MemCommit <= h.MemMB || h.MemCommit == p.Hosts[i].MemCommit {
			continue
		}
		if count++; count <= 3 {
			fmt.Fprintf(&b, ", %s (%d of %d MB)", h.Name, h.MemCommit, h.MemMB)
		}
	}
	if count == 0 {
		return nil
	}
	text := strings.TrimPrefix(b.String(), ", ")
	if count > 3 {
		text += fmt.Sprintf(" and %d more", count-3)
	}
	return []string{fmt.Sprintf("VMs may get more memory than there is on %d of %d hosts: %s; `ns limit memory 1` refuses that", count, len(r.Hosts), text)}
}
