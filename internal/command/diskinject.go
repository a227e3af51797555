package command

import (
	"context"
	"path/filepath"
	"strings"

	"minimega/internal/disk/inject"
	"minimega/internal/errs"
	"minimega/pkg/minicli"
)

// diskInject is the command that changes files in disk images.
func diskInject(d *Deps) []Command {
	image := map[string]Completer{"image": d.fileNames}
	const how = "The image is followed by the number of a partition (`foo.qc2:1`), or by `:none` if it has no partition table; without, it\n" +
		"must have exactly one. The image changes as a whole or not at all, and no VM may use it. File systems that this host can mount\n" +
		"work (ext2-4, NTFS with ntfs-3g, …), and FAT also with mtools. Options are those of mount(8).\n"
	return []Command{
		{
			Patterns: []string{
				"disk <inject,> <image> files <files like /path/to/src:/path/to/dst>...",
				"disk <inject,> <image> <options,> <options> files <files like /path/to/src:/path/to/dst>",
			},
			Short:   "copy files into a disk image",
			Long:    "Copies files and directories into an image, as `cp -r` does: `disk inject foo.qc2:1 files /etc/hosts:/etc/hosts setup:/opt`.\n" + how,
			Suggest: image, Run: d.injectDisk,
		},
		{
			Patterns: []string{
				"disk <inject,> <image> <delete,> files <files like /path/to/src,/path/to/src>...",
				"disk <inject,> <image> <options,> <options> <delete,> files <files like /path/to/src,/path/to/src>",
			},
			Short:   "delete files in a disk image",
			Long:    "Deletes files and directories, joined by commas. What the image does not have is passed over with a warning in the log.\n" + how,
			Suggest: image, Run: d.injectDisk,
		},
	}
}

func (d *Deps) injectDisk(ctx context.Context, c *Call) (*minicli.Response, error) {
	var r inject.Request
	r.Image, r.Partition = inject.SplitImage(d.filesPath(c.Str("image")))
	r.Options = c.Str("options")
	words := c.List("files")
	if c.Has("files") {
		words = append(words, c.Str("files"))
	}
	if c.Chose("delete") {
		for _, name := range strings.Split(strings.Join(words, ","), ",") {
			if name = strings.TrimSpace(name); name != "" {
				r.Delete = append(r.Delete, name)
			}
		}
		if len(r.Delete) == 0 {
			return nil, errs.New(errs.Invalid, "no files to delete given")
		}
		return done(inject.Run(ctx, r, d.Log))
	}
	var err error
	if r.Put, err = inject.ParsePairs(words); err != nil {
		return nil, err
	}
	for i, p := range r.Put {
		if !filepath.IsAbs(p.Src) {
			r.Put[i].Src = filepath.Join(d.Files, p.Src)
		}
	}
	return done(inject.Run(ctx, r, d.Log))
}
