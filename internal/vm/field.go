package vm

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"minimega/internal/errs"
)

// Shape says how many values a field takes and how they are written.
type Shape int

// The shapes.
const (
	One  Shape = iota // one word
	Many              // a list of words
	Bool              // true or false
	Map               // key and value
)

// Path says how a field that names a file is made absolute.
type Path int

// The ways.
const (
	NoPath     Path = iota
	FilesPath       // relative to the files directory
	LookupPath      // relative to the files directory if it has a directory, else found in $PATH
)

// Field is one entry of `vm config`: how it is called, explained, read and
// set. The table of fields is what the commands, their help, the printed
// configuration and the file in the instance directory are made from.
type Field struct {
	Name  string
	Types []Type // types it belongs to; empty for all
	Label string // in the output of `vm config`; "" when shown elsewhere
	Help  string
	Shape Shape
	Path  Path

	get func(*Config) []string // words that set it again; nil when at its default
	set func(*Config, []string) error
}

// Words returns the words that would set the field to its present value, nil
// when it is empty.
func (f *Field) Words(c *Config) []string { return f.get(c) }

// Set sets the field. Paths are absolute already. Errors say what is wrong
// with the value; c is unchanged then.
func (f *Field) Set(c *Config, words []string) error { return f.set(c, words) }

// Clear sets the field to its default.
func (f *Field) Clear(c *Config) {
	// Taking the words over from a fresh configuration keeps one definition
	// of the defaults.
	d := NewConfig()
	if w := f.get(d); w != nil || f.Shape != Map {
		_ = f.set(c, w)
		return
	}
	f.clearMap(c)
}

func (f *Field) clearMap(c *Config) {
	if m := f.Name; m == "tags" {
		c.Tags = map[string]string{}
	} else {
		c.VolumePaths = map[string]string{}
	}
}

// IsDefault reports whether the field has its default value in c.
func (f *Field) IsDefault(c *Config) bool { return slices.Equal(f.get(c), f.get(NewConfig())) }

// Text is what `vm config <field>` answers.
func (f *Field) Text(c *Config) string {
	w := f.get(c)
	switch f.Shape {
	case Many:
		if len(w) == 0 && f.Name != "disks" {
			return ""
		}
		return "[" + strings.Join(w, " ") + "]"
	case Map:
		var lines []string
		for i := 0; i+1 < len(w); i += 2 {
			lines = append(lines, w[i]+" -> "+w[i+1])
		}
		return strings.Join(lines, "\n")
	default:
		return strings.Join(w, " ")
	}
}

// Lines returns the `vm config …` commands that make c from the defaults, in
// the order of the table, for the types that t is about.
func Lines(c *Config, t Type) []string {
	var lines []string
	for _, f := range Fields() {
		if len(f.Types) > 0 && !slices.Contains(f.Types, t) {
			continue
		}
		always := f.Name == "init" && t == Container
		if f.IsDefault(c) && !always {
			continue
		}
		words := f.get(c)
		if f.Shape == Map {
			for i := 0; i+1 < len(words); i += 2 {
				lines = append(lines, "vm config "+f.Name+" "+quote(words[i])+" "+quote(words[i+1]))
			}
			continue
		}
		if f.Name == "qemu-override" {
			for _, o := range c.QemuOverride {
				lines = append(lines, "vm config qemu-override "+quote(o.Match)+" "+quote(o.Repl))
			}
			continue
		}
		quoted := make([]string, len(words))
		for i, w := range words {
			quoted[i] = quote(w)
		}
		lines = append(lines, "vm config "+f.Name+" "+strings.Join(quoted, " "))
	}
	return lines
}

// quote writes a word so that the command language reads it back: only what
// needs it is quoted, so that a person can read the line.
func quote(w string) string {
	if w != "" && !strings.ContainsAny(w, " \t\r\n\"'\\#") {
		return w
	}
	r := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`, "\t", `\t`)
	return `"` + r.Replace(w) + `"`
}

// FieldNamed finds a field by its full name, or nil.
func FieldNamed(name string) *Field {
	for _, f := range Fields() {
		if f.Name == name {
			return f
		}
	}
	return nil
}

// Constructors of fields over a place in the configuration.

func text(name, label, help string, p Path, at func(*Config) *string, types ...Type) *Field {
	return &Field{Name: name, Label: label, Help: help, Path: p, Types: types,
		get: func(c *Config) []string { return nonEmpty(*at(c)) },
		set: func(c *Config, w []string) error { *at(c) = strings.Join(w, " "); return nil }}
}

func nonEmpty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

func number(name, label, help string, at func(*Config) *uint64, types ...Type) *Field {
	return &Field{Name: name, Label: label, Help: help, Types: types,
		get: func(c *Config) []string { return []string{strconv.FormatUint(*at(c), 10)} },
		set: func(c *Config, w []string) error {
			v, err := strconv.ParseUint(strings.Join(w, " "), 10, 64)
			if err != nil {
				return errs.Wrap(errs.Invalid, err)
			}
			*at(c) = v
			return nil
		}}
}

func signed(name, label, help string, at func(*Config) *int64, types ...Type) *Field {
	return &Field{Name: name, Label: label, Help: help, Types: types,
		get: func(c *Config) []string { return []string{strconv.FormatInt(*at(c), 10)} },
		set: func(c *Config, w []string) error {
			v, err := strconv.ParseInt(strings.Join(w, " "), 10, 64)
			if err != nil {
				return errs.Wrap(errs.Invalid, err)
			}
			*at(c) = v
			return nil
		}}
}

func flag(name, label, help string, at func(*Config) *bool, types ...Type) *Field {
	return &Field{Name: name, Label: label, Help: help, Shape: Bool, Types: types,
		get: func(c *Config) []string { return []string{strconv.FormatBool(*at(c))} },
		set: func(c *Config, w []string) error {
			v, err := strconv.ParseBool(strings.Join(w, " "))
			if err != nil {
				return errs.Wrap(errs.Invalid, err)
			}
			*at(c) = v
			return nil
		}}
}

func list(name, label, help string, at func(*Config) *[]string, types ...Type) *Field {
	return &Field{Name: name, Label: label, Help: help, Shape: Many, Types: types,
		get: func(c *Config) []string { return *at(c) },
		set: func(c *Config, w []string) error { *at(c) = slices.Clone(w); return nil }}
}

func dict(name, label, help string, at func(*Config) *map[string]string, types ...Type) *Field {
	return &Field{Name: name, Label: label, Help: help, Shape: Map, Types: types,
		get: func(c *Config) []string {
			var w []string
			for _, k := range slices.Sorted(maps.Keys(*at(c))) {
				w = append(w, k, (*at(c))[k])
			}
			return w
		},
		set: func(c *Config, w []string) error {
			if len(w) != 2 {
				return errs.New(errs.Invalid, "%s: expected a key and a value", name)
			}
			if *at(c) == nil {
				*at(c) = map[string]string{}
			}
			(*at(c))[w[0]] = w[1]
			return nil
		}}
}

// tagsJSON prints tags as `vm info` and `vm config` show them.
func tagsJSON(m map[string]string) string {
	if len(m) == 0 {
		return "{}"
	}
	b, err := json.Marshal(m)
	if err != nil { // a map of strings always marshals
		return fmt.Sprint(m)
	}
	return string(b)
}
