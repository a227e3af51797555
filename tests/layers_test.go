// Package tests holds the checks of the program as a whole: scripts that run
// the real binary, and the rules that the source itself must keep.
package tests

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// layers lists the packages from the top down. A package may import those in
// layers below its own, and those of its own layer only where that is allowed
// in sameLayer. A longer path beats its parent.
var layers = [][]string{
	{"cmd", "bench", "tests"},
	{"bench/figure"},
	{"internal/daemon", "internal/demo", "internal/cli", "internal/doc"},
	{"internal/api"},
	{"internal/command"},
	{"internal/namespace"},
	{"internal/cluster"},
	{"internal/scheduler"},
	{"internal/vm", "internal/network", "internal/capture", "internal/record", "internal/jobs", "internal/optimize", "internal/disk", "internal/vlan", "internal/minilog", "internal/fetch", "internal/image", "internal/rfbplay", "internal/deploy"},
	{"internal/vm/kvm", "internal/vm/container", "internal/vm/android", "internal/network/linux", "internal/network/networktest", "internal/guest", "internal/qmp"},
	{"internal/basedir", "internal/statefile", "internal/journal", "internal/prompt"},
	{"internal/host", "internal/rootless", "internal/decompress"},
	{"internal/undo", "internal/errs", "internal/version"},
	{"pkg/miniclient", "pkg/minicli", "pkg/vnc", "pkg/ranges", "pkg/iomeshage"},
	{"pkg/meshage"},
	{"pkg/near"},
}

// up lists the imports that go up, each with its reason.
var up = map[string]string{
	"internal/vm/kvm internal/vm":                   "an engine implements the interface of its owner",
	"internal/vm/container internal/vm":             "an engine implements the interface of its owner",
	"internal/vm/android internal/vm":               "likewise",
	"internal/network/linux internal/network":       "a datapath implements the interface of its owner",
	"internal/network/networktest internal/network": "the shared suite of that interface",
	"internal/vm/kvm internal/disk":                 "makes the overlays of its machines",
}

// same lists the imports within a layer.
var same = map[string]bool{
	"internal/vm internal/network":        true, // a VM is connected to ports
	"internal/vm/kvm internal/qmp":        true,
	"internal/vm/android internal/qmp":    true,
	"internal/undo internal/errs":         true,
	"pkg/minicli pkg/ranges":              true,
	"pkg/miniclient pkg/minicli":          true,
	"internal/daemon internal/cli":        true,
	"internal/vm/vmtest internal/network": true,
	"internal/demo internal/daemon":       true,
}

func layer(pkg string) (int, bool) {
	best, at, ok := "", 0, false
	for i, l := range layers {
		for _, p := range l {
			if (pkg == p || strings.HasPrefix(pkg, p+"/")) && len(p) > len(best) {
				best, at, ok = p, i, true
			}
		}
	}
	return at, ok
}

// family reports whether two packages are parts of one, such as
// internal/guest/node and internal/guest/shell.
func family(a, b string) bool {
	return root(a) == root(b)
}

func root(pkg string) string {
	parts := strings.SplitN(pkg, "/", 3)
	return strings.Join(parts[:min(2, len(parts))], "/")
}

func TestImportsGoDown(t *testing.T) {
	root := ".."
	seen := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && d.Name() != ".." || d.Name() == "testdata" || d.Name() == "bin") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		seen++
		rel, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		checkFile(t, path, filepath.ToSlash(rel))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 50 {
		t.Fatalf("only %d source files found: the walk is broken", seen)
	}
}

func checkFile(t *testing.T, path, pkg string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
	if err != nil {
		t.Error(err)
		return
	}
	from, ok := layer(pkg)
	if !ok {
		t.Errorf("%s is in no layer: add it to the list in this test", pkg)
		return
	}
	for _, spec := range f.Imports {
		full, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Error(err)
			continue
		}
		dep, ours := strings.CutPrefix(full, "minimega/")
		if !ours {
			continue
		}
		to, ok := layer(dep)
		key := pkg + " " + dep
		switch {
		case !ok:
			t.Errorf("%s imports %s, which is in no layer", path, dep)
		case to > from, up[key] != "", to == from && same[key]:
		case to == from && family(pkg, dep):
		default:
			t.Errorf("%s: %s must not import %s: imports go down only", path, pkg, dep)
		}
		if strings.HasPrefix(pkg, "pkg/") && strings.HasPrefix(dep, "internal/") {
			t.Errorf("%s: %s is for other people's programs and must not import %s", path, pkg, dep)
		}
	}
}

// Every package says in a comment what it is.
func TestPackageComments(t *testing.T) {
	commented := map[string]bool{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "testdata" || d.Name() == "bin" || d.Name() == ".cache") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		dir := filepath.Dir(path)
		commented[dir] = commented[dir] || f.Doc != nil
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for dir, ok := range commented {
		if !ok {
			t.Errorf("%s: no file opens with a package comment", dir)
		}
	}
}
