package host

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
)

func fakeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

const netDev = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 9000000   10    0    0    0     0          0         0  9000000   10    0    0    0     0       0          0
  eth0: 1000   10    0    0    0     0          0         0     2000   10    0    0    0     0       0          0
  tap1: 700   10    0    0    0     0          0         0     800   10    0    0    0     0       0          0
   br0: 50   10    0    0    0     0          0         0     60   10    0    0    0     0       0          0
`

func fakeHost(t *testing.T) (proc, sys string) {
	dir := t.TempDir()
	proc, sys = dir+"/proc", dir+"/sys"
	fakeFile(t, proc+"/meminfo", "MemTotal:        8388608 kB\nMemFree:         100 kB\nMemAvailable:    4194304 kB\nHugePages_Total:       0\n")
	fakeFile(t, proc+"/loadavg", "0.10 1.25 3.00 1/200 12345\n")
	fakeFile(t, proc+"/uptime", "3661.25 100.00\n")
	fakeFile(t, proc+"/net/dev", netDev)
	fakeFile(t, sys+"/class/net/tap1/tun_flags", "")
	fakeFile(t, sys+"/class/net/br0/bridge/x", "")
	return proc, sys
}

func TestFacts(t *testing.T) {
	proc, sys := fakeHost(t)
	m := newMonitor(slog.New(slog.DiscardHandler), func() Commit { return Commit{VCPUs: 5, MemMB: 1024, NICs: 3, VMs: 2, Android: 1, Tolerates: 3} }, proc, sys)
	defer m.Close()
	f := m.Facts()
	name, _ := os.Hostname()
	want := Facts{
		Name: name, CPUs: runtime.NumCPU(), CPUCommit: 5, Load: "0.10 1.25 3.00", MemCommit: 1024, MemTotal: 8192, MemUsed: 4096,
		NetworkCommit: 3, VMs: 2, Limit: -1, AndroidVMs: 1, Tolerates: 3, Uptime: time.Hour + time.Minute + 1250*time.Millisecond,
	}
	if f != want {
		t.Errorf("got  %+v\nwant %+v", f, want)
	}
	for col, v := range map[string]string{
		"load": "0.10 1.25 3.00", "memused": "4096", "memtotal": "8192", "rx": "0.0", "tx": "0.0", "vms": "2", "vmlimit": "-1",
		"androidvms": "1", "cpucommit": "5", "memcommit": "1024", "netcommit": "3", "uptime": "1h1m1.25s", "name": name,
	} {
		if got := f.Value(col); got != v {
			t.Errorf("%s: got %q, want %q", col, got, v)
		}
	}
	for _, c := range Columns() {
		if f.Value(c) == "" {
			t.Errorf("column %s has no value", c)
		}
	}
}

// The keys and units of the JSON are what clients rely on.
func TestFactsJSON(t *testing.T) {
	b, err := json.Marshal(Facts{Uptime: time.Second, Load: "1 2 3"})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"Name":"","CPUs":0,"CPUCommit":0,"Load":"1 2 3","MemCommit":0,"MemTotal":0,"MemUsed":0,"NetworkCommit":0,"RxBps":0,"TxBps":0,"VMs":0,"Limit":0,"AndroidVMs":0,"Uptime":1000000000}`
	if string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
}

func TestRates(t *testing.T) {
	proc, sys := fakeHost(t)
	m := newMonitor(slog.New(slog.DiscardHandler), func() Commit { return Commit{} }, proc, sys)
	defer m.Close()
	first := m.sample()
	if first.rx != 1000 || first.tx != 2000 {
		t.Errorf("without cards: %+v", first)
	}
	at := time.Now()
	m.update(sample{at, 1000, 2000})
	m.update(sample{at.Add(2 * time.Second), 4000, 2500})
	if rx, tx := m.rates(); rx != 1500 || tx != 250 {
		t.Errorf("rates %v, %v", rx, tx)
	}
	m.update(sample{at.Add(4 * time.Second), 10, 10}) // an interface went
	if rx, tx := m.rates(); rx != 0 || tx != 0 {
		t.Errorf("rates %v, %v", rx, tx)
	}
	fakeFile(t, sys+"/class/net/tap1/device/x", "")
	if got := m.carriers(interfaces([]byte(netDev))); !reflect.DeepEqual(got, map[string]bool{"tap1": true}) {
		t.Errorf("carriers %v", got)
	}
}

func TestRealHost(t *testing.T) {
	m := NewMonitor(slog.New(slog.DiscardHandler), func() Commit { return Commit{} })
	defer m.Close()
	f := m.Facts()
	if f.MemTotal < 64 || f.MemUsed <= 0 || f.MemUsed > f.MemTotal || f.Uptime <= 0 || len(strings.Fields(f.Load)) != 3 {
		t.Errorf("got %+v", f)
	}
}

func TestMissingProc(t *testing.T) {
	m := newMonitor(slog.New(slog.DiscardHandler), func() Commit { return Commit{} }, t.TempDir(), t.TempDir())
	defer m.Close()
	if f := m.Facts(); f.MemTotal != 0 || f.Load != "" || f.Uptime != 0 {
		t.Errorf("got %+v", f)
	}
}

func FuzzProc(f *testing.F) {
	f.Add([]byte("MemTotal: 1 kB\nMemFree: 2 kB"))
	f.Add([]byte(netDev))
	f.Add([]byte("0.1 0.2 0.3 1/2 3"))
	f.Add([]byte("1e300 2"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, used := memory(b); used < 0 {
			t.Errorf("used %d", used)
		}
		if len(strings.Fields(load(b))) > 3 {
			t.Errorf("load %q", load(b))
		}
		if uptime(b) < 0 {
			t.Error("negative uptime")
		}
		for name := range interfaces(b) {
			if strings.TrimSpace(name) != name {
				t.Errorf("name %q", name)
			}
		}
		if a, c, ok := kernelVersion(string(b)); ok && (a < 0 || c < 0) {
			t.Errorf("version %d.%d", a, c)
		}
	})
}

var oneLine = regexp.MustCompile(`^[^\n]+$`)
