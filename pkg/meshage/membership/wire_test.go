package membership

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

var zero = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func machine(t testing.TB, change func(*Config)) *Machine {
	t.Helper()
	c := Config{Self: "self", Name: "self", Boot: 1, Start: 100, Rand: rand.New(rand.NewPCG(1, 2))}
	if change != nil {
		change(&c)
	}
	m, err := New(c, zero)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// greet brings up the link to a neighbour, with its hello.
func greet(m *Machine, now time.Time, id ID) []Action {
	m.Handle(now, LinkUp{id})
	return m.Handle(now, Message{id, hello{boot: 7, version: 1}.encode()})
}

func some(id ID, version uint64, peers ...ID) *record {
	r := &record{key: keyOf(id), version: version, boot: 7, id: id, name: string(id)}
	for _, p := range peers {
		r.peers = append(r.peers, keyOf(p))
	}
	for i := range r.peers { // few: sorted the simple way
		for j := range i {
			if r.peers[j] > r.peers[i] {
				r.peers[i], r.peers[j] = r.peers[j], r.peers[i]
			}
		}
	}
	r.seal(nil)
	return r
}

func update(records ...*record) []byte {
	b := []byte{kindUpdate}
	for _, r := range records {
		b = append(b, r.frame...)
	}
	return b
}

// dropped returns why the link to id was dropped, "" when it was not.
func dropped(actions []Action, id ID) (why string, fault bool) {
	for _, a := range actions {
		if d, ok := a.(Drop); ok && d.ID == id {
			return d.Why, d.Fault
		}
	}
	return "", false
}

func TestEdgeNeedsBothEnds(t *testing.T) {
	m := machine(t, nil)
	greet(m, zero, "b")
	now := zero.Add(time.Second)
	m.Handle(now, Message{"b", update(some("b", 1, "self"), some("c", 1, "b"))})
	m.Tick(now.Add(time.Second / 2))
	if m.Size() != 2 {
		t.Fatalf("%d members though b does not declare its link to c", m.Size())
	}
	m.Handle(now.Add(time.Second/2), Message{"b", update(some("b", 2, "self", "c"))})
	m.Tick(now.Add(time.Second))
	if via, ok := m.NextHop("c"); m.Size() != 3 || !ok || via != "b" {
		t.Fatalf("%d members, next hop %q", m.Size(), via)
	}
}

// What breaks the protocol ends the link it came over, and nothing else.
func TestGarbage(t *testing.T) {
	unsorted := some("x", 1, "p", "q")
	unsorted.peers[0], unsorted.peers[1] = unsorted.peers[1], unsorted.peers[0]
	unsorted.seal(nil)
	foreign := some("x", 1)
	foreign.key++
	foreign.seal(nil)
	old := some("x", maxVersion+1)
	gone := some("x", 1, "p")
	gone.gone = true
	gone.seal(nil)
	for name, data := range map[string][]byte{
		"empty":                 {},
		"unknown kind":          {99, 1, 2},
		"text":                  []byte("GET / HTTP/1.1\r\n\r\n"),
		"too large":             make([]byte, MaxMessage+1),
		"second hello":          hello{}.encode(),
		"short beat":            {kindBeat, 0},
		"record cut off":        update(some("x", 1))[:20],
		"huge record":           binary.AppendUvarint([]byte{kindUpdate}, 1<<40),
		"unsorted neighbours":   update(unsorted),
		"key of another":        update(foreign),
		"version too high":      update(old),
		"gone with links":       update(gone),
		"summary not sorted":    summary{to: 9, entries: []entry{{5, 1}, {4, 1}}}.encode(),
		"summary out of range":  summary{from: 3, to: 9, entries: []entry{{1, 1}}}.encode(),
		"prune of unknown kind": {kindPrune, 77},
		"long bye":              {kindBye, 1, 2},
	} {
		m := machine(t, nil)
		greet(m, zero, "bad")
		greet(m, zero, "good")
		m.Handle(zero, Message{"good", update(some("good", 1, "self"))})
		m.Handle(zero, Message{"bad", update(some("bad", 1, "self"))})
		m.Tick(zero.Add(time.Second / 4))
		if m.Size() != 3 {
			t.Fatalf("%d members", m.Size())
		}
		why, fault := dropped(m.Handle(zero.Add(time.Second/4), Message{"bad", data}), "bad")
		if why == "" || !fault {
			t.Errorf("%s: dropped %q, fault %v", name, why, fault)
		}
		if m.Size() != 2 || m.Stats().Faults != 1 {
			t.Errorf("%s: %d members, %+v", name, m.Size(), m.Stats())
		}
		// It is not let in again at once.
		if why, _ := dropped(greet(m, zero.Add(time.Second/3), "bad"), "bad"); why == "" {
			t.Errorf("%s: may come back at once", name)
		}
	}
}

func TestHelloOfAnotherVersion(t *testing.T) {
	m := machine(t, nil)
	m.Handle(zero, LinkUp{"b"})
	why, _ := dropped(m.Handle(zero, Message{"b", []byte{kindHello, 9, 0}}), "b")
	if !strings.Contains(why, "version 9") {
		t.Error(why)
	}
}

// Records cannot be forged where they are signed.
func TestSignatures(t *testing.T) {
	keys := map[ID]ed25519.PrivateKey{}
	for i, id := range []ID{"self", "b", "c"} {
		keys[id] = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(i)}, 32))
	}
	m := machine(t, func(c *Config) {
		c.Sign = func(body []byte) []byte { return ed25519.Sign(keys["self"], body) }
		c.Verify = func(batch []Signed) []bool {
			ok := make([]bool, len(batch))
			for i, s := range batch {
				ok[i] = ed25519.Verify(keys[s.ID].Public().(ed25519.PublicKey), s.Body, s.Sig)
			}
			return ok
		}
	})
	greet(m, zero, "b")
	sealed := func(by ID, r *record) *record {
		r.seal(func(body []byte) []byte { return ed25519.Sign(keys[by], body) })
		return r
	}
	good := update(sealed("b", some("b", 1, "self", "c")), sealed("c", some("c", 1, "b")))
	if why, _ := dropped(m.Handle(zero, Message{"b", good}), "b"); why != "" {
		t.Fatal(why)
	}
	m.Tick(zero.Add(time.Second / 4))
	if m.Size() != 3 {
		t.Fatalf("%d members", m.Size())
	}
	forged := update(sealed("b", some("c", 2)))
	if _, fault := dropped(m.Handle(zero.Add(time.Second/4), Message{"b", forged}), "b"); !fault {
		t.Error("a forged record was taken")
	}
}

