package kvm

import (
	"testing"

	"minimega/internal/vm"
	"minimega/internal/vm/vmtest"
)

func TestSuite(t *testing.T) {
	vmtest.Suite(t, func(t *testing.T) (vm.Engine, *vm.Config) { return newEngine(t, tcg), small() })
}
