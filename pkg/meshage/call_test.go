package meshage_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"minimega/pkg/meshage"
	"minimega/pkg/meshage/membership"
)

func echo(_ context.Context, from string, b []byte) ([]byte, error) {
	return append([]byte(from+" said "), b...), nil
}

// line makes nodes of which each knows the next only.
func line(t *testing.T, count int) []*meshage.Node {
	t.Helper()
	network, key := meshage.NewMemory(), testKey(t)
	address := func(i int) string { return fmt.Sprintf("10.1.0.%d", i+1) }
	for i := range count {
		for j := range i - 1 {
			network.Cut(address(i), address(j), true)
		}
	}
	nodes := make([]*meshage.Node, count)
	for i := range nodes {
		nodes[i] = start(t, meshage.Options{Name: fmt.Sprintf("l%d", i), Context: "line", Port: 9000, Key: key, Transport: network.Host(address(i))})
		if i > 0 {
			if err := nodes[i].Dial(t.Context(), address(i-1)+":9000"); err != nil {
				t.Fatal(err)
			}
		}
	}
	converged(t, nodes)
	return nodes
}

func TestCallOverALine(t *testing.T) {
	nodes := line(t, 5)
	for _, n := range nodes {
		n.Respond("echo", echo)
	}
	for _, from := range nodes {
		for _, to := range nodes {
			got, err := from.Call(t.Context(), to.Name(), "echo", []byte("hi"))
			if want := from.Name() + " said hi"; err != nil || string(got) != want {
				t.Errorf("%s to %s: %q, %v", from.Name(), to.Name(), got, err)
			}
		}
	}
	if s := nodes[0].Status(); s.Size != 5 || s.Peers != 1 {
		t.Errorf("status %+v", s)
	}
	if g := nodes[4].Graph(); fmt.Sprint(g) != "map[l0:[l1] l1:[l0 l2] l2:[l1 l3] l3:[l2 l4] l4:[l3]]" {
		t.Errorf("graph %v", g)
	}
}

func TestCallErrors(t *testing.T) {
	nodes, _ := cluster(t, 3)
	converged(t, nodes)
	nodes[1].Respond("fail", func(context.Context, string, []byte) ([]byte, error) { return nil, errors.New("out of coffee") })
	for _, to := range []string{"n0", "n1"} {
		_, err := nodes[0].Call(t.Context(), to, "nothing", nil)
		if !errors.Is(err, meshage.ErrProtocol) || !strings.Contains(err.Error(), to+": does not answer nothing") {
			t.Errorf("no responder at %s: %v", to, err)
		}
		if _, err = nodes[0].Open(t.Context(), to, "nothing"); !errors.Is(err, meshage.ErrProtocol) || !strings.Contains(err.Error(), to+": does not serve nothing") {
			t.Errorf("no handler at %s: %v", to, err)
		}
	}
	if _, err := nodes[0].Call(t.Context(), "n1", "fail", nil); err == nil || !strings.Contains(err.Error(), "n1: out of coffee") {
		t.Errorf("failing responder: %v", err)
	}
	_, err := nodes[0].Call(t.Context(), "n7", "fail", nil)
	if !errors.Is(err, meshage.ErrUnknown) || !strings.Contains(err.Error(), "did you mean n0, n1, n2?") {
		t.Errorf("unknown: %v", err)
	}
	big := make([]byte, meshage.MaxMessage+1)
	if _, err := nodes[0].Call(t.Context(), "n1", "fail", big); !errors.Is(err, meshage.ErrTooLarge) {
		t.Errorf("too large a request: %v", err)
	}
	nodes[1].Respond("big", func(context.Context, string, []byte) ([]byte, error) { return big, nil })
	if _, err := nodes[0].Call(t.Context(), "n1", "big", nil); !errors.Is(err, meshage.ErrTooLarge) {
		t.Errorf("too large a reply: %v", err)
	}
	if err := nodes[0].Broadcast(t.Context(), "big", big); !errors.Is(err, meshage.ErrTooLarge) {
		t.Errorf("too large a broadcast: %v", err)
	}
}