// A node that hears of itself what it did not say goes above that. When it
// happens again and again there are two of it: they slow down, and say so.
func TestCopiedKey(t *testing.T) {
	m := machine(t, nil)
	greet(m, zero, "b")
	conflicts := 0
	now := zero
	for range 6000 {
		now = now.Add(10 * time.Millisecond)
		before := m.table.self.version
		other := some("self", before+1)
		other.boot = 2
		other.seal(nil)
		for _, a := range m.Handle(now, Message{"b", update(other)}) {
			if _, ok := a.(Conflict); ok {
				conflicts++
			}
		}
		if m.stats.Published < 4 && m.table.self.version < other.version {
			t.Fatal("the node did not go above the record of before its restart")
		}
	}
	if conflicts == 0 || conflicts > 2 || m.stats.Published > 30 {
		t.Errorf("in a minute: %d conflicts said, %d versions made", conflicts, m.stats.Published)
	}
}

func TestBounds(t *testing.T) {
	m := machine(t, func(c *Config) { c.Members = 50 })
	greet(m, zero, "b")
	for i := range 100 {
		if why, _ := dropped(m.Handle(zero, Message{"b", update(some(ID(fmt.Sprint("n", i)), 1, "b"))}), "b"); why != "" {
			t.Fatal("an honest neighbour was dropped:", why)
		}
	}
	if s := m.Stats(); s.Records > 50 || s.Refused < 50 {
		t.Errorf("%+v", s)
	}
	var why string
	for i := range 1000 {
		if why, _ = dropped(m.Handle(zero, Message{"b", update(some("c", uint64(i+2)))}), "b"); why != "" {
			break
		}
	}
	if why != errFlood.Error() {
		t.Errorf("a flood ended with %q", why)
	}
	// What is out of reach is forgotten, to the last node that it named.
	for i := range 60 {
		m.Tick(zero.Add(time.Duration(i) * time.Second / 2))
	}
	if len(m.table.nodes) != 1 || m.table.declared != 0 || m.Stats().Records != 1 {
		t.Errorf("%d nodes, %d links, %d records left", len(m.table.nodes), m.table.declared, m.Stats().Records)
	}
}

