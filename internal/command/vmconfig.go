package command

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"minimega/internal/errs"
	"minimega/internal/image"
	"minimega/internal/namespace"
	"minimega/internal/vm"
	"minimega/pkg/minicli"
)

// vmConfig is the family `vm config`: a few entries of its own and one per
// field of the table in internal/vm.
func vmConfig(d *Deps) []Command {
	cmds := []Command{
		{
			Patterns: []string{"vm config"},
			Short:    "show the configuration of VMs to come",
			Long: "Prints every setting that the next `vm launch` of this namespace would use.\n" +
				"Set one with `vm config <field> <value>`, go back to its default with `clear vm config <field>`.",
			Run: func(_ context.Context, c *Call) (*minicli.Response, error) {
				return d.withNS(c, func(ns *namespace.Namespace) (*minicli.Response, error) { return text(ns.Config().Text()) })
			},
		},
		{
			Patterns: []string{"vm config <save,> <name>"},
			Short:    "store the configuration under a name",
			Long:     "Stores a copy of the present configuration. `vm config restore` brings it back, `vm launch … <name>` uses it.",
			Run: func(_ context.Context, c *Call) (*minicli.Response, error) {
				return d.withNS(c, func(ns *namespace.Namespace) (*minicli.Response, error) {
					ns.Save(c.Str("name"))
					return done(nil)
				})
			},
		},
		{
			Patterns: []string{"vm config <restore,> [name]"},
			Short:    "bring back a stored configuration, or list them",
			Long:     "With a name, makes that stored configuration the present one. Without, lists the names.",
			Suggest:  map[string]Completer{"name": d.savedConfigs},
			Run: func(_ context.Context, c *Call) (*minicli.Response, error) {
				return d.withNS(c, func(ns *namespace.Namespace) (*minicli.Response, error) {
					if c.Str("name") != "" {
						return done(ns.Restore(c.Str("name")))
					}
					names := ns.Saved()
					if len(names) == 0 {
						return nil, errs.New(errs.NotFound, "no vm configs saved")
					}
					return text(strings.Join(names, "\n") + "\n")
				})
			},
		},
		{
			Patterns: []string{"vm config <clone,> <vm name>"},
			Short:    "take over the configuration of a VM",
			Long:     "Makes the configuration of an existing VM, by name or ID, the present one. The UUID is left out, since it can be only one VM's.",
			Suggest:  map[string]Completer{"vm": d.vmNames},
			Run: func(ctx context.Context, c *Call) (*minicli.Response, error) {
				return d.withNS(c, func(ns *namespace.Namespace) (*minicli.Response, error) { return done(ns.Clone(ctx, c.Str("vm"))) })
			},
		},
		clearVMConfig(d),
		{
			Patterns: []string{"clear vm config tag <key>"},
			Short:    "remove a tag from the configuration",
			Long:     "Removes one tag of the configuration, or with `all` every one.",
			Run: func(_ context.Context, c *Call) (*minicli.Response, error) {
				return d.editConfig(c, func(cfg *vm.Config) error {
					if k := c.Str("key"); k != "all" {
						delete(cfg.Tags, k)
						return nil
					}
					clear(cfg.Tags)
					return nil
				})
			},
		},
	}
	for _, f := range vm.Fields() {
		cmds = append(cmds, d.fieldCommand(f))
	}
	return cmds
}

func clearVMConfig(d *Deps) Command {
	patterns := []string{"clear vm config"}
	for _, f := range vm.Fields() {
		patterns = append(patterns, "clear vm config <"+f.Name+",>")
		if f.Name == "state" {
			patterns = append(patterns, "clear vm config <migrate,>")
		}
	}
	return Command{
		Patterns: patterns,
		Short:    "set the configuration, or one field, back to its default",
		Long:     "Without a field, everything goes back to its default; stored configurations stay.",
		Run: func(_ context.Context, c *Call) (*minicli.Response, error) {
			return d.editConfig(c, func(cfg *vm.Config) error {
				if len(c.Choices) == 0 {
					*cfg = *vm.NewConfig()
					return nil
				}
				for name := range c.Choices {
					if name == "migrate" {
						name = "state"
					}
					vm.FieldNamed(name).Clear(cfg)
				}
				return nil
			})
		},
	}
}

