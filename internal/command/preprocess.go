package command

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"minimega/internal/errs"
	"minimega/internal/fetch"
	"minimega/pkg/iomeshage"
)

// Preprocessor returns the function that each argument passes before its
// command runs: it expands `$NAME` and `${NAME}`, and then file:, http:,
// https: and tar:, which become paths. files is the files directory, absolute;
// share, if not nil, brings what other hosts have into it.
func Preprocessor(files string, share *iomeshage.Service) func(context.Context, string) (string, error) {
	p := preprocessor{files, fetch.NewClient(), share}
	return p.argument
}

type preprocessor struct {
	files  string
	client *fetch.Client
	share  *iomeshage.Service
}

// reporter is the key of the call whose client hears how far a file is.
type reporter struct{}

// Reporting returns a context for the expansion of call's arguments, which may
// take long: the client of call is told how far it is.
func Reporting(ctx context.Context, call *Call) context.Context {
	return context.WithValue(ctx, reporter{}, call)
}

func (p preprocessor) argument(ctx context.Context, arg string) (string, error) {
	if !IsEnvExpanded(ctx) {
		arg = ExpandEnv(arg)
	}
	scheme, rest, ok := strings.Cut(arg, ":")
	if !ok || rest == "" {
		return arg, nil
	}
	switch strings.ToLower(scheme) {
	case "file":
		return p.file(ctx, rest)
	case "http", "https":
		return p.download(ctx, arg)
	case "tar":
		return p.tar(ctx, rest)
	}
	return arg, nil
}

// file finds a file in the files directory, or brings it there.
func (p preprocessor) file(ctx context.Context, name string) (string, error) {
	full, err := p.inFiles(name)
	if err != nil {
		return "", err
	}
	if err := p.bring(ctx, full); err != nil {
		return "", err
	}
	if _, err := os.Stat(full); err != nil {
		return "", errs.New(errs.NotFound, "get %s: file not found", name)
	}
	return full, nil
}

// bring gets what other hosts have of a path in the files directory.
func (p preprocessor) bring(ctx context.Context, full string) error {
	if p.share == nil || full == p.files {
		return nil
	}
	name, err := filepath.Rel(p.files, full)
	if err != nil {
		return err
	}
	call, _ := ctx.Value(reporter{}).(*Call)
	if call == nil || call.Session == nil || call.Session.Shared.StatusPeriod() <= 0 {
		return FileError(p.share.Get(ctx, name))
	}
	result := make(chan error, 1)
	go func() { result <- p.share.Get(ctx, name) }()
	tick := time.NewTicker(call.Session.Shared.StatusPeriod())
	defer tick.Stop()
	for {
		select {
		case err := <-result:
			return FileError(err)
		case <-tick.C:
			p.report(call)
		}
	}
}

// report tells the client how far the files are that are coming.
func (p preprocessor) report(call *Call) {
	for _, s := range p.share.Status() {
		call.Status(fmt.Sprintf("get %s: %d of %d MiB from %d hosts", s.Name, s.Bytes>>20, s.Size>>20, len(s.Sources)))
	}
}

// inFiles is where a name lies in the files directory. An absolute path must
// lie in it already.
func (p preprocessor) inFiles(name string) (string, error) {
	local := name
	if clean := filepath.Clean(name); filepath.IsAbs(clean) {
		rel, err := filepath.Rel(p.files, clean)
		if err != nil {
			return "", errs.New(errs.Invalid, "get %s: %w", name, err)
		}
		local = rel
	}
	if !filepath.IsLocal(local) || strings.ContainsRune(local, 0) {
		return "", errs.WithRemedy(errs.New(errs.Invalid, "get %s: not in the files directory", name), "files are taken from "+p.files)
	}
	return filepath.Join(p.files, local), nil
}

// download finds a URL's file in the files directory, or brings it there.
func (p preprocessor) download(ctx context.Context, raw string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return "", errs.New(errs.Invalid, "get %s: %w", raw, err)
	}
	name := strings.TrimPrefix(path.Clean("/"+u.Path), "/")
	if u.Host == "" || name == "" || strings.ContainsRune(name, 0) {
		return "", errs.New(errs.Invalid, "get %s: the URL names no file", raw)
	}
	full := filepath.Join(p.files, name)
	switch st, err := os.Stat(full); {
	case err == nil && st.IsDir():
		return "", errs.New(errs.Exists, "get %s: %s is a directory", raw, full)
	case err == nil:
		return full, nil
	}
	if err := p.bring(ctx, full); err != nil && !errors.Is(err, iomeshage.ErrNotFound) {
		return "", err
	}
	if _, err := os.Stat(full); err == nil {
		return full, nil
	}
	return full, p.client.Download(ctx, raw, p.files, name)
}

// tar unpacks an archive, named by a path or by one of the other schemes.
func (p preprocessor) tar(ctx context.Context, name string) (string, error) {
	file := name
	if !filepath.IsAbs(name) {
		var err error
		if file, err = p.source(ctx, name); err != nil {
			return "", err
		}
	}
	return fetch.Untar(ctx, file)
}

// source is the path of an archive that is not given by an absolute path.
func (p preprocessor) source(ctx context.Context, name string) (string, error) {
	scheme, rest, _ := strings.Cut(name, ":")
	switch strings.ToLower(scheme) {
	case "http", "https":
		return p.download(ctx, name)
	case "file":
		return p.file(ctx, rest)
	}
	return p.file(ctx, name)
}

// ExpandEnv replaces `$NAME` and `${NAME}` by the daemon's environment.
func ExpandEnv(arg string) string { return expand(arg, os.Getenv) }

// EnvExpanded marks a context whose command has had its environment expanded
// on the host it came from.
func EnvExpanded(ctx context.Context) context.Context {
	return context.WithValue(ctx, expandedKey{}, true)
}

// IsEnvExpanded reports whether a context is marked so.
func IsEnvExpanded(ctx context.Context) bool { return ctx.Value(expandedKey{}) != nil }

type expandedKey struct{}

// expand replaces $NAME and ${NAME} by what get returns. A NAME is letters,
// digits and underscores, the first no digit; any other use of a dollar, such
// as $(…) or $1, is left for the program that the text is meant for.
func expand(s string, get func(string) string) string {
	if !strings.Contains(s, "$") {
		return s
	}
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 {
			b.WriteString(s)
			return b.String()
		}
		b.WriteString(s[:i])
		s = s[i+1:]
		name, n := variable(s)
		if n == 0 {
			b.WriteByte('$')
			continue
		}
		b.WriteString(get(name))
		s = s[n:]
	}
}

// variable reads the name after a dollar; n is how long it is with its braces,
// 0 for none.
func variable(s string) (name string, n int) {
	if strings.HasPrefix(s, "{") {
		n := nameLen(s[1:])
		if n == 0 || n+1 >= len(s) || s[n+1] != '}' {
			return "", 0
		}
		return s[1 : n+1], n + 2
	}
	n = nameLen(s)
	return s[:n], n
}

func nameLen(s string) int {
	for i := range len(s) {
		c := s[i]
		letter := c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return i
		}
	}
	return len(s)
}
