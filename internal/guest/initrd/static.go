package initrd

import (
	"debug/elf"
	"fmt"
)

// checkStatic refuses what the guest's kernel could not start: no ELF program,
// or one that needs a dynamic loader, which the initrd does not have.
func checkStatic(binary string) error {
	f, err := elf.Open(binary)
	if err != nil {
		return fmt.Errorf("%s cannot be the guest's /init: %w", binary, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("%s cannot be the guest's /init: it is linked dynamically (build it with CGO_ENABLED=0)", binary)
		}
	}
	return nil
}
