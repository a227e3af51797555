package cluster

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"minimega/internal/errs"
	"minimega/pkg/meshage"
	"minimega/pkg/meshage/meshtest"
	"minimega/pkg/minicli"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair is two clusters in one mesh, and what ends it.
func pair(t *testing.T) (a, b *Cluster, hub *meshtest.Hub) {
	t.Helper()
	hub = meshtest.NewHub()
	t.Cleanup(hub.Close)
	a, b = New("a"), New("b")
	a.Join(hub.Join("a"))
	b.Join(hub.Join("b"))
	return a, b, hub
}

type sum struct{ X, Y int }

func TestAsk(t *testing.T) {
	a, b, _ := pair(t)
	Serve(b, "add", func(_ context.Context, from string, q sum, progress func(string)) (int, error) {
		progress("half " + from)
		return q.X + q.Y, nil
	})
	var told []string
	got, err := Ask[int](t.Context(), a, "b", "add", sum{2, 3}, func(p string) { told = append(told, p) })
	if err != nil || got != 5 || strings.Join(told, ",") != "half a" {
		t.Errorf("%d, %v, told %q", got, err, told)
	}
}

func TestErrorKeepsItsFacts(t *testing.T) {
	a, b, _ := pair(t)
	Serve(b, "fail", func(context.Context, string, sum, func(int)) (int, error) {
		return 0, errs.WithRemedy(errs.InVM(errs.New(errs.Resource, "no room"), "vm1"), "make some")
	})
	_, err := Ask[int](t.Context(), a, "b", "fail", sum{}, func(int) {})
	f := errs.FactsOf(err)
	if !errors.Is(err, errs.Resource) || HostOf(err) != "b" || f.VM != "vm1" || f.Remedy != "make some" || err.Error() != "VM vm1: no room (make some)" {
		t.Errorf("%v on %q: %+v", err, HostOf(err), f)
	}
}

// ask asks a host for something it never answers, and returns how that ended.
func ask(ctx context.Context, a *Cluster, host string, started func()) chan error {
	done := make(chan error, 1)
	go func() {
		_, err := Ask[int](ctx, a, host, "hang", sum{}, func(int) { started() })
		done <- err
	}()
	return done
}

func hang(c *Cluster) chan error {
	ended := make(chan error, 1)
	Serve(c, "hang", func(ctx context.Context, _ string, _ sum, progress func(int)) (int, error) {
		progress(1)
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return 0, ctx.Err()
	})
	return ended
}

func TestCancelReachesTheOtherHost(t *testing.T) {
	a, b, _ := pair(t)
	ended := hang(b)
	ctx, cancel := context.WithCancel(t.Context())
	done := ask(ctx, a, "b", cancel)
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("the caller got %v", err)
	}
	if err := <-ended; !errors.Is(err, ErrCallerGone) {
		t.Errorf("the server got %v", err)
	}
}

func TestHostDies(t *testing.T) {
	a, b, hub := pair(t)
	hang(b)
	killed := make(chan struct{})
	done := ask(t.Context(), a, "b", func() { go func() { hub.Kill("b"); close(killed) }() })
	if err := <-done; !errors.Is(err, errs.Unreachable) || HostOf(err) != "b" {
		t.Errorf("%v on %q", err, HostOf(err))
	}
	<-killed
	if err := <-ask(t.Context(), a, "b", nil); !errors.Is(err, errs.Unreachable) || !strings.Contains(err.Error(), "not in the mesh") {
		t.Errorf("afterwards: %v", err)
	}
}

func TestAlone(t *testing.T) {
	c := New("a")
	if c.Peers() != nil || !c.Has("a") || c.Has("b") {
		t.Error("who is alone knows others")
	}
	if _, err := Ask[int](t.Context(), c, "b", "add", sum{}, func(int) {}); !errors.Is(err, errs.Unreachable) {
		t.Errorf("got %v", err)
	}
}

func TestExpand(t *testing.T) {
	a, _, hub := pair(t)
	a.Join(hub.Join("a")) // Join of a name anew stands for a restart
	hub.Join("n1")
	hub.Join("n2")
	for spec, want := range map[string]string{"n[1-2]": "n1 n2", "all": "b n1 n2", "localhost,b": "a b", "b,all": "b n1 n2"} {
		got, err := a.Expand(spec)
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: %q, %v", spec, got, err)
		}
	}
	for spec, want := range map[string]string{"n[1-3]": "unknown host: `n3`", "n[1": "invalid hosts -- "} {
		if _, err := a.Expand(spec); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v", spec, err)
		}
	}
}

