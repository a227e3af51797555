package daemon

import (
	"context"
	"slices"

	"minimega/internal/image"
	"minimega/internal/vm/container"
)

// images gives containers the file systems of the image store.
type images struct{ store *image.Store }

// Root opens what `vm config filesystem` names.
func (i images) Root(ctx context.Context, reference string) (container.Root, error) {
	r, err := i.store.Open(ctx, reference)
	if err != nil {
		return container.Root{}, err
	}
	lower := slices.Clone(r.Layers)
	slices.Reverse(lower)
	root := container.Root{Lower: lower, Shared: !r.Writable, Release: r.Release}
	if r.Writable {
		return root, nil
	}
	root.Program = func() (*container.Program, error) {
		p, err := r.Program()
		if p == nil || err != nil {
			return nil, err
		}
		return &container.Program{Args: p.Args, Env: p.Env, Dir: p.Dir, UID: p.User.UID, GID: p.User.GID, Groups: p.User.Groups}, nil
	}
	return root, nil
}
