package minicli

import (
	"encoding/json"
	"fmt"
	"testing"
)

// info is a table of the size of `vm info` over that many machines.
func info(rows, columns int) Responses {
	r := &Response{Host: "node1"}
	for i := range columns {
		r.Header = append(r.Header, fmt.Sprintf("column%d", i))
	}
	for n := range rows {
		row := []string{fmt.Sprint(rows - n), fmt.Sprintf("vm-%d", n)}
		for i := 2; i < columns; i++ {
			row = append(row, fmt.Sprintf("value %d", (n*i)%1000))
		}
		r.Tabular = append(r.Tabular, row)
	}
	return Responses{r}
}

func BenchmarkCompile(b *testing.B) {
	c := language(b)
	for _, line := range []string{"version", "vm info", "vm config memory 2048", "namespace foo .json true vm info"} {
		b.Run(line, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Compile(line); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkCompileError(b *testing.B) {
	c := language(b)
	for b.Loop() {
		if _, err := c.Compile("vm lunch kvm foo"); err == nil {
			b.Fatal("no error")
		}
	}
}

func BenchmarkRender(b *testing.B) {
	rs := info(5000, 46)
	for name, mode := range map[string]Mode{"text": Text, "csv": CSV, "json": JSON} {
		b.Run(name, func(b *testing.B) {
			f := DefaultFlags()
			f.Mode = mode
			for b.Loop() {
				b.SetBytes(int64(len(rs.Render(f))))
			}
		})
	}
}

func BenchmarkAppendResponses(b *testing.B) {
	rs := info(5000, 46)
	b.Run("here", func(b *testing.B) {
		var buf []byte
		for b.Loop() {
			buf = AppendResponses(buf[:0], rs)
			b.SetBytes(int64(len(buf)))
		}
	})
	b.Run("encoding/json", func(b *testing.B) {
		for b.Loop() {
			buf, err := json.Marshal(rs)
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(buf)))
		}
	})
}
