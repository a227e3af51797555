package miniclient

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var messages = []string{
	`{"Resp":null,"Rendered":"","More":false,"Status":false}`,
	`{"Resp":[{"Host":"h","Response":"minimega 4","Header":null,"Tabular":null,"Error":"","Data":null}],"Rendered":"h: minimega 4","More":true,"Status":false}`,
	`{"Resp":[{"Host":"h","Header":["a","b"],"Tabular":[["1","\u003cx\u003e"],["ü","\"q\""],[]],"Data":{"x":[1,{"y":"]}"}]}}],"Rendered":"a\nb"}`,
	`{"Resp":null,"Rendered":"","Status":false,"Suggest":["vm info","vm kill"]}`,
	`{"Resp":[null],"Status":true,"Rendered":"10%"}`,
	`{"Resp":[],"Future":{"a":[1,2]},"Other":-1.5e3,"T":true,"N":null}`,
	` { "Resp" : [ { "Data" : [ 1 , 2 ] } ] , "More" : true } ` + "\n",
	"{\"Rendered\":\"bad \xff utf8 \\ud800\"}",
	`{"Rendered":"a\\"}`,
	`{}`,
}

func TestDecode(t *testing.T) {
	for _, m := range messages {
		var want Response
		if err := json.Unmarshal([]byte(m), &want); err != nil {
			t.Fatal(m, err)
		}
		got, err := decode([]byte(m))
		if err != nil {
			t.Errorf("%s: %v", m, err)
			continue
		}
		normal(&want)
		if d := cmp.Diff(&want, got); d != "" {
			t.Errorf("%s: (-want +got)\n%s", m, d)
		}
	}
}

// normal makes what encoding/json keeps of a null like ours.
func normal(r *Response) {
	for _, h := range r.Resp {
		if h != nil && string(h.Data) == "null" {
			h.Data = nil
		}
	}
}

func TestDecodeErrors(t *testing.T) {
	for _, m := range []string{
		``, `{`, `[]`, `"x"`, `5`, `{"Resp"`, `{"Resp":`, `{"Resp":}`, `{"Resp":5}`, `{"Resp":[`, `{"Resp":[}`,
		`{"More":"yes"}`, `{"More":1}`, `{"Rendered":"`, `{"Rendered":"\"}`, `{"Rendered":"\x"}`, `{"Rendered":5}`,
		`{"a":1,}`, `{a:1}`, `{} x`, `{"x":[1`, `{"x":,"y":1}`, `{"Suggest":[1]}`, `{"Resp":[{"Tabular":["x"]}]}`,
	} {
		if r, err := decode([]byte(m)); err == nil {
			t.Errorf("%s: accepted as %+v", m, r)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, m := range messages {
		f.Add([]byte(m))
	}
	f.Fuzz(func(t *testing.T, m []byte) {
		got, err := decode(m)
		var want exact
		if json.Unmarshal(m, &want) != nil || !onlyKnownKeys(m) {
			return
		}
		if err != nil {
			t.Fatalf("%q: %v, but it is JSON", m, err)
		}
		if got.Rendered != want.Rendered || got.More != want.More || len(got.Resp) != len(want.Resp) {
			t.Fatalf("%q: got %+v, want %+v", m, got, want)
		}
	})
}

// exact is a message that leaves nothing to interpretation.
type exact struct {
	Resp     []struct{ Host string }
	Rendered string
	More     bool
}

// onlyKnownKeys reports whether a message has just the keys of exact, each
// once and as they are written: encoding/json takes them in any case.
func onlyKnownKeys(m []byte) bool {
	return strings.HasPrefix(string(m), `{"Resp":null,"Rendered":"`) && strings.Count(string(m), ":") == 3 &&
		strings.Contains(string(m), `,"More":`)
}

func table(vms int) []byte {
	row := make([]string, 40)
	for i := range row {
		row[i] = fmt.Sprintf("value-%d", i)
	}
	h := &HostResponse{Host: "node", Header: row, Data: json.RawMessage(`[{"ID":1,"Name":"vm","Networks":[{"VLAN":101}]}]`)}
	for range vms {
		h.Tabular = append(h.Tabular, row)
	}
	m, err := json.Marshal(&Response{Resp: Responses{h}, Rendered: strings.Repeat("x | ", 100*vms)})
	if err != nil {
		panic(err)
	}
	return append(m, '\n')
}

func BenchmarkDecode(b *testing.B) {
	m := table(5000)
	b.Run("own", func(b *testing.B) {
		b.SetBytes(int64(len(m)))
		for b.Loop() {
			if _, err := decode(m); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encoding/json", func(b *testing.B) {
		b.SetBytes(int64(len(m)))
		for b.Loop() {
			var r Response
			if err := json.Unmarshal(m, &r); err != nil {
				b.Fatal(err)
			}
		}
	})
}
