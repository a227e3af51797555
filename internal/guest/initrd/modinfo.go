package initrd

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const maxModule = 64 << 20 // bytes, unpacked

// modinfo is what a module says of itself in its .modinfo section: strings
// `key=value`, each ended by a zero byte (include/linux/module.h).
type modinfo struct {
	depends []string // names
	softPre []string // names that should be loaded before, if there
	devices []string // aliases that name devices of a bus
}

func readModinfo(module []byte) (info modinfo, err error) {
	// debug/elf promises no panic on hostile input only by fuzzing.
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("not a kernel module: %v", p)
		}
	}()
	f, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return info, fmt.Errorf("not a kernel module: %w", err)
	}
	s := f.Section(".modinfo")
	if s == nil {
		return info, errors.New("not a kernel module: no .modinfo section")
	}
	if s.Size > uint64(len(module)) {
		return info, errors.New("not a kernel module: .modinfo larger than the file")
	}
	data, err := s.Data()
	if err != nil {
		return info, fmt.Errorf("not a kernel module: %w", err)
	}
	for _, line := range strings.Split(string(data), "\x00") {
		info.add(line)
	}
	return info, nil
}

func (info *modinfo) add(line string) {
	key, value, _ := strings.Cut(line, "=")
	switch key {
	case "depends":
		for _, n := range strings.Split(value, ",") {
			if n != "" {
				info.depends = append(info.depends, n)
			}
		}
	case "alias":
		if isDevice(value) {
			info.devices = append(info.devices, value)
		}
	case "softdep":
		for i, n := range strings.Fields(value) {
			if n == "post:" {
				break
			}
			if i > 0 { // the first is "pre:"
				info.softPre = append(info.softPre, n)
			}
		}
	}
}

// isDevice tells the pattern of a device (`pci:v00008086d*`) from the other
// aliases that modules have (`net-pf-17`, `fs-ext4`).
func isDevice(alias string) bool {
	bus, _, ok := strings.Cut(alias, ":")
	if !ok || strings.ContainsAny(alias, " \t\n") {
		return false
	}
	switch bus {
	case "pci", "virtio", "acpi*", "input", "serio", "scsi", "usb", "hid", "of", "platform", "pnp", "vmbus", "xen":
		return true
	}
	return false
}

// read returns a module unpacked: an initrd with plain modules boots faster,
// and not every kernel unpacks them itself.
func (m *Modules) read(file string) ([]byte, error) {
	path := filepath.Join(m.dir, file)
	var data []byte
	var err error
	switch filepath.Ext(file) {
	case ".gz":
		data, err = gunzip(path)
	case ".xz":
		data, err = unpackWith("xz", path)
	case ".zst":
		data, err = unpackWith("zstd", path)
	default:
		data, err = readLimited(path)
	}
	if err != nil {
		return nil, fmt.Errorf("read kernel module: %w", err)
	}
	return data, nil
}

func readLimited(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return limited(path, f)
}

func limited(path string, r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxModule+1))
	if err == nil && len(data) > maxModule {
		err = fmt.Errorf("%s is larger than %d MiB", path, maxModule>>20)
	}
	return data, err
}

func gunzip(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return limited(path, z)
}

func unpackWith(tool, path string) ([]byte, error) {
	var out, complaint bytes.Buffer
	cmd := exec.Command(tool, "-dc", path)
	cmd.Stdout, cmd.Stderr = &out, &complaint
	err := cmd.Run()
	if errors.Is(err, exec.ErrNotFound) {
		return nil, fmt.Errorf("%s is compressed and %s is not installed (apt-get install %s)",
			path, tool, map[string]string{"xz": "xz-utils", "zstd": "zstd"}[tool])
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %s -dc: %w: %s", path, tool, err, bytes.TrimSpace(complaint.Bytes()))
	}
	return out.Bytes(), nil
}
