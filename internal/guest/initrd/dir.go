package initrd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"

	"golang.org/x/sys/unix"
)

// ContainerMark is the file in a directory made by WriteDir that tells the
// program as first process that it is in a container, and not in a machine.
const ContainerMark = "/etc/minimega.container"

// WriteDir makes the directory dir, which becomes the root of containers: this
// program as /init, and files of the caller's. It appears complete or not at
// all; one that is there already must be empty. Modules are left out.
func WriteDir(dir string, o Options) error {
	o.ModulesDir = ""
	p, err := makePlan(o, &Report{})
	if err != nil {
		return err
	}
	p.put(ContainerMark[1:], item{mode: modeFile | 0o644})
	tmp, err := os.MkdirTemp(filepath.Dir(filepath.Clean(dir)), ".rootfs-*")
	if err != nil {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	err = p.writeDir(tmp)
	if err == nil {
		err = os.Chmod(tmp, 0o755)
	}
	if err == nil {
		err = unix.Rename(tmp, dir) // os.Rename refuses also an empty directory
	}
	if err != nil {
		return errors.Join(fmt.Errorf("make %s: %w", dir, err), os.RemoveAll(tmp))
	}
	return nil
}

func (p plan) writeDir(dir string) error {
	names := make([]string, 0, len(p))
	for n := range p {
		names = append(names, n)
	}
	sort.Strings(names) // a directory sorts before what is in it
	for _, n := range names {
		if err := p[n].create(filepath.Join(dir, n)); err != nil {
			return err
		}
	}
	return nil
}

// create makes the item at a path where nothing is yet.
func (it item) create(path string) error {
	perm := os.FileMode(it.mode & 0o777)
	switch {
	case it.mode&modeType == modeDir:
		return os.Mkdir(path, perm)
	case it.mode&modeType == modeLink:
		return os.Symlink(string(it.data), path)
	case it.source == "":
		return os.WriteFile(path, it.data, perm)
	}
	from, err := os.Open(it.source)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, perm)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Close())
}
