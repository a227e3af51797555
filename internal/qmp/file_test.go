package qmp

import (
	"bufio"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestExecuteWith hands an open file to QEMU, which writes to it.
func TestExecuteWith(t *testing.T) {
	ctx := ctxFor(t, time.Minute)
	c, err := Dial(ctx, startQEMU(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	f, err := os.OpenFile(filepath.Join(t.TempDir(), "screen"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var set struct {
		Set int `json:"fdset-id"`
	}
	if err := c.ExecuteWith(ctx, f, "add-fd", map[string]any{"fdset-id": 7}, &set); err != nil || set.Set != 7 {
		t.Fatalf("%+v, %v", set, err)
	}
	if err := c.Execute(ctx, "screendump", map[string]any{"filename": "/dev/fdset/7"}, nil); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(f.Name()); err != nil || !strings.HasPrefix(string(b), "P6") {
		t.Errorf("%.20q, %v", b, err)
	}
}

// TestExecuteWithElsewhere has a connection that no file can pass.
func TestExecuteWithElsewhere(t *testing.T) {
	ours, theirs := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.WriteString(theirs, `{"QMP": {}}`+"\n")
		_, _ = bufio.NewReader(theirs).ReadString('\n')
		_, _ = io.WriteString(theirs, `{"return": {}, "id": 1}`+"\n")
	}()
	ctx := ctxFor(t, time.Minute)
	c, err := New(ctx, ours)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	<-done
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := c.ExecuteWith(ctx, f, "getfd", nil, nil); err == nil || !strings.Contains(err.Error(), "unix sockets only") {
		t.Error(err)
	}
}
