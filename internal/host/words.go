package host

import (
	"io"
	"os"
	"strings"
)

// How much of a log makes last words.
const (
	wordsTail  = 4 << 10 // bytes
	wordsLines = 8
)

// LastWords returns the end of what a process printed to a file, fit for one
// line of an error: a guest may have had a hand in it. Lines for which noise
// is true are left out. A file that cannot be read gives no words.
func LastWords(path string, noise func(line string) bool) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return ""
	}
	b, err := io.ReadAll(io.NewSectionReader(f, max(0, st.Size()-wordsTail), wordsTail))
	if err != nil {
		return ""
	}
	var kept []string
	for _, line := range strings.FieldsFunc(string(b), func(r rune) bool { return r == '\n' || r == '\r' }) {
		if line = strings.TrimSpace(strings.Map(printable, line)); line != "" && !noise(line) {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept[max(0, len(kept)-wordsLines):], "; ")
}

func printable(r rune) rune {
	if r < ' ' || r == 0x7f || r == '\ufffd' {
		return ' '
	}
	return r
}
