package vm

import "strings"

// EachFile calls f for every path of a file or directory of the configuration
// that may be changed, until one call fails. Left out are empty ones, and a
// QEMU that is looked up in $PATH.
func (c *Config) EachFile(f func(path *string) error) error {
	paths := []*string{&c.KernelPath, &c.InitrdPath, &c.CdromPath, &c.MigratePath, &c.FilesystemPath, &c.Preinit}
	if strings.Contains(c.QemuPath, "/") {
		paths = append(paths, &c.QemuPath)
	}
	for i := range c.Disks {
		paths = append(paths, &c.Disks[i].Path)
	}
	for _, p := range paths {
		if *p == "" {
			continue
		}
		if err := f(p); err != nil {
			return err
		}
	}
	for inside, path := range c.VolumePaths {
		if err := f(&path); err != nil {
			return err
		}
		c.VolumePaths[inside] = path
	}
	return nil
}
