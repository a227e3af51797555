package host

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"minimega/internal/errs"
)

func TestMissing(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"debian.qcow2", "Ubuntu.img", "zoo"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{
		dir + "/debain.qcow2": "did you mean " + dir + "/debian.qcow2?",
		dir + "/debian":       "did you mean " + dir + "/debian.qcow2?",
		dir + "/ubuntu.img":   "did you mean " + dir + "/Ubuntu.img?",
		dir + "/windows.vmdk": "",
		dir + "/no/such/file": "there is no directory " + dir + "/no",
		dir + "/zoo/file":     "",
	} {
		err := Missing("disk image", path)
		if errs.KindOf(err) != errs.NotFound || !strings.HasPrefix(err.Error(), "disk image "+path+" does not exist") {
			t.Errorf("%s: %v", path, err)
		}
		if got := errs.FactsOf(err).Remedy; got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	if err := Missing("", "/nosuch"); !strings.HasPrefix(err.Error(), "/nosuch does not") || !errors.Is(err, errs.NotFound) {
		t.Error(err)
	}
}
