package minicli

import (
	"strings"
	"testing"
)

// ids renders the first column of all rows.
func ids(rs Responses) string {
	var out []string
	for _, r := range rs {
		for _, row := range r.Tabular {
			out = append(out, row[0])
		}
		if r.Tabular == nil {
			out = append(out, r.Host)
		}
	}
	return strings.Join(out, " ")
}

func fleet() Responses {
	return Responses{
		tabular("n1", "id,name,namespace,state,vlan,Tags", "1;foo;a;RUNNING;[LAN, 10];{}", "2;Foobar;a;PAUSED;[];{os: linux}"),
		tabular("N2", "id,name,namespace,state,vlan,Tags", "3;x=y;b;QUIT;[wan];{}"),
		simple("n3", "text"),
		failed("n4", "bad"),
	}
}

func splitRows(rs Responses) Responses {
	for _, r := range rs {
		for i, row := range r.Tabular {
			r.Tabular[i] = strings.Split(strings.Join(row, ","), ";")
		}
	}
	return rs
}

func TestFilter(t *testing.T) {
	for _, tt := range []struct{ filter, want string }{
		{"name=FOO", "1 n3 n4"},
		{"name!=foo", "2 3 n3 n4"},
		{"name~foo", "1 2 n3 n4"},
		{"NAME!~foo", "3 n3 n4"},
		{"name~x=y", "3 n3 n4"},
		{"vlan=lan", "1 n3 n4"},
		{"vlan!=lan", "2 3 n3 n4"},
		{"tags=linux", "2 n3 n4"},
		{"st=running", "1 n3 n4"},
		{"state=run", "n3 n4"},
		{"id=", "n3 n4"},
		{"host=n2", "3"},
		{"HOST!=n2", "1 2 n3 n4"},
		{"host~3", "n3"},
	} {
		f, err := ParseFilter(tt.filter)
		if err != nil {
			t.Errorf("%s: %v", tt.filter, err)
			continue
		}
		rs := splitRows(fleet())
		before := string(AppendResponses(nil, rs))
		got, err := f.Apply(rs)
		if err != nil || ids(got) != tt.want {
			t.Errorf("%s keeps %q, %v, want %q", tt.filter, ids(got), err, tt.want)
		}
		if string(AppendResponses(nil, rs)) != before {
			t.Errorf("%s changes the responses", tt.filter)
		}
	}
}

func TestFilterErrors(t *testing.T) {
	for _, bad := range []string{"", "name", "a=b=c", "a~b~c"} {
		if _, err := ParseFilter(bad); err == nil || err.Error() != "invalid filter, see help" {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for filter, want := range map[string]string{
		"na=x":   "ambiguous column `na`",
		"Nope=x": "no such column `Nope`",
		"=x":     "ambiguous column ``",
	} {
		f, err := ParseFilter(filter)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Apply(splitRows(fleet())); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", filter, err, want)
		}
	}
}

func TestColumns(t *testing.T) {
	rs := splitRows(fleet())
	before := string(AppendResponses(nil, rs))
	got, err := Columns(rs, SplitColumns("state, tag,name,state"))
	if err != nil || string(AppendResponses(nil, rs)) != before {
		t.Fatalf("%v, or the responses are changed", err)
	}
	if h := strings.Join(got[1].Header, " "); h != "state Tags name state" {
		t.Errorf("header %q", h)
	}
	if row := strings.Join(got[1].Tabular[0], " "); row != "QUIT {} x=y QUIT" {
		t.Errorf("row %q", row)
	}
	if got[2] != rs[2] || got[3] != rs[3] {
		t.Error("responses without a header do not pass")
	}
	empty, err := Columns(Responses{{Header: []string{"id", "name"}}}, []string{"whatever", "x"})
	if err != nil || strings.Join(empty[0].Header, " ") != "whatever x" {
		t.Errorf("without a table: %v, %v", empty[0], err)
	}
	host, err := Columns(Responses{tabular("n", "id,hostname", "1,h")}, []string{"host"})
	if err != nil || host[0].Header[0] != "hostname" || host[0].Tabular[0][0] != "h" {
		t.Errorf("host: %v, %v", host, err)
	}
}

func TestColumnsErrors(t *testing.T) {
	for names, want := range map[string]string{
		"id,na":                     "ambiguous column `na`",
		"host":                      "no such column `host`",
		"Tags":                      "no such column `Tags`",
		"id,":                       "ambiguous column ``",
		strings.Repeat("id,", 2000): "2001 columns, at most 1000 are allowed",
	} {
		if _, err := Columns(splitRows(fleet()), SplitColumns(names)); err == nil || err.Error() != want {
			t.Errorf("%.20s: %v, want %s", names, err, want)
		}
	}
	crooked := Responses{{Host: "n", Header: []string{"a", "b"}, Tabular: [][]string{{"1", "2"}, {"1"}}}}
	if _, err := Columns(crooked, []string{"b"}); err == nil || err.Error() != "tabular width mismatch, host: n, row: 1" {
		t.Errorf("crooked: %v", err)
	}
}
