package image

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
)

const usage = `usage: minimega image COMMAND [flags] ...

Images are file systems for containers, unpacked once into the base directory:
vm config filesystem takes all of these, and brings in what is missing.

  list                   show what the store has
  pull REFERENCE         bring in an image of a registry, also if it is there
  import REFERENCE       bring in an archive or an OCI layout
  inspect NAME           print what is known of an image, as JSON
  remove NAME...         remove images, and layers that no other image has

A REFERENCE is a tar archive of a file system or one of
  docker://HOST/REPOSITORY[:TAG][@DIGEST]   an image of a registry
  oci:PATH[:TAG]                            an OCI layout, directory or archive
  docker-archive:PATH[:NAME]                what docker save writes
  image:NAME                                what the store has (vm config filesystem only)
A NAME is a reference, what -name said, or the start of an ID.

minimega image COMMAND -h tells the flags of a command.
`

// Command runs `minimega image ARGS...` on the store of a base directory and
// returns the exit status: 0, 1 if it failed, 2 if it was not understood.
func Command(ctx context.Context, base string, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return 2
	}
	t := tool{base: base, stdout: stdout, stderr: stderr}
	commands := map[string]func(context.Context, []string) error{
		"list": t.list, "pull": t.bring, "import": t.bring, "inspect": t.inspect, "remove": t.remove,
	}
	run := commands[args[0]]
	switch {
	case run != nil:
	case strings.TrimLeft(args[0], "-") == "h" || strings.TrimLeft(args[0], "-") == "help":
		fmt.Fprint(stdout, usage)
		return 0
	default:
		fmt.Fprintf(stderr, "minimega image: no command %q\n\n%s", args[0], usage)
		return 2
	}
	err := run(ctx, args)
	if errors.Is(err, context.Canceled) {
		err = errors.New("interrupted")
	}
	var misuse usageError
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return 0
	case errors.As(err, &misuse):
		fmt.Fprintf(stderr, "minimega image %s: %v (minimega image %s -h tells more)\n", args[0], err, args[0])
		return 2
	}
	fmt.Fprintf(stderr, "minimega image %s: %v\n", args[0], err)
	return 1
}

// usageError is a command that was not understood.
type usageError struct{ error }

// tool runs the commands.
type tool struct {
	base           string
	limits         Limits
	stdout, stderr io.Writer
}

// parse reads the flags of a command, which may be mixed with its words, and
// returns these: at least min, at most max.
func (t *tool) parse(fs *flag.FlagSet, args []string, min, max int) ([]string, error) {
	fs.SetOutput(io.Discard) // errors are returned
	fs.StringVar(&t.base, "base", t.base, "base `directory`, as that of the daemon")
	var words []string
	for rest := args[1:]; ; {
		err := fs.Parse(rest)
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprintf(t.stdout, "usage: minimega image %s [flags] ...\n\n", args[0])
			fs.SetOutput(t.stdout)
			fs.PrintDefaults()
			return nil, err
		}
		if err != nil {
			return nil, usageError{err}
		}
		if rest = fs.Args(); len(rest) == 0 {
			break
		}
		words, rest = append(words, rest[0]), rest[1:]
	}
	switch {
	case len(words) < min:
		return nil, usageError{errors.New("which image?")}
	case len(words) > max:
		return nil, usageError{fmt.Errorf("too many words: %q", words[max])}
	}
	return words, nil
}

func flags(name string) *flag.FlagSet {
	return flag.NewFlagSet("minimega image "+name, flag.ContinueOnError)
}

// store opens the store, unless somebody else could have put things there.
func (t *tool) store() (*Store, error) {
	base, err := filepath.Abs(t.base)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	err = unix.Lstat(base, &st)
	switch {
	case errors.Is(err, unix.ENOENT):
	case err != nil:
		return nil, errs.New(errs.Permission, "base directory %s: %w", base, err)
	case st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0:
		return nil, errs.WithRemedy(errs.New(errs.Permission, "base directory %s is no directory, or not of this user alone", base), "run as the user of the daemon, or choose another -base")
	}
	return NewStore(Options{Dir: filepath.Join(base, DirName), Limits: t.limits}), nil
}

