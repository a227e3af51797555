package daemon

import (
	"minimega/internal/disk"
	"minimega/pkg/iomeshage"
)

// shareFiles exchanges files with other hosts, once there are any.
func (d *Daemon) shareFiles() (*iomeshage.Service, error) {
	s, err := iomeshage.New(iomeshage.Options{Root: d.cfg.Files, Log: d.log, HashFiles: d.cfg.HashFiles, Rate: d.cfg.FileRate, Plain: d.cfg.Mesh.Open,
		HeadNode: d.cfg.HeadNode, Backing: backing})
	if err != nil {
		return nil, err
	}
	d.parts.Push("files", s.Close)
	return s, nil
}

// backing tells which file a disk image stands on.
func backing(path string) ([]string, error) {
	h, err := disk.Inspect(path)
	if err != nil || h.Backing == "" {
		return nil, err
	}
	return []string{h.Backing}, nil
}
