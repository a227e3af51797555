package container

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A file system in which a link stands where the kernel's are to be mounted: the
// mount would be where the link leads, and later steps, when it leads elsewhere,
// would protect something else.
func TestLinksAtMounts(t *testing.T) {
	for name, links := range map[string]map[string]string{
		"that moves": {"proc": "dev/p", "dev/p": "../real"},
		"/proc":      {"proc": "real"},
		"/sys":       {"sys": "real"},
		"/dev":       {"dev": "real"},
		"dangling":   {"proc": "/nowhere"},
	} {
		for i := range 4 {
			t.Run(fmt.Sprintf("%s, snapshot %v, userns %v", name, i%2 == 0, i > 1), func(t *testing.T) {
				b := newBench(t)
				if err := os.Mkdir(filepath.Join(b.root, "real"), 0o755); err != nil {
					t.Fatal(err)
				}
				for at, to := range links {
					at = filepath.Join(b.root, at)
					if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
						t.Fatal(err)
					}
					if err := os.Symlink(to, at); err != nil {
						t.Fatal(err)
					}
				}
				c := b.config("unmasked")
				c.Snapshot, c.UserNS = i%2 == 0, i > 1
				m, err := b.engine.Launch(t.Context(), b.spec(c))
				if err == nil {
					b.endAfter(m)
					if err := m.Start(t.Context()); err != nil {
						t.Fatal(err)
					}
					code, shown := b.wait(m.(*Machine))
					t.Fatalf("launched, exit status %d: %s", code, shown)
				}
				if !strings.Contains(err.Error(), "is a link or a file, and no directory") {
					t.Error(err)
				}
			})
		}
	}
}
