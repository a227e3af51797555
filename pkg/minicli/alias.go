package minicli

import (
	"strings"
	"unicode"
)

// ExpandAlias replaces the first word of the line by its alias, if it has
// one. The expansion itself is not expanded again, the rest of the line stays
// as it is.
func ExpandAlias(line string, aliases map[string]string) string {
	trimmed := strings.TrimLeftFunc(line, unicode.IsSpace)
	end := strings.IndexFunc(trimmed, unicode.IsSpace)
	if end < 0 {
		end = len(trimmed)
	}
	expansion, ok := aliases[trimmed[:end]]
	if !ok {
		return line
	}
	return expansion + trimmed[end:]
}
