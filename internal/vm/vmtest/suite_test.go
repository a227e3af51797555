package vmtest_test

import (
	"testing"

	"go.uber.org/goleak"

	"minimega/internal/errs"
	"minimega/internal/vm"
	"minimega/internal/vm/vmtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestSuite keeps the fake honest: it stands for the real engines.
func TestSuite(t *testing.T) {
	vmtest.Suite(t, func(*testing.T) (vm.Engine, *vm.Config) {
		return &vmtest.Engine{Refuse: func(c *vm.Config) error {
			if c.Memory == 0 {
				return errs.New(errs.Invalid, "no memory")
			}
			return nil
		}}, vm.NewConfig()
	})
}
