package minicli

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"minimega/pkg/ranges"
)

// Render writes a batch as the flags want it: as JSON, as a table (text or
// CSV) if there is a row in it, else as simple text. Errors are never part of
// it, except in JSON. A batch that fits in no form gives a line saying so.
// The responses stay as they are.
func (rs Responses) Render(f Flags) string {
	if f.Mode == JSON {
		return string(AppendResponses(make([]byte, 0, rs.Size()), rs))
	}
	header, trouble := rs.header()
	if trouble != "" {
		return trouble
	}
	t := rs.table(header)
	if len(t.rows) == 0 {
		return rs.simple(f)
	}
	t.annotate = f.Annotate
	if f.Sort {
		t.sort()
	}
	text := ""
	if f.Mode == CSV {
		text = t.csv(f.Headers)
	} else {
		text = t.text(f.Headers)
	}
	return strings.TrimSpace(text)
}

// header checks that the responses go together and returns their header.
// Those with an error do not count.
func (rs Responses) header() (header []string, trouble string) {
	var first *Response
	rows, text := false, false
	for _, r := range rs {
		if r == nil || r.Error != "" {
			continue
		}
		if first == nil {
			first = r
		}
		if !slices.Equal(first.Header, r.Header) {
			return nil, fmt.Sprintf("header mismatch, hosts: %s, %s", first.Host, r.Host)
		}
		if n := badRow(r); n >= 0 {
			return nil, fmt.Sprintf("tabular width mismatch, host: %s, row: %d", r.Host, n)
		}
		rows = rows || len(r.Tabular) > 0
		text = text || r.Response != ""
	}
	if rows && text {
		return nil, "responses mix simple and tabular data"
	}
	if first != nil {
		header = first.Header
	}
	return header, ""
}

// badRow returns the number of the first row that is not as wide as the
// header, -1 if there is none.
func badRow(r *Response) int {
	return slices.IndexFunc(r.Tabular, func(row []string) bool { return len(row) != len(r.Header) })
}

// table gathers the rows of all responses. Those of a response with an error
// count if they fit.
func (rs Responses) table(header []string) *table {
	total := 0
	for _, r := range rs {
		if r != nil {
			total += len(r.Tabular)
		}
	}
	t := &table{header: header, rows: make([]row, 0, total)}
	for _, r := range rs {
		if r == nil || r.Error != "" && (!slices.Equal(r.Header, header) || badRow(r) >= 0) {
			continue
		}
		for _, cells := range r.Tabular {
			t.rows = append(t.rows, row{r.Host, cells})
		}
	}
	return t
}

// block is one text and the hosts that answered it.
type block struct{ host, text string }

// simple writes the texts of the responses. Compressed, equal texts are
// written once for all their hosts.
func (rs Responses) simple(f Flags) string {
	var blocks []block
	for _, r := range rs {
		if r != nil && r.Response != "" {
			blocks = append(blocks, block{r.Host, r.Response})
		}
	}
	if f.Compress && len(rs) > 1 {
		blocks = compress(blocks)
	}
	var b strings.Builder
	for _, block := range blocks {
		if f.Annotate {
			b.WriteString(block.host)
			b.WriteString(": ")
		}
		b.WriteString(block.text)
		if !strings.HasSuffix(block.text, "\n") {
			b.WriteByte('\n')
		}
	}
	return strings.TrimSpace(b.String())
}

func compress(blocks []block) []block {
	hosts := map[string][]string{}
	var out []block
	for _, b := range blocks {
		if _, ok := hosts[b.text]; !ok {
			out = append(out, b)
		}
		hosts[b.text] = append(hosts[b.text], b.host)
	}
	for i := range out {
		out[i].host = ranges.Compact(hosts[out[i].text])
	}
	slices.SortStableFunc(out, func(a, b block) int { return cmp.Compare(a.host, b.host) })
	return out
}
