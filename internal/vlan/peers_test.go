package vlan

import (
	"testing"

	"minimega/internal/errs"
)

// TestReservedElsewhere: a number that somebody uses as such on another host is
// given to no alias, also when this host has not heard of it.
func TestReservedElsewhere(t *testing.T) {
	c := newCluster(t, 2)
	a, b := c.hosts[0], c.hosts[1]
	c.lossy[1] = true
	resolve(t, b, "x", "101")
	if n := resolve(t, a, "x", "a"); n != 102 {
		t.Errorf("a is %d", n)
	}
	c.heal()
	c.agree(t)
	if n, err := b.Lookup("x", "a"); n != 102 || err != nil {
		t.Errorf("a is %d there, %v", n, err)
	}
}

// TestLaterDeletions: others remember that an alias was deleted more often than
// this host knows; it is allocated all the same.
func TestLaterDeletions(t *testing.T) {
	c := newCluster(t, 2)
	a, b := c.hosts[0], c.hosts[1]
	c.lossy[1] = true
	b.shared = true // with a third host, say
	c.cut(0, 1, true)
	for range 5 {
		resolve(t, b, "x", "a")
		b.DeleteNamespace("x")
	}
	c.cut(0, 1, false)
	n := resolve(t, a, "x", "a")
	c.heal()
	c.agree(t)
	if m, err := b.Lookup("x", "a"); err != nil || m != n {
		t.Errorf("a is %d here and %d there, %v", n, m, err)
	}
}

// TestAddElsewhere: what another host has already is refused as if it were here,
// where the clocks of the two tell what was first.
func TestAddElsewhere(t *testing.T) {
	c := newCluster(t, 2)
	a, b := c.hosts[0], c.hosts[1]
	c.lossy[1] = true
	c.cut(0, 1, true)
	resolve(t, a, "y", "later") // of two claims with one time either may win
	if err := b.Add("x", "theirs", 300); err != nil {
		t.Fatal(err)
	}
	c.cut(0, 1, false)
	wantErr(t, a.Add("x", "theirs", 301), errs.Exists, "alias already in use")
	c.heal()
	c.agree(t)
	if n, err := a.Lookup("x", "theirs"); n != 300 || err != nil {
		t.Errorf("theirs is %d, %v", n, err)
	}
	c.cut(0, 1, true)
	resolve(t, a, "y", "later still")
	if err := b.Add("x", "fourth", 304); err != nil {
		t.Fatal(err)
	}
	c.cut(0, 1, false)
	wantErr(t, a.Add("x", "ours", 304), errs.Exists, "vlan already in use")
	if _, err := a.Lookup("x", "ours"); err == nil {
		t.Error("a refused alias is there")
	}
	c.heal()
	c.agree(t)
}
