package deploy

import (
	_ "embed"
	"strings"
	"unicode"

	"minimega/internal/errs"
)

// The scripts that run on the other host. What differs between runs comes in
// their arguments, so nothing of it is ever read as shell language.
var (
	//go:embed send.sh
	sendScript string // file, mode, size, sha256
	//go:embed start.sh
	startScript string // binary, stdout, stderr, base directory, flag...
	//go:embed remove.sh
	removeScript string // pid or "", file...
)

// sh is a command line for a login shell that runs a script with arguments. It
// holds for any shell that knows single quotes.
func sh(script string, args ...string) string {
	return words(append([]string{"sh", "-c", script, "minimega"}, args...))
}

func words(list []string) string {
	quoted := make([]string, len(list))
	for i, w := range list {
		quoted[i] = quote(w)
	}
	return strings.Join(quoted, " ")
}

// quote makes a word of a shell's line out of any text without NUL.
func quote(s string) string {
	if s != "" && strings.IndexFunc(s, special) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'"'"'`) + "'"
}

// special reports whether r may mean something to some shell.
func special(r rune) bool {
	return r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-_./,:@%+", r)
}

// checkWord refuses what cannot be a word of a command line on another host.
func checkWord(what, s string) error {
	if i := strings.IndexFunc(s, unicode.IsControl); i >= 0 {
		return errs.New(errs.Invalid, "%s %q has the control character %q in it", what, s, s[i])
	}
	return nil
}
