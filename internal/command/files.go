package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"minimega/internal/errs"
	"minimega/pkg/iomeshage"
	"minimega/pkg/minicli"
)

// files is the family about the files directory and the hosts that share it.
func files(d *Deps) []Command {
	const names = "\nNames are relative to the files directory; `*`, `?` and `[…]` stand for many."
	suggest := map[string]Completer{"path": d.sharedNames, "file": d.sharedNames}
	return []Command{
		{Patterns: []string{"file <list,>", "file <list,> <path> [recursive,]"}, Short: "show what is in the files directory",
			Long: "A row for each file and directory, or with `recursive` for each file at any depth. With -hashfiles there is a hash of each\n" +
				"file's content, which takes reading it once. A symbolic link counts as what it leads to; one that leads nowhere or out of\n" +
				"the files directory has a row, but no hash." + names,
			Suggest: suggest, Run: d.fileList},
		{Patterns: []string{"file <get,> <file>"}, Short: "bring a file here from the hosts that have it",
			Long: "Takes a file, a directory, or a pattern, and from all hosts that have it at once. Returns when the transfer has begun: `file\n" +
				"status` shows how far it is, the log how it ends. A disk image brings its backing files. A transfer that broke off goes on\n" +
				"where it was. What is here already stays; if another host has something else under its name, that is an error.\n" +
				"A directory comes whole, with empty directories, permissions, and symbolic links as they are, wherever they lead; what a link\n" +
				"leads to comes only if it lies in the directory, too, or is asked for. Device files, pipes and sockets are named and left out." + names,
			Suggest: map[string]Completer{"file": d.meshNames}, Run: d.fileGet},
		{Patterns: []string{"file <stream,> <file>"}, Short: "send a file's content to the client",
			Long:    "The content comes as data, in many answers of at most 10 MiB: for programs that use the socket." + names,
			Suggest: suggest, Stream: d.fileStream, Interruptible: true},
		{Patterns: []string{"file <delete,> <file>"}, Short: "remove files and directories",
			Long: "Removes a file, or a directory with all in it, here only, and what has come of one that is still coming. Of a symbolic link the\n" +
				"link goes, and what it leads to stays. What is not there is no error." + names,
			Suggest: suggest, Run: d.fileDelete},
		{Patterns: []string{"file <status,>"}, Short: "show the files that are coming",
			Long: "A row for each transfer: the file, the directory that holds it until it is whole, the parts that are here and those there\n" +
				"are, and whether it waits for its turn. A directory has a row of its own, whose parts are the files, links and directories in\n" +
				"it. What is not listed any more has come, or the log says why not.",
			Run: d.fileStatus},
	}
}

// share is how files are exchanged, which a daemon always has.
func (d *Deps) share() (*iomeshage.Service, error) {
	if d.Share == nil {
		return nil, errs.New(errs.Unsupported, "this minimega does not share files")
	}
	return d.Share, nil
}

// FileError gives an error about a file its kind.
func FileError(err error) error {
	for is, kind := range map[error]errs.Kind{
		iomeshage.ErrNotFound: errs.NotFound, iomeshage.ErrInFlight: errs.State, iomeshage.ErrConflict: errs.Exists,
		iomeshage.ErrChanged: errs.State, iomeshage.ErrFull: errs.Resource, iomeshage.ErrName: errs.Invalid,
	} {
		if errors.Is(err, is) {
			err = errs.Wrap(kind, err)
		}
	}
	if errors.Is(err, iomeshage.ErrConflict) {
		return errs.WithRemedy(err, "`file delete` it where it is wrong; `file get` brings the other there")
	}
	return err
}

func (d *Deps) fileList(ctx context.Context, c *Call) (*minicli.Response, error) {
	s, err := d.share()
	if err != nil {
		return nil, err
	}
	at := c.Str("path")
	if at == "" {
		at = "/"
	}
	list, err := s.List(ctx, at, c.Chose("recursive"))
	if err != nil {
		return nil, FileError(err)
	}
	header := []string{"dir", "name", "size", "modified"}
	hashed := slices.ContainsFunc(list, func(e iomeshage.Entry) bool { return e.Hash != "" }) || d.HashFiles
	if hashed {
		header = append(header, "hash")
	}
	var rows [][]string
	for _, e := range list {
		row := []string{"", e.Name, strconv.FormatInt(e.Size, 10), e.Modified.Format(time.RFC3339)}
		if e.Dir {
			row[0] = "<dir>"
		}
		if hashed {
			row = append(row, e.Hash)
		}
		rows = append(rows, row)
	}
	return table(header, rows)
}

func (d *Deps) fileGet(ctx context.Context, c *Call) (*minicli.Response, error) {
	s, err := d.share()
	if err != nil {
		return nil, err
	}
	note, err := s.Start(ctx, c.Str("file"))
	if err != nil {
		return nil, FileError(err)
	}
	return text(note)
}

func (d *Deps) fileStream(ctx context.Context, c *Call) error {
	s, err := d.share()
	if err != nil {
		return err
	}
	emit := func(piece []byte) error {
		return c.Emit(Batch{Resps: minicli.Responses{{Data: piece}}, Flags: c.Flags})
	}
	empty := true
	err = s.Stream(ctx, c.Str("file"), func(piece []byte) error {
		empty = false
		return emit(bytes.Clone(piece)) // it is held back until the next one shows whether it is the last
	})
	if err == nil && empty {
		err = emit([]byte{})
	}
	return FileError(err)
}

func (d *Deps) fileDelete(_ context.Context, c *Call) (*minicli.Response, error) {
	s, err := d.share()
	if err != nil {
		return nil, err
	}
	return done(FileError(s.Delete(c.Str("file"))))
}

func (d *Deps) fileStatus(context.Context, *Call) (*minicli.Response, error) {
	s, err := d.share()
	if err != nil {
		return nil, err
	}
	var rows [][]string
	for _, t := range s.Status() {
		rows = append(rows, []string{t.Name, t.Dir, fmt.Sprintf("%d/%d", t.Done, t.Total), strconv.FormatBool(t.Queued)})
	}
	return table([]string{"filename", "tempdir", "completed", "queued"}, rows)
}

// sharedNames completes a name in the files directory.
func (d *Deps) sharedNames(c *Call, prefix string) []string {
	if strings.HasPrefix(prefix, "/") {
		return nil
	}
	return slices.DeleteFunc(d.fileNames(c, prefix), iomeshage.Hidden)
}

// meshNames completes a name that any host has.
func (d *Deps) meshNames(_ *Call, prefix string) []string {
	if d.Share == nil {
		return nil
	}
	return d.Share.Complete(context.Background(), prefix)
}
