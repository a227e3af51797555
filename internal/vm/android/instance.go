package android

import (
	"path/filepath"
	"slices"
)

// Instance returns the directory of the log on an emulator's command line.
func (e *Engine) Instance(args []string) string {
	i := slices.Index(args, "-stdouterr-file")
	if i < 0 || i+1 >= len(args) || filepath.Base(args[i+1]) != logName {
		return ""
	}
	return filepath.Dir(args[i+1])
}

// Remains knows of no way in which an emulator ends that is not ordinary: its
// log tells of much, and last of what was going on anyway.
func (e *Engine) Remains(string) error { return nil }
