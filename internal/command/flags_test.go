package command

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"minimega/pkg/minicli"
)

func TestFlagDefaults(t *testing.T) {
	c := newClient(t, Flags())
	for _, f := range []string{".csv", ".json"} {
		c.expect(f, "h1: false")
	}
	for _, f := range []string{".headers", ".annotate", ".sort", ".compress", ".record", ".preprocess"} {
		c.expect(f, "h1: true")
		c.expect(f+" false", "")
		if f == ".annotate" {
			c.expect(f, "false")
			c.expect(f+" true", "")
		} else {
			c.expect(f, "h1: false")
		}
	}
}

// A setting is the default of later sessions, not of those that are there.
func TestFlagsAndSessions(t *testing.T) {
	c := newClient(t, Flags())
	other := c.session.Shared.NewSession()
	c.expect(".sort false", "")
	if !other.Flags().Sort || c.session.Shared.NewSession().Flags().Sort {
		t.Error("wrong session")
	}
}

func TestMode(t *testing.T) {
	c := newClient(t, Flags())
	modes := func(want string) {
		t.Helper()
		csv, _ := c.run(".annotate false .csv")
		json, _ := c.run(".csv false .annotate false .json")
		if got := csv + " " + json; got != want {
			t.Errorf("csv and json are %s, want %s", got, want)
		}
	}
	c.run(".csv true")
	if c.session.Flags().Mode != 1 {
		t.Errorf("mode %d", c.session.Flags().Mode)
	}
	c.run(".json false") // not active: nothing happens
	modes("true false")
	c.run(".json true")
	if c.session.Flags().Mode != 2 {
		t.Errorf("mode %d", c.session.Flags().Mode)
	}
	c.run(".csv false")
	if c.session.Flags().Mode != 2 {
		t.Errorf("mode %d", c.session.Flags().Mode)
	}
	c.run(".json false")
	modes("false false")
}

func TestNestedFlags(t *testing.T) {
	c := newClient(t, Flags())
	c.expect("rows", "host | id   | name | tags\nh1   | 9    | a    | {}\nh1   | 10   | b    | [x, y]")
	c.expect(".annotate false .headers false .sort false .csv true rows", "10,b,\"[x, y]\"\n9,a,{}")
	c.expect(".annotate false rows", "id   | name | tags\n9    | a    | {}\n10   | b    | [x, y]")
	c.expect(".annotate false .json", "false")
	c.expect(".annotate", "h1: true") // nothing stuck
	if got, _ := c.run(".json true rows"); !strings.HasPrefix(got, `[{"Host":"h1"`) {
		t.Errorf("got %s", got)
	}
}

// Setting a flag within another flag's command changes the session by that
// flag alone.
func TestSetWithinNested(t *testing.T) {
	c := newClient(t, Flags())
	c.expect(".annotate false .sort false", "")
	if f := c.session.Flags(); f.Sort || !f.Annotate {
		t.Errorf("session has %+v", f)
	}
}

func TestFilter(t *testing.T) {
	c := newClient(t, Flags())
	c.expect(".annotate false .headers false .filter NAME=A rows", "9    | a    | {}")
	c.expect(".annotate false .headers false .filter tags=x rows", "10   | b    | [x, y]")
	c.expect(".annotate false .headers false .filter name!=a .filter id~1 rows", "10   | b    | [x, y]")
	c.expect(".filter name=none rows", "")
	c.expect(".annotate false .headers false .columns name .filter id=9 rows", "a")
	c.expect(".filter host=h2 rows", "")
	c.refuse(".filter zzz=1 rows", "no such column `zzz`")
	c.refuse(".filter zzz rows", "invalid filter, see help")
	c.refuse(".filter a=b=c rows", "invalid filter, see help")
	c.refuse(".filter name=a fail", "failed")
}