// fieldPatterns gives the forms in which a field is read and set.
func fieldPatterns(f *vm.Field) []string {
	p := "vm config " + f.Name
	switch {
	case f.Name == "networks":
		return []string{p + " [netspec]..."}
	case f.Name == "bonds":
		return []string{p + " [bondspec]..."}
	case f.Name == "disks":
		return []string{p + " [diskspec]..."}
	case f.Name == "qemu-override":
		return []string{p, p + " <match> <replacement>"}
	case f.Name == "state":
		return []string{p + " [value]", "vm config migrate [value]"}
	case f.Shape == vm.Many:
		return []string{p + " [value]..."}
	case f.Shape == vm.Bool:
		return []string{p + " [true,false]"}
	case f.Shape == vm.Map:
		return []string{p, p + " <key> [value]"}
	}
	return []string{p + " [value]"}
}

func (d *Deps) fieldCommand(f *vm.Field) Command {
	long := f.Help
	if def := f.Text(vm.NewConfig()); def != "" {
		long += "\nDefault: " + def
	}
	if f.Name == "filesystem" {
		long += "\nWrite " + image.Forms + ". What is no directory is unpacked once, see `minimega image -h`."
	}
	if f.Path == vm.FilesPath {
		long += "\nA path that is not absolute lies in the files directory."
	}
	cmd := Command{
		Patterns: fieldPatterns(f),
		Short:    "show or set: " + strings.TrimSuffix(strings.ToLower(f.Help[:1])+f.Help[1:], "."),
		Long:     long,
		Run:      func(ctx context.Context, c *Call) (*minicli.Response, error) { return d.field(ctx, c, f) },
	}
	if f.Path != vm.NoPath {
		cmd.Suggest = map[string]Completer{"value": d.fileNames, "diskspec": d.fileNames}
	}
	if f.Name == "networks" {
		cmd.Suggest = map[string]Completer{"netspec": d.vlanNames}
	}
	return cmd
}

// field reads or sets one field.
func (d *Deps) field(ctx context.Context, c *Call, f *vm.Field) (*minicli.Response, error) {
	ns, err := d.NS.Get(c.Namespace)
	if err != nil {
		return nil, err
	}
	words, given := fieldWords(c, f)
	if !given {
		if f.Name == "qemu-override" {
			return d.overrides(ctx, ns.Config())
		}
		if f.Shape == vm.Map && c.Has("key") {
			return text(mapValue(f, ns.Config(), c.Str("key")))
		}
		return text(f.Text(ns.Config()))
	}
	if f.Name == "networks" {
		return done(ns.SetNetworks(ctx, words))
	}
	if words, err = d.fieldPaths(f, words); err != nil {
		return nil, err
	}
	if err := d.fieldCheck(ctx, ns, f, words); err != nil {
		return nil, err
	}
	return done(ns.Edit(func(cfg *vm.Config) error { return f.Set(cfg, words) }))
}

// fieldWords returns what was typed for the field, and whether anything was.
func fieldWords(c *Call, f *vm.Field) ([]string, bool) {
	switch {
	case f.Shape == vm.Bool:
		for b := range c.Choices {
			return []string{b}, true
		}
		return nil, false
	case f.Shape == vm.Map:
		return []string{c.Str("key"), c.Str("value")}, c.Has("value")
	case f.Name == "qemu-override":
		return []string{c.Str("match"), c.Str("replacement")}, c.Has("match")
	case f.Shape == vm.Many:
		for _, words := range c.Lists {
			return words, len(words) > 0
		}
		return nil, false
	}
	return []string{c.Str("value")}, c.Has("value")
}

