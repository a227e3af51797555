// Package disk makes and inspects disk images. What only QEMU can do is left
// to qemu-img, run without a shell on absolute paths with the formats spelled
// out; what a launch needs (headers, overlays, locks) is done here, since fifty
// VMs would wait for fifty programs. Images come from guests and strangers:
// nothing in a header is trusted.
package disk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"minimega/internal/errs"
	"minimega/internal/host"
)

// Info describes an image. Sizes are IEC strings with one decimal (`1.0 GiB`,
// `512 B`).
type Info struct {
	Image       string
	Format      string
	VirtualSize string
	DiskSize    string // what it takes on the host
	BackingFile string // as written in the image, "" for none
	InUse       bool
}

const qemuImg = "qemu-img"

var sizePattern = regexp.MustCompile(`^[+-]?[0-9]+(\.[0-9]+)?[bkKMGTPE]?$`)

// Create makes an empty image. format is qcow2 or raw, size as qemu-img takes
// it: a number and an optional suffix k, M, G, T, P or E, powers of 1024.
func Create(ctx context.Context, format, path, size string) error {
	if format != "qcow2" && format != "raw" {
		return errs.New(errs.Invalid, "invalid disk format %q: qcow2 or raw", format)
	}
	if !sizePattern.MatchString(size) || strings.ContainsAny(size[:1], "+-") {
		return errs.New(errs.Invalid, "invalid disk size %q: a number with an optional suffix k, M, G or T", size)
	}
	path, err := newPath(path)
	if err != nil {
		return err
	}
	if err := run(ctx, path, "create", "-q", "-f", format, path, size); err != nil {
		_ = os.Remove(path) // newPath made sure that it was not there
		return err
	}
	return nil
}

// Snapshot makes a qcow2 overlay of backing at dst, see Overlay.
func Snapshot(ctx context.Context, backing, dst string, abs bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	dst, err := newPath(dst)
	if err != nil {
		return err
	}
	chain, err := Chain(backing)
	if err != nil {
		return err
	}
	if chain[0].VirtualSize > 0 {
		return Overlay(backing, dst, abs)
	}
	// Only QEMU knows how large such an image is.
	if backing, err = filepath.Abs(backing); err != nil {
		return err
	}
	stored, err := backingPath(backing, dst, abs)
	if err != nil {
		return err
	}
	if err := run(ctx, dst, "create", "-q", "-f", "qcow2", "-F", chain[0].Format, "-b", stored, dst); err != nil {
		_ = os.Remove(dst)
		return err
	}
	return nil
}

// Rebase gives the image another backing file ("" for none) without changing
// what a guest sees: differences are copied into the image.
func Rebase(ctx context.Context, path, backing string) error { return rebase(ctx, path, backing) }

// SetBacking only changes the name of the backing file, for one that moved.
// The new one may be missing.
func SetBacking(ctx context.Context, path, backing string) error {
	return rebase(ctx, path, backing, "-u")
}

func rebase(ctx context.Context, path, backing string, flags ...string) error {
	path, h, err := existing(path)
	if err != nil {
		return err
	}
	args := append([]string{"rebase", "-q", "-f", h.Format}, flags...)
	if len(flags) == 0 { // the old chain will be read
		if _, err := Chain(path); err != nil {
			return err
		}
	}
	if backing == "" {
		return run(ctx, path, append(args, "-b", "", path)...)
	}
	format := "qcow2"
	under, err := Inspect(backing)
	switch {
	case err == nil:
		format = under.Format
	case len(flags) == 0 || !errors.Is(err, errs.NotFound):
		return err
	}
	stored := backing
	if filepath.IsAbs(backing) {
		if stored, err = backingPath(backing, path, false); err != nil {
			return err
		}
	}
	return run(ctx, path, append(args, "-F", format, "-b", stored, path)...)
}

// Commit writes the image's contents into its backing file. The image itself
// stays as it is.
func Commit(ctx context.Context, path string) error {
	path, h, err := existing(path)
	if err != nil {
		return err
	}
	if _, err := Chain(path); err != nil { // one of it will be written
		return err
	}
	return run(ctx, path, "commit", "-q", "-d", "-f", h.Format, path)
}

