package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"minimega/internal/errs"
	"minimega/internal/guest/initrd"
)

func TestBootSector(t *testing.T) {
	code := bytes.Repeat([]byte{0x90}, bootCodeMax)
	s := bootSector(code, 12345)
	if len(s) != 512 || s[510] != 0x55 || s[511] != 0xaa || !bytes.Equal(s[:bootCodeMax], code) {
		t.Fatalf("sector % x", s)
	}
	p := s[446:462]
	if p[0] != 0x80 || p[4] != typeFAT32 || binary.LittleEndian.Uint32(p[8:]) != partStart || binary.LittleEndian.Uint32(p[12:]) != 12345 {
		t.Errorf("partition % x", p)
	}
}

func TestLoaderConfig(t *testing.T) {
	if c := loaderConfig(" ip=none "); !strings.HasSuffix(c, "\n  APPEND "+baseLine+"  ip=none\n") {
		t.Errorf("config %q", c)
	}
}

func TestMissingTools(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := Write(t.Context(), filepath.Join(t.TempDir(), "d"), Options{})
	if !errors.Is(err, errs.Unsupported) || !strings.Contains(err.Error(), "mcopy") || !strings.Contains(err.Error(), "apt-get install") {
		t.Errorf("error %v", err)
	}
}

func TestFailureLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	for name, o := range map[string]Options{
		"line break": {Append: "a\nb"},
		"no kernel":  {Kernel: "/nosuch", Initrd: initrd.Options{Binary: os.Args[0]}},
	} {
		if _, err := Write(t.Context(), filepath.Join(dir, "disk"), o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left %v (%v)", left, err)
	}
}
