package record

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"minimega/internal/host/hosttest"
	"minimega/pkg/vnc"
)

// standIn in the environment makes the test program a daemon that records a
// screen and nothing else: it restores what its journal has or starts, prints
// how many updates it has received, and ends when its input does.
const standIn = "RECORD_TEST_DAEMON"

// order is what the stand-in gets in its environment.
type order struct{ Dir, Path, Socket string }

func runStandIn(text string) error {
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	ctx := context.Background()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	proxy := vnc.NewProxy(ln, func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", o.Socket)
	}, quiet())
	vm := Target{ID: 1, Name: "vm", Namespace: "ns", Proxy: proxy}
	m := Open(o.Dir, quiet())
	n, err := m.Restore(ctx, func(int) (Target, error) { return vm, nil })
	if err == nil && n == 0 {
		err = m.RecordFB(ctx, vm, o.Path)
	}
	if err != nil {
		return err
	}
	stop := make(chan struct{})
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); close(stop) }()
	tick := time.NewTicker(time.Millisecond)
	for last := int64(-1); ; {
		if now := m.List()[0].Items; now != last {
			last = now
			fmt.Println(now)
		}
		select {
		case <-tick.C:
		case <-stop:
			return errors.Join(m.Close(ctx), proxy.Close())
		}
	}
}

// recorder is a stand-in that runs.
type recorder struct {
	*hosttest.Child
	told *bufio.Scanner
}

func startRecorder(t *testing.T, o order) *recorder {
	t.Helper()
	c := hosttest.Again(t, standIn, o)
	return &recorder{c, bufio.NewScanner(c.Out)}
}

// received waits until it has received n updates.
func (r *recorder) received(t *testing.T, n int) {
	t.Helper()
	for r.told.Scan() {
		if got, _ := strconv.Atoi(r.told.Text()); got >= n {
			return
		}
	}
	t.Fatalf("it ended before it had received %d updates", n)
}

// A recorder may be killed at any moment: whatever it had received is shown.
func TestSurvivesBeingKilled(t *testing.T) {
	vm := newMachine(t, "vm", 64, 48)
	dir := t.TempDir()
	hosttest.Machine{Marks: []string{dir}}.Check(t)
	o := order{Dir: filepath.Join(dir, "journal"), Path: filepath.Join(dir, "a.fb"), Socket: vm.Socket}
	shown := 0
	show := func() {
		shown++
		vm.Screen.Draw(func(img *image.RGBA) {
			draw.Draw(img, img.Bounds(), image.NewUniform(color.RGBA{R: uint8(shown), A: 255}), image.Point{}, draw.Src)
		})
	}
	for round := range 6 {
		r := startRecorder(t, o)
		r.received(t, 1)
		for n := range 1 + 3*round { // some rounds end in the first batch, some in a later one
			show()
			r.received(t, n+2)
		}
		r.Kill()
		show() // what nobody recorded, so that the next start does not see the last
	}
	r := startRecorder(t, o)
	r.received(t, 1)
	_ = r.In.Close()
	if err := r.Cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	seen := colours(t, o.Path)
	for i := 1; i <= shown; i++ {
		if seen[uint8(i)] != 1 {
			t.Errorf("picture %d of %d was seen %d times", i, shown, seen[uint8(i)])
		}
	}
	if left, err := os.ReadDir(o.Dir); err == nil {
		t.Errorf("left in the journal: %v", left)
	}
}

// colours counts how often the picture changed to each colour.
func colours(t *testing.T, path string) map[uint8]int {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := vnc.NewFBReader(f)
	if err != nil {
		t.Fatal(err)
	}
	seen, last, before := map[uint8]int{}, uint8(0), time.Duration(0)
	for frame, err := range r.All() {
		if err != nil {
			t.Fatalf("after %v: %v", before, err)
		}
		if frame.Offset < before {
			t.Errorf("%v after %v", frame.Offset, before)
		}
		before = frame.Offset
		now := frame.Image.RGBAAt(1, 1).R
		if frame.Update.Rects > 0 && now != last && now != 0 {
			seen[now]++
			last = now
		}
	}
	return seen
}

// Whatever of the tail was written, what is whole of it becomes part of the
// recording, once, and another file of that name stays as it is.
func TestMend(t *testing.T) {
	dir := t.TempDir()
	path, beside := filepath.Join(dir, "a.fb"), filepath.Join(dir, "tail")
	var whole strings.Builder
	w, err := vnc.NewFBWriter(&whole, 4, 4)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Seal(); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tl, err := openTail(beside, f, int64(whole.Len()), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	var ends []int64
	for i := range 3 {
		if !tl.chunk(time.Duration(i+2)*time.Second, []byte{0, 0, 0, 0}) {
			t.Fatal("not written")
		}
		ends = append(ends, tl.size)
	}
	if err := tl.close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(beside)
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(text) + 1 {
		want := time.Second
		for i, end := range ends {
			if int64(n) >= end {
				want = time.Duration(i+2) * time.Second
			}
		}
		err := errors.Join(os.WriteFile(path, []byte(whole.String()+"half written"), 0o600), os.WriteFile(beside, text[:n], 0o600))
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // killed on the way, it is done again
			last, done, err := mend(f, beside)
			if err != nil || done != (n >= tailHead) || done && last != want {
				t.Fatalf("%d bytes: %v, %v, want %v; %v", n, last, done, want, err)
			}
		}
		if n >= tailHead {
			_, end, _ := decode(t, path)
			if want == time.Second {
				want = 0
			}
			if end != want {
				t.Errorf("%d bytes: the end is at %v", n, end)
			}
		}
	}
	other, err := os.Create(filepath.Join(dir, "other"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	if _, done, err := mend(other, beside); done || err != nil {
		t.Errorf("another file was taken: %v", err)
	}
}

func FuzzMend(f *testing.F) {
	f.Add([]byte("1000 4\r\n\x00\x00\x00\x00\r\n"))
	f.Add([]byte("1 99999999999\r\n"))
	f.Fuzz(func(t *testing.T, chunks []byte) {
		dir := t.TempDir()
		rec, err := os.Create(filepath.Join(dir, "a"))
		if err != nil {
			t.Fatal(err)
		}
		defer rec.Close()
		tl, err := openTail(filepath.Join(dir, "tail"), rec, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = tl.f.WriteAt(chunks, tailHead)
		if err = errors.Join(err, tl.close()); err != nil {
			t.Fatal(err)
		}
		if _, done, err := mend(rec, filepath.Join(dir, "tail")); err == nil && !done {
			t.Error("not done")
		}
	})
}