func TestColumns(t *testing.T) {
	c := newClient(t, Flags())
	c.expect(".annotate false .columns tags,id rows", "tags   | id\n[x, y] | 10\n{}     | 9")
	c.expect(`.annotate false .headers false .columns "na","id" rows`, "a    | 9\nb    | 10")
	c.refuse(".columns id,zzz rows", "no such column `zzz`")
}

// A host whose table has other columns, one of another version perhaps, hides
// nobody else's.
func TestColumnsOfHosts(t *testing.T) {
	rs := minicli.Responses{
		{Host: "h1", Header: []string{"id"}, Tabular: [][]string{{"1"}}},
		{Host: "h2", Header: []string{"number"}, Tabular: [][]string{{"2"}}},
		{Host: "h3", Error: "away"},
		nil,
	}
	got := apart(rs, func(rs minicli.Responses) (minicli.Responses, error) { return minicli.Columns(rs, []string{"id"}) })
	want := minicli.Responses{rs[0], {Host: "h2", Error: "no such column `id`"}, rs[2], nil}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	got = apart(rs[:2], func(rs minicli.Responses) (minicli.Responses, error) { return minicli.Columns(rs, []string{"x"}) })
	if diff := cmp.Diff(minicli.Responses{{Host: "h1", Error: "no such column `x`"}}, got); diff != "" {
		t.Error(diff)
	}
}

// Each batch of a command is filtered, and progress passes.
func TestFilterStreams(t *testing.T) {
	c := newClient(t, Flags())
	if got, bad := c.run(".headers false .filter name=b twice"); got != "h0   | 10   | b    | [x, y]\nh1   | 10   | b    | [x, y]" || bad != "" {
		t.Errorf("got %q, %q", got, bad)
	}
	if len(c.batches) != 4 || c.batches[0].Status != "working" || c.batches[2].Status != "working" {
		t.Errorf("batches %+v", c.batches)
	}
	if _, bad := c.run(".columns zzz twice"); bad != "no such column `zzz`\nno such column `zzz`" {
		t.Errorf("got %q", bad)
	}
	if h := c.batches[1].Resps[0].Host; h != "h0" {
		t.Errorf("the error is from %q", h)
	}
}

func TestFilterPassesNoReply(t *testing.T) {
	c := newClient(t, Flags())
	if _, _, err := c.runCtx(t.Context(), ".filter a=b .csv true .columns x bye"); err != ErrNoReply {
		t.Errorf("got %v", err)
	}
}

func TestAliases(t *testing.T) {
	c := newClient(t, Flags())
	c.expect(".alias vmi=vm info a=b", "")
	c.expect(".alias x=y", "")
	c.expect(".annotate false .alias", "alias | expansion\nvmi   | vm info a=b\nx     | y")
	c.expect(".unalias vmi", "")
	c.expect(".unalias vmi", "")
	c.expect(".annotate false .headers false .alias", "x    | y")
	c.refuse(".alias nothing", "expected alias of format `alias=expansion`")
	c.refuse(".alias a b=c", "expected alias of format `alias=expansion`") // no word has a blank
	c.refuse(".alias =nothing", "expected alias of format `alias=expansion`")
}

func TestEnv(t *testing.T) {
	t.Setenv("MM_TEST_ENV", "old")
	c := newClient(t, Flags())
	c.expect(".annotate false .env MM_TEST_ENV", "old")
	c.expect(`.env MM_TEST_ENV "new value"`, "")
	c.expect(".annotate false .env MM_TEST_ENV", "new value")
	c.expect(".annotate false .headers false .filter key=mm_test_env .env", "MM_TEST_ENV | new value")
	c.expect(`.env MM_TEST_ENV ""`, "")
	if _, ok := os.LookupEnv("MM_TEST_ENV"); ok {
		t.Error("an empty value sets the variable")
	}
	if _, bad := c.run(`.env a=b c`); !strings.Contains(bad, `"a=b"`) {
		t.Errorf("got %q", bad)
	}
}
