package host

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReadJSON(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	var got struct{ A int }
	if found, err := ReadJSON(path, 10, &got); found || err != nil {
		t.Errorf("no file: %v, %v", found, err)
	}
	for text, says := range map[string]string{`{"A": 5}`: "", `{"A": 5555}`: "at most 10 are read", `{"A":`: path} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got.A = 0
		found, err := ReadJSON(path, 10, &got)
		switch {
		case !found:
			t.Errorf("%s is not found", text)
		case says == "" && (err != nil || got.A != 5):
			t.Errorf("%s: %v, %v", text, got, err)
		case says != "" && (err == nil || !strings.Contains(err.Error(), says)):
			t.Errorf("%s: %v", text, err)
		}
	}
	for range 2 {
		if err := RemoveFile(path); err != nil {
			t.Error(err)
		}
	}
	if err := RemoveFile(filepath.Join(path, "..", "..")); err == nil {
		t.Error("a directory with files in it is removed")
	}
}
