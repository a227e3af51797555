package host

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLastWords(t *testing.T) {
	quiet := func(line string) bool { return strings.HasPrefix(line, "INFO") }
	for name, c := range map[string]struct{ in, want string }{
		"empty":   {"", ""},
		"noise":   {"INFO a\r\nbad \x1b[1mdisk\x00\n\n", "bad  [1mdisk"},
		"bytes":   {"x\xff\n", "x"},
		"lines":   {"1\n2\n3\n4\n5\n6\n7\n8\n9\n", "2; 3; 4; 5; 6; 7; 8; 9"},
		"long":    {strings.Repeat("x", 10<<10) + "\nend\n", strings.Repeat("x", 4<<10-5) + "; end"},
		"no line": {"end", "end"},
	} {
		path := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(path, []byte(c.in), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := LastWords(path, quiet); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	if got := LastWords("/dev/zero", quiet) + LastWords("/nonexistent", quiet); got != "" {
		t.Errorf("of no file: %q", got)
	}
}
