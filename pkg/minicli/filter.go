package minicli

import (
	"errors"
	"strings"
)

// Filter keeps the rows in which a column has a value.
type Filter struct {
	column   string // as typed
	value    string // in lower case
	contains bool   // ~: the value is a part of the cell
	negate   bool   // !: keep the others
}

// ParseFilter reads column=value, column!=value, column~value (contains) or
// column!~value.
func ParseFilter(s string) (Filter, error) {
	for _, sep := range [...]string{"!~", "~", "!=", "="} {
		if strings.Count(s, sep) != 1 {
			continue
		}
		column, value, _ := strings.Cut(s, sep)
		return Filter{
			column:   column,
			value:    strings.ToLower(value),
			contains: strings.HasSuffix(sep, "~"),
			negate:   strings.HasPrefix(sep, "!"),
		}, nil
	}
	return Filter{}, errors.New("invalid filter, see help")
}

// Apply returns the responses with the rows that the filter keeps. Case does
// not matter; a column may be abbreviated; a cell like [a, b] or {...} need
// only contain the value. The column host means the host of the response and
// keeps or drops it whole. Responses without a table pass as they are.
func (f Filter) Apply(rs Responses) (Responses, error) {
	out := make(Responses, 0, len(rs))
	for _, r := range rs {
		if strings.EqualFold(f.column, hostColumn) {
			if r != nil && f.keeps(r.Host) {
				out = append(out, r)
			}
			continue
		}
		filtered, err := f.table(r)
		if err != nil {
			return nil, err
		}
		out = append(out, filtered)
	}
	return out, nil
}

// table returns the response with the rows that are kept.
func (f Filter) table(r *Response) (*Response, error) {
	if r == nil || r.Tabular == nil {
		return r, nil
	}
	n, err := findColumn(r.Header, strings.ToLower(f.column), f.column)
	if err != nil {
		return nil, err
	}
	out := *r
	out.Tabular = make([][]string, 0, len(r.Tabular))
	for _, row := range r.Tabular {
		if n < len(row) && f.keeps(row[n]) {
			out.Tabular = append(out.Tabular, row)
		}
	}
	return &out, nil
}

func (f Filter) keeps(cell string) bool {
	cell = strings.ToLower(cell)
	if f.contains || isList(cell) {
		return strings.Contains(cell, f.value) != f.negate
	}
	return (cell == f.value) != f.negate
}

// isList tells the cells that hold several values.
func isList(cell string) bool {
	return strings.HasPrefix(cell, "[") && strings.HasSuffix(cell, "]") ||
		strings.HasPrefix(cell, "{") && strings.HasSuffix(cell, "}")
}
