package vlan

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// anyClaim draws claims of few names and numbers, so that they meet.
func anyClaim(t *rapid.T) Claim {
	c := Claim{
		NS: rapid.SampledFrom([]string{"x", "y"}).Draw(t, "ns"), Alias: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "alias"),
		VLAN: rapid.IntRange(101, 104).Draw(t, "vlan"), Clock: rapid.Uint64Range(1, 4).Draw(t, "clock"),
		Origin: rapid.SampledFrom([]string{"h1", "h2"}).Draw(t, "origin"), Life: rapid.Uint32Range(1, 2).Draw(t, "life"),
		Deleted: rapid.Bool().Draw(t, "deleted"), Rev: rapid.Uint32Range(0, 1).Draw(t, "rev"), Min: 101, Max: 110,
	}
	if rapid.IntRange(0, 9).Draw(t, "kind") == 0 {
		c.NS, c.Alias, c.Min, c.Max = "", fmt.Sprint(c.VLAN), 0, 0
	}
	return c
}

// TestJoin: whatever the order and however often, the same claims make the same
// table and the same numbers, all different.
func TestJoin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		claims := rapid.SliceOfN(rapid.Custom(anyClaim), 1, 20).Draw(t, "claims")
		a, b := table{}, table{}
		for _, c := range claims {
			a.join(c)
		}
		again := rapid.SliceOfN(rapid.SampledFrom(claims), 0, 20).Draw(t, "again")
		for _, c := range append(rapid.Permutation(claims).Draw(t, "order"), again...) {
			b.join(c)
		}
		if diff := cmp.Diff(a, b, cmp.AllowUnexported(key{})); diff != "" {
			t.Fatalf("tables differ: %s", diff)
		}
		na, ra := a.assign()
		nb, rb := b.assign()
		if !maps.Equal(na, nb) || !maps.Equal(ra, rb) {
			t.Fatalf("numbers differ: %v %v, %v %v", na, ra, nb, rb)
		}
		unique(t, na)
		for k, c := range a {
			if _, ok := na[k]; ok == (c.Deleted || c.reserves()) {
				t.Fatalf("%s: number %t, %+v", k, ok, c)
			}
		}
	})
}

type failer interface{ Fatalf(string, ...any) }

func unique(t failer, numbers map[key]int) {
	seen := map[int]key{}
	for k, n := range numbers {
		if o, ok := seen[n]; ok {
			t.Fatalf("VLAN %d belongs to %s and %s", n, k, o)
		}
		seen[n] = k
	}
}

// TestMergeKeepsTheEarliest says in single cases what counts.
func TestMergeKeepsTheEarliest(t *testing.T) {
	claim := func(alias string, vlan int, clock uint64, origin string) Claim {
		return Claim{NS: "x", Alias: alias, VLAN: vlan, Clock: clock, Origin: origin, Life: 1, Min: 101, Max: 4096}
	}
	dead := claim("a", 101, 9, "h1")
	dead.Deleted = true
	second := claim("a", 140, 10, "h1")
	second.Life = 2
	for name, c := range map[string]struct {
		in   []Claim
		want map[string]int
	}{
		"one alias, two numbers":         {[]Claim{claim("a", 102, 2, "h1"), claim("a", 105, 1, "h2")}, map[string]int{"a": 105}},
		"two aliases, one number":        {[]Claim{claim("a", 101, 2, "h1"), claim("b", 101, 1, "h2"), claim("c", 102, 1, "h2")}, map[string]int{"b": 101, "c": 102, "a": 103}},
		"at the same moment":             {[]Claim{claim("a", 101, 1, "h2"), claim("b", 101, 1, "h1")}, map[string]int{"b": 101, "a": 102}},
		"a deletion beats what it ended": {[]Claim{dead, claim("a", 101, 1, "h1")}, map[string]int{}},
		"a new life beats a deletion":    {[]Claim{second, dead, claim("a", 101, 1, "h1")}, map[string]int{"a": 140}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newTest(t)
			if _, err := r.Merge(c.in); err != nil {
				t.Fatal(err)
			}
			got := map[string]int{}
			for _, a := range r.List("x") {
				got[a.Alias] = a.VLAN
			}
			if !maps.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func newTest(t testing.TB) *Registry {
	r := New("", slog.New(slog.DiscardHandler))
	t.Cleanup(func() { r.Close() })
	return r
}

// TestHeal: hosts that do anything while they are cut off at random agree after
// the split has healed.
func TestHeal(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := newCluster(t, rapid.IntRange(2, 4).Draw(rt, "hosts"))
		host := rapid.IntRange(0, len(c.hosts)-1)
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			i := host.Draw(rt, "host")
			r := c.hosts[i]
			ns, alias := rapid.SampledFrom([]string{"x", "y"}).Draw(rt, "ns"), rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(rt, "alias")
			n := rapid.IntRange(101, 106).Draw(rt, "vlan")
			switch rapid.IntRange(0, 9).Draw(rt, "what") {
			case 0, 1, 2, 3:
				if _, _, err := r.Resolve(ns, alias); err != nil {
					rt.Fatalf("%v", err)
				}
			case 4:
				_ = r.Add(ns, alias, n) // refused when in use
			case 5:
				_ = r.Blacklist(n)
			case 6:
				r.Clear(ns, rapid.SampledFrom([]string{"a", "", "all"}).Draw(rt, "prefix"))
			case 7:
				r.DeleteNamespace(ns)
			case 8:
				c.cut(i, host.Draw(rt, "other"), rapid.Bool().Draw(rt, "apart"))
			case 9:
				c.mu.Lock()
				c.lossy[i] = rapid.Bool().Draw(rt, "lossy")
				c.mu.Unlock()
			}
			unique(rt, r.numbers)
		}
		if rounds := c.heal(); rounds > 2*len(c.hosts) {
			rt.Fatalf("healing took %d rounds", rounds)
		}
		c.agree(rt)
	})
}

