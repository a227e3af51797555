package scheduler

import (
	"fmt"
	"math"
	"strings"
)

// Verdict says whether a host, as it is now, would take one VM more.
type Verdict struct {
	Host   string
	Why    string // what refuses the VM; "" if nothing does
	Remedy string // what would change that
	Beyond bool   // it would be taken, but then more memory is promised than there is
}

// Verdicts asks each host where a VM of a group may be, in the order of the
// problem, whether it would take one that comes alone. That colocate may want
// another host, and what else waits, is left to Plan.
func Verdicts(p *Problem, group int) []Verdict {
	g := &p.Groups[group]
	d := demand{tolerates: math.MaxInt}.plus(g, 1)
	want := g.Host
	if want == "localhost" {
		want = p.Local
	}
	var list []Verdict
	for i := range p.Hosts {
		h := &p.Hosts[i]
		if want != "" && h.Name != want {
			continue
		}
		s := p.state(h)
		v := Verdict{Host: h.Name, Beyond: !s.has(&d)}
		if h.Down != "" {
			v.Why, v.Remedy = h.Down, "`ns del-hosts` takes it out of a namespace"
		} else {
			v.Why, v.Remedy = p.refusal(h, &s, &d)
		}
		v.Beyond = v.Beyond && v.Why == ""
		list = append(list, v)
	}
	return list
}

// refusal says which limits of a host a demand exceeds, and which to raise.
func (p *Problem) refusal(h *Host, s *state, d *demand) (why, remedy string) {
	var lacks, raise []string
	limit := func(word, want string, most, free int) {
		lacks = append(lacks, fmt.Sprintf("it wants %s, and of the %d that `ns limit %s %s` allows %d are free", want, most, word, p.Limits.Value(word), free))
		raise = append(raise, "`ns limit "+word+"`")
	}
	r := s.lacks(d)
	if r&memory != 0 {
		limit("memory", fmt.Sprintf("%d MB", d.mem), s.maxMem, s.free(memory))
	}
	if r&cpus != 0 {
		limit("cpu", plural(d.cpus, "CPU"), s.maxCPUs, s.free(cpus))
	}
	switch {
	case r&vms == 0:
	case p.Limits.VMs > 0 && p.Limits.VMs == s.maxVMs:
		lacks = append(lacks, fmt.Sprintf("it has %s, and `ns limit vms %d` allows no more", plural(h.VMs, "VM"), p.Limits.VMs))
		raise = append(raise, "`ns limit vms`")
	default:
		lacks = append(lacks, fmt.Sprintf("it has %s, and takes no more", plural(h.VMs, "VM")))
	}
	if !s.shares(d) {
		lacks = append(lacks, fmt.Sprintf("it has %s, and coschedule allows %d", plural(h.VMs, "VM"), min(s.tolerates, d.tolerates)))
		raise = append(raise, "`vm config coschedule`")
	}
	if len(lacks) == 0 {
		return "", ""
	}
	remedy = "end other VMs there, or add a host with `ns add-hosts`"
	if len(raise) > 0 {
		remedy = "raise " + strings.Join(raise, " and ") + ", " + remedy
	}
	return strings.Join(lacks, "; "), remedy
}
