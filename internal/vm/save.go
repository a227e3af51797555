package vm

import (
	"context"
	"fmt"

	"minimega/internal/errs"
)

// Save begins to save the VM that a name, ID or UUID means, see Saver. The VM
// is paused then.
func (m *Manager) Save(ctx context.Context, namespace, which string, to SaveFiles) error {
	v, err := m.Find(namespace, which)
	if err != nil {
		return err
	}
	if err := v.take(ctx); err != nil {
		return err
	}
	defer v.give()
	machine, err := v.answering()
	if err != nil {
		return err
	}
	s, ok := machine.(Saver)
	if !ok {
		return errs.InVM(NotSupported(v.Type, "save"), v.Name)
	}
	if err := s.Save(ctx, to); err != nil {
		return errs.InVM(errs.AtStep(err, "save"), v.Name)
	}
	v.setStateIfAlive(Paused)
	return nil
}

// Saving is how the last save of a VM stands.
type Saving struct {
	ID   int
	Name string
	SaveStatus
}

// Savings lists the saves of the VMs that run in a namespace, by ID.
func (m *Manager) Savings(namespace string) []Saving {
	var list []Saving
	for _, v := range m.List(namespace) {
		if status, err := v.Saved(); err == nil {
			list = append(list, Saving{ID: v.ID, Name: v.Name, SaveStatus: status})
		}
	}
	return list
}

// lastSave tells how the last save stands of a VM that runs or has ended.
func (v *VM) lastSave() (SaveStatus, bool) {
	if status, err := v.Saved(); err == nil {
		return status, true
	}
	r, ok := v.manager.engines[v.Type].(SaveReader)
	if !ok || v.State().Alive() {
		return SaveStatus{}, false
	}
	return r.Saved(v.Dir())
}

// whySave says what became of the last save, if that is not what it should be.
func whySave(v *VM) Finding {
	now, ok := v.lastSave()
	switch {
	case ok && now.Status == SaveActive:
		return Finding{About: "save", Text: fmt.Sprintf("it is being saved (%.0f %% done), and cannot be started before that has ended", now.Percent),
			Remedy: "wait; `vm save` without arguments shows how far it is"}
	case !ok || now.Status != SaveFailed:
		return Finding{}
	}
	f := found("save", now.Err, "")
	f.Text = "its last save failed: " + f.Text
	if f.Remedy == "" {
		f.Remedy = "`vm save " + v.Name + "` saves it again"
	}
	return f
}

// Saved tells how the last save of the VM stands, or why that is not known.
func (v *VM) Saved() (SaveStatus, error) {
	machine, err := v.Machine()
	if err != nil {
		return SaveStatus{}, err
	}
	if s, ok := machine.(Saver); ok {
		if status, any := s.Saved(); any {
			return status, nil
		}
	}
	return SaveStatus{}, errs.New(errs.NotFound, "it was not saved")
}
