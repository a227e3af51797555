package host

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Commit is what the VMs of this host were promised.
type Commit struct {
	VCPUs, MemMB, NICs, VMs, Android int
	Tolerates                        int // most VMs on the host by the coschedule limits of those there, 0 for any number
}

// Facts is what `host` tells of a machine; its JSON is what clients read.
type Facts struct {
	Name          string
	CPUs          int
	CPUCommit     int           // virtual CPUs
	Load          string        // averages of 1, 5 and 15 minutes, blank between
	MemCommit     int           // MiB, as the following
	MemTotal      int           //
	MemUsed       int           // not available to new programs
	NetworkCommit int           // interfaces
	RxBps         float64       // bytes per second, over the last seconds
	TxBps         float64       //
	VMs           int           //
	Limit         int           // of VMs, -1 for none
	AndroidVMs    int           //
	Uptime        time.Duration // of the machine
	// Tolerates is for schedulers on other hosts: the most VMs that those here
	// accept on this host by their coschedule limits, 0 for any number.
	Tolerates int `json:",omitempty"`
}

// Facts gathers them anew. What cannot be read stays zero, since the machine
// goes on all the same.
func (m *Monitor) Facts() Facts {
	c := m.commit()
	f := Facts{
		CPUs: runtime.NumCPU(), CPUCommit: c.VCPUs, MemCommit: c.MemMB, NetworkCommit: c.NICs,
		VMs: c.VMs, AndroidVMs: c.Android, Limit: -1, Tolerates: c.Tolerates,
	}
	f.Name, _ = os.Hostname()
	f.MemTotal, f.MemUsed = memory(m.read("meminfo"))
	f.Load = load(m.read("loadavg"))
	f.Uptime = uptime(m.read("uptime"))
	f.RxBps, f.TxBps = m.rates()
	return f
}

// read returns a file of /proc, or nothing.
func (m *Monitor) read(name string) []byte {
	b, err := os.ReadFile(m.proc + "/" + name)
	if err != nil {
		m.log.Debug("read fact", "file", name, "error", err)
	}
	return b
}

// memory reads /proc/meminfo (proc(5)): kB, of which MemAvailable is what new
// programs can have without swapping.
func memory(meminfo []byte) (totalMB, usedMB int) {
	kb := map[string]int{}
	s := bufio.NewScanner(bytes.NewReader(meminfo))
	for s.Scan() {
		key, rest, _ := strings.Cut(s.Text(), ":")
		if f := strings.Fields(rest); len(f) > 0 {
			kb[key], _ = strconv.Atoi(f[0]) // what is no number counts as nothing
		}
	}
	free, ok := kb["MemAvailable"]
	if !ok { // kernels before 3.14
		free = kb["MemFree"] + kb["Buffers"] + kb["Cached"]
	}
	return kb["MemTotal"] / 1024, max(0, kb["MemTotal"]-free) / 1024
}

func load(loadavg []byte) string {
	f := strings.Fields(string(loadavg))
	return strings.Join(f[:min(3, len(f))], " ")
}

func uptime(b []byte) time.Duration {
	first, _, _ := strings.Cut(string(b), " ")
	seconds, err := strconv.ParseFloat(first, 64)
	if err != nil || seconds < 0 || seconds > 1e9 {
		return 0
	}
	return time.Duration(seconds * float64(time.Second)).Truncate(10 * time.Millisecond)
}

// Columns are the columns of `host`, in order.
func Columns() []string {
	return []string{
		"cpus", "load", "memused", "memtotal", "rx", "tx", "vms", "vmlimit", "androidvms",
		"cpucommit", "memcommit", "netcommit", "uptime",
	}
}

// Value is a fact as text, by the name of its column, or "name".
func (f Facts) Value(column string) string {
	switch column {
	case "name":
		return f.Name
	case "load":
		return f.Load
	case "rx":
		return fmt.Sprintf("%.1f", f.RxBps)
	case "tx":
		return fmt.Sprintf("%.1f", f.TxBps)
	case "uptime":
		return f.Uptime.String()
	}
	n, ok := map[string]int{
		"cpus": f.CPUs, "memused": f.MemUsed, "memtotal": f.MemTotal, "vms": f.VMs, "vmlimit": f.Limit,
		"androidvms": f.AndroidVMs, "cpucommit": f.CPUCommit, "memcommit": f.MemCommit, "netcommit": f.NetworkCommit,
	}[column]
	if !ok {
		return ""
	}
	return strconv.Itoa(n)
}
