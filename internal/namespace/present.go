package namespace

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"

	"minimega/internal/host"
	"minimega/internal/vm"
)

const presentSuffix = ".present"

// present is what a namespace has been told for VMs and captures to come. A
// script or a client that goes on after this daemon was killed must not launch
// other VMs than it has described.
type present struct {
	Config  *vm.Config `json:",omitempty"` // nil is as new
	Capture Capture
}

// presentFile is where it is kept, apart from the rest, because it changes with
// every `vm config`.
func (n *Namespace) presentFile() string {
	return filepath.Join(n.registry.opts.Dir, n.Name+presentSuffix)
}

// keepPresent writes the file anew, or removes it when all is as new.
func (n *Namespace) keepPresent() {
	if n.registry.opts.Dir == "" {
		return
	}
	n.turn <- struct{}{}
	defer func() { <-n.turn }()
	n.mu.Lock()
	p := present{n.config, n.capture}
	n.mu.Unlock()
	if reflect.DeepEqual(p.Config, vm.NewConfig()) {
		p.Config = nil
	}
	if err := n.writePresent(p); err != nil {
		n.registry.opts.Log.Warn("the present `vm config` will not outlive this minimega", "namespace", n.Name, "err", err)
	}
}

func (n *Namespace) writePresent(p present) error {
	if p == (present{}) {
		return host.RemoveFile(n.presentFile())
	}
	text, err := json.Marshal(p)
	if err == nil {
		err = os.MkdirAll(n.registry.opts.Dir, 0o700)
	}
	if err != nil {
		return err
	}
	return host.WriteVolatile(n.presentFile(), append(text, '\n'), 0o600)
}

// readPresent is what an earlier daemon kept.
func (n *Namespace) readPresent() (p present, err error) {
	err = readKept(n.presentFile(), &p)
	return p, err
}

func (n *Namespace) adoptPresent() error {
	p, err := n.readPresent()
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if p.Config != nil {
		n.config = p.Config
	}
	n.capture = p.Capture
	return nil
}
