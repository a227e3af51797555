package command

import (
	"context"
	"os"
	"path/filepath"
	"strconv"

	"minimega/internal/disk"
	"minimega/internal/errs"
	"minimega/pkg/minicli"
)

// disks is the family about disk images.
func disks(d *Deps) []Command {
	files := map[string]Completer{"image": d.fileNames, "dst": d.fileNames, "backing": d.fileNames}
	const where = "\nA path that is not absolute lies in the files directory."
	one := func(do func(ctx context.Context, image string) error) func(context.Context, *Call) (*minicli.Response, error) {
		return func(ctx context.Context, c *Call) (*minicli.Response, error) {
			return done(do(ctx, d.filesPath(c.Str("image"))))
		}
	}
	return []Command{
		{Patterns: []string{"disk create <qcow2,raw> <image name> <size>"}, Short: "make an empty disk image",
			Long: "The size is a number with an optional suffix k, M, G or T: `disk create qcow2 foo.qcow2 10G`." + where,
			Run:  d.diskCreate},
		{Patterns: []string{"disk snapshot <image> [dst image]"}, Short: "make an image that holds changes to another",
			Long:    "The new image starts with the content of the first and takes all changes. Without a destination, a name is made up and printed." + where,
			Suggest: files, Run: d.diskSnapshot},
		{Patterns: []string{"disk info <image> [recursive,]"}, Short: "show the facts of a disk image",
			Long:    "Prints format, sizes and backing file, with `recursive` of the whole chain of images." + where,
			Suggest: files, Run: d.diskInfo},
		{Patterns: []string{"disk <rebase,> <image> [backing file]"}, Short: "put an image on another backing file, content unchanged",
			Long:    "Copies into the image what differs. Without a backing file the image stands on its own afterwards." + where,
			Suggest: files, Run: d.rebase(disk.Rebase)},
		{Patterns: []string{"disk <set-backing,> <image> [backing file]"}, Short: "change the name of the backing file in an image",
			Long:    "Only the name changes, for a backing file that was moved. The content must be the same, or the image is ruined." + where,
			Suggest: files, Run: d.rebase(disk.SetBacking)},
		{Patterns: []string{"disk commit <image>"}, Short: "write the changes of an image into its backing file",
			Long:    "Afterwards the image is no longer needed and must not be used." + where,
			Suggest: files, Run: one(disk.Commit)},
		{Patterns: []string{"disk resize <image> <size>"}, Short: "grow or shrink an image",
			Long:    "The size is absolute, or relative with + or - before it. Shrinking loses what lies beyond the new end." + where,
			Suggest: files,
			Run: func(ctx context.Context, c *Call) (*minicli.Response, error) {
				return done(disk.Resize(ctx, d.filesPath(c.Str("image")), c.Str("size")))
			}},
	}
}

func (d *Deps) diskCreate(ctx context.Context, c *Call) (*minicli.Response, error) {
	format := "raw"
	if c.Chose("qcow2") {
		format = "qcow2"
	}
	return done(disk.Create(ctx, format, d.filesPath(c.Str("image")), c.Str("size")))
}

func (d *Deps) diskSnapshot(ctx context.Context, c *Call) (*minicli.Response, error) {
	image := d.filesPath(c.Str("image"))
	if c.Has("dst") {
		return done(disk.Snapshot(ctx, image, d.filesPath(c.Str("dst")), d.AbsSnapshot))
	}
	// The name is taken by making the file, so that no other command gets it.
	f, err := os.CreateTemp(d.Files, "snapshot")
	if err != nil {
		return nil, errs.New(errs.Invalid, "cannot make a file for the snapshot: %w", err)
	}
	dst := f.Name()
	_ = f.Close()
	_ = os.Remove(dst)
	if err := disk.Snapshot(ctx, image, dst, d.AbsSnapshot); err != nil {
		return nil, err
	}
	return text(filepath.Clean(dst))
}

func (d *Deps) diskInfo(ctx context.Context, c *Call) (*minicli.Response, error) {
	infos, err := disk.Describe(ctx, d.filesPath(c.Str("image")), c.Chose("recursive"))
	if err != nil {
		return nil, err
	}
	var rows [][]string
	for _, i := range infos {
		rows = append(rows, []string{i.Image, i.Format, i.VirtualSize, i.DiskSize, i.BackingFile, strconv.FormatBool(i.InUse)})
	}
	return table([]string{"image", "format", "virtualsize", "disksize", "backingfile", "inuse"}, rows)
}

// rebase makes a command of what takes an image and an optional backing file.
func (d *Deps) rebase(do func(ctx context.Context, image, backing string) error) func(context.Context, *Call) (*minicli.Response, error) {
	return func(ctx context.Context, c *Call) (*minicli.Response, error) {
		backing := c.Str("backing")
		if backing != "" {
			backing = d.filesPath(backing)
		}
		return done(do(ctx, d.filesPath(c.Str("image")), backing))
	}
}
