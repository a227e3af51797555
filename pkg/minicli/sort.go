package minicli

import (
	"cmp"
	"slices"
	"strings"
)

// number is a cell read as an integer, once.
type number struct {
	n  int64
	ok bool
}

// sorter compares rows by their numbers in the table. Columns are parsed when
// they are first needed, mostly only the first one or two.
type sorter struct {
	rows    []row
	hosts   []number
	columns [][]number
	byHost  bool
}

// sort orders the rows: the first column that differs decides, as integers if
// both are, else bytewise. Equal rows keep their order.
func (t *table) sort() {
	s := &sorter{rows: t.rows, columns: make([][]number, len(t.header)), byHost: t.annotate}
	order := make([]int, len(t.rows))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, s.compare)
	sorted := make([]row, len(order))
	for i, n := range order {
		sorted[i] = t.rows[n]
	}
	t.rows = sorted
}

func (s *sorter) compare(a, b int) int {
	if s.byHost {
		if x, y := s.rows[a].host, s.rows[b].host; x != y {
			if s.hosts == nil {
				s.hosts = s.parse(func(r row) string { return r.host })
			}
			if c := order(x, y, s.hosts[a], s.hosts[b]); c != 0 {
				return c
			}
		}
	}
	left, right := s.rows[a].cells, s.rows[b].cells
	for i, x := range left {
		y := right[i]
		if x == y {
			continue
		}
		if s.columns[i] == nil {
			s.columns[i] = s.parse(func(r row) string { return r.cells[i] })
		}
		if c := order(x, y, s.columns[i][a], s.columns[i][b]); c != 0 {
			return c
		}
	}
	return 0
}

func (s *sorter) parse(cell func(row) string) []number {
	out := make([]number, len(s.rows))
	for i, r := range s.rows {
		out[i] = parseNumber(cell(r))
	}
	return out
}

func order(x, y string, a, b number) int {
	if a.ok && b.ok {
		return cmp.Compare(a.n, b.n)
	}
	return strings.Compare(x, y)
}

// maxDigits is how many digits always fit an int64.
const maxDigits = 18

// parseNumber reads a decimal integer with an optional sign. Unlike strconv
// it makes no error value for the many cells that are none.
func parseNumber(s string) number {
	digits := s
	if s != "" && (s[0] == '-' || s[0] == '+') {
		digits = s[1:]
	}
	if digits == "" || len(digits) > maxDigits {
		return number{}
	}
	var n int64
	for i := 0; i < len(digits); i++ {
		c := digits[i]
		if c < '0' || c > '9' {
			return number{}
		}
		n = n*10 + int64(c-'0')
	}
	if s[0] == '-' {
		n = -n
	}
	return number{n, true}
}
