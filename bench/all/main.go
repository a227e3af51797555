// Command all runs every benchmark, one after the other.
package main

import (
	"fmt"
	"os"
	"os/exec"

	"minimega/bench/figure"
)

// benchmarks lists the programs beside this one, quick ones first.
var benchmarks = []string{"socket", "info", "schedule", "launch", "container", "adopt", "save", "rfbplay", "capture", "meshsim", "hosts", "cluster"}

func main() {
	figure.Main(func() error {
		for _, b := range benchmarks {
			cmd := exec.Command("go", "run", "./bench/"+b)
			cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
			if err := cmd.Run(); err != nil {
				return fmt.Errorf("bench/%s: %w", b, err)
			}
		}
		return nil
	})
}
