package node

import (
	"context"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Procs starts programs and reaps what others leave behind: orphans become
// children of PID 1.
type Procs struct {
	mu  sync.Mutex
	own map[int]bool // started by us; exec.Cmd waits for these
}

func newProcs() *Procs { return &Procs{own: map[int]bool{}} }

// Run starts cmd and waits for its end.
func (p *Procs) Run(cmd *exec.Cmd) error {
	p.mu.Lock()
	err := cmd.Start() // under the lock: the reaper must know the pid before it may look
	if err == nil {
		p.own[cmd.Process.Pid] = true
	}
	p.mu.Unlock()
	if err != nil {
		return err
	}
	err = cmd.Wait()
	p.mu.Lock()
	delete(p.own, cmd.Process.Pid)
	p.mu.Unlock()
	return err
}

func (p *Procs) reap(ctx context.Context) error {
	died := make(chan os.Signal, 1)
	signal.Notify(died, unix.SIGCHLD)
	defer signal.Stop(died)
	for {
		for _, pr := range Processes() {
			if pr.State == "Z" && pr.Parent == os.Getpid() {
				p.reapOne(pr.PID)
			}
		}
		select {
		case <-died:
		case <-ctx.Done():
			return nil
		}
	}
}

func (p *Procs) reapOne(pid int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.own[pid] {
		unix.Wait4(pid, nil, unix.WNOHANG, nil)
	}
}

// Process is one line of `ps`.
type Process struct {
	PID, Parent int
	State       string // one letter, as in proc(5)
	Name        string
	Command     string // empty for a thread of the kernel
	RSS         int    // bytes
}

// Processes lists what runs, by pid. Processes that end meanwhile are left out.
func Processes() []Process {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var list []Process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		if p, ok := parseStat(pid, string(stat)); ok {
			cmd, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline") // gone: empty
			p.Command = strings.TrimSpace(strings.ReplaceAll(string(cmd), "\x00", " "))
			list = append(list, p)
		}
	}
	return list
}

// parseStat reads /proc/PID/stat; the name in it may hold blanks and brackets.
func parseStat(pid int, stat string) (Process, bool) {
	open, end := strings.IndexByte(stat, '('), strings.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return Process{}, false
	}
	f := strings.Fields(stat[end+1:])
	if len(f) < 22 {
		return Process{}, false
	}
	p := Process{PID: pid, Name: stat[open+1 : end], State: f[0]}
	p.Parent, _ = strconv.Atoi(f[1])
	pages, _ := strconv.Atoi(f[21])
	p.RSS = pages * os.Getpagesize()
	return p, true
}