// A peer that sends garbage harms its own request only.
func TestGarbage(t *testing.T) {
	a, b, _ := pair(t)
	Serve(b, "add", func(_ context.Context, _ string, q sum, _ func(int)) (int, error) { return q.X, nil })
	for _, raw := range []string{"", "x", "\x01\xff\xff\xff\xffx", "\x01\x00\x00\x00\x02{]", "\x02\x00\x00\x00\x00", "\x01\x00\x00\x00\x05{}"} {
		s, err := a.Mesh().Open(t.Context(), "b", protocol("add"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = s.Write([]byte(raw))
		_ = s.CloseWrite()
		_ = s.SetDeadline(time.Now().Add(30 * time.Second))
		kind, _, err := readFrame(s, 1<<16)
		if err != nil || kind != frameError {
			t.Errorf("%q: kind %d, %v", raw, kind, err)
		}
		s.Close()
	}
	a.handle("lie", func(_ context.Context, _ string, s meshage.Stream) {
		_, _ = s.Write([]byte("\x07\x00\x00\x00\x01x"))
	})
	if _, err := Ask[int](t.Context(), b, "a", "lie", sum{}, func(int) {}); err == nil {
		t.Error("an unknown frame passed")
	}
}

func TestEach(t *testing.T) {
	err := Each(t.Context(), []string{"a", "b", "c"}, func(_ context.Context, h string) error {
		if h == "b" {
			return errors.New("no")
		}
		return nil
	})
	if HostOf(err) != "b" {
		t.Errorf("%v on %q", err, HostOf(err))
	}
}

func table(rows int) minicli.Responses {
	r := &minicli.Response{Host: "h", Header: []string{"id", "name"}, Tabular: [][]string{}, Data: rawJSON(`{"a":1}`)}
	for range rows {
		r.Tabular = append(r.Tabular, []string{"1", "é\x00\xff"})
	}
	return minicli.Responses{r, {Host: "x", Error: "e"}, {Response: "y", Header: []string{}}}
}

func TestResponses(t *testing.T) {
	for _, n := range []int{0, 1, 10000} {
		want := Responses(table(n))
		payload, err := want.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		var got Responses
		if err := got.UnmarshalBinary(payload); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if len(payload) > 0 && got.UnmarshalBinary(payload[:len(payload)-1]) == nil {
			t.Error("a cut message was read")
		}
	}
}

// An answer that is too long is an error that says so, and not the host's loss.
func TestAnswerTooLong(t *testing.T) {
	defer func(n int) { maxAnswer = n }(maxAnswer)
	maxAnswer = 1000
	a, b, _ := pair(t)
	Serve(b, "say", func(_ context.Context, _ string, n int, _ func(int)) (string, error) {
		return strings.Repeat("x", n), nil
	})
	if _, err := Ask[string](t.Context(), a, "b", "say", 500, func(int) {}); err != nil {
		t.Error(err)
	}
	_, err := Ask[string](t.Context(), a, "b", "say", 2000, func(int) {})
	if err == nil || errors.Is(err, errs.Unreachable) || !strings.Contains(err.Error(), "message too long") {
		t.Errorf("got %v", err)
	}
}

// forged is data that writes itself as it is, as that of a hostile peer.
type forged string

func (f forged) AppendJSON(b []byte) []byte { return append(b, f...) }

// Data that would break the reply to a client, or the line it is, is refused,
// and the error names the host that sent it.
func TestForgedData(t *testing.T) {
	a, b, _ := pair(t)
	deep := strings.Repeat("[", 1<<20)
	for data, good := range map[string]bool{
		`{"a":[1,"é\n"]}`: true, `null`: true, ` 1`: true,
		`{`: false, `1,"Error":""`: false, `1}],"Rendered":"lies"`: false, "{\n}": false, "1\r": false, "\"\xff\"": false, deep: false,
	} {
		Serve(b, "run", func(context.Context, string, sum, func(int)) (Responses, error) {
			return Responses{{Host: "b", Data: forged(data)}, {Host: "b", Response: "more"}}, nil
		})
		got, err := Ask[Responses](t.Context(), a, "b", "run", sum{}, func(int) {})
		switch {
		case good && (err != nil || got[0].Data != rawJSON(data)):
			t.Errorf("%.20q: %v, %v", data, got, err)
		case !good && (!errors.Is(err, errs.Invalid) || HostOf(err) != "b"):
			t.Errorf("%.20q passed: %v, %v", data, got, err)
		}
	}
}

func FuzzResponses(f *testing.F) {
	for _, n := range []int{0, 3} {
		payload, err := Responses(table(n)).AppendBinary(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(payload)
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		var got, again Responses
		if got.UnmarshalBinary(payload) != nil {
			return
		}
		out, err := got.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := again.UnmarshalBinary(out); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzFrame(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x00\x02{}"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if _, payload, err := readFrame(bytes.NewReader(raw), 1<<20); err == nil && len(payload) > len(raw) {
			t.Fatal("more than was sent")
		}
		_ = decodeError(raw)
	})
}
