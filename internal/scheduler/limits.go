package scheduler

import (
	"math"
	"strconv"

	"minimega/internal/errs"
)

// Limits is how much the hosts of a namespace may be promised, each by itself.
// The zero value limits nothing: then memory beyond what a host physically has
// is used last and with a warning, and CPUs are shared.
type Limits struct {
	CPU    float64 // virtual CPUs per processor, 0 for any number
	Memory float64 // promised memory per physical memory, 0 for any amount
	VMs    int     // VMs on a host, 0 for any number
}

// LimitNames returns what can be limited, by the words of `ns limit`.
func LimitNames() []string { return []string{"cpu", "memory", "vms"} }

// none is the word for no limit.
const none = "none"

// Bounds of what a limit may be: a typing error is none.
const (
	maxRatio = 1000
	maxCount = 1_000_000
)

// Set changes a limit. value is a ratio ("1.5") for cpu and memory, a number
// ("100") for vms, or "none".
func (l *Limits) Set(what, value string) error {
	switch what {
	case "cpu":
		return setRatio(&l.CPU, what, value)
	case "memory":
		return setRatio(&l.Memory, what, value)
	case "vms":
		if value == none {
			l.VMs = 0
			return nil
		}
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 || n > maxCount {
			return errs.New(errs.Invalid, "invalid limit of vms: `%s` (a number from 1 to %d, or `none`)", value, maxCount)
		}
		l.VMs = n
		return nil
	}
	return errs.New(errs.Invalid, "no limit is called `%s` (cpu, memory, vms)", what)
}

func setRatio(to *float64, what, value string) error {
	if value == none {
		*to = 0
		return nil
	}
	f, err := strconv.ParseFloat(value, 64)
	if err != nil || !(f >= 0.01 && f <= maxRatio) {
		return errs.New(errs.Invalid, "invalid limit of %s: `%s` (promised per present, such as 1.5, from 0.01 to %d, or `none`)", what, value, maxRatio)
	}
	*to = f
	return nil
}

// Value is a limit as Set reads it.
func (l Limits) Value(what string) string {
	ratio := 0.0
	switch what {
	case "cpu":
		ratio = l.CPU
	case "memory":
		ratio = l.Memory
	case "vms":
		ratio = float64(l.VMs)
	}
	if ratio == 0 {
		return none
	}
	return strconv.FormatFloat(ratio, 'f', -1, 64)
}

// String is all limits in a line, as `cpu none, memory 1.5, vms none`.
func (l Limits) String() string {
	return "cpu " + l.Value("cpu") + ", memory " + l.Value("memory") + ", vms " + l.Value("vms")
}

func (l Limits) cpus(present int) int   { return most(l.CPU, present) }
func (l Limits) memory(present int) int { return most(l.Memory, present) }

// most is what may be promised of what is present. The hair added keeps 0.1
// times 10 from being less than 1.
func most(ratio float64, present int) int {
	if ratio == 0 {
		return math.MaxInt
	}
	if f := ratio*float64(present) + 1e-6; f < math.MaxInt64/2 {
		return int(f)
	}
	return math.MaxInt
}
