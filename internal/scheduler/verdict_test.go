package scheduler

import (
	"strings"
	"testing"
)

// Each thing that refuses a VM is named with its limit, and each verdict is that
// of a plan for the VM and this host alone.
func TestVerdicts(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Problem)
		why    string
		remedy string
	}{
		"takes it":   {func(*Problem) {}, "", ""},
		"memory":     {func(p *Problem) { p.Limits.Memory = 0.5; p.Hosts[0].MemCommit = 4000 }, "it wants 512 MB, and of the 4096 that `ns limit memory 0.5` allows 96 are free", "raise `ns limit memory`, end"},
		"cpu":        {func(p *Problem) { p.Limits.CPU = 1; p.Hosts[0].CPUCommit = 4 }, "it wants 1 CPU, and of the 4 that `ns limit cpu 1` allows 0 are free", "raise `ns limit cpu`, end"},
		"vms":        {func(p *Problem) { p.Limits.VMs = 1; p.Hosts[0].VMs = 1 }, "it has 1 VM, and `ns limit vms 1` allows no more", "raise `ns limit vms`, end"},
		"own limit":  {func(p *Problem) { p.Limits.VMs = 9; p.Hosts[0].Limit = 2; p.Hosts[0].VMs = 2 }, "it has 2 VMs, and takes no more", "end other"},
		"coschedule": {func(p *Problem) { p.Groups[0].Coschedule = 0; p.Hosts[0].VMs = 3 }, "it has 3 VMs, and coschedule allows 1", "raise `vm config coschedule`, end"},
		"company":    {func(p *Problem) { p.Hosts[0].Tolerates = 2; p.Hosts[0].VMs = 2 }, "it has 2 VMs, and coschedule allows 2", "raise `vm config coschedule`"},
		"two": {func(p *Problem) { p.Limits.VMs, p.Limits.CPU = 1, 1; p.Hosts[0].VMs = 1; p.Hosts[0].CPUCommit = 4 },
			"it wants 1 CPU, and of the 4 that `ns limit cpu 1` allows 0 are free; it has 1 VM, and `ns limit vms 1` allows no more", "raise `ns limit cpu` and `ns limit vms`, end"},
		"down": {func(p *Problem) { p.Hosts[0].Down = "timed out" }, "timed out", "`ns del-hosts`"},
	} {
		p := &Problem{Hosts: hosts(1), Groups: []Group{small("a")}}
		c.change(p)
		got := Verdicts(p, 0)
		if len(got) != 1 || got[0].Host != "h0" || got[0].Why != c.why || !strings.HasPrefix(got[0].Remedy, c.remedy) {
			t.Errorf("%s: %+v", name, got)
		}
		if _, err := Plan(p); (err == nil) != (got[0].Why == "") {
			t.Errorf("%s: the plan says %v", name, err)
		}
	}
}

// Only a host that is wanted is asked, and memory beyond what there is is noted.
func TestVerdictsWhere(t *testing.T) {
	p := &Problem{Hosts: hosts(3), Groups: []Group{small("a"), small("b")}, Local: "h2"}
	p.Hosts[1].MemCommit = 8000
	if got := Verdicts(p, 1); len(got) != 3 || got[0].Beyond || !got[1].Beyond || got[1].Why != "" {
		t.Errorf("%+v", got)
	}
	p.Groups[1].Host = "localhost"
	if got := Verdicts(p, 1); len(got) != 1 || got[0].Host != "h2" {
		t.Errorf("%+v", got)
	}
	p.Groups[1].Host = "elsewhere"
	if got := Verdicts(p, 1); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}
