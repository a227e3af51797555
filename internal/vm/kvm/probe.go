package kvm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"minimega/internal/errs"
)

// Capabilities is what a QEMU says that it can do. Lists are sorted.
type Capabilities struct {
	Version    string // such as 7.2.22
	CPUs       []string
	Machines   []string
	NetDrivers []string // devices of the network section
	Devices    []string // all devices
	Chardevs   []string
}

const (
	probeTimeout = 30 * time.Second
	maxHelp      = 4 << 20
)

// capCache remembers the capabilities of each binary, by path, size and time
// of change; on disk as well if dir is set.
type capCache struct {
	dir  string
	turn chan struct{} // one probe at a time; others find its result

	mu    sync.Mutex
	known map[string]*Capabilities
}

func newCapCache(dir string) *capCache {
	return &capCache{dir: dir, turn: make(chan struct{}, 1), known: map[string]*Capabilities{}}
}

// get returns the capabilities of the program at path.
func (c *capCache) get(ctx context.Context, path string) (*Capabilities, error) {
	key, err := binaryKey(path)
	if err != nil {
		return nil, err
	}
	if caps := c.find(key); caps != nil {
		return caps, nil
	}
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if caps := c.find(key); caps != nil {
		return caps, nil
	}
	caps := &Capabilities{}
	if !loadCache(c.dir, "qemu-"+key, caps) {
		if caps, err = askQEMU(ctx, path); err != nil {
			return nil, err
		}
		storeCache(c.dir, "qemu-"+key, caps)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known[key] = caps
	return caps, nil
}

func (c *capCache) find(key string) *Capabilities {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.known[key]
}

// binaryKey changes whenever the program at path does.
func binaryKey(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", wordQEMU(err, path)
	}
	st, err := os.Stat(real)
	if err != nil {
		return "", wordQEMU(err, path)
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%d\x00%d", real, st.Size(), st.ModTime().UnixNano()))
	return hex.EncodeToString(sum[:12]), nil
}

func wordQEMU(err error, path string) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errs.WithRemedy(errs.New(errs.NotFound, "QEMU %s does not exist", path),
			"install the package qemu-system-x86, or set `vm config qemu`")
	}
	return errs.Wrap(errs.Permission, err)
}

// loadCache reads a value; anything wrong with it means to find out anew.
func loadCache(dir, name string, into any) bool {
	if dir == "" {
		return false
	}
	b, err := os.ReadFile(filepath.Join(dir, name+".json"))
	return err == nil && json.Unmarshal(b, into) == nil
}

// storeCache is best effort: without it the next start takes a moment longer.
func storeCache(dir, name string, value any) {
	if dir == "" {
		return
	}
	b, err := json.Marshal(value)
	if err != nil {
		return
	}
	f, err := os.CreateTemp(dir, "."+name+".*")
	if err != nil {
		return
	}
	_, err = f.Write(b)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, name+".json"))
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
}

// askQEMU runs the program for each list.
func askQEMU(ctx context.Context, path string) (*Capabilities, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	version, err := help(ctx, path, "-version")
	if err != nil {
		return nil, err
	}
	caps := &Capabilities{Version: parseVersion(version)}
	if caps.Version == "" {
		return nil, errs.New(errs.Invalid, "%s is not QEMU: it calls itself %.60q", path, firstLine(version))
	}
	for _, q := range []struct {
		args  []string
		parse func(string)
	}{
		{[]string{"-cpu", "help"}, func(s string) { caps.CPUs = parseCPUs(s) }},
		{[]string{"-M", "help"}, func(s string) { caps.Machines = parseList(s) }},
		{[]string{"-M", "none", "-device", "help"}, func(s string) { caps.Devices, caps.NetDrivers = parseDevices(s) }},
		{[]string{"-M", "none", "-chardev", "help"}, func(s string) { caps.Chardevs = parseList(s) }},
	} {
		out, err := help(ctx, path, q.args...)
		if err != nil {
			return nil, err
		}
		q.parse(out)
	}
	return caps, nil
}

// help runs QEMU with an option that makes it print and end.
func help(ctx context.Context, path string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, path, args...)
	var words bytes.Buffer
	out := &bounded{max: maxHelp}
	cmd.Stdout, cmd.Stderr = out, &bounded{Buffer: &words, max: 4096}
	cmd.WaitDelay = time.Second
	out.Buffer = &bytes.Buffer{}
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return "", fmt.Errorf("%s %s does not end: %w", path, strings.Join(args, " "), ctx.Err())
		}
		return "", errs.New(errs.Unsupported, "%s %s: %w: %s", path, strings.Join(args, " "), err, clean(words.String()))
	}
	return out.String(), nil
}

// bounded is a buffer that drops what is too much.
type bounded struct {
	*bytes.Buffer
	max int
}

func (b *bounded) Write(p []byte) (int, error) {
	if room := b.max - b.Len(); room > 0 {
		b.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

var versionPattern = regexp.MustCompile(`QEMU emulator version ([0-9]+(?:\.[0-9]+)*)`)

func parseVersion(s string) string {
	if m := versionPattern.FindStringSubmatch(s); m != nil {
		return m[1]
	}
	return ""
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// parseCPUs reads `-cpu help`: models up to the first blank line, one a line,
// until QEMU 9.0 after the word "x86".
func parseCPUs(s string) []string {
	var names []string
	for line := range strings.Lines(s) {
		f := strings.Fields(line)
		if len(f) == 0 {
			break
		}
		if len(f) > 1 && f[0] == "x86" {
			f = f[1:]
		}
		if !strings.HasSuffix(strings.TrimSpace(line), ":") {
			names = append(names, f[0])
		}
	}
	return sorted(names)
}

// parseList reads a heading and then one name a line.
func parseList(s string) []string {
	var names []string
	_, s, _ = strings.Cut(s, "\n")
	for line := range strings.Lines(s) {
		if f := strings.Fields(line); len(f) > 0 {
			names = append(names, f[0])
		}
	}
	return sorted(names)
}

var devicePattern = regexp.MustCompile(`^name "([^"]+)"(?:.*\balias "([^"]+)")?`)

// parseDevices reads `-device help`: sections with a heading each, of lines
// like: name "e1000", bus PCI, alias "e1000-82540em", desc "…".
func parseDevices(s string) (all, network []string) {
	section := ""
	for line := range strings.Lines(s) {
		m := devicePattern.FindStringSubmatch(line)
		if m == nil {
			if t := strings.TrimSpace(line); t != "" {
				section = t
			}
			continue
		}
		for _, name := range m[1:] {
			if name == "" {
				continue
			}
			all = append(all, name)
			if section == "Network devices:" {
				network = append(network, name)
			}
		}
	}
	return sorted(all), sorted(network)
}

func sorted(s []string) []string {
	slices.Sort(s)
	return slices.Compact(s)
}

func has(list []string, name string) bool {
	_, ok := slices.BinarySearch(list, name)
	return ok
}
