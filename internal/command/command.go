// Package command holds minimega's commands: one file per family, and in it
// one descriptor per entry with pattern, help, scope and function. A function
// turns the arguments into a typed request, calls the owner of the thing and
// returns a response; where a command runs and who reads the answer is not
// its business.
package command

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"minimega/pkg/minicli"
)

// Scope says which hosts of the namespace a command concerns.
type Scope int

// The scopes.
const (
	Local    Scope = iota // only the host that got the command
	FanOut                // every host of the namespace, all answers
	VMTarget              // every host; "vm not found" counts only if all say so
)

// Command describes one entry of the language. Exactly one of Run and Stream
// is set: Run for the many that answer once, Stream for those that answer in
// several batches or run other commands.
type Command struct {
	Patterns []string
	Short    string // one line for the list of commands
	Long     string // the whole story, Markdown-free plain text
	Scope    Scope
	Run      func(context.Context, *Call) (*minicli.Response, error)
	Stream   func(context.Context, *Call) error
	// Elsewhere says that the nested command runs on other hosts only, which
	// expand its arguments themselves.
	Elsewhere bool
	// Secret are the keys of placeholders whose values no history, log or other
	// record may hold.
	Secret []string
	// Last is for patterns that any words fit, see minicli.Handler.
	Last          bool
	Interruptible bool // cancel when the client goes away (waiting commands); others run to their end
	// Suggest completes placeholders, by key: `Suggest["vm target"]` is asked
	// for `<vm target>`. It gets what is typed so far and returns whole words.
	Suggest map[string]Completer
}

// Completer proposes values for a placeholder that starts with prefix.
type Completer func(c *Call, prefix string) []string

// Batch is a group of responses that are rendered together, or a progress
// message (Status set, nothing else).
type Batch struct {
	Resps  minicli.Responses
	Flags  minicli.Flags
	Status string
}

// ErrNoReply is what a command returns after which its client hears nothing
// more: the connection closes without an answer, as after `quit`. A command
// that wraps another passes it on.
var ErrNoReply = errors.New("the session ends without an answer")

// Runner runs another command on behalf of a call: compiled, in the same
// session. internal/api provides it.
type Runner interface {
	// Run executes c with the given call's session, namespace and flags as
	// they stand in call, and passes every batch to call.Emit. A failure of c
	// is such a batch too; what Run returns is only that the client has gone,
	// or ErrNoReply.
	Run(ctx context.Context, call *Call, c *minicli.Command) error
	// Compile parses a line with the whole language.
	Compile(line string) (*minicli.Command, error)
	// Send runs c on other hosts, there only, and returns the first response
	// of each, in the order of hosts; an error in its name from one that is lost.
	Send(ctx context.Context, call *Call, hosts []string, c *minicli.Command) minicli.Responses
}

// Call is one command on its way: what was typed, by whom, in which namespace,
// with which flags. It belongs to the goroutine that runs the command.
type Call struct {
	*minicli.Command
	Session   *Session
	Namespace string        // the namespace the command acts in
	Tagged    bool          // true under `namespace X (command)`: Session's own stays as it is
	Flags     minicli.Flags // for this command and what is nested in it
	Reading   bool          // true inside `read`
	Remote    bool          // another host sent it: it acts here only
	// Everywhere is true under `ns run`: it acts on every host of the
	// namespace, whatever its scope.
	Everywhere bool
	Runner     Runner
	// Emit passes a batch on to the client, in order. It blocks while the
	// client is slow and fails once the client has gone.
	Emit func(Batch) error
}

// Status sends a progress message, if the client still listens.
func (c *Call) Status(text string) { _ = c.Emit(Batch{Status: text}) }

// With returns a copy of the call for a nested command.
func (c *Call) With(sub *minicli.Command) *Call {
	n := *c
	n.Command = sub
	return &n
}

// Session is the state of one connection: its active namespace and its output
// flags. A new session starts with what was last set by anyone, since clients
// of upstream minimega rely on a daemon-wide setting.
type Session struct {
	Shared *Shared

	mu        sync.Mutex // guards the fields below
	namespace string
	flags     minicli.Flags
}

// Namespace returns the session's active namespace.
func (s *Session) Namespace() string { s.mu.Lock(); defer s.mu.Unlock(); return s.namespace }

// Flags returns the session's output flags.
func (s *Session) Flags() minicli.Flags { s.mu.Lock(); defer s.mu.Unlock(); return s.flags }

// SetNamespace changes the active namespace of this session and of sessions to come.
func (s *Session) SetNamespace(name string) {
	s.mu.Lock()
	s.namespace = name
	s.mu.Unlock()
	s.Shared.mu.Lock()
	s.Shared.namespace = name
	s.Shared.mu.Unlock()
	s.Shared.keep()
}

// SetFlags changes the flags of this session and of sessions to come.
func (s *Session) SetFlags(f minicli.Flags) {
	s.mu.Lock()
	s.flags = f
	s.mu.Unlock()
	s.Shared.mu.Lock()
	s.Shared.flags = f
	s.Shared.mu.Unlock()
	s.Shared.keep()
}

// MaxHistory bounds the history; the oldest lines go first.
const MaxHistory = 10000

// Shared is what all sessions of a daemon have in common.
type Shared struct {
	file *sharedFile // nil for none; set before there are sessions

	mu        sync.Mutex // guards the fields below
	namespace string
	flags     minicli.Flags
	aliases   map[string]string
	history   []string
	status    time.Duration
}

// NewShared starts with the given namespace, default flags, no aliases and an empty history.
func NewShared(namespace string) *Shared {
	return &Shared{namespace: namespace, flags: minicli.DefaultFlags(), aliases: map[string]string{}, status: 3 * time.Second}
}

// NewSession makes a session that starts with what was last set by anyone.
func (s *Shared) NewSession() *Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &Session{Shared: s, namespace: s.namespace, flags: s.flags}
}

// StatusPeriod is the time between two progress messages of long work; 0 turns them off.
func (s *Shared) StatusPeriod() time.Duration { s.mu.Lock(); defer s.mu.Unlock(); return s.status }

// SetStatusPeriod changes the time between two progress messages.
func (s *Shared) SetStatusPeriod(d time.Duration) {
	s.mu.Lock()
	s.status = d
	s.mu.Unlock()
	s.keep()
}

// Aliases returns a copy of the aliases.
func (s *Shared) Aliases() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.aliases)
}

// SetAlias sets an alias; an empty expansion removes it.
func (s *Shared) SetAlias(name, expansion string) {
	s.mu.Lock()
	if expansion == "" {
		delete(s.aliases, name)
	} else {
		s.aliases[name] = expansion
	}
	s.mu.Unlock()
	s.keep()
}

// Remember appends a line to the history.
func (s *Shared) Remember(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.history) >= MaxHistory {
		s.history = append(s.history[:0], s.history[len(s.history)-MaxHistory+1:]...)
	}
	s.history = append(s.history, line)
}

// History returns a copy of the history, oldest first.
func (s *Shared) History() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.history...)
}

// ClearHistory empties the history.
func (s *Shared) ClearHistory() { s.mu.Lock(); s.history = nil; s.mu.Unlock() }
