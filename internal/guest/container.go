package guest

import (
	"context"
	"os"

	"minimega/internal/guest/initrd"
	"minimega/internal/guest/node"
)

// Rootfs makes the directory dir, which becomes the root of containers of the
// built-in guest: `vm config filesystem DIR`. The words after /init in `vm
// config init` tell it what a virtual machine has on its kernel command line.
func Rootfs(dir string) error { return initrd.WriteDir(dir, initrd.Options{}) }

// inContainer reports whether the first process is that of a container, which
// finds a file system made by Rootfs.
func inContainer() bool {
	_, err := os.Stat(initrd.ContainerMark)
	return err == nil
}

// containerMain is Main in a container. It returns when it is to end.
func containerMain(ctx context.Context) int {
	m := node.Contain(ctx, os.Args[1:])
	m.Go(ctx, "console", func(ctx context.Context) error { return serveConsole(ctx, m, "console") })
	m.WaitEnd()
	return 0
}
