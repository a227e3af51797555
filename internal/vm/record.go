package vm

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"minimega/internal/errs"
	"minimega/internal/host"
)

const (
	recordName = "vm.json"
	// gonePrefix starts the name of the directory of a VM that is being
	// flushed, before its ID: what is left when the daemon dies is removed.
	gonePrefix = ".gone-"
	maxRecord  = 4 << 20 // bytes
)

// record is the file vm.json: all that a later daemon needs to take the VM
// over. The state is in a file of its own.
type record struct {
	ID        int
	Name      string
	Namespace string
	UUID      string
	Type      string
	Created   time.Time
	Made      bool     // the launch came to its end
	Pid       int      // as it was last; 0 without a process
	VNCPort   int      // as it was last
	Failure   *Failure `json:",omitempty"` // of a VM in state ERROR
	Config    *Config
}

func (v *VM) writeRecord() error {
	v.mu.Lock()
	r := record{ID: v.ID, Name: v.Name, Namespace: v.Namespace, UUID: v.UUID, Type: v.Type.String(), Created: v.Created,
		Made: v.made, Config: v.config}
	if v.state == Error {
		r.Failure = v.failure
	}
	m := v.machine
	v.mu.Unlock()
	if m != nil {
		r.Pid = m.Pid()
		if d, ok := m.(Displayer); ok && d.VNC() != nil {
			r.VNCPort = d.VNC().Port()
		}
	}
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return host.WriteFirst(filepath.Join(v.Dir(), recordName), append(text, '\n'), 0o600)
}

// readRecord reads what writeRecord wrote.
func readRecord(dir string) (*record, error) {
	path := filepath.Join(dir, recordName)
	if st, err := os.Stat(path); err != nil || st.Size() > maxRecord {
		return nil, errors.Join(err, errs.New(errs.NotFound, "no usable %s", recordName))
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var r record
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, errs.Wrap(errs.Invalid, err)
	}
	return &r, r.check(dir)
}

func (r *record) check(dir string) error {
	switch {
	case strconv.Itoa(r.ID) != filepath.Base(dir):
		return errs.New(errs.Invalid, "%s is about VM %d", dir, r.ID)
	case r.Name == "" || r.Namespace == "" || r.UUID == "" || r.Config == nil || r.kind() == 0:
		return errs.New(errs.Invalid, "%s lacks name, namespace, UUID, type or configuration", filepath.Join(dir, recordName))
	case r.Namespace != filepath.Base(r.Namespace) || r.UUID != filepath.Base(r.UUID) || r.Namespace == ".." || r.UUID == "..":
		return errs.New(errs.Invalid, "%s names a namespace or UUID that is none", filepath.Join(dir, recordName))
	}
	return nil
}

// kind returns the type, 0 for one that there is not.
func (r *record) kind() Type {
	for t, name := range typeNames {
		if name == r.Type {
			return t
		}
	}
	return 0
}

// readState reads the file state; 0 when there is none.
func readState(dir string) State {
	text, err := os.ReadFile(filepath.Join(dir, "state"))
	if err != nil {
		return 0
	}
	for s, name := range stateNames {
		if name == string(text) {
			return s
		}
	}
	return 0
}

// removeStale removes what is left of flushed VMs: their directories, links
// by UUID that lead nowhere, and namespaces without links.
func removeStale(base string) error {
	dirs, err := filepath.Glob(filepath.Join(base, gonePrefix+"*"))
	failed := []error{err}
	for _, dir := range dirs {
		failed = append(failed, os.RemoveAll(dir))
	}
	root := filepath.Join(base, "namespaces")
	spaces, err := os.ReadDir(root)
	if !errors.Is(err, os.ErrNotExist) {
		failed = append(failed, err)
	}
	for _, ns := range spaces {
		links, err := filepath.Glob(filepath.Join(root, ns.Name(), "*"))
		failed = append(failed, err)
		for _, link := range links {
			if _, err := os.Stat(link); errors.Is(err, os.ErrNotExist) {
				failed = append(failed, os.Remove(link))
			}
		}
		_ = os.Remove(filepath.Join(root, ns.Name())) // only when it is empty
	}
	return errors.Join(failed...)
}
