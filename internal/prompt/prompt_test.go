package prompt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPlain(t *testing.T) {
	r, err := New(Options{In: strings.NewReader("one\n  two \n\nlast")})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if r.Interactive() {
		t.Error("interactive")
	}
	for _, want := range []string{"one", "  two ", "", "last"} {
		if got, err := r.Next(context.Background(), "$ "); got != want || err != nil {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	if _, err := r.Next(context.Background(), "$ "); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

// A context that ends, and Close, end a read that waits.
func TestInterrupted(t *testing.T) {
	in, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	defer in.Close()
	r, err := New(Options{In: in})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := r.Next(ctx, "$ "); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func TestHistory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history")
	log := slog.New(slog.DiscardHandler)
	h := OpenHistory(path, log)
	if got := h.Lines(); len(got) != 0 {
		t.Errorf("starts with %q", got)
	}
	h.Add("vm info")
	h.Add("vm kill all")
	if got := OpenHistory(path, log).Lines(); !slices.Equal(got, []string{"vm info", "vm kill all"}) {
		t.Errorf("kept %q", got)
	}
	if st, err := os.Stat(path); err != nil || st.Mode() != 0o600 {
		t.Errorf("%v %v", st.Mode(), err)
	}
}

// A history does not grow without end, nor does one long line spoil it.
func TestHistoryShortened(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history")
	var b strings.Builder
	b.WriteString(strings.Repeat("x", 100_000) + "\xff\n")
	for i := range 3 * keepLines {
		fmt.Fprintf(&b, "line %d\n\n", i)
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	got := OpenHistory(path, slog.New(slog.DiscardHandler)).Lines()
	if len(got) != keepLines || got[keepLines-1] != fmt.Sprintf("line %d", 3*keepLines-1) {
		t.Errorf("%d lines, last %q", len(got), got[len(got)-1])
	}
	data, err := os.ReadFile(path)
	if err != nil || strings.Count(string(data), "\n") != keepLines {
		t.Errorf("the file has %d lines, %v", strings.Count(string(data), "\n"), err)
	}
}

func TestHistoryTrouble(t *testing.T) {
	var log strings.Builder
	h := OpenHistory(t.TempDir(), slog.New(slog.NewTextHandler(&log, nil)))
	h.Add("x")
	if n := strings.Count(log.String(), "level=WARN"); n != 2 || len(h.Lines()) != 0 {
		t.Errorf("%d warnings, %q", n, h.Lines())
	}
	var none *History
	none.Add("x")
	if none.Lines() != nil {
		t.Error("nil History has lines")
	}
}

func TestWordCompleter(t *testing.T) {
	complete := wordCompleter(context.Background(), func(_ context.Context, beginning string) []string {
		switch beginning {
		case "vm sta":
			return []string{"vm start"}
		case "vm s":
			return []string{"vm save", "vm start"}
		case `read "ä f`:
			return []string{`read "ä file/"`, "bogus"}
		case "disk x/":
			return []string{"disk x/"}
		}
		return nil
	})
	for _, tt := range []struct {
		line string
		pos  int
		head string
		want []string
		tail string
	}{
		{"vm sta", 6, "vm ", []string{"start "}, ""},
		{"vm sfoo", 4, "vm ", []string{"save", "start"}, "foo"},
		{`read "ä f`, 9, "read ", []string{`"ä file/" `}, ""},
		{"disk x/", 7, "disk ", []string{"x/"}, ""},
		{"nothing", 7, "", nil, ""},
		{"# comment", 9, "# comment", nil, ""},
	} {
		head, words, tail := complete(tt.line, tt.pos)
		if head != tt.head || !slices.Equal(words, tt.want) || tail != tt.tail {
			t.Errorf("%q: %q %q %q, want %q %q %q", tt.line, head, words, tail, tt.head, tt.want, tt.tail)
		}
	}
}

func TestPageWithoutTerminal(t *testing.T) {
	var b strings.Builder
	text := strings.Repeat("x\n", 1000)
	if err := Page(context.Background(), &b, text); err != nil || b.String() != text+"\n" {
		t.Errorf("%d bytes, %v", b.Len(), err)
	}
}
