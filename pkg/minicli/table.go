package minicli

import (
	"encoding/csv"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// row is one line of a table. The cells belong to the response and are not
// changed.
type row struct {
	host  string
	cells []string
}

// table is what is written as text or CSV. With annotate, the host is the
// first column.
type table struct {
	header   []string
	rows     []row
	annotate bool
}

// The layout of text tables: columns are at least minColumn wide, have a
// space after the longest cell and a separator after that.
const (
	minColumn = 5
	separator = "| "
	spaces    = "                                                                "
)

// hostColumn is the name of the column that annotate adds.
const hostColumn = "host"

func (t *table) csv(headers bool) string {
	var b strings.Builder
	w := csv.NewWriter(&b)
	var record []string
	write := func(r row) {
		record = record[:0]
		if t.annotate {
			record = append(record, r.host)
		}
		_ = w.Write(append(record, r.cells...)) // a strings.Builder takes everything
	}
	if headers {
		write(row{hostColumn, t.header})
	}
	for _, r := range t.rows {
		write(r)
	}
	w.Flush()
	return b.String()
}

func (t *table) text(headers bool) string {
	rows := t.rows
	if headers {
		rows = make([]row, 0, len(t.rows)+1)
		rows = append(append(rows, row{hostColumn, t.header}), t.rows...)
	}
	g := measure(rows, len(t.header))
	var b strings.Builder
	b.Grow(g.line() * len(rows))
	for _, r := range rows {
		if t.annotate {
			g.cell(&b, r.host, g.host)
		}
		last := len(r.cells) - 1
		for i, cell := range r.cells {
			if i == last {
				b.WriteString(cell)
			} else {
				g.cell(&b, cell, g.columns[i])
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// grid says how wide the columns of a text table are.
type grid struct {
	host    int
	columns []int
	ascii   bool // every cell is as wide as it is long
}

// line is how many bytes a line has, more or less.
func (g *grid) line() int {
	size := g.host + len(separator) + 1
	for _, w := range g.columns {
		size += w + len(separator)
	}
	return size
}

// cell writes a cell that is not the last of its line.
func (g *grid) cell(b *strings.Builder, cell string, w int) {
	b.WriteString(cell)
	if g.ascii {
		w -= len(cell)
	} else {
		w -= width(cell)
	}
	for ; w > len(spaces); w -= len(spaces) {
		b.WriteString(spaces)
	}
	b.WriteString((spaces + separator)[len(spaces)-w:])
}

// measure finds the widths of the columns, and makes cells printable.
func measure(rows []row, columns int) *grid {
	g := &grid{host: minColumn, columns: make([]int, columns), ascii: true}
	for i := range g.columns {
		g.columns[i] = minColumn
	}
	for n := range rows {
		r := &rows[n]
		r.host = printable(r.host)
		g.host = max(g.host, width(r.host)+1)
		g.ascii = g.ascii && len(r.host) == width(r.host)
		cells, copied := r.cells, false
		for i, cell := range cells {
			w, clean := inspect(cell)
			if !clean {
				if !copied {
					cells, copied = slices.Clone(cells), true
				}
				cell = printable(cell)
				cells[i], w = cell, width(cell)
			}
			g.ascii = g.ascii && w == len(cell)
			g.columns[i] = max(g.columns[i], w+1)
		}
		r.cells = cells
	}
	return g
}

// inspect returns the width of a cell and whether it can be printed as it is.
func inspect(cell string) (w int, clean bool) {
	for i := 0; i < len(cell); i++ {
		switch c := cell[i]; {
		case c >= utf8.RuneSelf:
			return width(cell), strings.IndexFunc(cell, unicode.IsControl) < 0
		case c < ' ' || c == 0x7f:
			return 0, false
		}
	}
	return len(cell), true
}

// printable writes control characters as escapes, so that a cell, which may
// come from a guest, neither breaks the table nor commands the terminal.
func printable(cell string) string {
	if strings.IndexFunc(cell, unicode.IsControl) < 0 {
		return cell
	}
	var b strings.Builder
	for i := 0; i < len(cell); {
		r, n := utf8.DecodeRuneInString(cell[i:])
		if unicode.IsControl(r) {
			quoted := fmt.Sprintf("%q", string(r))
			b.WriteString(quoted[1 : len(quoted)-1])
		} else {
			b.WriteString(cell[i : i+n])
		}
		i += n
	}
	return b.String()
}

func width(s string) int { return utf8.RuneCountInString(s) }
