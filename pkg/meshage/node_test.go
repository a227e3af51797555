package meshage_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"testing"
	"time"

	"minimega/pkg/meshage"
	"minimega/pkg/meshage/membership"
)

// testKey is one key for all tests that need one.
func testKey(t testing.TB) *meshage.Key {
	t.Helper()
	k, err := meshage.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func testLog() *slog.Logger {
	if os.Getenv("MESH_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// start makes a node that ends with the test.
func start(t testing.TB, o meshage.Options) *meshage.Node {
	t.Helper()
	if o.Log == nil {
		o.Log = testLog().With("node", o.Name)
	}
	n, err := meshage.New(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// cluster makes nodes n0, n1, ... that find each other in memory.
func cluster(t testing.TB, count int) ([]*meshage.Node, *meshage.Memory) {
	t.Helper()
	network, key := meshage.NewMemory(), testKey(t)
	nodes := make([]*meshage.Node, count)
	for i := range nodes {
		nodes[i] = start(t, meshage.Options{Name: fmt.Sprintf("n%d", i), Context: "test", Port: 9000, Degree: membership.DegreeAuto,
			Key: key, Transport: network.Host(fmt.Sprintf("10.0.%d.%d", i/250, i%250+1))})
	}
	return nodes, network
}

func names(n *meshage.Node) []string {
	var list []string
	for _, m := range n.Members() {
		list = append(list, m.Name)
	}
	return list
}

// patience is how long what comes to pass in a moment may take on a machine that
// has much else to do. How fast it should be is for the benchmarks.
const patience = 30 * time.Second

// await fails the test unless ok becomes true in time.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// converged waits until every node knows as many members as there are.
func converged(t testing.TB, nodes []*meshage.Node) {
	t.Helper()
	for _, n := range nodes {
		await(t, n.Name()+" knows all", func() bool { return len(n.Members()) == len(nodes) })
	}
}

func TestTenNodesFindEachOther(t *testing.T) {
	nodes, _ := cluster(t, 10)
	began := time.Now()
	converged(t, nodes)
	t.Logf("converged %v after the last start", time.Since(began))
	want := []string{"n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "n9"}
	for _, n := range nodes {
		if got := names(n); !slices.Equal(got, want) {
			t.Errorf("%s knows %v", n.Name(), got)
		}
	}
}
