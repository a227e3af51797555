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
	hostWidth, widths := t.measure(rows)
	size := 0
	for _, w := range widths {
		size += w + len(separator)
	}
	dst := make([]byte, 0, (size+hostWidth+len(separator)+1)*len(rows))
	for _, r := range rows {
		if t.annotate {
			dst = appendCell(dst, r.host, hostWidth)
		}
		last := len(r.cells) - 1
		for i, cell := range r.cells {
			if i == last {
				dst = append(dst, cell...)
			} else {
				dst = appendCell(dst, cell, widths[i])
			}
		}
		dst = append(dst, '\n')
	}
	return string(dst)
}

// measure returns how wide the columns are, and makes cells printable.
func (t *table) measure(rows []row) (host int, widths []int) {
	widths = make([]int, len(t.header))
	host = minColumn
	for i := range widths {
		widths[i] = minColumn
	}
	for n := range rows {
		r := &rows[n]
		r.host = printable(r.host)
		host = max(host, width(r.host)+1)
		cells := r.cells
		for i, cell := range cells {
			w, clean := inspect(cell)
			if !clean {
				if &cells[0] == &r.cells[0] {
					cells = slices.Clone(cells)
				}
				cells[i] = printable(cell)
				w = width(cells[i])
			}
			widths[i] = max(widths[i], w+1)
		}
		r.cells = cells
	}
	return host, widths
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

// appendCell appends a cell that is not the last of its line.
func appendCell(dst []byte, cell string, w int) []byte {
	dst = append(dst, cell...)
	cellWidth := len(cell)
	for i := 0; i < len(cell); i++ {
		if cell[i] >= utf8.RuneSelf {
			cellWidth = width(cell)
			break
		}
	}
	for pad := w - cellWidth; pad > 0; pad -= len(spaces) {
		dst = append(dst, spaces[:min(pad, len(spaces))]...)
	}
	return append(dst, separator...)
}
