// Command info measures `vm info` over 5,000 VMs of an engine in memory,
// through the socket, beside the same answer made by the standard library.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"minimega/bench/figure"
	"minimega/internal/api"
	"minimega/internal/command"
	"minimega/internal/daemon"
	"minimega/internal/jobs"
	"minimega/internal/minilog"
	"minimega/internal/namespace"
	"minimega/internal/vlan"
	"minimega/internal/vm"
	"minimega/internal/vm/vmtest"
	"minimega/pkg/miniclient"
)

const (
	rounds = 15
	count  = 5000
)

func main() { figure.Main(run) }

func run() error {
	dir, err := os.MkdirTemp("", "mmbench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	conn, vms, stop, err := start(dir)
	if err != nil {
		return err
	}
	defer stop()
	ctx := context.Background()
	var ours, theirs []time.Duration
	var size int
	for range rounds {
		t, err := figure.Time(func() (err error) { size, err = conn.RunRaw(ctx, "vm info"); return err })
		if err != nil {
			return err
		}
		ours = append(ours, t)
		t, err = figure.Time(func() error { return standard(vms.Info(namespace.Default)) })
		if err != nil {
			return err
		}
		theirs = append(theirs, t)
	}
	figure.Against(fmt.Sprintf("`vm info` over %d VMs, %.1f MB on the socket", count, float64(size)/1e6), ours, "standard library", theirs, "< 50 ms")
	return nil
}

// start builds what a daemon has, over an engine in memory, with a socket.
func start(dir string) (*miniclient.Conn, *vm.Manager, func(), error) {
	log := slog.New(slog.DiscardHandler)
	vlans := vlan.New("", log)
	deps := &command.Deps{Host: "bench", Base: dir, Files: dir, Log: log, VLANs: vlans}
	deps.VMs = vm.NewManager(vm.Options{Base: dir, Host: "bench", Engines: []vm.Engine{&vmtest.Engine{}}, Network: &vmtest.Network{},
		VLANName: vlans.Print, Parallel: 8, Log: log}, 0)
	v, alias, err := vlans.Resolve(namespace.Default, "office")
	if err != nil {
		return nil, nil, nil, err
	}
	c := vm.NewConfig()
	c.Networks = []vm.NetConfig{{Alias: alias, VLAN: v, Bridge: vm.DefaultBridge, Driver: vm.DefaultDriver, Raw: "office"}}
	c.Disks = []vm.DiskConfig{{Path: "/images/debian.qcow2"}}
	c.Tags["role"] = "client"
	reqs := make([]vm.Request, count)
	for i := range reqs {
		reqs[i] = vm.Request{Namespace: namespace.Default, Name: fmt.Sprintf("vm-%d", i), Type: vm.KVM, Config: c}
	}
	if err := deps.VMs.Launch(context.Background(), reqs, nil); err != nil {
		return nil, nil, nil, err
	}
	logs, err := minilog.New(minilog.Options{}, os.Stderr)
	if err != nil {
		return nil, nil, nil, err
	}
	language, err := daemon.Language(deps, command.Machine{}, jobs.New(log), logs)
	if err != nil {
		return nil, nil, nil, err
	}
	router := api.NewRouter(language, api.Options{Host: "bench", Shared: command.NewShared(namespace.Default), Log: log})
	server := api.NewServer(router, nil, log)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "minimega"), Net: "unix"})
	if err != nil {
		return nil, nil, nil, err
	}
	go func() { _ = server.Serve(l) }() // ends with Close below
	conn, err := miniclient.Dial(context.Background(), dir)
	return conn, deps.VMs, func() {
		_ = errors.Join(conn.Close(), server.Close(context.Background()))
		deps.VMs.Close()
	}, err
}

// standard makes the same answer the usual way: tabwriter and encoding/json.
func standard(infos []vm.Info) error {
	type response struct {
		Host, Response string
		Header         []string
		Tabular        [][]string
		Error          string
		Data           any
	}
	rows := make([][]string, len(infos))
	var text bytes.Buffer
	w := tabwriter.NewWriter(&text, 5, 0, 1, ' ', 0)
	fmt.Fprintln(w, strings.Join(vm.InfoColumns, "\t| "))
	for i := range infos {
		rows[i] = infos[i].Row()
		fmt.Fprintln(w, strings.Join(rows[i], "\t| "))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	type flat struct {
		vm.Info
		*vm.Config
	}
	data := make([]flat, len(infos))
	for i := range infos {
		data[i] = flat{infos[i], infos[i].Config}
	}
	return json.NewEncoder(&bytes.Buffer{}).Encode(struct {
		Resp     []response
		Rendered string
	}{[]response{{Host: "bench", Header: vm.InfoColumns, Tabular: rows, Data: data}}, text.String()})
}
