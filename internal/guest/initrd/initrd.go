// Package initrd makes the first file system of the built-in guest: this
// program as /init, the kernel modules that a virtual machine's devices need,
// and files of the caller's, in the archive format that Linux unpacks at boot.
package initrd

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strings"
)

// LoadList is the file in the initrd that says which modules to load. A line
// holds, separated by blanks, the files of one module in load order (those it
// needs come first), each a path from /, and the patterns of the devices it is
// for, as modules.alias has them. A line without a pattern is for every machine.
// One that begins with the word Late can wait until the consoles are up.
const LoadList = "/etc/modules.load"

// Late marks lines of the LoadList.
const Late = "late"

// Options say what goes into an initrd. The zero value is this program alone.
type Options struct {
	Binary     string            // static Linux program to run as /init; default: this one
	ModulesDir string            // module tree of the kernel that will boot; "" for none
	Drivers    []string          // modules for devices, loaded when one is there; nil means DefaultDrivers
	Modules    []string          // modules to load in any case, after the drivers
	Files      map[string]string // path in the guest -> path here, a file or a directory
	Compress   bool              // gzip
}

// DefaultDrivers are the drivers of the devices QEMU offers on its PC
// machines, those needed for the network first: they are loaded in this order.
func DefaultDrivers() []string {
	return []string{
		"virtio_pci", "virtio_mmio", "af_packet",
		"e1000", "virtio_net", "e1000e", "8139cp", "vmxnet3", "ne2k_pci", "pcnet32", "e100", "tulip", "igb",
		"button", "evdev", "virtio_console", "virtio_blk", "virtio_scsi", "sd_mod", "ata_piix", "ahci", "psmouse",
	}
}

// Report says what an initrd came to hold.
type Report struct {
	Modules []string // files in the guest, in load order
	Missing []string // module names the kernel has neither loadable nor built in
}

// Write writes an initrd to w. Its bytes depend on the options and the files
// they name alone.
func Write(w io.Writer, o Options) (Report, error) {
	var rep Report
	plan, err := makePlan(o, &rep)
	if err != nil {
		return rep, err
	}
	b := bufio.NewWriterSize(w, 1<<18)
	out := io.Writer(b)
	var z *gzip.Writer
	if o.Compress {
		if z, err = gzip.NewWriterLevel(b, gzip.BestSpeed); err != nil {
			return rep, err
		}
		out = z
	}
	if err := plan.write(&cpioWriter{w: out}); err != nil {
		return rep, fmt.Errorf("write initrd: %w", err)
	}
	if z != nil {
		if err := z.Close(); err != nil {
			return rep, fmt.Errorf("write initrd: %w", err)
		}
	}
	return rep, b.Flush()
}

// WriteFile makes an initrd at file, which appears there complete or not at all.
func WriteFile(file string, o Options) (Report, error) {
	tmp, err := os.CreateTemp(filepath.Dir(file), ".initrd-*")
	if err != nil {
		return Report{}, fmt.Errorf("write initrd: %w", err)
	}
	defer os.Remove(tmp.Name()) // fails after the rename, as it should
	defer tmp.Close()
	rep, err := Write(tmp, o)
	if err != nil {
		return rep, err
	}
	if err := tmp.Chmod(0o644); err != nil {
		return rep, fmt.Errorf("write initrd: %w", err)
	}
	if err := tmp.Close(); err != nil {
		return rep, fmt.Errorf("write initrd: %w", err)
	}
	if err := os.Rename(tmp.Name(), file); err != nil {
		return rep, fmt.Errorf("write initrd: %w", err)
	}
	return rep, nil
}

// plan is the content of an initrd, by path without the leading slash.
type plan map[string]item

type item struct {
	source string // file here; "" means data
	data   []byte
	mode   uint32
}

