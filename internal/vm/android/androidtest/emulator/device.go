package main

import (
	"bufio"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// device is the one device of this process.
type device struct {
	name, behaviour string
	port            int
	token           string

	mu      sync.Mutex // guards the fields below
	running bool
	started bool // has ever run
}

// open makes what others talk to: QEMU's control socket first, which may hold
// everything up until somebody has connected, then console and adb.
func (d *device) open(o *options) (err error) {
	if d.token, err = token(); err != nil {
		return err
	}
	switch d.behaviour {
	case "other-token":
		d.token = rand.Text()
	case "no-token":
		d.token = ""
	}
	if o.pid != "" {
		if err := os.WriteFile(o.pid, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600); err != nil {
			return err
		}
	}
	if err := d.control(o); err != nil {
		return err
	}
	if d.behaviour == "no-console" {
		return nil
	}
	for _, l := range []struct {
		port  int
		serve func(net.Conn)
	}{{d.port + 1, d.adb}, {d.port, d.console}} {
		ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(l.port)))
		if err != nil {
			return fmt.Errorf("ERROR        | could not bind port: %w", err)
		}
		go serve(ln, l.serve)
	}
	return nil
}

func serve(l net.Listener, to func(net.Conn)) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			to(conn)
		}()
	}
}

// token returns the secret in the user's home, made with the first emulator.
func token() (string, error) {
	path := filepath.Join(os.Getenv("HOME"), ".emulator_console_auth_token")
	b, err := os.ReadFile(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return strings.TrimSpace(string(b)), err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) { // another was faster
		return token()
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	text := rand.Text()
	_, err = f.WriteString(text)
	return text, err
}

// control opens QEMU's control socket.
func (d *device) control(o *options) error {
	if o.qmp == "" || d.behaviour == "no-qmp" {
		return nil
	}
	l, err := net.Listen("unix", o.qmp)
	if err != nil {
		return err
	}
	if o.waitForControl {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		if d.behaviour == "exit-late" {
			return errors.New("FATAL        | Running on a system with no graphics")
		}
		go func() {
			defer conn.Close()
			d.qmp(conn)
		}()
	}
	go serve(l, d.qmp)
	return nil
}

// qmp answers requests on the control socket (QEMU, docs/interop/qmp-spec).
func (d *device) qmp(conn net.Conn) {
	fmt.Fprintf(conn, `{"QMP": {"version": {"qemu": {"major": 2, "minor": 12, "micro": 0}, "package": ""}, "capabilities": []}}`+"\r\n")
	for s := bufio.NewScanner(conn); s.Scan(); {
		var r struct {
			Execute string          `json:"execute"`
			ID      json.RawMessage `json:"id"`
		}
		if json.Unmarshal(s.Bytes(), &r) != nil {
			return
		}
		answer := map[string]any{"return": map[string]any{}}
		if len(r.ID) > 0 {
			answer["id"] = r.ID
		}
		switch r.Execute {
		case "qmp_capabilities":
		case "query-status":
			answer["return"] = d.status()
		default:
			delete(answer, "return")
			answer["error"] = map[string]string{"class": "CommandNotFound", "desc": "The command " + r.Execute + " has not been found"}
		}
		b, err := json.Marshal(answer)
		if err != nil {
			return
		}
		if _, err := conn.Write(append(b, '\r', '\n')); err != nil {
			return
		}
	}
}

// status is what QEMU says of the device.
func (d *device) status() map[string]any {
	d.mu.Lock()
	defer d.mu.Unlock()
	word := "prelaunch"
	switch {
	case d.running:
		word = "running"
	case d.started:
		word = "paused"
	}
	return map[string]any{"running": d.running, "singlestep": false, "status": word}
}

// console serves one client of the console.
func (d *device) console(conn net.Conn) {
	switch d.behaviour {
	case "mute":
		_, _ = io.Copy(io.Discard, conn)
		return
	case "garbage":
		for _, err := conn.Write(nil); err == nil; _, err = conn.Write([]byte(strings.Repeat("\xff\x00x", 1000))) {
		}
		return
	}
	trusted := d.token == ""
	say := func(format string, args ...any) { fmt.Fprintf(conn, format+"\r\n", args...) }
	if trusted {
		say("Android Console: type 'help' for a list of commands\r\nOK")
	} else {
		say("Android Console: Authentication required\r\nAndroid Console: type 'auth <auth_token>' to authenticate\r\n"+
			"Android Console: you can find your <auth_token> in \r\n'%s/.emulator_console_auth_token'\r\nOK", os.Getenv("HOME"))
	}
	for s := bufio.NewScanner(conn); s.Scan(); {
		words := strings.Fields(s.Text())
		switch {
		case len(words) == 0:
		case words[0] == "quit" || words[0] == "exit":
			return
		case words[0] == "help":
			say("Android console commands:\r\n    help|h|?\r\n    auth\r\n    avd\r\n    kill\r\n    quit|exit\r\nOK")
		case words[0] == "auth":
			if len(words) != 2 || words[1] != d.token {
				say("KO: authentication token does not match ~/.emulator_console_auth_token")
				return
			}
			trusted = true
			say("Android Console: type 'help' for a list of commands\r\nOK")
		case !trusted:
			say("KO: unknown command, try 'help'")
		case words[0] == "kill":
			say("OK: killing emulator, bye bye")
			if d.behaviour != "stubborn" {
				os.Exit(0)
			}
		case words[0] == "avd" && len(words) == 2:
			say("%s", d.avd(words[1]))
		default:
			say("KO: unknown command, try 'help'")
		}
	}
}

// avd answers the subcommands of `avd`.
func (d *device) avd(verb string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	words := map[bool]string{true: "running", false: "stopped"}
	switch verb {
	case "name":
		if d.behaviour == "other-name" {
			return "somebody else\r\nOK"
		}
		return d.name + "\r\nOK"
	case "status":
		return "virtual device is " + words[d.running] + "\r\nOK"
	case "start", "stop":
		if d.behaviour == "refuses" && verb == "start" {
			return "KO: out of battery"
		}
		run := verb == "start"
		if d.running == run {
			return "KO: virtual device already " + words[run]
		}
		d.running, d.started = run, true
		return "OK"
	}
	return "KO: bad sub-command"
}

// adb answers a client's CNXN with ours, while the device runs (Android,
// packages/modules/adb/protocol.txt: six little-endian words, then the banner).
func (d *device) adb(conn net.Conn) {
	const connect, version, maxData = 0x4e584e43, 0x01000000, 256 << 10
	var head [6]uint32
	for binary.Read(conn, binary.LittleEndian, &head) == nil {
		if head[0] != connect || head[5] != head[0]^0xffffffff || head[3] > maxData {
			return
		}
		if _, err := io.CopyN(io.Discard, conn, int64(head[3])); err != nil {
			return
		}
		d.mu.Lock()
		running := d.running
		d.mu.Unlock()
		if !running {
			continue
		}
		banner := []byte("device::ro.product.name=standin;\x00")
		var sum uint32
		for _, b := range banner {
			sum += uint32(b)
		}
		b, err := binary.Append(nil, binary.LittleEndian, [6]uint32{connect, version, maxData, uint32(len(banner)), sum, connect ^ 0xffffffff})
		if err != nil {
			return
		}
		if _, err := conn.Write(append(b, banner...)); err != nil {
			return
		}
	}
}
