// Command hosts measures `vm info` of 100,000 VMs on 500 hosts, each with a
// router of its own, in a mesh inside this process: what the host that was
// asked does, and what all the others do, on the processors of one. All hosts
// have the same 200 VMs, of an engine in memory.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"time"

	"minimega/bench/figure"
	"minimega/internal/api"
	"minimega/internal/cluster"
	"minimega/internal/command"
	"minimega/internal/daemon"
	"minimega/internal/jobs"
	"minimega/internal/minilog"
	"minimega/internal/vlan"
	"minimega/internal/vm"
	"minimega/internal/vm/vmtest"
	"minimega/pkg/meshage/meshtest"
	"minimega/pkg/miniclient"
)

const (
	rounds = 5
	hosts  = 500
	each   = 200 // VMs on a host
	lab    = "lab"
)

func main() { figure.Main(run) }

func run() error {
	daemon.SpareMemory()
	dir, err := os.MkdirTemp("", "mmbench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	hub := meshtest.NewHub()
	defer hub.Close()
	names := make([]string, hosts)
	for i := range names {
		names[i] = fmt.Sprintf("h%d", i)
	}
	vms, err := machines(dir)
	if err != nil {
		return err
	}
	defer vms.Close()
	var head *api.Router
	for i, name := range names {
		router, err := host(hub, name, vms, names)
		if err != nil {
			return err
		}
		if i == 0 {
			head = router
		}
	}
	conn, end, err := door(head, dir)
	if err != nil {
		return err
	}
	defer end()
	base := heap()
	for _, line := range []string{"vm info", ".columns name,state,ip vm info", ".filter name=vm-77 vm info summary"} {
		var took []time.Duration
		var size int
		peak := watch()
		for range rounds {
			t, err := figure.Time(func() (err error) {
				size, err = conn.RunRaw(context.Background(), line)
				return err
			})
			if err != nil {
				return err
			}
			took = append(took, t)
		}
		figure.Alone(fmt.Sprintf("`%s` of %d VMs on %d hosts, %.1f MB on the socket, %.0f MB of memory at most",
			line, hosts*each, hosts, float64(size)/1e6, float64(peak()-base)/1e6), figure.Median(took).String(), "<= 2 s, 1 GiB")
	}
	return nil
}

// machines makes the VMs.
func machines(dir string) (*vm.Manager, error) {
	log := slog.New(slog.DiscardHandler)
	vlans := vlan.New("", log)
	vms := vm.NewManager(vm.Options{Base: dir, Host: "h", Engines: []vm.Engine{&vmtest.Engine{}}, Network: &vmtest.Network{},
		VLANName: vlans.Print, Parallel: 8, Log: log}, 0)
	v, alias, err := vlans.Resolve(lab, "office")
	if err != nil {
		return nil, err
	}
	config := vm.NewConfig()
	config.Networks = []vm.NetConfig{{Alias: alias, VLAN: v, Bridge: vm.DefaultBridge, Driver: vm.DefaultDriver, Raw: "office"}}
	config.Disks = []vm.DiskConfig{{Path: "/images/debian.qcow2"}}
	config.Tags["role"] = "client"
	reqs := make([]vm.Request, each)
	for i := range reqs {
		reqs[i] = vm.Request{Namespace: lab, Name: fmt.Sprintf("vm-%d", i), Type: vm.KVM, Config: config}
	}
	return vms, vms.Launch(context.Background(), reqs, nil)
}

// host makes one host that has the VMs.
func host(hub *meshtest.Hub, name string, vms *vm.Manager, all []string) (*api.Router, error) {
	log := slog.New(slog.DiscardHandler)
	c := cluster.New(name)
	deps := &command.Deps{Host: name, Log: log, Cluster: c, VMs: vms}
	logs, err := minilog.New(minilog.Options{}, os.Stderr)
	if err != nil {
		return nil, err
	}
	language, err := daemon.Language(deps, command.Machine{}, jobs.New(log), logs)
	if err != nil {
		return nil, err
	}
	router := api.NewRouter(language, api.Options{Host: name, Shared: command.NewShared(lab), Cluster: c,
		Hosts: func(string) []string { return all }, Log: log})
	c.Join(hub.Join(name))
	return router, nil
}

// door opens a socket before a router.
func door(router *api.Router, dir string) (*miniclient.Conn, func(), error) {
	server := api.NewServer(router, nil, slog.New(slog.DiscardHandler))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "minimega"), Net: "unix"})
	if err != nil {
		return nil, nil, err
	}
	go func() { _ = server.Serve(l) }() // ends with Close below
	conn, err := miniclient.Dial(context.Background(), dir)
	return conn, func() { _ = errors.Join(conn.Close(), server.Close(context.Background())) }, err
}

// heap is how much memory is in use, after what is not has been given back.
func heap() int64 {
	runtime.GC()
	return inUse()
}

func inUse() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// watch follows the memory in use until the returned function is called, which
// tells the most that was seen.
func watch() func() int64 {
	var most atomic.Int64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			most.Store(max(most.Load(), inUse()))
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	}()
	return func() int64 { close(stop); <-done; return most.Load() }
}
