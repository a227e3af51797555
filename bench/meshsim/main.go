// Command meshsim runs the membership protocol of 1,000 nodes in virtual time:
// the real code, over links with latency and loss. It prints how fast all know
// all, what that costs each node, and how far a broadcast comes, also after 30 %
// of the nodes were killed at once and, without loss, after a split. The same
// seed gives the same figures.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"minimega/bench/figure"
)

func main() {
	nodes := flag.Int("n", 1000, "number of nodes")
	seed := flag.Uint64("seed", 1, "of all that is left to chance")
	flag.Parse()
	// A thousand tables are much to look through, and what is under way in the
	// first second is more than they are.
	debug.SetGCPercent(200)
	debug.SetMemoryLimit(3500 << 20)
	figure.Main(func() error {
		fmt.Printf("%d nodes, links of 0.5 ms, seed %d; times are virtual, traffic is sent by a node, headers included\n", *nodes, *seed)
		for _, loss := range []float64{0, 0.1} {
			start := time.Now()
			r, err := run(*nodes, loss, *seed, loss == 0)
			if err != nil {
				return err
			}
			r.print(os.Stdout)
			fmt.Printf("    (in %v of real time)\n", time.Since(start).Round(time.Second))
		}
		return nil
	})
}
