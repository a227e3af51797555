package daemon

import (
	"context"

	"minimega/internal/command"
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

// sharing gives what is found of files their errors a kind and a remedy.
type sharing struct{ *iomeshage.Service }

// Compare fails if another host has something else under a name.
func (s sharing) Compare(ctx context.Context, name, host string, theirs iomeshage.State) error {
	return command.FileError(s.Service.Compare(ctx, name, host, theirs))
}
