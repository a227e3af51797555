package meshage_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"minimega/pkg/meshage"
	"minimega/pkg/meshage/membership"
)

func TestAmbiguousName(t *testing.T) {
	network, key := meshage.NewMemory(), testKey(t)
	var nodes []*meshage.Node
	for i, name := range []string{"a", "twin", "twin"} {
		nodes = append(nodes, start(t, meshage.Options{Name: name, Port: 9000, Degree: membership.DegreeAuto, Key: key,
			Transport: network.Host(fmt.Sprintf("10.3.0.%d", i+1))}))
	}
	converged(t, nodes)
	_, err := nodes[0].Call(t.Context(), "twin", "x", nil)
	if !errors.Is(err, meshage.ErrAmbiguous) || !strings.Contains(err.Error(), "10.3.0.2:9000 and 10.3.0.3:9000") {
		t.Errorf("call: %v", err)
	}
	nodes[0].Respond("echo", echo)
	if _, err := nodes[1].Call(t.Context(), "a", "echo", nil); err != nil {
		t.Errorf("the others are not concerned: %v", err)
	}
	_ = nodes[2].Close()
	nodes[1].Respond("echo", echo)
	await(t, "one of them is left", func() bool { return len(nodes[0].Members()) == 2 })
	if _, err := nodes[0].Call(t.Context(), "twin", "echo", nil); err != nil {
		t.Error(err)
	}
}

// A node that dies without a word and starts again is itself, at once.
func TestRestartKeepsIdentity(t *testing.T) {
	network, key := meshage.NewMemory(), testKey(t)
	file := filepath.Join(t.TempDir(), "identity")
	options := func(name, ip string) meshage.Options {
		return meshage.Options{Name: name, Port: 9000, Degree: membership.DegreeAuto, Key: key, Transport: network.Host(ip)}
	}
	a := start(t, options("a", "10.4.0.1"))
	o := options("b", "10.4.0.2")
	o.IdentityFile = file
	b, err := meshage.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	await(t, "a knows b", func() bool { return len(a.Members()) == 2 })
	var mu sync.Mutex
	var events []string
	defer a.Watch(func(e meshage.Event) {
		mu.Lock()
		defer mu.Unlock()
		events = append(events, fmt.Sprint(e.Member.Name, " ", e.Left))
	})()
	network.Cut("10.4.0.1", "10.4.0.2", true)
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	network.Cut("10.4.0.1", "10.4.0.2", false)
	o.Transport = network.Host("10.4.0.2")
	again := start(t, o)
	if again.ID() != b.ID() {
		t.Error("it has become another node")
	}
	again.Respond("echo", echo)
	await(t, "a sees b leave and join", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return slices.Equal(events[max(0, len(events)-2):], []string{"b true", "b false"})
	})
	// For a moment a goes by what the dead b said of its links, then by b's own news.
	await(t, "b answers", func() bool {
		_, err := a.Call(t.Context(), "b", "echo", nil)
		return err == nil
	})
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("identity file: %v, %v", info.Mode(), err)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := meshage.New(t.Context(), o); err == nil || !strings.Contains(err.Error(), "may be read by others") {
		t.Errorf("an identity that others may read: %v", err)
	}
}

func TestHangup(t *testing.T) {
	nodes := line(t, 3)
	if err := nodes[0].Hangup("l2"); err == nil || !strings.Contains(err.Error(), "no link to l2") {
		t.Errorf("hang up on a member without a link: %v", err)
	}
	if err := nodes[2].Hangup("l1"); err != nil {
		t.Fatal(err)
	}
	await(t, "l2 is alone", func() bool { return len(nodes[2].Members()) == 1 && len(nodes[0].Members()) == 2 })
	time.Sleep(time.Second)
	if len(nodes[2].Members()) != 1 {
		t.Error("it came back by itself")
	}
	if err := nodes[2].Dial(t.Context(), "10.1.0.2"); err != nil {
		t.Fatal(err)
	}
	converged(t, nodes)
	if got := nodes[1].Peers(); !slices.Equal(got, []string{"l0", "l2"}) {
		t.Errorf("peers of l1: %v", got)
	}
}

