package prompt

import (
	"io"
	"os"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/term"
)

// Shown is text as it may go to out. On a terminal, control characters other
// than tabs and ends of lines are written as escapes: what a guest or another
// host says must not command the terminal. Elsewhere text stays as it is.
func Shown(out io.Writer, text string) string {
	if f, ok := out.(*os.File); !ok || !term.IsTerminal(int(f.Fd())) {
		return text
	}
	return shown(text)
}

func shown(text string) string {
	if strings.IndexFunc(text, unicode.IsControl) < 0 {
		return text
	}
	var b strings.Builder
	for i, r := range text {
		if !unicode.IsControl(r) || r == '\n' || r == '\t' || r == '\r' && strings.HasPrefix(text[i+1:], "\n") {
			b.WriteRune(r)
			continue
		}
		quoted := strconv.QuoteRune(r)
		b.WriteString(quoted[1 : len(quoted)-1])
	}
	return b.String()
}
