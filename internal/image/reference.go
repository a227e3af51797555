package image

import (
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"minimega/internal/errs"
)

// Kind is the form of a reference.
type Kind int

// The kinds, with how each is written.
const (
	Local         Kind = iota // PATH: a directory, or a tar archive of a file system
	Tarball                   // tar:PATH
	OCI                       // oci:PATH[:tag], an OCI layout: a directory or an archive of one
	DockerArchive             // docker-archive:PATH[:name], as `docker save` writes it
	Registry                  // docker://host/repository[:tag][@digest]
	Stored                    // image:NAME, what the store has already: an ID or a reference
)

var schemes = map[string]Kind{
	"tar:": Tarball, "oci:": OCI, "docker-archive:": DockerArchive, "docker://": Registry, "image:": Stored,
}

// Forms lists how a reference may be written.
const Forms = "a directory, a tar archive, oci:PATH[:tag], docker-archive:PATH[:name], docker://host/repository[:tag][@digest] or image:NAME"

const maxReference = 8 << 10

// Reference names a file system for containers.
type Reference struct {
	Kind Kind
	Path string // of Local, Tarball, OCI and DockerArchive
	Tag  string // of OCI and DockerArchive, "" for the only image; name of Stored

	remote name.Reference // of Registry
}

// Parse reads a reference.
func Parse(s string) (Reference, error) {
	if s == "" || len(s) > maxReference || strings.ContainsRune(s, 0) {
		return Reference{}, errs.WithRemedy(errs.New(errs.Invalid, "bad image reference %.100q", s), "write "+Forms)
	}
	scheme, rest := split(s)
	r := Reference{Kind: schemes[scheme], Path: rest}
	switch r.Kind {
	case Local:
		if at := strings.Index(s, "://"); at >= 0 && !strings.Contains(s[:at], "/") {
			return Reference{}, errs.WithRemedy(errs.New(errs.Invalid, "bad image reference %.100q", s), "write "+Forms)
		}
		return r, nil
	case Registry:
		ref, err := name.ParseReference(rest)
		if err != nil {
			return Reference{}, errs.New(errs.Invalid, "bad image reference %.100q: %w", s, err)
		}
		return Reference{Kind: Registry, remote: ref}, nil
	case Stored:
		r.Path, r.Tag = "", rest
		return r, nonEmpty(s, rest)
	case OCI, DockerArchive:
		r.Path, r.Tag, _ = strings.Cut(rest, ":")
	}
	return r, nonEmpty(s, r.Path)
}

func nonEmpty(s, part string) error {
	if part == "" {
		return errs.WithRemedy(errs.New(errs.Invalid, "bad image reference %.100q: nothing follows the colon", s), "write "+Forms)
	}
	return nil
}

// split takes the scheme off, "" for none.
func split(s string) (scheme, rest string) {
	for scheme := range schemes {
		if len(s) >= len(scheme) && strings.EqualFold(s[:len(scheme)], scheme) {
			return scheme, s[len(scheme):]
		}
	}
	return "", s
}

// String is the reference in full: registries with host and tag.
func (r Reference) String() string {
	prefix := ""
	for scheme, k := range schemes {
		if k == r.Kind {
			prefix = scheme
		}
	}
	switch {
	case r.Kind == Registry:
		return prefix + r.remote.Name()
	case r.Kind == Stored:
		return prefix + r.Tag
	case r.Tag != "":
		return prefix + r.Path + ":" + r.Tag
	}
	return prefix + r.Path
}

// Absolute returns the reference s with its path, if it has one, made absolute
// by abs. What is no reference stays as it is.
func Absolute(s string, abs func(string) string) string {
	r, err := Parse(s)
	if err != nil || r.Path == "" {
		return s
	}
	r.Path = abs(r.Path)
	return r.String()
}

// IsPath reports whether s is a plain path: without a scheme.
func IsPath(s string) bool {
	scheme, _ := split(s)
	return scheme == "" && !strings.Contains(s, "://")
}

// here makes paths absolute from the working directory.
func (r Reference) here() (Reference, error) {
	if r.Path == "" {
		return r, nil
	}
	p, err := filepath.Abs(r.Path)
	r.Path = p
	return r, err
}
