package command

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"minimega/pkg/minicli"
)

func TestKeepShared(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions")
	log := slog.New(slog.DiscardHandler)
	start := func() *Shared {
		s := NewShared("minimega")
		if err := s.Keep(path, log); err != nil {
			t.Error(err)
		}
		return s
	}
	there := func() bool { _, err := os.Lstat(path); return err == nil }
	s := start()
	if there() {
		t.Error("there is a file of nothing")
	}
	one := s.NewSession()
	one.SetNamespace("red")
	f := minicli.DefaultFlags()
	f.Mode, f.Sort = minicli.CSV, false
	one.SetFlags(f)
	s.SetAlias("vmi", "vm info")
	s.SetStatusPeriod(time.Minute)
	again := start()
	two := again.NewSession()
	if two.Namespace() != "red" || two.Flags() != f || again.Aliases()["vmi"] != "vm info" || again.StatusPeriod() != time.Minute {
		t.Errorf("%s %+v %v %v", two.Namespace(), two.Flags(), again.Aliases(), again.StatusPeriod())
	}
	two.SetNamespace("minimega")
	two.SetFlags(minicli.DefaultFlags())
	again.SetAlias("vmi", "")
	if !there() {
		t.Error("the status period is lost")
	}
	again.SetStatusPeriod(3 * time.Second)
	if there() {
		t.Error("all is as new, and the file is left")
	}
	two.SetNamespace("blue")
	if lines, err := ForgetShared(path); err != nil || len(lines) != 1 || there() {
		t.Errorf("%q, %v", lines, err)
	}
	for _, bad := range []string{"{", `{"Namespace": "../x"}`, `{"Namespace": ""}`} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		s := NewShared("minimega")
		if err := s.Keep(path, log); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", bad, err)
		}
		if got := s.NewSession(); got.Namespace() != "minimega" || got.Flags() != minicli.DefaultFlags() {
			t.Errorf("%s: %+v", bad, got)
		}
	}
}