// bring is pull and import, which differ only in what people expect them to be
// called.
func (t *tool) bring(ctx context.Context, args []string) error {
	fs := flags(args[0])
	d := DefaultLimits()
	name := fs.String("name", "", "also know it as image:`NAME`")
	quiet := fs.Bool("quiet", false, "show no progress")
	fs.Int64Var(&t.limits.Bytes, "max-bytes", d.Bytes, "most `bytes` that a layer unpacks to; -1 for any number")
	fs.Int64Var(&t.limits.Entries, "max-entries", d.Entries, "most files and directories of a layer; -1 for any `number`")
	fs.Int64Var(&t.limits.Ratio, "max-ratio", d.Ratio, "most `times` its size that a layer unpacks to; -1 for any number")
	fs.Int64Var(&t.limits.Reserve, "reserve", d.Reserve, "`bytes` to leave free on the disk; -1 for none")
	words, err := t.parse(fs, args, 1, 1)
	if err != nil {
		return err
	}
	ref, err := parseFor(args[0], words[0])
	if err != nil {
		return err
	}
	s, err := t.store()
	if err != nil {
		return err
	}
	var m Meter
	end := func() {}
	if !*quiet {
		end = t.show(ctx, &m)
	}
	id, err := s.Import(ctx, ref, *name, &m)
	end()
	if err != nil {
		return err
	}
	fmt.Fprintln(t.stdout, id)
	return nil
}

// parseFor reads a reference. One without a scheme is of a registry for pull,
// a path for import.
func parseFor(command, word string) (Reference, error) {
	if command == "pull" && IsPath(word) {
		word = "docker://" + word
	}
	ref, err := Parse(word)
	if err == nil && ref.Kind == Stored {
		err = errs.New(errs.Invalid, "%v is in the store already", ref)
	}
	if err != nil {
		return ref, usageError{err}
	}
	return ref, nil
}

func (t *tool) list(ctx context.Context, args []string) error {
	fs := flags("list")
	asJSON := fs.Bool("json", false, "print JSON")
	if _, err := t.parse(fs, args, 0, 0); err != nil {
		return err
	}
	s, err := t.store()
	if err != nil {
		return err
	}
	list, err := s.List(ctx)
	if err != nil {
		return err
	}
	if *asJSON {
		return t.json(append([]Info{}, list...))
	}
	return t.table(list)
}

func (t *tool) table(list []Info) error {
	w := tabwriter.NewWriter(t.stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tSIZE\tLAYERS\tIN USE\tBROUGHT IN\tNAME")
	for _, i := range list {
		used := "no"
		if i.InUse {
			used = "yes"
		}
		if len(i.Names) == 0 {
			i.Names = []Name{{Reference: "-"}}
		}
		for _, n := range i.Names {
			when := "-"
			if !n.Time.IsZero() {
				when = n.Time.Local().Format(time.DateTime)
			}
			fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\n", short(i.ID), size(i.Size), len(i.Layers), used, when, n.Reference)
		}
	}
	return w.Flush()
}

func (t *tool) json(v any) error {
	e := json.NewEncoder(t.stdout)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func (t *tool) inspect(ctx context.Context, args []string) error {
	words, err := t.parse(flags("inspect"), args, 1, 1)
	if err != nil {
		return err
	}
	s, err := t.store()
	if err != nil {
		return err
	}
	i, err := s.Inspect(ctx, strings.TrimPrefix(words[0], "image:"))
	if err != nil {
		return err
	}
	return t.json(i)
}

func (t *tool) remove(ctx context.Context, args []string) error {
	words, err := t.parse(flags("remove"), args, 1, 1000)
	if err != nil {
		return err
	}
	s, err := t.store()
	if err != nil {
		return err
	}
	var failed []error
	for _, w := range words {
		failed = append(failed, s.Remove(ctx, strings.TrimPrefix(w, "image:")))
	}
	return errs.Join(failed...)
}
