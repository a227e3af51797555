package iomeshage

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"minimega/pkg/meshage"
)

// Whatever a peer asks, it gets a refusal or nothing, and others are served.
func TestHostileRequests(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.put("f", random(14, 100), "a")
	bad := w.hub.Join("bad")
	for _, protocol := range []string{findProtocol, hashProtocol, extentProtocol} {
		for _, q := range []string{"", "x", "[]", `{"name":"../f"}`, `{"name":"f","version":"v","count":2000000000}`,
			`{"name":"f","version":"v","from":-1}`, `{"pattern":"../*"}`, `{"pattern":"` + strings.Repeat("a", 1<<20) + `"}`} {
			reply, err := bad.Call(within(t, 10*time.Second), "a", protocol, []byte(q))
			if err != nil {
				t.Errorf("%s %.40q: %v", protocol, q, err)
				continue
			}
			// A pattern that leads out finds nothing, all else is refused.
			if r, err := decode[findReply](reply); refused(err) == "" && (err != nil || len(r.Files) > 0) && !strings.HasPrefix(q, "[") {
				t.Errorf("%s %.40q: %s", protocol, q, reply)
			}
		}
	}
	for _, protocol := range []string{chunkProtocol, directProtocol} {
		garbage(t, bad, protocol)
	}
	mustGet(t, w.hosts["b"], "f")
}

func garbage(t *testing.T, bad meshage.Mesh, protocol string) {
	t.Helper()
	s, err := bad.Open(t.Context(), "a", protocol)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_ = s.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = s.Write([]byte("\xff\xff\xff\xff"))
	if _, err := io.Copy(io.Discard, s); err != nil {
		t.Errorf("%s: the stream does not end: %v", protocol, err)
	}
}

// One peer cannot take all the room for streams.
func TestManyStreams(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.put("f", random(15, 100), "a")
	bad := w.hub.Join("bad")
	for range perPeer {
		s, err := bad.Open(t.Context(), "a", chunkProtocol)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
	}
	waitFor(t, func() bool {
		s, err := bad.Open(t.Context(), "a", chunkProtocol)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := writeRequest(s, chunkRequest{"f", "v", 0}); err != nil {
			t.Fatal(err)
		}
		_ = s.SetDeadline(time.Now().Add(10 * time.Second))
		_, _, err = readChunk(s, 100, make([]byte, blockSize), &sink{})
		return refused(err) == codeBusy
	})
	mustGet(t, w.hosts["b"], "f")
}

// A host that says it has everything, in absurd ways, is passed over.
func TestHostileAnswers(t *testing.T) {
	for name, files := range map[string][]found{
		"outside": {{Name: "../f", Size: 1, Version: "v"}},
		"hidden":  {{Name: partialPrefix + "x/data", Size: 1, Version: "v"}},
		"size":    {{Name: "f", Size: -1, Version: "v"}},
		"huge":    {{Name: "f", Size: 1 << 62, Version: "v"}},
		"other":   {{Name: "g", Size: 1, Version: "v"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "a", "c")
			w.put("f", []byte("f"), "a")
			bad := w.hub.Join("bad")
			bad.Respond(findProtocol, func(context.Context, string, []byte) ([]byte, error) {
				body, err := json.Marshal(findReply{Files: files})
				if err != nil {
					return nil, err
				}
				return json.Marshal(envelope{Body: body})
			})
			mustGet(t, w.hosts["c"], "f")
			w.has("f", []byte("f"), "c")
		})
	}
	w := newWorld(t, "c")
	bad := w.hub.Join("bad")
	bad.Respond(findProtocol, func(context.Context, string, []byte) ([]byte, error) { return []byte("{"), nil })
	if err := w.hosts["c"].Get(t.Context(), "f"); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
}
