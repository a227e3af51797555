package iomeshage

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"minimega/internal/host/hosttest"
	"minimega/pkg/meshage/meshtest"
)

// TestMain is also the process that TestKilled kills.
func TestMain(m *testing.M) {
	if os.Getenv("IOMESHAGE_VICTIM") == "" {
		os.Exit(m.Run())
	}
	if err := victim(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// victim fetches the file f from one directory into another, slowly.
func victim(from, to string) error {
	hub := meshtest.NewHub()
	log := slog.New(slog.DiscardHandler)
	source, err := New(Options{Root: from, Rate: 16 << 20, Log: log})
	if err != nil {
		return err
	}
	source.Join(hub.Join("from"))
	s, err := New(Options{Root: to, Log: log})
	if err != nil {
		return err
	}
	s.Join(hub.Join("to"))
	return s.Get(context.Background(), "f")
}

// A process that is killed in the middle of a transfer leaves what the next
// one goes on with.
func TestKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "a")
	content := random(13, 48<<20)
	w.put("f", content, "a")
	to := t.TempDir()
	hosttest.Machine{Marks: []string{to}}.Check(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, w.hosts["a"].opts.Root, to)
	cmd.Env = append(os.Environ(), "IOMESHAGE_VICTIM=1")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	dead := false
	kill := func() {
		if !dead {
			dead = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
	defer kill()
	record := filepath.Join(to, partialDir("f"), partialRecord)
	waitFor(t, func() bool { st, err := os.Stat(record); return err == nil && st.Size() > 4*int64(recordEntry) })
	kill()
	if _, err := os.Stat(filepath.Join(to, "f")); err == nil {
		t.Fatal("it was whole already")
	}
	b := w.join("b", Options{Root: to})
	mustGet(t, b, "f")
	w.has("f", content, "b")
	if !strings.Contains(w.logs["b"].String(), "goes on where it broke off") {
		t.Error("it began afresh")
	}
}

// Names and links that lead out of the files directory lead nowhere, also when
// they are exchanged while they are used.
func TestEscapes(t *testing.T) {
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, "a", "b")
	root := w.hosts["a"].opts.Root
	w.put("d/secret", []byte("harmless"), "a")
	if err := os.Symlink(outside, filepath.Join(root, "out")); err != nil {
		t.Fatal(err)
	}
	b := w.hosts["b"]
	for _, n := range []string{"out/secret", "out", "out/*", "../" + filepath.Base(outside) + "/secret", "d/../../x"} {
		if err := b.Get(t.Context(), n); err == nil {
			t.Errorf("%s came", n)
		}
	}
	// The directory of the receiver is a link, too.
	if err := os.Symlink(outside, filepath.Join(b.opts.Root, "d")); err != nil {
		t.Fatal(err)
	}
	if err := b.Get(t.Context(), "d/secret"); err == nil {
		t.Error("it came through the link")
	}
	if err := b.Delete("d/secret"); err == nil {
		t.Error("it was deleted through the link")
	}
	race(t, root, outside, w)
	if got, err := os.ReadFile(filepath.Join(outside, "secret")); err != nil || string(got) != "secret" {
		t.Errorf("%q, %v", got, err)
	}
	if list, err := os.ReadDir(outside); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
}

// race exchanges a directory with a link to outside while files are fetched.
func race(t *testing.T, root, outside string, w *world) {
	t.Helper()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		d, hold := filepath.Join(root, "d"), filepath.Join(root, "hold")
		for {
			select {
			case <-stop:
				return
			default:
			}
			_ = os.Rename(d, hold)
			_ = os.Symlink(outside, d)
			_ = os.Remove(d)
			_ = os.Rename(hold, d)
		}
	}()
	c := w.join("c", Options{})
	for range 100 {
		if err := c.Get(t.Context(), "d/secret"); err != nil {
			continue
		}
		got, err := os.ReadFile(w.path("c", "d/secret"))
		if err == nil && string(got) != "harmless" {
			t.Errorf("got %q", got)
		}
		_ = os.RemoveAll(w.path("c", "d"))
	}
	close(stop)
	<-stopped
}
