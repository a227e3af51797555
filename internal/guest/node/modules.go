package node

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"minimega/internal/guest/initrd"
)

// loadModules loads what the initrd lists, in its order. A driver that finds
// no device is no error, nor is one that is loaded or built in already.
func loadModules() []error {
	list, err := os.ReadFile(initrd.LoadList)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return []error{err}
	}
	var bad []error
	for _, path := range strings.Fields(string(list)) {
		err := loadModule(path)
		if err != nil && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENODEV) {
			bad = append(bad, fmt.Errorf("load %s: %w", path, err))
		}
	}
	return bad
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), "", 0)
}
