package command

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"minimega/internal/errs"
	"minimega/internal/host"
	"minimega/internal/network"
	"minimega/internal/vm"
	"minimega/pkg/minicli"
)

var topColumns = []string{"name", "virt", "res", "shr", "cpu", "vcpu", "time", "procs", "rx", "tx"}

// maxTop bounds what a typing error can make a client wait for.
const maxTop = time.Hour

func vmTop(d *Deps) []Command {
	return []Command{{
		Patterns: []string{"vm top [duration]"},
		Short:    "show what VMs take of the host",
		Long: "Watches for a number of seconds, by default 1, and shows for each VM: virtual, resident and shared memory (MiB),\n" +
			"processor time of all its processes and of its virtual processors (percent of one), processor time so far, number of\n" +
			"processes, and what its networks received and sent (MB/s).",
		Scope: FanOut, Interruptible: true, Run: d.top,
	}}
}

// topSample is what a VM took up to a moment.
type topSample struct {
	vm    *vm.VM
	usage host.Usage
	nics  []string
	net   map[string]network.Counters
	when  time.Time
}

func (d *Deps) top(ctx context.Context, c *Call) (*minicli.Response, error) {
	wait := time.Second
	if c.Has("duration") {
		n, err := strconv.Atoi(c.Str("duration"))
		if err != nil {
			return nil, errs.Wrap(errs.Invalid, err)
		}
		if wait = time.Duration(n) * time.Second; n <= 0 || wait > maxTop {
			return nil, errs.New(errs.Invalid, "invalid duration: %d (seconds, 1 to %d)", n, int(maxTop/time.Second))
		}
	}
	var before []topSample
	for _, v := range d.VMs.List(c.Namespace) {
		if s, ok := d.sample(ctx, v); ok {
			before = append(before, s)
		}
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	rows := [][]string{}
	for _, b := range before {
		if a, ok := d.sample(ctx, b.vm); ok {
			rows = append(rows, topRow(b, a))
		}
	}
	return table(topColumns, rows)
}

// sample looks at a VM; false when it has no process.
func (d *Deps) sample(ctx context.Context, v *vm.VM) (topSample, bool) {
	m, err := v.Machine()
	if err != nil {
		return topSample{}, false
	}
	var threads []int
	if t, ok := m.(vm.Threader); ok {
		threads, _ = t.VCPUThreads(ctx) // shown as nothing when it ends just now
	}
	s := topSample{vm: v, when: time.Now()}
	if s.usage, err = host.ProcessUsage(m.Pid(), threads); err != nil {
		return topSample{}, false
	}
	for _, n := range v.Config().Networks {
		if n.Tap != "" {
			s.nics = append(s.nics, n.Tap)
		}
	}
	if len(s.nics) > 0 {
		if s.net, err = d.Net.Counters(ctx, s.nics...); err != nil {
			d.Log.Debug("counters", "vm", v.Name, "err", err)
		}
	}
	return s, true
}

func topRow(b, a topSample) []string {
	seconds := a.when.Sub(b.when).Seconds()
	percent := func(d time.Duration) string { return fmt.Sprintf("%.2f", max(0, 100*d.Seconds()/seconds)) }
	mib := func(n int64) string { return strconv.FormatInt(n>>20, 10) }
	var rx, tx float64
	for _, n := range a.nics {
		was, now := b.net[n], a.net[n]
		rx += max(0, float64(now.RxBytes)-float64(was.RxBytes))
		tx += max(0, float64(now.TxBytes)-float64(was.TxBytes))
	}
	rate := func(bytes float64) string { return fmt.Sprintf("%.2f", bytes/seconds/1e6) }
	return []string{a.vm.Name, mib(a.usage.Virtual), mib(a.usage.Resident), mib(a.usage.Shared),
		percent(a.usage.CPU - b.usage.CPU), percent(a.usage.Threads - b.usage.Threads), a.usage.CPU.String(),
		strconv.Itoa(a.usage.Procs), rate(rx), rate(tx)}
}
