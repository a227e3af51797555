package minicli

import (
	"bytes"
	"encoding/json"
	"math"
	"testing"

	"pgregory.net/rapid"
)

// encoded is what encoding/json's Encoder writes, without its line end.
func encoded(t interface{ Fatal(...any) }, v any) string {
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(v); err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimSuffix(b.Bytes(), []byte("\n")))
}

func TestAppendResponses(t *testing.T) {
	text := rapid.OneOf(rapid.String(), rapid.StringMatching("[\x00-\x7f\u2027-\u202a\ufffd]{0,9}"), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }))
	list := rapid.OneOf(rapid.Just([]string(nil)), rapid.SliceOf(text))
	data := rapid.OneOf(
		rapid.Just[any](nil), rapid.Just[any](map[string]any{"b": "<&>", "a": nil}), rapid.Just[any](-12), rapid.Just[any](1e21),
		rapid.Just[any]([]byte{1, 2}), rapid.Map(list, func(l []string) any { return l }),
	)
	rapid.Check(t, func(t *rapid.T) {
		var rs Responses
		for range rapid.IntRange(0, 3).Draw(t, "responses") {
			rs = append(rs, rapid.SampledFrom([]*Response{nil, {
				Host: text.Draw(t, "host"), Response: text.Draw(t, "response"), Error: text.Draw(t, "error"), Header: list.Draw(t, "header"),
				Tabular: rapid.OneOf(rapid.Just([][]string(nil)), rapid.SliceOf(list)).Draw(t, "rows"), Data: data.Draw(t, "data"),
			}}).Draw(t, "response"))
		}
		if got, want := string(AppendResponses([]byte("x"), rs)), "x"+encoded(t, rs); got != want {
			t.Fatalf("got  %s\nwant %s", got, want)
		}
	})
}

func TestEveryByte(t *testing.T) {
	for c := range 256 {
		for _, s := range []string{string([]byte{byte(c)}), "a" + string(rune(c)) + "b"} {
			if got, want := string(AppendString(nil, s)), encoded(t, s); got != want {
				t.Errorf("%q is %s, want %s", s, got, want)
			}
		}
	}
}

type written struct{}

func (written) AppendJSON(dst []byte) []byte { return append(dst, `{"by":"itself"}`...) }

func TestData(t *testing.T) {
	if got := string(appendData(nil, written{})); got != `{"by":"itself"}` {
		t.Errorf("got %s", got)
	}
	if got := string(appendData(nil, math.NaN())); got != "null" {
		t.Errorf("NaN is %s", got)
	}
}

func FuzzAppendString(f *testing.F) {
	for _, seed := range []string{"", "a<b>&\"\\", "\u2028\u2029", "\xff", "\xe2\x80", "é\x00\x1f\x7f"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got, want := string(AppendString(nil, s)), encoded(t, s); got != want {
			t.Errorf("%q is %s, want %s", s, got, want)
		}
	})
}
