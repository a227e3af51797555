package capture

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
	"minimega/internal/host"
	"minimega/internal/host/stage"
)

// A holder is a process of some KiB that does nothing: it has the socket of a
// capture open, whose ring therefore goes on to be filled when the daemon is
// killed, and the memory between ring and file. Its command line names the
// capture's entry in the journal, by which a later daemon finds it.
const (
	holderPath = "/proc/self/fd/3"
	holderWord = "capture"

	fdMemory    = 4
	fdSocket    = 5
	holderLimit = 5 * time.Second // that its end may take
)

// Holder returns, if this is the command line of a holder, the path of its
// capture's entry in the journal; else "".
func Holder(args []string) string {
	if len(args) != 3 || args[0] != holderPath || args[1] != holderWord {
		return ""
	}
	return args[2]
}

// hold starts the holder of a capture.
func hold(entry string, memory, socket *os.File) (*host.Proc, error) {
	image, err := holderProgram().Open(memoryName)
	if err != nil {
		return nil, err
	}
	defer image.Close()
	p, err := host.StartProc(host.ProcSpec{
		Path: holderPath, Args: []string{holderWord, entry}, Dir: "/", Env: []string{},
		Files: []*os.File{image, memory, socket},
	})
	if errors.Is(err, unix.EACCES) {
		return nil, errs.WithRemedy(errs.Wrap(errs.Permission, err), "sysctl vm.memfd_noexec=0")
	}
	return p, err
}

// holderProgram waits for ever. A call that comes back nevertheless is made again.
func holderProgram() *stage.Program {
	p := &stage.Program{}
	// Descriptor 3, where a program reports failures, is its own file until here.
	p.Add(stage.Call{Name: "close", Nr: unix.SYS_CLOSE, Args: [6]stage.Arg{stage.Report}, May: stage.Ignore})
	wait := p.Add(stage.Call{Name: "wait", Nr: unix.SYS_PPOLL, May: stage.Ignore})
	p.Calls[wait].IfZero = wait
	p.Add(stage.Call{Name: "again", Nr: unix.SYS_SCHED_YIELD, May: stage.Ignore, IfZero: wait})
	return p
}

// kept is what a holder has.
type kept struct {
	holder *host.Proc
	mem    *memory
	memory *os.File
	socket *os.File
}

// borrow gets what process pid has, the holder of this entry.
func borrow(pid int, entry string) (*kept, error) {
	p, err := host.AdoptProc(pid)
	if err != nil {
		return nil, err
	}
	k := &kept{holder: p}
	if err := k.borrow(entry); err != nil {
		return nil, errors.Join(err, k.close(), p.Close())
	}
	return k, nil
}

func (k *kept) borrow(entry string) error {
	fd, err := unix.PidfdOpen(k.holder.Pid(), 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if Holder(host.Arguments(k.holder.Pid())) != entry { // the pid was used again
		return errs.New(errs.NotFound, "process %d is not the holder of %s", k.holder.Pid(), entry)
	}
	if k.memory, err = getFile(fd, fdMemory, memoryName); err != nil {
		return err
	}
	if k.socket, err = getFile(fd, fdSocket, "packet socket"); err != nil {
		return err
	}
	k.mem, err = openMemory(k.memory)
	return err
}

// close lets go of what was borrowed; the holder still has it.
func (k *kept) close() error {
	var failed []error
	if k.mem != nil {
		failed = append(failed, k.mem.close())
	}
	for _, f := range []*os.File{k.memory, k.socket} {
		if f != nil {
			failed = append(failed, f.Close())
		}
	}
	return errors.Join(failed...)
}

// getFile gets a descriptor of another process (pidfd_getfd(2)).
func getFile(pidfd, fd int, name string) (*os.File, error) {
	n, err := unix.PidfdGetfd(pidfd, fd, 0)
	if err != nil {
		return nil, fmt.Errorf("get %s from the holder: %w", name, err)
	}
	return os.NewFile(uintptr(n), name), nil
}

// holders finds the holders of the captures whose entries are in a directory.
func holders(dir string) (map[string]int, error) {
	list, err := host.Processes()
	if err != nil {
		return nil, fmt.Errorf("holders of captures: %w", err)
	}
	found := map[string]int{}
	for _, p := range list {
		if entry := Holder(p.Args); entry != "" && filepath.Dir(entry) == dir {
			found[entry] = p.Pid
		}
	}
	return found, nil
}

// endHolders ends the holders of captures that nobody takes up.
func endHolders(found map[string]int) error {
	var failed []error
	for entry, pid := range found {
		p, err := host.AdoptProc(pid)
		if err != nil {
			continue // it has ended
		}
		if Holder(host.Arguments(pid)) == entry {
			failed = append(failed, endHolder(p))
		} else {
			failed = append(failed, p.Close())
		}
	}
	return errors.Join(failed...)
}

// endHolder ends a holder, and with it the socket and memory. Nil is none.
func endHolder(p *host.Proc) error {
	if p == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), holderLimit)
	defer cancel()
	return errors.Join(p.Kill(ctx), p.Close())
}