// Resize sets the size, or changes it by a size that begins with + or -.
func Resize(ctx context.Context, path, size string) error {
	if !sizePattern.MatchString(size) {
		return errs.New(errs.Invalid, "invalid disk size %q: a number with an optional suffix k, M, G or T", size)
	}
	path, h, err := existing(path)
	if err != nil {
		return err
	}
	args := []string{"resize", "-q", "-f", h.Format, "--shrink", path, size}
	if size[0] == '-' { // else taken for an option
		args = []string{"resize", "-q", "-f", h.Format, "--shrink", "--", path, size}
	}
	return run(ctx, path, args...)
}

// Describe returns the facts of an image and, with recursive, of those below it.
func Describe(ctx context.Context, path string, recursive bool) ([]Info, error) {
	path, h, err := existing(path)
	if err != nil {
		return nil, err
	}
	args := []string{"info", "-U", "--output=json", "-f", h.Format}
	if recursive {
		if _, err := Chain(path); err != nil {
			return nil, err
		}
		args = append(args, "--backing-chain")
	}
	out, err := output(ctx, path, append(args, path)...)
	if err != nil {
		return nil, err
	}
	return parseInfo(out, recursive)
}

// parseInfo reads what qemu-img info prints.
func parseInfo(out []byte, list bool) ([]Info, error) {
	type image struct {
		Filename    string `json:"filename"`
		Format      string `json:"format"`
		VirtualSize int64  `json:"virtual-size"`
		ActualSize  int64  `json:"actual-size"`
		Backing     string `json:"backing-filename"`
	}
	images := make([]image, 1)
	var into any = &images[0]
	if list {
		into = &images
	}
	if err := json.Unmarshal(out, into); err != nil {
		return nil, fmt.Errorf("unexpected output of qemu-img info: %w", err)
	}
	infos := make([]Info, 0, len(images))
	for _, m := range images {
		used, err := InUse(m.Filename)
		if err != nil {
			return nil, err
		}
		infos = append(infos, Info{
			Image: m.Filename, Format: m.Format, VirtualSize: IEC(m.VirtualSize), DiskSize: IEC(m.ActualSize),
			BackingFile: m.Backing, InUse: used,
		})
	}
	return infos, nil
}

// IEC words a number of bytes: `512 B`, `1.0 GiB`.
func IEC(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n), -1
	for v >= 1024 && unit < 5 {
		v /= 1024
		unit++
	}
	return fmt.Sprintf("%.1f %ciB", v, "KMGTPE"[unit])
}

// existing returns the absolute path and the header of an image. An absolute
// path cannot be taken for an option, nor for one of QEMU's protocols.
func existing(path string) (string, *Header, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", nil, err
	}
	h, err := Inspect(path)
	return path, h, err
}

// newPath returns the absolute path of a file to be made.
func newPath(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if _, err := os.Lstat(path); err == nil {
		return "", errs.New(errs.Exists, "%s exists already", path)
	}
	if _, err := os.Stat(filepath.Dir(path)); err != nil {
		return "", noDirectory(err, path)
	}
	return path, nil
}

func run(ctx context.Context, image string, args ...string) error {
	_, err := output(ctx, image, args...)
	return err
}

// output runs qemu-img and words its failure.
func output(ctx context.Context, image string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, qemuImg, args...)
	var out, words bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &words
	err := cmd.Run()
	switch {
	case err == nil:
		return out.Bytes(), nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, exec.ErrNotFound):
		return nil, errs.WithRemedy(errs.New(errs.Unsupported, "qemu-img is not installed"), "install the package qemu-utils")
	}
	said := strings.TrimSpace(out.String() + words.String())
	kind := errs.Invalid
	switch {
	case strings.Contains(said, syscall.ENOSPC.Error()), strings.Contains(said, "No space left"):
		kind = errs.Resource
	case strings.Contains(said, "lock"):
		kind = errs.State
	}
	return nil, errs.New(kind, "[image %s] %s: %w", image, said, err)
}

func wordOpen(err error, path string) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return host.Missing("disk image", path)
	case errors.Is(err, fs.ErrPermission):
		return errs.Wrap(errs.Permission, err)
	}
	return err
}

func wordWrite(err error, path string) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return noDirectory(err, path)
	case errors.Is(err, fs.ErrExist):
		return errs.New(errs.Exists, "%s exists already", path)
	case errors.Is(err, syscall.ENOSPC):
		return errs.WithRemedy(errs.Wrap(errs.Resource, err), "free some space")
	}
	return err
}
