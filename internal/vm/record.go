package vm

import (
	"bytes"
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
	// maxRecords is how many a file holds before it is replaced: a file costs
	// far more than a line at the end of it.
	maxRecords = 16
)

// record is what the file vm.json holds: all that a later daemon needs to take
// the VM over. The state is in a file of its own. Newer records follow older
// ones, and the last whole one counts.
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
	// Adding is an interface that is not in Config yet, of which the machine
	// may have nothing, a part or all.
	Adding *NetConfig `json:",omitempty"`
}

func (v *VM) writeRecord() error {
	v.recording.Lock() // the newest comes last
	defer v.recording.Unlock()
	v.mu.Lock()
	r := record{ID: v.ID, Name: v.Name, Namespace: v.Namespace, UUID: v.UUID, Type: v.Type.String(), Created: v.Created,
		Made: v.made, Config: v.config, Adding: v.adding}
	if v.state == Error {
		r.Failure = v.failure
	}
	m := v.machine
	v.mu.Unlock()
	if m != nil {
		r.Pid = m.Pid()
		if d, ok := m.(Displayer); ok && d.VNC() != nil {
			r.VNCPort = d.VNC().Port()
		} else if s, ok := m.(*silent); ok {
			r.VNCPort = s.i.record.VNCPort
		}
	}
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	path, line := filepath.Join(v.Dir(), recordName), append(text, '\n')
	if v.records%maxRecords == 0 {
		err = host.WriteFirst(path, line, 0o600)
	} else {
		err = appendTo(path, line)
	}
	v.records++
	if err != nil {
		v.records = 0 // what is in the file now, nobody knows: the next one replaces it
	}
	return err
}

func appendTo(path string, line []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(line)
	return errors.Join(err, f.Close())
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
	r, err := lastRecord(text)
	if err != nil {
		return nil, err
	}
	return r, r.check(dir)
}

// lastRecord returns the last whole record: whoever wrote the one after it died
// over it.
func lastRecord(text []byte) (last *record, err error) {
	for d := json.NewDecoder(bytes.NewReader(text)); ; {
		var r record
		err = d.Decode(&r)
		if err != nil {
			break
		}
		last = &r
	}
	if last == nil {
		return nil, errs.Wrap(errs.Invalid, err)
	}
	return last, nil
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

// readState reads the file state. There is none before the state changes for
// the first time, and an empty one if the daemon died over that.
func readState(dir string) State {
	text, err := os.ReadFile(filepath.Join(dir, "state"))
	if err != nil {
		return Building
	}
	for s, name := range stateNames {
		if name == string(text) {
			return s
		}
	}
	return Building
}

// removeStale removes what is left of flushed VMs: their directories, links
// by UUID that lead nowhere, and namespaces without links.
func removeStale(base string) error {
	dirs, err := filepath.Glob(filepath.Join(base, gonePrefix+"*"))
	failed := []error{err}
	for _, dir := range dirs {
		failed = append(failed, host.RemoveAll(dir))
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
