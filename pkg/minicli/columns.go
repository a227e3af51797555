package minicli

import (
	"fmt"
	"slices"
	"strings"
)

// MaxColumns bounds how many columns may be asked for.
const MaxColumns = 1000

// SplitColumns reads the comma separated names of .columns.
func SplitColumns(spec string) []string {
	names := strings.Split(spec, ",")
	for i, name := range names {
		names[i] = strings.TrimSpace(name)
	}
	return names
}

// Columns returns the responses with those columns only, in that order. Names
// may be abbreviated and are matched against the header in lower case; the new
// header has the full names. A response with a header and no table gets the
// names as its header, one without a header passes as it is.
func Columns(rs Responses, names []string) (Responses, error) {
	if len(names) > MaxColumns {
		return nil, fmt.Errorf("%d columns, at most %d are allowed", len(names), MaxColumns)
	}
	out := make(Responses, 0, len(rs))
	for _, r := range rs {
		if r == nil || r.Header == nil {
			out = append(out, r)
			continue
		}
		picked, err := pick(r, names)
		if err != nil {
			return nil, err
		}
		out = append(out, picked)
	}
	return out, nil
}

func pick(r *Response, names []string) (*Response, error) {
	out := *r
	if r.Tabular == nil {
		out.Header = slices.Clone(names)
		return &out, nil
	}
	if n := badRow(r); n >= 0 {
		return nil, fmt.Errorf("tabular width mismatch, host: %s, row: %d", r.Host, n)
	}
	columns := make([]int, len(names))
	out.Header = make([]string, len(names))
	for i, name := range names {
		n, err := findColumn(r.Header, name, name)
		if err != nil {
			return nil, err
		}
		columns[i], out.Header[i] = n, r.Header[n]
	}
	out.Tabular = make([][]string, len(r.Tabular))
	cells := make([]string, len(r.Tabular)*len(columns))
	for i, row := range r.Tabular {
		picked := cells[:len(columns):len(columns)]
		cells = cells[len(columns):]
		for j, n := range columns {
			picked[j] = row[n]
		}
		out.Tabular[i] = picked
	}
	return &out, nil
}

// findColumn finds the column of that name, or the only one that starts with
// it. The header is compared in lower case; typed is the name for the error.
func findColumn(header []string, name, typed string) (int, error) {
	found, count := 0, 0
	for i, title := range header {
		title = strings.ToLower(title)
		if title == name {
			return i, nil
		}
		if strings.HasPrefix(title, name) {
			found, count = i, count+1
		}
	}
	switch count {
	case 0:
		return 0, fmt.Errorf("no such column `%s`", typed)
	case 1:
		return found, nil
	}
	return 0, fmt.Errorf("ambiguous column `%s`", typed)
}