func TestCallAll(t *testing.T) {
	nodes, _ := cluster(t, 5)
	converged(t, nodes)
	var to []string
	for _, n := range nodes {
		n.Respond("echo", echo)
		to = append(to, n.Name())
	}
	to = append(to, "nobody")
	got := map[string]string{}
	for r := range nodes[2].CallAll(t.Context(), to, "echo", []byte("x")) {
		if got[r.From] != "" {
			t.Errorf("two replies from %s", r.From)
		}
		got[r.From] = string(r.Payload)
		if (r.Err != nil) != (r.From == "nobody") {
			t.Errorf("%s: %v", r.From, r.Err)
		}
	}
	if len(got) != len(to) {
		t.Errorf("%d replies for %d", len(got), len(to))
	}
}

func TestCallAllTimeout(t *testing.T) {
	nodes, _ := cluster(t, 2)
	converged(t, nodes)
	nodes[1].Respond("wait", func(ctx context.Context, _ string, _ []byte) ([]byte, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	for r := range nodes[0].CallAll(ctx, []string{"n1"}, "wait", nil) {
		if !errors.Is(r.Err, context.DeadlineExceeded) {
			t.Errorf("%v", r.Err)
		}
	}
}

// A stream carries what it is given, over every number of nodes, in both
// directions, with each direction ended on its own.
func TestStreamIntegrity(t *testing.T) {
	nodes := line(t, 4)
	for _, n := range nodes {
		n.Handle("copy", func(_ context.Context, _ string, s meshage.Stream) {
			sum := sha256.New()
			if _, err := io.Copy(io.MultiWriter(sum, s), s); err == nil {
				_, _ = s.Write(sum.Sum(nil))
			}
		})
	}
	data := make([]byte, 16<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data)
	for _, to := range nodes {
		s, err := nodes[0].Open(t.Context(), to.Name(), "copy")
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := s.Write(data); err != nil {
				t.Error(err)
			}
			if err := s.CloseWrite(); err != nil {
				t.Error(err)
			}
		})
		got, err := io.ReadAll(s)
		wg.Wait()
		sum := sha256.Sum256(data)
		if err != nil || !bytes.Equal(got, append(append([]byte(nil), data...), sum[:]...)) {
			t.Errorf("to %s: %d bytes, %v", to.Name(), len(got), err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestResetIsSeen(t *testing.T) {
	nodes := line(t, 3)
	for _, to := range nodes {
		seen := make(chan error, 1)
		to.Handle("reset", func(_ context.Context, _ string, s meshage.Stream) {
			_, err := io.Copy(io.Discard, s)
			seen <- err
		})
		s, err := nodes[0].Open(t.Context(), to.Name(), "reset")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Reset(); err != nil {
			t.Error(err)
		}
		select {
		case err := <-seen:
			if err == nil {
				t.Errorf("%s saw a clean end", to.Name())
			}
		case <-time.After(patience):
			t.Errorf("%s saw nothing", to.Name())
		}
	}
}

func TestBroadcastReachesAll(t *testing.T) {
	nodes := line(t, 5)
	var got [5]atomic.Int64
	var first [5]atomic.Bool
	for i, n := range nodes {
		n.Subscribe("news", func(from string, b []byte) {
			if from == "l0" && string(b) == "hello" {
				got[i].Add(1)
			}
			if string(b) == "first" {
				first[i].Store(true)
			}
		})
	}
	await(t, "one broadcast reaches all", func() bool {
		if err := nodes[0].Broadcast(t.Context(), "news", []byte("first")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
		return first[4].Load()
	})
	for range 20 {
		if err := nodes[0].Broadcast(t.Context(), "news", []byte("hello")); err != nil {
			t.Fatal(err)
		}
	}
	for i := 1; i < 5; i++ {
		await(t, fmt.Sprintf("20 broadcasts at l%d", i), func() bool { return got[i].Load() == 20 })
	}
	if got[0].Load() != 0 {
		t.Error("the sender heard itself")
	}
}

// lateness measures by how much this process has been woken too late at worst:
// what a busy machine adds to every time-out.
func lateness(t *testing.T) func() time.Duration {
	var worst atomic.Int64
	done := make(chan struct{})
	t.Cleanup(func() { close(done) })
	go func() {
		const step = 10 * time.Millisecond
		for last := time.Now(); ; {
			select {
			case <-done:
				return
			case <-time.After(step):
			}
			now := time.Now()
			worst.Store(max(worst.Load(), int64(now.Sub(last)-step)))
			last = now
		}
	}()
	return func() time.Duration { return time.Duration(worst.Load()) }
}

// A member that dies says nothing: its cable is cut.
func TestDeathEndsCalls(t *testing.T) {
	late := lateness(t)
	nodes, network := cluster(t, 4)
	converged(t, nodes)
	entered := make(chan struct{}, 2)
	wait := func(ctx context.Context, _ string, _ []byte) ([]byte, error) {
		entered <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	nodes[3].Respond("wait", wait)
	nodes[3].Handle("stay", func(ctx context.Context, _ string, s meshage.Stream) { <-ctx.Done() })
	s, err := nodes[1].Open(t.Context(), "n3", "stay")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	failed := make(chan error, 2)
	go func() { _, err := nodes[0].Call(t.Context(), "n3", "wait", nil); failed <- err }()
	go func() { _, err := s.Read(make([]byte, 1)); failed <- err }()
	<-entered
	left := make(chan struct{})
	var once sync.Once
	stop := nodes[0].Watch(func(e meshage.Event) {
		if e.Left && e.Member.Name == "n3" {
			once.Do(func() { close(left) })
		}
	})
	defer stop()
	began := time.Now()
	for i := range 3 {
		network.Cut("10.0.0.4", fmt.Sprintf("10.0.0.%d", i+1), true)
	}
	for range 2 {
		select {
		case err := <-failed:
			if !errors.Is(err, meshage.ErrLeft) {
				t.Errorf("ended with %v", err)
			}
			t.Logf("after %v: %v", time.Since(began), err)
		case <-time.After(patience):
			t.Fatal("still waiting for a dead node")
		}
	}
	// Where messages are late, membership is more patient.
	if took := time.Since(began); took > 3*time.Second && late() < 20*time.Millisecond {
		t.Errorf("took %v, on a machine that is late by %v", took, late())
	}
	<-left
	for _, n := range nodes[:3] {
		await(t, n.Name()+" misses n3", func() bool { return len(n.Members()) == 3 })
	}
	if _, err := nodes[0].Call(t.Context(), "n3", "wait", nil); !errors.Is(err, meshage.ErrLeft) {
		t.Errorf("a new call: %v", err)
	}
}

func TestCloseIsSeenAtOnce(t *testing.T) {
	network, key := meshage.NewMemory(), testKey(t)
	a := start(t, meshage.Options{Name: "a", Port: 9000, Degree: membership.DegreeAuto, Key: key, Transport: network.Host("10.2.0.1")})
	b, err := meshage.New(t.Context(), meshage.Options{Name: "b", Port: 9000, Degree: membership.DegreeAuto, Key: key, Transport: network.Host("10.2.0.2")})
	if err != nil {
		t.Fatal(err)
	}
	await(t, "a knows b", func() bool { return len(a.Members()) == 2 })
	began := time.Now()
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	await(t, "a misses b", func() bool { return len(a.Members()) == 1 })
	t.Logf("close and news of it: %v", time.Since(began))
	if _, err := b.Call(t.Context(), "a", "x", nil); !errors.Is(err, meshage.ErrClosed) {
		t.Errorf("call on a closed node: %v", err)
	}
}
