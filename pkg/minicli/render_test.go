package minicli

import (
	"encoding/csv"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func tabular(host string, header string, rows ...string) *Response {
	r := &Response{Host: host, Header: strings.Split(header, ","), Tabular: [][]string{}}
	for _, row := range rows {
		r.Tabular = append(r.Tabular, strings.Split(row, ","))
	}
	return r
}

func simple(host, text string) *Response { return &Response{Host: host, Response: text} }

func failed(host, text string) *Response { return &Response{Host: host, Error: text} }

var renderings = []struct {
	name  string
	rs    Responses
	flags string // those that differ from the default
	want  string
}{
	{"nothing", nil, "", ""},
	{"layout", Responses{tabular("node1", "id,name", "0,a")}, "", "host  | id   | name\nnode1 | 0    | a"},
	{"no annotation", Responses{tabular("node1", "id,name,x", "0,a,")}, "annotate", "id   | name | x\n0    | a    |"},
	{"wide", Responses{tabular("n", "uuid,x", "ëëëëëëë,1", "1,2")}, "annotate", "uuid    | x\n1       | 2\nëëëëëëë | 1"},
	{"no header", Responses{tabular("node1", "id,name", "0,a")}, "headers", "node1 | 0    | a"},
	{"sorted", Responses{tabular("b", "id,name", "10,x", "9,y", "9,b"), tabular("a", "id,name", "3,z", "x,z", "-1,z")}, "",
		"host | id   | name\na    | -1   | z\na    | 3    | z\na    | x    | z\nb    | 9    | b\nb    | 9    | y\nb    | 10   | x"},
	{"unsorted", Responses{tabular("b", "id", "10", "9"), tabular("a", "id", "3")}, "sort headers", "b    | 10\nb    | 9\na    | 3"},
	{"hosts as numbers", Responses{tabular("10", "id", "1"), tabular("9", "id", "1")}, "headers", "9    | 1\n10   | 1"},
	{"no rows", Responses{tabular("b", "id"), tabular("a", "id")}, "", ""},
	{"rows on one host", Responses{tabular("b", "id"), tabular("a", "id", "1")}, "headers", "a    | 1"},
	{"csv", Responses{tabular("b", "id,name", `1,a "b"`)}, "csv", "host,id,name\nb,1,\"a \"\"b\"\"\""},
	{"csv bare", Responses{tabular("b", "id,name", `1,a`)}, "csv annotate headers", "1,a"},
	{"control", Responses{tabular("b", "id,name", "a\tb\x1b[2J\u009b,\u00e9\n")}, "headers", "b    | a\\tb\\x1b[2J\\u009b | é\\n"},
	{"simple", Responses{simple("a", "text")}, "", "a: text"},
	{"zeros of one host", Responses{simple("a01", "text")}, "", "a01: text"},
	{"compressed", Responses{simple("foo2", "x"), simple("foo3", "y\nz"), simple("foo1", "x"), simple("bar", "")}, "", "foo3: y\nz\nfoo[1-2]: x"},
	{"not compressed", Responses{simple("foo2", "x\n"), simple("foo1", "x")}, "compress", "foo2: x\nfoo1: x"},
	{"bare", Responses{simple("foo2", "x"), simple("foo3", "y"), simple("foo1", "x")}, "annotate", "y\nx"},
	{"bare, not compressed", Responses{simple("foo2", "x"), simple("foo3", " "), simple("foo1", "x")}, "annotate compress", "x\n \nx"},
	{"errors", Responses{failed("a", "bad"), simple("b", "x")}, "", "b: x"},
	{"output with error", Responses{{Host: "a", Response: "out", Error: "err"}}, "", "a: out"},
	{"mixed headers", Responses{tabular("a", "id", "1"), tabular("b", "id", "1"), tabular("c", "name", "1")}, "", "header mismatch, hosts: a, c"},
	{"mixed with simple", Responses{tabular("a", "id", "1"), simple("b", "1")}, "", "header mismatch, hosts: a, b"},
	{"header of a failure", Responses{tabular("a", "id", "1"), failed("b", "1")}, "headers", "a    | 1"},
	{"width", Responses{tabular("a", "id,x", "1,2", "1")}, "", "tabular width mismatch, host: a, row: 1"},
	{"both", Responses{{Host: "a", Response: "x", Header: []string{"h"}, Tabular: [][]string{{"1"}}}}, "", "responses mix simple and tabular data"},
	{"both on two", Responses{{Host: "a", Response: "x", Header: []string{"h"}}, tabular("b", "h", "1")}, "", "responses mix simple and tabular data"},
	{"rows of failures", Responses{tabular("a", "h", "1"), {Host: "b", Header: []string{"h"}, Tabular: [][]string{{"2"}}, Error: "x"}, {Host: "b", Header: []string{"i", "j"}, Tabular: [][]string{{"2"}}, Error: "x"}}, "headers", "a    | 1\nb    | 2"},
	{"nil", Responses{nil, simple("a", "x")}, "", "a: x"},
	{"json", Responses{simple("a", "<x>"), nil}, "json", `[{"Host":"a","Response":"\u003cx\u003e","Header":null,"Tabular":null,"Error":"","Data":null},null]`},
	{"json of nothing", nil, "json", "null"},
}

func flags(changed string) Flags {
	f := DefaultFlags()
	for _, name := range strings.Fields(changed) {
		switch name {
		case "annotate":
			f.Annotate = false
		case "headers":
			f.Headers = false
		case "sort":
			f.Sort = false
		case "compress":
			f.Compress = false
		case "csv":
			f.Mode = CSV
		case "json":
			f.Mode = JSON
		}
	}
	return f
}

func TestRender(t *testing.T) {
	for _, tt := range renderings {
		t.Run(tt.name, func(t *testing.T) {
			before := string(AppendResponses(nil, tt.rs))
			if got := tt.rs.Render(flags(tt.flags)); got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
			if after := string(AppendResponses(nil, tt.rs)); after != before {
				t.Errorf("the responses were changed:\n%s\n%s", before, after)
			}
		})
	}
}

// Columns of a text table start at the same place in all lines, and a CSV
// table reads back as what went in.
func TestRenderShapes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		columns := rapid.IntRange(2, 5).Draw(t, "columns")
		cell := rapid.StringMatching(`[a-zé0-9]{1,12}`)
		r := &Response{Host: "node", Header: rapid.SliceOfN(cell, columns, columns).Draw(t, "header")}
		r.Tabular = rapid.SliceOfN(rapid.SliceOfN(cell, columns, columns), 1, 8).Draw(t, "rows")
		lines := strings.Split(Responses{r}.Render(flags("")), "\n")
		if len(lines) != len(r.Tabular)+1 {
			t.Fatalf("%d lines for %d rows", len(lines), len(r.Tabular))
		}
		for i := 0; i < columns; i++ {
			for _, line := range lines {
				if a, b := bars(line), bars(lines[0]); !reflect.DeepEqual(a, b) || len(a) != columns {
					t.Fatalf("separators at %v and %v", a, b)
				}
			}
		}
		back, err := csv.NewReader(strings.NewReader(Responses{r}.Render(flags("csv annotate headers sort")))).ReadAll()
		if err != nil || !reflect.DeepEqual(back, r.Tabular) {
			t.Fatalf("%q reads back as %q, %v", r.Tabular, back, err)
		}
	})
}

// bars lists the places of the separators, in characters.
func bars(line string) (at []int) {
	for i, r := range []rune(line) {
		if r == '|' {
			at = append(at, i)
		}
	}
	return at
}
