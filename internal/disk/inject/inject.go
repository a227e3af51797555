// Package inject puts files into disk images of any format, and takes files out
// of them, without a VM. The image is changed as a whole or not at all: all
// writing goes to an overlay, which is committed when everything worked. The
// overlay is shown as a plain file by qemu-storage-daemon over FUSE; a file
// system in it is mounted from a loop device, where nobody else can see it, or
// written by the mtools if it is a FAT that the kernel cannot mount.
package inject

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"minimega/internal/disk"
	"minimega/internal/errs"
	"minimega/internal/host"
)

// Whole is the partition of an image without a partition table.
const Whole = "none"

// Request says what to do with an image.
type Request struct {
	Image     string // absolute path
	Partition string // number, Whole, or "" for the only one
	Options   string // for mount(8), "" for none
	Put       []Pair
	Delete    []string // paths in the image
}

// Pair is a file or tree of this host, and where it goes in the image.
type Pair struct{ Src, Dst string }

// SplitImage splits IMAGE:PARTITION; a colon that no partition follows is part
// of the name.
func SplitImage(s string) (image, partition string) {
	if i := strings.LastIndexByte(s, ':'); i > 0 {
		if _, err := strconv.ParseUint(s[i+1:], 10, 16); err == nil || s[i+1:] == Whole {
			return s[:i], s[i+1:]
		}
	}
	return s, ""
}

// ParsePairs reads SRC:DST pairs.
func ParsePairs(words []string) ([]Pair, error) {
	var pairs []Pair
	seen := map[string]bool{}
	for _, w := range words {
		src, dst, ok := strings.Cut(w, ":")
		if !ok || src == "" || dst == "" || strings.Contains(dst, ":") {
			return nil, errs.New(errs.Invalid, "malformed command; expected src:dst pairs")
		}
		if seen[clean(dst)] {
			return nil, errs.New(errs.Invalid, "destination appears twice: `%s`", dst)
		}
		seen[clean(dst)] = true
		pairs = append(pairs, Pair{src, dst})
	}
	return pairs, nil
}

// Run does the request, all of it or nothing. Paths to delete that the image
// does not have are only logged.
func Run(ctx context.Context, r Request, log *slog.Logger) (err error) {
	unlock, err := lock(r.Image)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if err := r.check(); err != nil {
		return err
	}
	before, err := os.Stat(r.Image)
	if err != nil {
		return err
	}
	dir, err := workDir(r.Image)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	j := &job{Request: r, log: log, dir: dir}
	if err := disk.Snapshot(ctx, r.Image, j.path("overlay"), true); err != nil {
		return err
	}
	if err := inNamespace(func() error { return j.write(ctx) }); err != nil {
		return err
	}
	after, err := os.Stat(r.Image)
	if err != nil {
		return err
	}
	if !os.SameFile(before, after) || !before.ModTime().Equal(after.ModTime()) {
		return errs.New(errs.State, "[image %s] somebody else changed it meanwhile; nothing was injected", r.Image)
	}
	// From here on it is finished, whoever has lost interest: half would be ruin.
	return errs.AtStep(disk.Commit(context.WithoutCancel(ctx), j.path("overlay")), "write the image")
}

// lock keeps other injections away from an image: two at a time would mix.
func lock(image string) (unlock func() error, err error) {
	if _, err := disk.Inspect(image); err != nil {
		return nil, err
	}
	f, err := os.Open(image)
	if err != nil {
		return nil, errs.Wrap(errs.Permission, err)
	}
	if ours, err := host.Claim(f, host.ClaimTime); !ours {
		return nil, errors.Join(errs.New(errs.State, "[image %s] another command is changing it", image), err, f.Close())
	}
	return f.Close, nil
}

// workDir makes a directory beside the image, where there is room for its
// changes, and removes those of injections that were killed.
func workDir(image string) (string, error) {
	dir, prefix := filepath.Dir(image), "."+filepath.Base(image)+".inject."
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", errs.Wrap(errs.Permission, err)
	}
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), prefix) {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return "", err
			}
		}
	}
	dir, err = os.MkdirTemp(dir, prefix)
	return dir, errs.Wrap(errs.Permission, err)
}

