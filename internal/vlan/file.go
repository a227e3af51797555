package vlan

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"minimega/internal/errs"
)

// maxFile bounds what Load reads: 4096 rows of two longest names fit.
const maxFile = 4 << 20

// Text renders the registry: a header `Alias VLAN`, then one row
// `namespace//alias number` per alias in the order of the numbers, columns aligned.
func (r *Registry) Text() []byte {
	r.mu.Lock()
	names := maps.Clone(r.names)
	r.mu.Unlock()

	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 1, ' ', 0)
	fmt.Fprintln(w, "Alias\tVLAN")
	for _, n := range slices.Sorted(maps.Keys(names)) {
		fmt.Fprintf(w, "%s\t%d\n", names[n], n)
	}
	_ = w.Flush() // a bytes.Buffer does not fail
	return b.Bytes()
}

// Load adds the aliases that Text wrote. On an error, which names the line,
// nothing is added.
func (r *Registry) Load(from io.Reader) error {
	rows, err := parse(from)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	seenKey, seenVLAN := maps.Clone(r.numbers), maps.Clone(r.names)
	for _, row := range rows {
		if _, ok := seenKey[row.key]; ok {
			return fmt.Errorf("line %d: %w", row.line, errAlias)
		}
		if _, ok := seenVLAN[row.vlan]; ok {
			return fmt.Errorf("line %d: %w", row.line, errVLAN)
		}
		seenKey[row.key], seenVLAN[row.vlan] = row.vlan, row.key
	}
	for _, row := range rows {
		r.claimLocked(row.key, row.vlan)
	}
	r.changed()
	return nil
}

type row struct {
	key
	vlan, line int
}

func parse(from io.Reader) ([]row, error) {
	limited := &io.LimitedReader{R: from, N: maxFile + 1}
	scan := bufio.NewScanner(limited)
	var rows []row
	for line := 1; scan.Scan(); line++ {
		if line == 1 || strings.TrimSpace(scan.Text()) == "" {
			continue
		}
		row, err := parseRow(scan.Text())
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		row.line = line
		rows = append(rows, row)
	}
	if limited.N <= 0 {
		return nil, errs.New(errs.Invalid, "VLAN file is longer than %d bytes", maxFile)
	}
	return rows, scan.Err()
}

func parseRow(text string) (row, error) {
	text = strings.TrimSpace(text)
	i := strings.LastIndexAny(text, " \t")
	if i < 0 {
		return row{}, errs.New(errs.Invalid, "expected an alias and a number: %q", text)
	}
	n, isNumber, err := number(text[i+1:])
	if !isNumber || err != nil {
		return row{}, errNumber
	}
	name := strings.TrimSpace(text[:i])
	if !strings.Contains(name, separator) {
		return row{}, errs.New(errs.Invalid, "expected namespace//alias: %q", name)
	}
	k, err := parseKey("", name)
	if err != nil {
		return row{}, err
	}
	return row{key: k, vlan: n}, nil
}
