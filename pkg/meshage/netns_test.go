package meshage_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"minimega/internal/host/hosttest"
	"minimega/pkg/meshage"
	"minimega/pkg/meshage/membership"
)

// inNamespaces makes two network namespaces with a cable between them, and
// returns a function that runs another in one of them.
func inNamespaces(t *testing.T) func(i int, f func() error) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can make network namespaces")
	}
	var spaces [2]netns.NsHandle
	onThread(t, func() (err error) {
		for i := range spaces {
			if spaces[i], err = netns.New(); err != nil {
				return err
			}
			t.Cleanup(func() { _ = spaces[i].Close() })
		}
		return nil
	})
	mark := fmt.Sprintf("%06x", rand.IntN(1<<24))
	onThread(t, func() error {
		if err := netns.Set(spaces[0]); err != nil {
			return err
		}
		v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "ma" + mark}, PeerName: "mb" + mark, PeerNamespace: netlink.NsFd(spaces[1])}
		if err := netlink.LinkAdd(v); err != nil {
			return err
		}
		for i, name := range []string{"ma" + mark, "mb" + mark} {
			if err := netns.Set(spaces[i]); err != nil {
				return err
			}
			if err := errors.Join(up("lo", ""), up(name, fmt.Sprintf("10.199.7.%d/24", i+1))); err != nil {
				return err
			}
		}
		return nil
	})
	return func(i int, f func() error) {
		onThread(t, func() error { return errors.Join(netns.Set(spaces[i]), f()) })
	}
}

// onThread runs f on a thread of its own, which ends with it: its namespace is
// nobody else's.
func onThread(t *testing.T, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func up(name, address string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	if address != "" {
		a, err := netlink.ParseAddr(address)
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(l, a); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(l)
}

// A node of its own process in each namespace: that is where its connections
// are made, whichever thread makes them.
func TestBeaconsOverACable(t *testing.T) {
	if os.Getenv("MESH_NODE") != "" {
		nodeProcess(t)
		return
	}
	dir := t.TempDir()
	hosttest.Machine{Marks: []string{dir}}.Check(t)
	in := inNamespaces(t)
	key := testKey(t)
	token := key.Token(nil, "cable")
	run := func(i int, name string, token string) (*exec.Cmd, *bytes.Buffer) {
		ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
		t.Cleanup(cancel)
		cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestBeaconsOverACable$", "-test.v")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "MESH_NODE="+name, "MESH_TOKEN="+token)
		out := &bytes.Buffer{}
		cmd.Stdout, cmd.Stderr = out, out
		in(i, cmd.Start)
		return cmd, out
	}
	a, outA := run(0, "alice", token)
	b, outB := run(1, "bob", token)
	errA, errB := a.Wait(), b.Wait()
	if errA != nil || errB != nil || !strings.Contains(outA.String(), "alice met bob at 10.199.7.2") || !strings.Contains(outB.String(), "bob met alice at 10.199.7.1") {
		t.Fatalf("%v, %v\n%s\n%s", errA, errB, outA, outB)
	}
	// Nodes of two keys do not hear each other.
	a, outA = run(0, "carol", token)
	b, outB = run(1, "dave", testKey(t).Token(nil, "cable"))
	errA, errB = a.Wait(), b.Wait()
	if errA != nil || errB != nil || !strings.Contains(outA.String(), "carol met nobody") || !strings.Contains(outB.String(), "dave met nobody") {
		t.Fatalf("%v, %v\n%s\n%s", errA, errB, outA, outB)
	}
}

// nodeProcess is what runs in a namespace.
func nodeProcess(t *testing.T) {
	key, _, where, err := meshage.ParseToken(os.Getenv("MESH_TOKEN"))
	if err != nil {
		t.Fatal(err)
	}
	n := start(t, meshage.Options{Name: os.Getenv("MESH_NODE"), Context: where, Port: 9000, Degree: membership.DegreeAuto, Key: key})
	met := make(chan meshage.Member, 8)
	defer n.Watch(func(e meshage.Event) {
		if !e.Left && e.Member.Name != n.Name() {
			met <- e.Member
		}
	})()
	limit := patience
	if n.Name() == "carol" || n.Name() == "dave" {
		limit = 3 * time.Second
	}
	select {
	case m := <-met:
		t.Logf("%s met %s at %s", n.Name(), m.Name, m.Address)
		n.Respond("done", func(context.Context, string, []byte) ([]byte, error) { return nil, nil })
		await(t, "the other is done", func() bool {
			_, err := n.Call(t.Context(), m.Name, "done", nil)
			return err == nil || errors.Is(err, meshage.ErrLeft) // it ends when it is done
		})
	case <-time.After(limit):
		t.Logf("%s met nobody", n.Name())
	}
}
