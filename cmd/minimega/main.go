// Command minimega is the daemon that builds virtual networks, the client that
// talks to it, and the guest that runs in them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"minimega/internal/cli"
	"minimega/internal/daemon"
	"minimega/internal/demo"
	"minimega/internal/guest"
	"minimega/internal/image"
	"minimega/internal/rootless"
)

func main() {
	if guest.IsInit() {
		os.Exit(guest.Main())
	}
	os.Exit(run(os.Args[1:], cli.Stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
}

// run picks the mode and returns its exit status.
func run(args []string, std cli.Stdio) int {
	cfg, err := cli.ParseFlags(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		cli.Usage(std.Out)
		return 0
	case err != nil:
		fmt.Fprintln(std.Err, "minimega:", err)
		return 2
	case cfg.CLI:
		return daemon.Dump(std)
	}
	if status, handled := cli.RunClient(context.Background(), cfg, std); handled {
		return status
	}
	if len(cfg.Args) == 0 || cfg.Args[0] == "demo" && demo.Runs(cfg.Args[1:]) {
		if status, done := rootless.Enter(std.Out, std.Err); done {
			return status
		}
	}
	if len(cfg.Args) == 0 {
		return daemon.Run(context.Background(), cfg, std)
	}
	return tool(cfg, std)
}

// tool runs what is neither daemon nor client: a word and its own flags.
func tool(cfg cli.Config, std cli.Stdio) int {
	args := cfg.Args
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	switch args[0] {
	case "demo":
		return demo.Run(ctx, args[1:], std.Out, std.Err)
	case "guest":
		return guest.Command(ctx, args[1:], std.Out, std.Err)
	case "mesh":
		return cli.MeshCommand(cfg, args[1:], std)
	case "image":
		return image.Command(ctx, cfg.Base, args[1:], std.Out, std.Err)
	}
	fmt.Fprintf(std.Err, "minimega: there is no %q (minimega -h tells what there is; `minimega -e %s` runs a command on a daemon)\n", args[0], args[0])
	return 2
}