// check refuses what cannot work before anything is made.
func (r *Request) check() error {
	if _, err := disk.Chain(r.Image); err != nil {
		return err
	}
	if err := disk.Free(r.Image, true); err != nil {
		return err
	}
	for _, p := range r.Put {
		if _, err := os.Stat(p.Src); err != nil {
			return errs.New(errs.NotFound, "cannot inject %s: %w", p.Src, err)
		}
	}
	return nil
}

// job is a request under way.
type job struct {
	Request
	log *slog.Logger
	dir string
}

func (j *job) path(name string) string { return filepath.Join(j.dir, name) }

// target is a file system that is open for changes.
type target interface {
	put(src, dst string) error
	remove(name string) error
}

// write changes the overlay. It runs in a mount namespace of its own.
func (j *job) write(ctx context.Context) (err error) {
	if err := os.WriteFile(j.path("disk"), nil, 0o600); err != nil {
		return err
	}
	show, err := startExport(ctx, j.path("overlay"), j.path("disk"))
	if err != nil {
		return j.about(err)
	}
	defer func() { err = errors.Join(err, show.stop()) }()
	// The daemon must not see what is mounted from its own file: if it died as
	// the last that does, the kernel would wait for it to unmount that.
	if err := ownMounts(); err != nil {
		return err
	}
	file, err := os.OpenFile(j.path("disk"), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	p, err := j.partition(file, info.Size())
	if err != nil {
		return j.about(err)
	}
	way, err := choose(detect(file, p.Start))
	if err != nil {
		return j.about(err)
	}
	if way.mtools {
		return j.about(j.change(newFAT(ctx, j.path("disk"), p)))
	}
	return j.about(j.mounted(ctx, file, p, way.mount))
}

// about names the image in an error.
func (j *job) about(err error) error {
	if err == nil {
		return nil
	}
	return errs.New(errs.KindOf(err), "[image %s] %w", j.Image, err)
}

// partition finds the part of the disk to change.
func (j *job) partition(file *os.File, size int64) (Partition, error) {
	if j.Partition == Whole {
		return Partition{Size: size}, nil
	}
	all, err := Partitions(file, size)
	switch {
	case err != nil:
		return Partition{}, errs.Wrap(errs.Invalid, err)
	case len(all) == 0:
		return Partition{}, errs.New(errs.Invalid, "no partitions found on image")
	case j.Partition == "" && len(all) > 1:
		return Partition{}, errs.New(errs.Invalid, "please specify a partition; multiple found")
	case j.Partition == "":
		return all[0], nil
	}
	i := slices.IndexFunc(all, func(p Partition) bool { return strconv.Itoa(p.Number) == j.Partition })
	if i < 0 {
		return Partition{}, errs.New(errs.NotFound, "desired partition %s not found", j.Partition)
	}
	return all[i], nil
}

// mounted changes a file system that the kernel, or a driver for FUSE, mounts.
func (j *job) mounted(ctx context.Context, file *os.File, p Partition, kind string) (err error) {
	device, err := attachLoop(file, p)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, detachLoop(device)) }()
	dir := j.path("mnt")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	unmount, err := mount(ctx, device.Name(), kind, j.Options, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unmount()) }()
	r, err := openRoot(dir)
	if err != nil {
		return err
	}
	return errors.Join(j.change(r), r.close())
}

func (j *job) change(t target) error {
	for _, name := range j.Delete {
		err := t.remove(name)
		if errors.Is(err, fs.ErrNotExist) {
			j.log.Warn("nothing to delete in the image", "image", j.Image, "path", name)
			continue
		}
		if err != nil {
			return word(err)
		}
	}
	for _, p := range j.Put {
		if err := t.put(p.Src, p.Dst); err != nil {
			return word(err)
		}
	}
	return nil
}

// word gives the failures that users meet a kind and a remedy.
func word(err error) error {
	if errors.Is(err, unix.ENOSPC) || strings.Contains(err.Error(), "Disk full") {
		return errs.WithRemedy(errs.Wrap(errs.Resource, err), "the file system in the image is full: resize the image and its file system")
	}
	return err
}
