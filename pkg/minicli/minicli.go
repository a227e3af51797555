// Package minicli is minimega's command language: patterns, compilation of a
// line into a command, completion, help, and the rendering of responses.
//
// A CLI is a value without package state and does not change after New, so
// any number of goroutines may use it. It runs nothing: whoever compiled a
// command decides what to do with it.
package minicli

// ItemType is a bit mask that says what a piece of a pattern matches. The
// numbers are part of the -cli dump.
type ItemType int

// The bits of an ItemType.
const (
	Optional ItemType = 1 << iota
	Literal
	Nested // "(command)"
	String
	Choice
	List
)

// Item is one piece of a pattern, in the shape of the -cli dump.
type Item struct {
	Type    ItemType `json:"type"`
	Key     string   `json:"key,omitempty"`
	Text    string   `json:"text,omitempty"`
	Options []string `json:"options,omitempty"`
}

// Handler is one documented entry of the language: patterns that share a help.
// Patterns may be taken by other handlers as far as no two are equal.
type Handler struct {
	HelpShort string
	HelpLong  string
	Patterns  []string
	// Last is for patterns that any words fit: they count only where those of
	// no other handler do, abbreviated or not.
	Last bool
	// Meta belongs to whoever made the handler; minicli never looks at it.
	Meta any
}

// Command is a line that compiled.
type Command struct {
	Handler  *Handler
	Pattern  string // the pattern that matched
	Original string // trimmed text as typed; for a nested command, rebuilt from its tokens
	Strings  map[string]string
	Lists    map[string][]string
	Choices  map[string]bool // every option chosen, by its full text
	Sub      *Command        // nested command, or nil

	typed *arguments // as they were before the first Preprocess, nil for none
}

// arguments are those of a command that Preprocess changes.
type arguments struct {
	strings map[string]string
	lists   map[string][]string
}

// Nop reports whether the line was only a comment.
func (c *Command) Nop() bool { return c.Handler == nil }

// Str returns the string argument of that key, "" when left out.
func (c *Command) Str(key string) string { return c.Strings[key] }

// Has reports whether the string argument was given, also when given as "".
func (c *Command) Has(key string) bool { _, ok := c.Strings[key]; return ok }

// List returns the list argument of that key, nil when left out.
func (c *Command) List(key string) []string { return c.Lists[key] }

// Chose reports whether that option was chosen.
func (c *Command) Chose(option string) bool { return c.Choices[option] }

// Response is what one host answers to one command. Its JSON is what clients
// of the socket read.
type Response struct {
	Host     string
	Response string
	Header   []string
	Tabular  [][]string
	Error    string
	Data     any
}

// Responses is one batch: one element per host.
type Responses []*Response

// Mode is the text form of a rendering.
type Mode int

// The modes.
const (
	Text Mode = iota
	CSV
	JSON
)

// Flags govern how a batch is rendered and whether a command is recorded and
// preprocessed. They are a value: copy to change.
type Flags struct {
	Annotate, Compress, Headers, Sort bool
	Record, Preprocess                bool
	Mode                              Mode
}

// DefaultFlags are those of a fresh daemon: everything on, text.
func DefaultFlags() Flags {
	return Flags{Annotate: true, Compress: true, Headers: true, Sort: true, Record: true, Preprocess: true}
}