func mapValue(f *vm.Field, cfg *vm.Config, key string) string {
	w := f.Words(cfg)
	for i := 0; i+1 < len(w); i += 2 {
		if w[i] == key {
			return w[i+1]
		}
	}
	return ""
}

// fieldPaths makes the paths of a field absolute.
func (d *Deps) fieldPaths(f *vm.Field, words []string) ([]string, error) {
	out := slices.Clone(words)
	switch {
	case f.Name == "disks":
		disks, err := vm.ParseDisks(words, func(p string) (string, error) { return d.diskPath(p) })
		if err != nil {
			return nil, err
		}
		for i := range disks {
			out[i] = disks[i].String()
		}
	case f.Name == "volume":
		out[1] = d.filesPath(out[1])
	case f.Name == "filesystem" && words[0] != "":
		out[0] = image.Absolute(words[0], d.filesPath)
	case f.Path == vm.FilesPath && words[0] != "":
		out[0] = d.filesPath(words[0])
	case f.Path == vm.LookupPath && strings.Contains(words[0], "/"):
		out[0] = d.filesPath(words[0])
	}
	return out, nil
}

// filesPath makes a path absolute: relative ones lie in the files directory.
func (d *Deps) filesPath(p string) string {
	if filepath.IsAbs(p) {
		return filepath.Clean(p)
	}
	return filepath.Join(d.Files, p)
}

// diskPath makes the path of a disk absolute, after the expansions that other
// arguments get before they come here.
func (d *Deps) diskPath(p string) (string, error) {
	if d.Preprocess != nil {
		var err error
		if p, err = d.Preprocess(context.Background(), p); err != nil {
			return "", err
		}
	}
	return d.filesPath(p), nil
}

func (d *Deps) fieldCheck(ctx context.Context, ns *namespace.Namespace, f *vm.Field, words []string) error {
	switch {
	case f.Name == "cpu" && words[0] != "":
		return d.checkCPU(ctx, ns.Config().QemuPath, words[0])
	case f.Name == "machine" && words[0] != "":
		return d.checkMachine(ctx, ns.Config().QemuPath, words[0])
	case f.Name == "schedule" && words[0] != "" && words[0] != "localhost" && !ns.HasHost(words[0]):
		return errs.New(errs.NotFound, "host is not in namespace: %s", words[0])
	case f.Name == "filesystem" && words[0] != "" && !image.IsPath(words[0]):
		_, err := image.Parse(words[0])
		return err
	case f.Path == vm.FilesPath && len(words) > 0 && words[0] != "" && f.Shape == vm.One:
		if _, err := os.Stat(words[0]); err != nil {
			d.Log.Warn("vm config: file is missing now", "field", f.Name, "err", err)
		}
	}
	return nil
}

// overrides shows what qemu-override does to the command line.
func (d *Deps) overrides(ctx context.Context, cfg *vm.Config) (*minicli.Response, error) {
	var b strings.Builder
	b.WriteString("id\tmatch\treplacement\n")
	for i, o := range cfg.QemuOverride {
		fmt.Fprintf(&b, "%d\t%q\t%q\n", i, o.Match, o.Repl)
	}
	before, after, err := d.QEMU.Arguments(ctx, 0, filepath.Join(d.Base, "0"), cfg)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(&b, "\nBefore overrides:\n%s\n\nAfter overrides:\n%s\n", before, after)
	return text(b.String())
}

// editConfig changes the configuration of the call's namespace.
func (d *Deps) editConfig(c *Call, change func(*vm.Config) error) (*minicli.Response, error) {
	return d.withNS(c, func(ns *namespace.Namespace) (*minicli.Response, error) { return done(ns.Edit(change)) })
}

// withNS runs do with the call's namespace.
func (d *Deps) withNS(c *Call, do func(*namespace.Namespace) (*minicli.Response, error)) (*minicli.Response, error) {
	ns, err := d.NS.Get(c.Namespace)
	if err != nil {
		return nil, err
	}
	return do(ns)
}
