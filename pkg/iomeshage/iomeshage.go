// Package iomeshage brings files from the hosts of a mesh that have them to
// those that lack them. A file travels in chunks, from all hosts at once that
// hold some of it, those included that are still fetching it; each chunk has a
// hash, and one host, the authority of the transfer, says what it must be.
//
// A chunk is written in place into one partial file, which becomes the file by
// a rename: there is never a second copy, and never half a file under its name.
//
// A directory comes with its directories and links. A link is passed on as it
// is, wherever it leads; nothing is ever written through one.
package iomeshage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"

	"minimega/pkg/meshage"
)

// The ways in which a file does not come. Errors of this package wrap one of
// them where a caller may want to tell.
var (
	ErrNotFound = errors.New("file not found")
	ErrInFlight = errors.New("file already in flight")
	ErrConflict = errors.New("different content under one name")
	ErrChanged  = errors.New("the file changed while it was copied")
	ErrFull     = errors.New("disk full")
	ErrName     = errors.New("not in the files directory")
	ErrClosed   = errors.New("file distribution is closed")
)

// Options say what a Service serves, and to whom.
type Options struct {
	// Root is the files directory, absolute. All names are relative to it, and
	// no name and no symbolic link leads out of it.
	Root string
	Log  *slog.Logger
	// HashFiles adds hashes of the content to what List returns.
	HashFiles bool
	// Rate bounds what this host receives, and what it sends, in bytes each
	// second; 0 is no bound.
	Rate int64
	// Plain lets chunks travel unencrypted to and from hosts that have it set
	// too: for a mesh that anybody may join. They are checked all the same.
	Plain bool
	// HeadNode, if set and not this host, is whose content is meant where
	// several hosts have a file.
	HeadNode string
	// Backing returns the absolute paths of the files that the file at path
	// needs to be of use, such as the backing files of a disk image. Nil is none.
	Backing func(path string) ([]string, error)
}

// Service is one host's part in the distribution of files.
type Service struct {
	opts   Options
	root   *os.Root
	hashes *hashCache
	in     *limiter // what comes
	out    *limiter // what goes
	slots  chan struct{}
	peers  *turnstile
	crowd  *crowd

	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu       sync.Mutex // guards the fields below
	closed   bool
	mesh     meshage.Mesh         // nil while this host is alone
	transfer map[string]*transfer // by name
	loads    map[*load]bool
	agreed   map[agreement]bool
}

// atOnce is how many files come at a time; the others wait for their turn.
const atOnce = 4

// New opens the files directory, for a host that is alone until Join.
func New(o Options) (*Service, error) {
	root, err := os.OpenRoot(o.Root)
	if err != nil {
		return nil, fmt.Errorf("files directory: %w", err)
	}
	s := &Service{opts: o, root: root, hashes: newHashCache(), in: newLimiter(o.Rate), out: newLimiter(o.Rate),
		slots: make(chan struct{}, atOnce), peers: newTurnstile(), crowd: newCrowd(), transfer: map[string]*transfer{}, loads: map[*load]bool{}, agreed: map[agreement]bool{}}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s, nil
}

// Join gives the files to the other hosts of a mesh, and takes theirs.
func (s *Service) Join(mesh meshage.Mesh) {
	s.mu.Lock()
	s.mesh = mesh
	s.mu.Unlock()
	mesh.Respond(findProtocol, s.answer(s.answerFind))
	mesh.Respond(hashProtocol, s.answer(s.answerHashes))
	mesh.Respond(extentProtocol, s.answer(s.answerExtents))
	mesh.Handle(chunkProtocol, s.serve)
	mesh.Handle(directProtocol, s.invite)
}

func (s *Service) network() meshage.Mesh {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mesh
}

// Close ends all transfers, which can be resumed, and waits for what runs.
// Other hosts are refused from now on.
func (s *Service) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.stop()
	s.wg.Wait()
	return s.root.Close()
}

// enter counts work that Close waits for. leave must be called if it is true.
func (s *Service) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.wg.Add(1)
	return true
}

func (s *Service) leave() { s.wg.Done() }

// running returns the transfer of a name, nil for none.
func (s *Service) running(name string) *transfer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.transfer[name]
}

// others are the members of the mesh besides this host.
func (s *Service) others() []string {
	mesh := s.network()
	if mesh == nil {
		return nil
	}
	var out []string
	for _, m := range mesh.Members() {
		if m.Name != mesh.Name() {
			out = append(out, m.Name)
		}
	}
	return out
}

// headNode is the host whose content is meant, "" for none.
func (s *Service) headNode() string {
	if mesh := s.network(); mesh == nil || s.opts.HeadNode == mesh.Name() {
		return ""
	}
	return s.opts.HeadNode
}