// TestAtTheSameMoment: hosts that allocate at once, together, use different
// numbers from the start, and one number for one alias.
func TestAtTheSameMoment(t *testing.T) {
	c := newCluster(t, 4)
	got := make([]map[string]int, len(c.hosts))
	var wg sync.WaitGroup
	for i, r := range c.hosts {
		got[i] = map[string]int{}
		wg.Go(func() {
			for j := range 50 {
				for _, alias := range []string{fmt.Sprint("own", i, "-", j), fmt.Sprint("common", j)} {
					n, _, err := r.Resolve("x", alias)
					if err != nil {
						t.Error(err)
					}
					got[i][alias] = n
				}
			}
		})
	}
	wg.Wait()
	c.heal()
	c.agree(t)
	stale := 0
	for i, r := range c.hosts {
		for alias, n := range got[i] {
			if now, err := r.Lookup("x", alias); err != nil || now != n {
				stale++
			}
		}
	}
	t.Logf("%d of %d answers were changed later, with a renumbering", stale, 4*100)
	c.mu.Lock()
	defer c.mu.Unlock()
	if stale > 0 && len(c.moved) == 0 {
		t.Errorf("%d numbers changed without a word", stale)
	}
}

// TestSplit: two halves allocate apart; after healing one alias has moved, the
// hook was told, and everybody says the same.
func TestSplit(t *testing.T) {
	c := newCluster(t, 2)
	a, b := c.hosts[0], c.hosts[1]
	common := resolve(t, a, "x", "common")
	if n := resolve(t, b, "x", "common"); n != common {
		t.Fatalf("common is %d and %d", common, n)
	}
	a.Clear("x", "common")
	c.cut(0, 1, true)
	na := resolve(t, a, "x", "left")
	if err := b.Add("x", "right", na); err != nil {
		t.Fatal(err)
	}
	if err := a.Blacklist(na + 1); err != nil {
		t.Fatal(err)
	}
	c.heal()
	c.agree(t)
	if err := a.Close(); err != nil { // waits for the hooks
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if len(c.moved) != 1 {
		t.Fatalf("moved: %v", c.moved)
	}
	m := c.moved[0]
	if now, _ := a.Lookup("x", m.Alias); m.NS != "x" || m.Old != na || m.New != now || now == na+1 || now == na {
		t.Errorf("moved %+v, and it is %d", m, now)
	}
	if _, err := b.Lookup("x", "common"); err == nil {
		t.Error("a deleted alias came back")
	}
}

func TestSilentPeers(t *testing.T) {
	r := newTest(t)
	r.SetPeers(slow{})
	start := time.Now()
	if n := resolve(t, r, "x", "a"); n != 101 {
		t.Errorf("a is %d", n)
	}
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("an allocation without answers took %v", took)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if n, _, err := r.ResolveContext(ctx, "x", "b"); n != 102 || err != nil {
		t.Errorf("b is %d, %v", n, err)
	}
}

// TestHostilePeer: what no host would say is refused and changes nothing.
func TestHostilePeer(t *testing.T) {
	good := Claim{NS: "x", Alias: "a", VLAN: 101, Clock: 1, Origin: "h", Life: 1, Min: 101, Max: 4096}
	for name, spoil := range map[string]func(*Claim){
		"number":      func(c *Claim) { c.VLAN = 4096 },
		"negative":    func(c *Claim) { c.VLAN = -1 },
		"no clock":    func(c *Claim) { c.Clock = 0 },
		"late clock":  func(c *Claim) { c.Clock = 1<<64 - 1 },
		"life":        func(c *Claim) { c.Life = 0 },
		"range":       func(c *Claim) { c.Max = 1 << 20 },
		"name":        func(c *Claim) { c.Alias = "a\nb" },
		"two names":   func(c *Claim) { c.Alias = "y//b" },
		"namespace":   func(c *Claim) { c.NS = "x//y" },
		"a number":    func(c *Claim) { c.Alias = "12" },
		"reservation": func(c *Claim) { c.NS, c.Alias = "", "102" },
		"origin":      func(c *Claim) { c.Origin = "\x00" },
	} {
		t.Run(name, func(t *testing.T) {
			r := newTest(t)
			bad := good
			spoil(&bad)
			if _, err := r.Answer(bad); err == nil {
				t.Error("it was taken")
			}
			if len(r.Claims()) != 0 {
				t.Errorf("it left %v", r.Claims())
			}
		})
	}
	r := newTest(t)
	flood := make([]Claim, MaxClaims+1)
	for i := range flood {
		flood[i] = good
		flood[i].Alias = fmt.Sprint("n", i)
	}
	if _, err := r.Merge(flood); err == nil || len(r.Claims()) != 0 {
		t.Errorf("a flood was taken: %v", err)
	}
	for i := range 3 {
		_, err := r.Merge(flood[i*len(flood)/3 : (i+1)*len(flood)/3])
		if full := i == 2; (err != nil) != full {
			t.Errorf("part %d: %v", i, err)
		}
	}
	if got := len(r.List("x")); got != Max-1 {
		t.Errorf("%d aliases have a number", got)
	}
	resolveFails(t, r)
}

func resolveFails(t *testing.T, r *Registry) {
	t.Helper()
	if n, _, err := r.Resolve("y", "one more"); err == nil {
		t.Errorf("number %d is given although all are in use", n)
	}
}

// TestTombstones: there are never more than the bound, and an alias whose
// deletion was forgotten can live again among those who remember it.
func TestTombstones(t *testing.T) {
	c := newCluster(t, 2)
	r := c.hosts[0]
	resolve(t, r, "x", "first")
	r.Clear("x", "first")
	c.cut(0, 1, true) // the other one remembers the first
	for batch := range 9 {
		for i := range MaxTombstones / 8 {
			resolve(t, r, "x", fmt.Sprint("n", batch, "-", i))
		}
		r.Clear("x", "n")
	}
	if n := len(r.Claims()); n != MaxTombstones {
		t.Errorf("%d claims are kept", n)
	}
	c.heal()
	n := resolve(t, r, "x", "first")
	c.heal()
	if m, err := c.hosts[1].Lookup("x", "first"); err != nil || m != n {
		t.Errorf("first is %d here and %d there, %v", n, m, err)
	}
}

// TestAdoptClaims: a registry that was killed goes on with what it had agreed
// on, deletions too.
func TestAdoptClaims(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vlans")
	log := slog.New(slog.DiscardHandler)
	other := newTest(t)
	resolve(t, other, "y", "theirs")
	r := New(path, log)
	resolve(t, r, "x", "ours")
	resolve(t, r, "x", `odd},{"ns"`)
	resolve(t, r, "x", "gone")
	if _, err := r.Merge(other.Claims()); err != nil {
		t.Fatal(err)
	}
	r.Clear("x", "gone")
	later := New(path, log)
	if adopted, err := later.Adopt(); !adopted || err != nil {
		t.Fatal(adopted, err)
	}
	if diff := cmp.Diff(r.Claims(), later.Claims()); diff != "" {
		t.Errorf("claims differ: %s", diff)
	}
	if diff := cmp.Diff(string(r.Text()), string(later.Text())); diff != "" {
		t.Errorf("texts differ: %s", diff)
	}
	for _, r := range []*Registry{r, later} {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestAlone: a host that nobody ever spoke to remembers no deletions.
func TestAlone(t *testing.T) {
	r := newTest(t)
	for range 10 {
		resolve(t, r, "x", "a")
		r.DeleteNamespace("x")
	}
	if len(r.claims) != 0 {
		t.Errorf("%v is left", r.claims)
	}
}

func FuzzMerge(f *testing.F) {
	f.Add([]byte(`[{"ns":"x","alias":"a","vlan":101,"clock":1,"origin":"h","life":1,"min":101,"max":4096}]`))
	f.Add([]byte(`[{"alias":"7","vlan":7,"clock":1,"origin":"h","life":1},{"ns":"y","alias":"a","vlan":7,"clock":2,"origin":"h","life":1}]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var claims []Claim
		if json.Unmarshal(data, &claims) != nil {
			return
		}
		r := New("", slog.New(slog.DiscardHandler))
		defer r.Close()
		_, _ = r.Merge(claims)
		unique(t, r.numbers)
		again := New("", slog.New(slog.DiscardHandler))
		defer again.Close()
		if _, err := again.Merge(r.Claims()); err != nil || !maps.Equal(again.numbers, r.numbers) {
			t.Fatalf("%v: %v and %v", err, r.numbers, again.numbers)
		}
	})
}