func makePlan(o Options, rep *Report) (plan, error) {
	p := plan{}
	for _, d := range []string{"dev", "proc", "sys", "tmp", "root", "etc", "bin", "run"} {
		p[d] = item{mode: modeDir | 0o755}
	}
	if err := p.addModules(o, rep); err != nil {
		return nil, err
	}
	if err := p.addBinary(o.Binary); err != nil {
		return nil, err
	}
	for dst, src := range o.Files {
		if err := p.addFiles(dst, src); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p plan) addBinary(binary string) error {
	if binary == "" {
		binary = "/proc/self/exe"
	}
	if err := checkStatic(binary); err != nil {
		return err
	}
	p["init"] = item{source: binary, mode: modeFile | 0o755}
	p["bin/minimega"] = item{data: []byte("/init"), mode: modeLink | 0o777}
	return nil
}

func (p plan) addModules(o Options, rep *Report) error {
	if o.ModulesDir == "" {
		return nil
	}
	mods, err := OpenModules(o.ModulesDir)
	if err != nil {
		return err
	}
	drivers := o.Drivers
	if drivers == nil {
		drivers = DefaultDrivers()
	}
	var list bytes.Buffer
	for i, name := range slices.Concat(drivers, o.Modules) {
		mod, err := mods.Resolve(name)
		if err != nil {
			return err
		}
		if mod.Missing {
			rep.Missing = append(rep.Missing, moduleName(name))
		}
		if len(mod.Files) == 0 {
			continue // built in, or missing
		}
		if i >= len(drivers) {
			mod.Devices = nil
		}
		if err := p.addModule(mods, mod, &list, rep); err != nil {
			return err
		}
	}
	p.put(strings.TrimPrefix(LoadList, "/"), item{data: list.Bytes(), mode: modeFile | 0o644})
	return nil
}

// late tells what nobody waits for: all that drives neither the network nor
// the bus that its devices are on.
func (m Module) late() bool {
	file := m.Files[len(m.Files)-1]
	return m.Devices != nil && !strings.HasPrefix(file, "kernel/drivers/net/") && !strings.HasPrefix(file, "kernel/drivers/virtio/")
}

// addModule adds one module, those it needs, and its line of the load list.
func (p plan) addModule(mods *Modules, mod Module, list *bytes.Buffer, rep *Report) error {
	if mod.late() {
		fmt.Fprint(list, Late, " ")
	}
	for _, file := range mod.Files {
		at := path.Join("lib/modules", moduleName(file)+".ko")
		fmt.Fprintf(list, "/%s ", at)
		if _, ok := p[at]; ok {
			continue
		}
		data, err := mods.read(file)
		if err != nil {
			return err
		}
		p.put(at, item{data: data, mode: modeFile | 0o644})
		rep.Modules = append(rep.Modules, at)
	}
	fmt.Fprintln(list, strings.Join(mod.Devices, " "))
	return nil
}

// addFiles puts the file or the tree src at dst.
func (p plan) addFiles(dst, src string) error {
	dst = strings.TrimPrefix(path.Clean("/"+dst), "/")
	if dst == "" || dst == "init" || strings.ContainsRune(dst, 0) {
		return fmt.Errorf("cannot put %s at /%s in the guest: that name is taken", src, dst)
	}
	return filepath.WalkDir(src, func(file string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, file)
		if err != nil {
			return err
		}
		at := path.Join(dst, filepath.ToSlash(rel))
		st, err := os.Stat(file)
		if file != src {
			st, err = d.Info()
		}
		if err != nil {
			return err
		}
		return p.addFile(at, file, st)
	})
}

func (p plan) addFile(at, file string, st os.FileInfo) error {
	perm := uint32(st.Mode().Perm())
	switch {
	case st.IsDir():
		p.put(at, item{mode: modeDir | perm})
	case st.Mode()&os.ModeSymlink != 0:
		target, err := os.Readlink(file)
		if err != nil {
			return err
		}
		p.put(at, item{data: []byte(target), mode: modeLink | 0o777})
	case st.Mode().IsRegular():
		p.put(at, item{source: file, mode: modeFile | perm})
	default:
		return fmt.Errorf("cannot add %s: neither file, directory nor link", file)
	}
	return nil
}

// put adds an item and the directories above it.
func (p plan) put(at string, it item) {
	for d := path.Dir(at); d != "."; d = path.Dir(d) {
		if _, ok := p[d]; !ok {
			p[d] = item{mode: modeDir | 0o755}
		}
	}
	p[at] = it
}

func (p plan) write(c *cpioWriter) error {
	names := make([]string, 0, len(p))
	for n := range p {
		names = append(names, n)
	}
	sort.Strings(names) // a directory sorts before what is in it
	for _, n := range names {
		it := p[n]
		switch {
		case it.mode&modeType == modeDir:
			c.dir(n, os.FileMode(it.mode))
		case it.source != "":
			if err := c.file(n, it.source, os.FileMode(it.mode)); err != nil {
				return err
			}
		default:
			c.bytes(n, it.mode, it.data)
		}
	}
	// The kernel opens /dev/console for /init before anything is mounted.
	c.device("dev/console", 0o600, 5, 1)
	c.device("dev/null", 0o666, 1, 3)
	return c.close()
}
