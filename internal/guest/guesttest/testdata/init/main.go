// Command init is the built-in guest alone, for tests.
package main

import (
	"fmt"
	"os"

	"minimega/internal/guest"
)

func main() {
	if !guest.IsInit() {
		fmt.Fprintln(os.Stderr, "init: this runs as the first process of a guest only")
		os.Exit(2)
	}
	os.Exit(guest.Main())
}
