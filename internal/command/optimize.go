package command

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"minimega/internal/errs"
	"minimega/pkg/minicli"
	"minimega/pkg/ranges"
)

// optimizations is the family that tunes the host for many VMs.
func optimizations(d *Deps) []Command {
	o := d.Optimize
	return []Command{
		{Patterns: []string{"optimize"}, Short: "show how the host is tuned", Scope: FanOut, Run: d.optimized,
			Long: "Shows whether equal memory pages are merged (ksm), where VMs get huge pages from, and whether VMs are pinned to processors.\n" +
				"All of it is off at first, and is put back when minimega ends."},
		{Patterns: []string{"optimize <ksm,> [true,false]"}, Short: "merge equal memory pages of VMs", Scope: FanOut,
			Long: "Has the kernel look for equal pages and keep one of each. Saves memory when many VMs run the same system, for some processor time.",
			Run: func(_ context.Context, c *Call) (*minicli.Response, error) {
				if !c.Chose("true") && !c.Chose("false") {
					return text(strconv.FormatBool(o.KSM()))
				}
				return done(o.SetKSM(c.Chose("true")))
			}},
		{Patterns: []string{"optimize <hugepages,> [path]"}, Short: "give VMs to come memory from huge pages", Scope: FanOut,
			Long: "The path is where a hugetlbfs is mounted (`mount -t hugetlbfs none PATH`), with enough pages reserved\n" +
				"(/sys/kernel/mm/hugepages). A VM for which they do not suffice is not launched. Without a path, shows the present one.",
			Run: func(_ context.Context, c *Call) (*minicli.Response, error) {
				if !c.Has("path") {
					return text(o.Hugepages())
				}
				return done(o.SetHugepages(c.Str("path")))
			}},
		{Patterns: []string{"optimize <affinity,> [true,false]"}, Short: "pin VMs to processors", Scope: FanOut, Run: d.affinity,
			Long: "Pins each VM to as many processors as it has virtual ones, those with the fewest VMs. Without an argument, shows who is pinned where."},
		{Patterns: []string{"optimize <affinity,> <filter,> <filter>"}, Short: "choose the processors that VMs are pinned to", Scope: FanOut,
			Long: "VMs are pinned only to these: `optimize affinity filter [1,2-20]`.",
			Run: func(_ context.Context, c *Call) (*minicli.Response, error) {
				cpus, err := cpuRange(c.Str("filter"))
				if err != nil {
					return nil, err
				}
				return done(o.SetFilter(cpus))
			}},
		{Patterns: []string{"clear optimize"}, Short: "put the host back to how it was", Scope: FanOut,
			Long: "Turns off all that `optimize` turned on.",
			Run:  func(context.Context, *Call) (*minicli.Response, error) { return done(o.Clear()) }},
		{Patterns: []string{"clear optimize <affinity,> [filter,]"}, Short: "let VMs run on every processor", Scope: FanOut,
			Long: "Ends the pinning of VMs; with `filter`, only pins them to any processor again.",
			Run: func(_ context.Context, c *Call) (*minicli.Response, error) {
				if c.Chose("filter") {
					return done(o.SetFilter(nil))
				}
				return done(o.SetAffinity(false))
			}},
		{Patterns: []string{"clear optimize <hugepages,>"}, Short: "use ordinary memory for VMs to come", Scope: FanOut,
			Long: "VMs that run keep the memory that they have.",
			Run:  func(context.Context, *Call) (*minicli.Response, error) { return done(o.SetHugepages("")) }},
		{Patterns: []string{"clear optimize <ksm,>"}, Short: "do not merge memory pages", Scope: FanOut,
			Long: "Puts the kernel's settings back to what they were. Fails when they were not changed.",
			Run:  func(context.Context, *Call) (*minicli.Response, error) { return done(o.SetKSM(false)) }},
	}
}

func (d *Deps) optimized(context.Context, *Call) (*minicli.Response, error) {
	word := func(on bool) string {
		if on {
			return "enabled"
		}
		return "disabled"
	}
	pages := d.Optimize.Hugepages()
	if pages == "" {
		pages = word(false)
	}
	return table([]string{"ksm", "hugepages", "affinity"}, [][]string{{word(d.Optimize.KSM()), pages, word(d.Optimize.Affinity())}})
}

func (d *Deps) affinity(_ context.Context, c *Call) (*minicli.Response, error) {
	if c.Chose("true") || c.Chose("false") {
		return done(d.Optimize.SetAffinity(c.Chose("true")))
	}
	cpus, err := d.Optimize.CPUs()
	if err != nil {
		return nil, err
	}
	rows := [][]string{}
	for _, cpu := range cpus {
		rows = append(rows, []string{strconv.Itoa(cpu.CPU), fmt.Sprint(cpu.Pids)})
	}
	return table([]string{"cpu", "pids"}, rows)
}

// cpuRange reads processors as `[1,2-20]`, the brackets may be left out.
func cpuRange(s string) ([]int, error) {
	inner := s
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		inner = s[1 : len(s)-1]
	}
	cpus, err := ranges.Ints(inner)
	if err != nil {
		return nil, errs.New(errs.Invalid, "cannot expand CPU range: %w", err)
	}
	return cpus, nil
}
