package jobs

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// MaxOutput bounds what is kept of each output stream, in bytes. The rest
	// is read and counted, so that the program never blocks on it.
	MaxOutput = 16 << 20

	maxLine = 4096 // bytes of a logged line; longer ones are split

	lingering = 2 * time.Second // how long Run waits for output once the process has ended
	killGrace = time.Second     // the same after a kill
	forever   = time.Duration(-1)
)

// process is a started program and the readers of its output.
type process struct {
	cmd            *exec.Cmd
	stdout, stderr *output
	read           chan struct{} // closed at the end of both streams
}

// start runs args[0] with an empty input, in its own process group. The caller
// must call wait.
func start(args []string) (*process, error) {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return nil, err
	}
	p := &process{read: make(chan struct{}), cmd: &exec.Cmd{Path: path, Args: args, SysProcAttr: &syscall.SysProcAttr{Setpgid: true}}}
	if p.stdout, p.cmd.Stdout, err = newOutput(); err != nil {
		return nil, err
	}
	if p.stderr, p.cmd.Stderr, err = newOutput(); err != nil {
		p.stdout.r.Close()
		p.closeWriters()
		return nil, err
	}
	err = p.cmd.Start()
	p.closeWriters()
	if err != nil {
		p.stdout.r.Close()
		p.stderr.r.Close()
		return nil, err
	}
	return p, nil
}

// closeWriters drops our copies of what the child writes to.
func (p *process) closeWriters() {
	for _, w := range []io.Writer{p.cmd.Stdout, p.cmd.Stderr} {
		if f, ok := w.(*os.File); ok && f != nil {
			f.Close()
		}
	}
}

// wait returns once the process has ended and all its output is read. If
// others keep the output open after its end, wait gives them linger (forever:
// until ctx ends); the caller must then discard what they write. When ctx ends
// the process group is killed.
func (p *process) wait(ctx context.Context, linger time.Duration) error {
	var readers sync.WaitGroup
	readers.Go(p.stdout.read)
	readers.Go(p.stderr.read)
	go func() { readers.Wait(); close(p.read) }()

	exited := make(chan struct{})
	killed := make(chan struct{})
	go func() {
		defer close(killed)
		select {
		case <-ctx.Done():
			p.kill()
		case <-exited:
		}
	}()
	p.awaitExit()
	close(exited)
	<-killed
	p.drain(ctx, linger)
	return p.cmd.Wait()
}

// awaitExit returns when the process has ended and leaves it unreaped, so that
// its pid and process group cannot become somebody else's before the last kill.
func (p *process) awaitExit() {
	for {
		err := unix.Waitid(unix.P_PID, p.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			return
		}
	}
}

// drain waits for the readers, up to linger. When ctx ends it takes the pipes
// away from them.
func (p *process) drain(ctx context.Context, linger time.Duration) {
	var limit <-chan time.Time
	if linger >= 0 {
		t := time.NewTimer(linger)
		defer t.Stop()
		limit = t.C
	}
	select {
	case <-p.read:
	case <-limit:
	case <-ctx.Done():
		p.kill() // those left of the group
		t := time.NewTimer(killGrace)
		defer t.Stop()
		select {
		case <-p.read:
		case <-t.C:
			p.closeReaders()
		}
	}
}

// discard reads on, so that those who still hold the output do not end by a
// broken pipe, until they close it or ctx ends.
func (p *process) discard(ctx context.Context) {
	select {
	case <-p.read:
	case <-ctx.Done():
		p.closeReaders()
	}
}

func (p *process) closeReaders() {
	p.stdout.r.Close()
	p.stderr.r.Close()
	<-p.read
}

// kill ends the process group. Only before wait has returned.
func (p *process) kill() { _ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) }

// output collects one stream of a process.
type output struct {
	r   *os.File
	tee func(io.Reader) // gets a copy of all that is read, if set

	mu      sync.Mutex // guards the fields below
	kept    bytes.Buffer
	dropped int64
}

func newOutput() (*output, *os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	return &output{r: r}, w, nil
}

// read collects until the end of the stream.
func (o *output) read() {
	defer o.r.Close()
	if o.tee == nil {
		_, _ = io.Copy(o, o.r) // ends with EOF or because wait closed the pipe
		return
	}
	o.tee(io.TeeReader(o.r, o))
}

// Write keeps what fits.
func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	fits := min(len(b), MaxOutput-o.kept.Len())
	o.kept.Write(b[:fits])
	o.dropped += int64(len(b) - fits)
	return len(b), nil
}

// String is what was kept, and a last line that says how much was not.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.dropped == 0 {
		return o.kept.String()
	}
	return fmt.Sprintf("%s\n[output truncated: %d more bytes]", o.kept.String(), o.dropped)
}

// shortLines is bufio.ScanLines that splits lines of maxLine bytes or more
// instead of failing.
func shortLines(data []byte, atEOF bool) (int, []byte, error) {
	if i := bytes.IndexByte(data, '\n'); i < 0 && len(data) >= maxLine {
		return len(data), data, nil
	}
	return bufio.ScanLines(data, atEOF)
}
