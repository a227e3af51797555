package initrd

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Modules is what one kernel has in loadable and built-in modules.
type Modules struct {
	dir     string
	files   map[string]string   // name -> path below dir
	builtin map[string]bool     // names
	deps    map[string][]string // path -> paths, when modules.dep is there
}

const maxModules = 50_000

// OpenModules reads the module tree of a kernel: a directory with kernel/ in
// it, as /lib/modules/VERSION is. modules.dep and modules.builtin are used if
// they are there (man 5 modules.dep); depmod need not have been run.
func OpenModules(dir string) (*Modules, error) {
	m := &Modules{dir: dir, files: map[string]string{}, builtin: map[string]bool{}}
	if err := m.readDeps(); err != nil {
		return nil, err
	}
	if m.deps == nil {
		if err := m.walk(); err != nil {
			return nil, err
		}
	}
	err := eachLine(filepath.Join(dir, "modules.builtin"), func(line string) {
		m.builtin[moduleName(line)] = true
	})
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	return m, nil
}

func (m *Modules) readDeps() error {
	err := eachLine(filepath.Join(m.dir, "modules.dep"), func(line string) {
		file, needs, ok := strings.Cut(line, ":")
		if !ok {
			return
		}
		if m.deps == nil {
			m.deps = map[string][]string{}
		}
		file = m.relative(file)
		name := moduleName("/" + file)
		if name == "" || len(m.files) >= maxModules {
			return
		}
		m.files[name] = file
		for _, n := range strings.Fields(needs) {
			m.deps[file] = append(m.deps[file], m.relative(n))
		}
	})
	if os.IsNotExist(err) {
		return nil
	}
	return err
}

// relative keeps a path from modules.dep below the module directory; some
// depmods write absolute ones.
func (m *Modules) relative(p string) string {
	if rest, ok := strings.CutPrefix(p, strings.TrimSuffix(m.dir, "/")+"/"); ok {
		p = rest
	}
	return strings.TrimPrefix(path.Clean("/"+p), "/")
}

func (m *Modules) walk() error {
	root := filepath.Join(m.dir, "kernel")
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if name := moduleName(p); name != "" {
			rel, err := filepath.Rel(m.dir, p)
			if err != nil {
				return err
			}
			m.files[name] = rel
		}
		if len(m.files) > maxModules {
			return fmt.Errorf("%s holds more than %d modules", root, maxModules)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read kernel modules: %w", err)
	}
	return nil
}

// Module is one module of a kernel and what loading it takes.
type Module struct {
	Files   []string // below the module directory, in load order: itself is the last
	Devices []string // patterns of the devices it drives; none: it drives no device
	Missing bool     // the kernel has it neither as a file nor built in
}

// Resolve looks a module up by its name. One that is built into the kernel has
// no files.
func (m *Modules) Resolve(name string) (Module, error) {
	name = moduleName(name)
	file := m.files[name]
	if file == "" {
		return Module{Missing: !m.builtin[name]}, nil
	}
	r := resolver{m: m, state: map[string]int{}}
	if err := r.add(file); err != nil {
		return Module{}, err
	}
	info, err := m.info(file)
	if err != nil {
		return Module{}, err
	}
	return Module{Files: r.order, Devices: info.devices}, nil
}

func (m *Modules) info(file string) (modinfo, error) {
	data, err := m.read(file)
	if err != nil {
		return modinfo{}, err
	}
	info, err := readModinfo(data)
	if err != nil {
		return modinfo{}, fmt.Errorf("%s: %w", file, err)
	}
	return info, nil
}

type resolver struct {
	m     *Modules
	state map[string]int // 1: being resolved, 2: in order
	order []string
}

func (r *resolver) add(file string) error {
	switch r.state[file] {
	case 1:
		return fmt.Errorf("kernel module %s needs itself", file)
	case 2:
		return nil
	}
	r.state[file] = 1
	hard, soft, err := r.m.needs(file)
	if err != nil {
		return err
	}
	for _, n := range soft {
		if r.state[n] == 1 {
			continue // soft dependencies may form a ring
		}
		if err := r.add(n); err != nil {
			return err
		}
	}
	for _, n := range hard {
		if err := r.add(n); err != nil {
			return err
		}
	}
	r.state[file] = 2
	r.order = append(r.order, file)
	return nil
}

// needs returns the files that must, and those that should, be loaded first.
func (m *Modules) needs(file string) (hard, soft []string, err error) {
	if m.deps != nil {
		// depmod lists all that is needed, the deepest last.
		hard = slices.Clone(m.deps[file])
		slices.Reverse(hard)
		return hard, nil, nil
	}
	info, err := m.info(file)
	if err != nil {
		return nil, nil, err
	}
	return m.paths(info.depends), m.paths(info.softPre), nil
}

func (m *Modules) paths(names []string) []string {
	var paths []string
	for _, n := range names {
		if p := m.files[moduleName(n)]; p != "" {
			paths = append(paths, p)
		}
	}
	return paths
}

// moduleName is the name the kernel knows a module file by, or "".
func moduleName(file string) string {
	base := path.Base(strings.TrimSpace(file))
	for _, suffix := range []string{".gz", ".xz", ".zst"} {
		base = strings.TrimSuffix(base, suffix)
	}
	if strings.Contains(file, "/") && !strings.HasSuffix(base, ".ko") {
		return ""
	}
	return strings.ReplaceAll(strings.TrimSuffix(base, ".ko"), "-", "_")
}

func eachLine(file string, fn func(string)) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		if line := strings.TrimSpace(s.Text()); line != "" {
			fn(line)
		}
	}
	if s.Err() != nil {
		return fmt.Errorf("read %s: %w", file, s.Err())
	}
	return nil
}
