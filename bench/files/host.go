package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"minimega/pkg/iomeshage"
	"minimega/pkg/meshage"
	"minimega/pkg/meshage/membership"
)

const (
	meshPort = 9000
	failed   = "failed: " // begins the answer of a command that has
)

// serve is one host: it obeys the lines on its standard input until that ends.
func serve(args []string) (err error) {
	host, dir := args[0], args[1]
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	open := args[2] != "key"
	options := meshage.Options{Name: host, Context: "bench", Port: meshPort, Degree: membership.DegreeNone, Open: open, Log: log}
	if !open {
		if options.Key, err = meshage.LoadKey(args[3]); err != nil {
			return err
		}
	}
	ctx := context.Background()
	node, err := meshage.New(ctx, options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, node.Close()) }()
	for _, a := range args[4:] {
		if err := dial(ctx, node, netip.AddrPortFrom(netip.MustParseAddr(a), meshPort)); err != nil {
			return err
		}
	}
	limit := int64(0)
	if args[2] == slow && len(args) == 4 { // the first, which has nobody to dial
		limit = rate
	}
	files, err := iomeshage.New(iomeshage.Options{Root: dir, Plain: open, Log: log, Rate: limit})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, files.Close()) }()
	files.Join(node)
	peers, err := servePeers(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, peers.Close()) }()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		verb, rest, _ := strings.Cut(in.Text(), " ")
		if err := obey(ctx, node, files, dir, verb, rest); err != nil {
			fmt.Println(failed + strings.ReplaceAll(err.Error(), "\n", "; "))
			continue
		}
		fmt.Println("ok")
	}
	return nil
}

// dial waits for the other host to be up.
func dial(ctx context.Context, node *meshage.Node, to netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		err := node.Dial(ctx, to.String())
		if err == nil || ctx.Err() != nil {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func obey(ctx context.Context, node *meshage.Node, files *iomeshage.Service, dir, verb, rest string) error {
	switch verb {
	case "members":
		n, err := strconv.Atoi(rest)
		if err != nil {
			return err
		}
		for began := time.Now(); len(node.Members()) < n; time.Sleep(10 * time.Millisecond) {
			if time.Since(began) > 20*time.Second {
				return fmt.Errorf("%d of %d hosts are there", len(node.Members()), n)
			}
		}
		return nil
	case "cpu":
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			return err
		}
		fmt.Println(u.Utime.Nano() + u.Stime.Nano())
		return nil
	case "get":
		return files.Get(ctx, rest)
	case "bare":
		return bareCopy(rest, filepath.Join(dir, name))
	case "tls":
		return tlsCopy(rest, filepath.Join(dir, name))
	}
	return fmt.Errorf("what is %q?", verb)
}
