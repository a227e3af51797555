package host

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"minimega/internal/errs"
	"minimega/pkg/near"
)

// maxSeen is how many names of a directory are compared.
const maxSeen = 10_000

// Missing is the error for a file that does not exist: what it is for, and which
// one may have been meant.
func Missing(what, path string) error {
	err := errs.New(errs.NotFound, "%s does not exist", strings.TrimPrefix(what+" "+path, " "))
	return errs.WithRemedy(err, meant(path))
}

// meant tells which file may have been meant, or which directory is missing, ""
// if nothing is near.
func meant(path string) string {
	dir, name := filepath.Split(filepath.Clean(path))
	d, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		for errors.Is(err, fs.ErrNotExist) && filepath.Dir(dir) != dir {
			path, dir = dir, filepath.Dir(dir)
			_, err = os.Stat(dir)
		}
		return "there is no directory " + filepath.Clean(path)
	}
	if err != nil {
		return ""
	}
	defer d.Close()
	names, err := d.Readdirnames(maxSeen)
	if err != nil { // also the end, of an empty one
		return ""
	}
	best, least := "", 0
	for _, n := range names {
		score, ok := near.Score(strings.ToLower(n), strings.ToLower(name))
		if ok && (best == "" || score < least || score == least && n < best) {
			best, least = n, score
		}
	}
	if best == "" {
		return ""
	}
	return "did you mean " + filepath.Join(dir, best) + "?"
}
