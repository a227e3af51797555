// Command pasteagent is the part of a guest that QEMU's qemu-vdagent talks to:
// it prints the text that comes into the clipboard, and puts its own there then.
// It is for tests. The
// protocol is SPICE's for agents: chunks, each with a port and a size, hold
// messages; all numbers are little-endian.
package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	portName = "com.redhat.spice.0"
	chunk    = 1 // the port of the client's chunks
	limit    = 1 << 20

	// Types of messages.
	clipboard = 4
	announce  = 6
	grab      = 7
	request   = 8

	// What an agent can: give and take the clipboard when it is asked to.
	capable = 1<<3 | 1<<5
	plain   = 1 // text, the only form of a content here

	reply = "back from the guest"
)

func main() {
	if err := run(); err != nil {
		fmt.Println("pasteagent:", err)
		os.Exit(1)
	}
}

func run() error {
	path, err := port()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := send(f, announce, words(0, capable)); err != nil {
		return err
	}
	fmt.Println("agent: ready")
	pasted := make(chan string, 1)
	go func() {
		text := <-pasted
		for range time.Tick(500 * time.Millisecond) { // whoever listens may come later
			fmt.Printf("pasted: %s\n", text)
			if err := send(f, grab, words(plain)); err != nil {
				fmt.Println("pasteagent:", err)
			}
		}
	}()
	for {
		kind, data, err := receive(f)
		switch {
		case err != nil:
			return err
		case kind == grab:
			err = send(f, request, words(plain))
		case kind == request:
			err = send(f, clipboard, append(words(plain), reply...))
		case kind == clipboard && len(data) > 4:
			select {
			case pasted <- string(data[4:]):
			default: // the first is enough
			}
		}
		if err != nil {
			return err
		}
	}
}

// port finds the device of a virtio port by its name, which the kernel may
// still be about to learn.
func port() (string, error) {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
		if err != nil {
			return "", err
		}
		for _, name := range names {
			if b, err := os.ReadFile(name); err == nil && strings.TrimSpace(string(b)) == portName {
				return "/dev/" + filepath.Base(filepath.Dir(name)), nil
			}
		}
	}
	return "", fmt.Errorf("no port %s", portName)
}

func words(list ...uint32) (b []byte) {
	for _, w := range list {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}

// send sends a message in one chunk, with one write: others may be sent meanwhile.
func send(w io.Writer, kind uint32, data []byte) error {
	m := append(words(1, kind, 0, 0, uint32(len(data))), data...) // the version first; the zeros mean nothing
	_, err := w.Write(append(words(chunk, uint32(len(m))), m...))
	return err
}

// receive reads a message, of which the chunks may have any size.
func receive(r io.Reader) (kind uint32, data []byte, err error) {
	var m []byte
	for len(m) < 20 || len(m) < 20+int(binary.LittleEndian.Uint32(m[16:])) {
		head := make([]byte, 8)
		if _, err := io.ReadFull(r, head); err != nil {
			return 0, nil, err
		}
		n := binary.LittleEndian.Uint32(head[4:])
		if n > limit || len(m) > limit {
			return 0, nil, fmt.Errorf("a message of more than %d bytes", limit)
		}
		more := make([]byte, n)
		if _, err := io.ReadFull(r, more); err != nil {
			return 0, nil, err
		}
		m = append(m, more...)
	}
	return binary.LittleEndian.Uint32(m[4:]), m[20:], nil
}
