// Package version says which minimega this is.
package version

import "fmt"

// Set by the linker (see Makefile); the defaults serve `go run` and `go test`.
var (
	Version  = "4.0.0"
	Revision = "unknown"
	Date     = "unknown"
)

// String is `<version> <revision> <date>`, as `version` and `-version` print it
// after the program's name.
func String() string { return fmt.Sprintf("%s %s %s", Version, Revision, Date) }
