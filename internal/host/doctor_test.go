package host

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"minimega/internal/errs"
)

func TestDiagnosis(t *testing.T) {
	f := Finding{Check{Name: "x", Optional: true, Fix: func(context.Context) error { return nil }},
		errs.WithRemedy(errs.New(errs.Resource, "too little"), "get more")}
	want := Diagnosis{Check: "x", Optional: true, Kind: errs.Resource, Text: "too little", Remedy: "get more", Fixable: true}
	if got := f.Diagnosis(); got != want {
		t.Errorf("got %+v", got)
	}
}

func TestFix(t *testing.T) {
	broken := true
	c := Check{Name: "x", Run: func(context.Context) error {
		if broken {
			return errors.New("broken")
		}
		return nil
	}}
	ctx := context.Background()
	if err := (Finding{c, errors.New("broken")}).Fix(ctx); err == nil || err.Error() != "broken" {
		t.Errorf("without a fix: %v", err)
	}
	c.Fix = func(context.Context) error { broken = false; return nil }
	if err := (Finding{c, errors.New("broken")}).Fix(ctx); err != nil {
		t.Errorf("fixed: %v", err)
	}
	broken = true
	c.Fix = func(context.Context) error { return errors.New("no permission") }
	if err := (Finding{c, errors.New("broken")}).Fix(ctx); err == nil || !strings.Contains(err.Error(), "no permission") {
		t.Errorf("a fix that failed: %v", err)
	}
}

func TestFirewall(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	run := firewall(file).Run
	if err := run(t.Context()); err != nil {
		t.Error("a host without bridge-nf: ", err)
	}
	for content, bad := range map[string]bool{"0\n": false, "1\n": true} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := run(t.Context()); (err != nil) != bad {
			t.Errorf("%q: %v", content, err)
		}
	}
}

func TestEnoughFiles(t *testing.T) {
	if err := enoughFiles(1024); err == nil || !strings.Contains(err.Error(), "ulimit -n") {
		t.Error(err)
	}
	if err := enoughFiles(1 << 20); err != nil {
		t.Error(err)
	}
}