func TestBigTableTravels(t *testing.T) {
	a, b := machine(t, nil), machine(t, func(c *Config) { c.Self = "b" })
	greet(a, zero, "hub")
	peers := []ID{"self"}
	var all []*record
	for i := range 900 {
		id := ID(fmt.Sprint("n", i))
		peers = append(peers, id)
		all = append(all, some(id, 1, "hub"))
	}
	a.Handle(zero, Message{"hub", update(append(all[:450:450], some("hub", 1, peers...))...)})
	a.Handle(zero, Message{"hub", update(all[450:]...)})
	now := zero.Add(time.Second / 2)
	a.Tick(now)
	if a.Size() != 902 {
		t.Fatalf("%d members", a.Size())
	}
	wire := append(a.Handle(now, LinkUp{"b"}), relabel(b.Handle(now, LinkUp{"self"}))...)
	for step := 0; step < 400 && b.Size() < 903; step++ {
		var next []Action
		for _, x := range wire {
			switch s := x.(type) {
			case Send:
				if s.To == "b" {
					next = append(next, relabel(b.Handle(now, Message{"self", s.Data}))...)
				}
			case back:
				next = append(next, a.Handle(now, Message{"b", s.Data})...)
			}
		}
		now = now.Add(5 * time.Millisecond)
		next = append(next, a.Handle(now, Message{"hub", beat{interval: 500, digest: a.table.digest}.encode()})...)
		wire = append(append(next, a.Tick(now)...), relabel(b.Tick(now))...)
	}
	if b.Size() != 903 {
		t.Errorf("only %d of 903 members arrived", b.Size())
	}
}

// back is what the second machine of a test sends.
type back struct{ Send }

func relabel(actions []Action) (out []Action) {
	for _, a := range actions {
		if s, ok := a.(Send); ok && s.To == "self" {
			out = append(out, back{s})
		}
	}
	return out
}

func TestConfig(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"no ID":         func(c *Config) { c.Self = "" },
		"long ID":       func(c *Config) { c.Self = ID(make([]byte, MaxID+1)) },
		"long name":     func(c *Config) { c.Name = strings.Repeat("x", MaxName+1) },
		"empty address": func(c *Config) { c.Addrs = []string{""} },
		"no chance":     func(c *Config) { c.Rand = nil },
		"high version":  func(c *Config) { c.Start = maxVersion },
		"slow heart":    func(c *Config) { c.Heartbeat = time.Minute },
	} {
		c := Config{Self: "a", Rand: rand.New(rand.NewPCG(1, 1))}
		change(&c)
		if _, err := New(c, zero); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// The decoder takes what comes, and what it takes encodes to the same again.
func FuzzMessage(f *testing.F) {
	f.Add(update(some("x", 3, "self", "y"), some("y", 1)))
	f.Add(hello{boot: 1, version: 2, digest: 3, pinned: true}.encode())
	f.Add(beat{probe: true, interval: 500, digest: 1}.encode())
	f.Add(summary{to: 1 << 63, want: true, entries: []entry{{1, 1}, {2, 300}}}.encode())
	f.Add([]byte{kindPrune, pruneHard})
	f.Add([]byte{kindBye, byeLeave})
	f.Fuzz(func(t *testing.T, data []byte) {
		m := machine(t, func(c *Config) { c.Members = 100; c.Degree = 2 })
		now := zero
		greet(m, now, "b")
		for range 2 {
			m.Handle(now, Message{"b", data})
			now = now.Add(300 * time.Millisecond)
			m.Tick(now)
		}
		if m.Size() < 1 || len(m.table.nodes) > 100*(MaxPeers+1) {
			t.Fatalf("%d members, %d nodes", m.Size(), len(m.table.nodes))
		}
	})
}

func FuzzRecord(f *testing.F) {
	f.Add(some("x", 3, "self", "y").frame)
	full := some("z", 1<<40)
	full.addrs, full.context, full.gone = []string{"a", "bb"}, "ctx", true
	full.seal(func([]byte) []byte { return []byte("signature") })
	f.Add(full.frame)
	f.Fuzz(func(t *testing.T, data []byte) {
		c := cursor{b: data}
		raw := nextFrame(&c)
		if c.err != nil {
			return
		}
		r, err := raw.decode()
		if err != nil {
			return
		}
		r.seal(func([]byte) []byte { return raw.sig })
		c = cursor{b: r.frame}
		again, err := nextFrame(&c).decode()
		if err != nil || again.id != r.id || again.version != r.version || len(again.peers) != len(r.peers) || !bytes.Equal(again.frame, r.frame) {
			t.Fatalf("%+v\n%+v\n%v", r, again, err)
		}
	})
}