// Two clusters that one link joins are one mesh, though most of their hosts
// cannot dial each other.
func TestClustersJoinedByOneLink(t *testing.T) {
	network, key := meshage.NewMemory(), testKey(t)
	address := func(i int) string { return fmt.Sprintf("10.5.%d.%d", i%2, i/2+1) }
	for i := range 6 {
		for j := range 6 {
			if i%2 != j%2 && (i > 1 || j > 1) {
				network.Cut(address(i), address(j), true)
			}
		}
	}
	var nodes []*meshage.Node
	for i := range 6 {
		nodes = append(nodes, start(t, meshage.Options{Name: fmt.Sprintf("n%d", i), Context: "x", Port: 9000 + i%2,
			Degree: membership.DegreeAuto, Key: key, Transport: network.Host(address(i))}))
		nodes[i].Respond("echo", echo)
	}
	for i, n := range nodes {
		side := func() bool {
			for j := i % 2; j < 6; j += 2 {
				if !slices.Contains(names(n), fmt.Sprintf("n%d", j)) {
					return false
				}
			}
			return true
		}
		await(t, "its own side", side)
	}
	if err := nodes[0].Dial(t.Context(), address(1)+":9001"); err != nil {
		t.Fatal(err)
	}
	converged(t, nodes)
	for i, n := range nodes {
		if got, err := n.Call(t.Context(), fmt.Sprintf("n%d", 5-i), "echo", []byte("hi")); err != nil || string(got) != n.Name()+" said hi" {
			t.Errorf("n%d to n%d: %q, %v", i, 5-i, got, err)
		}
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	before := goleak.IgnoreCurrent()
	network, key := meshage.NewMemory(), testKey(t)
	var nodes []*meshage.Node
	for i := range 3 {
		n, err := meshage.New(context.Background(), meshage.Options{Name: fmt.Sprint(i), Port: 9000, Degree: membership.DegreeAuto, Key: key,
			Transport: network.Host(fmt.Sprintf("10.6.0.%d", i+1))})
		if err != nil {
			t.Fatal(err)
		}
		n.Handle("hold", func(ctx context.Context, _ string, _ meshage.Stream) { <-ctx.Done() })
		n.Respond("hold", func(ctx context.Context, _ string, _ []byte) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() })
		nodes = append(nodes, n)
	}
	converged(t, nodes)
	for _, to := range []string{"0", "1", "2"} {
		if _, err := nodes[0].Open(context.Background(), to, "hold"); err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = nodes[1].Call(context.Background(), to, "hold", nil) }()
	}
	nodes[0].Watch(func(meshage.Event) {})
	for _, n := range nodes {
		began := time.Now()
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > patience {
			t.Errorf("closing took %v", took)
		}
	}
	goleak.VerifyNone(t, before)
}

func TestFailedStartLeavesNothing(t *testing.T) {
	before := goleak.IgnoreCurrent()
	network := meshage.NewMemory()
	host := network.Host("10.7.0.1")
	a := start(t, meshage.Options{Name: "a", Port: 9000, Transport: host})
	if _, err := meshage.New(t.Context(), meshage.Options{Name: "b", Port: 9000, Transport: host}); err == nil || !strings.Contains(err.Error(), "choose one with -port") {
		t.Errorf("a taken port: %v", err)
	}
	if _, err := meshage.New(t.Context(), meshage.Options{Name: strings.Repeat("x", 300), Transport: host}); err == nil {
		t.Error("a name of 300 bytes")
	}
	_ = a.Close()
	goleak.VerifyNone(t, before)
}

// A start must not be felt: it waits for nothing.
func TestStartIsQuick(t *testing.T) {
	key := testKey(t)
	best := time.Hour
	for range 5 {
		began := time.Now()
		n, err := meshage.New(t.Context(), meshage.Options{Name: "a", Key: key, Transport: quiet{}})
		best = min(best, time.Since(began))
		if err != nil {
			t.Fatal(err)
		}
		_ = n.Close()
	}
	t.Logf("start: %v", best)
	if best > time.Second {
		t.Errorf("a start takes %v", best)
	}
}
