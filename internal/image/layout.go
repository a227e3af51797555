package image

import (
	"cmp"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"minimega/internal/errs"
)

// Annotations that name an image in an OCI layout.
var nameAnnotations = []string{"org.opencontainers.image.ref.name", "io.containerd.image.name"}

const maxIndexes = 4 // in each other

// readLayout reads an OCI image layout (OCI image specification, "Image Layout").
func readLayout(fs files, r Reference, arch string) (*source, error) {
	var index v1.IndexManifest
	if _, err := readJSON(fs, "index.json", nil, &index); err != nil {
		return nil, errs.New(errs.Invalid, "%s is no OCI layout: %w", r.Path, err)
	}
	d, err := chooseTag(index.Manifests, r)
	if err != nil {
		return nil, err
	}
	for range maxIndexes {
		if !d.MediaType.IsIndex() {
			return readManifest(fs, d)
		}
		var inner v1.IndexManifest
		if _, err := readJSON(fs, blobPath(d.Digest), &d, &inner); err != nil {
			return nil, err
		}
		if d, err = choosePlatform(inner.Manifests, arch); err != nil {
			return nil, err
		}
	}
	return nil, errs.New(errs.Invalid, "%s: more than %d indexes in each other", r.Path, maxIndexes)
}

// chooseTag picks the image that the reference names.
func chooseTag(list []v1.Descriptor, r Reference) (v1.Descriptor, error) {
	var tags []string
	for _, d := range list {
		for _, key := range nameAnnotations {
			name := d.Annotations[key]
			if r.Tag != "" && (name == r.Tag || strings.HasSuffix(name, ":"+r.Tag)) {
				return d, nil
			}
			if name != "" {
				tags = append(tags, name)
			}
		}
	}
	if r.Tag == "" && len(list) == 1 {
		return list[0], nil
	}
	return v1.Descriptor{}, oneOf(r, tags)
}

// choosePlatform picks the image for this host.
func choosePlatform(list []v1.Descriptor, arch string) (v1.Descriptor, error) {
	var others []string
	for _, d := range list {
		p := d.Platform
		if p == nil && len(list) == 1 || p != nil && p.OS == "linux" && p.Architecture == arch {
			return d, nil
		}
		if p != nil && p.OS != "unknown" {
			others = append(others, p.OS+"/"+p.Architecture)
		}
	}
	slices.Sort(others)
	return v1.Descriptor{}, errs.New(errs.Unsupported, "the image is for %s, and this host is linux/%s",
		cmp.Or(strings.Join(slices.Compact(others), ", "), "no platform"), arch)
}

func readManifest(fs files, d v1.Descriptor) (*source, error) {
	var m v1.Manifest
	if _, err := readJSON(fs, blobPath(d.Digest), &d, &m); err != nil {
		return nil, err
	}
	config, err := readJSON(fs, blobPath(m.Config.Digest), &m.Config, nil)
	if err != nil {
		return nil, err
	}
	src := &source{digest: d.Digest, config: config}
	for _, l := range m.Layers {
		src.layers = append(src.layers, blob{digest: l.Digest, size: l.Size, open: openBlob(fs, blobPath(l.Digest))})
	}
	return src, nil
}

// dockerManifest is an entry of manifest.json in what `docker save` writes
// (Docker image specification v1.2, "Combined Image JSON + Filesystem Changeset Format").
type dockerManifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// readDockerArchive reads what `docker save` writes.
func readDockerArchive(fs files, r Reference, _ string) (*source, error) {
	var list []dockerManifest
	if _, err := readJSON(fs, "manifest.json", nil, &list); err != nil {
		return nil, errs.New(errs.Invalid, "%s is no docker archive: %w", r.Path, err)
	}
	m, err := chooseName(list, r)
	if err != nil {
		return nil, err
	}
	config, err := readJSON(fs, m.Config, nil, nil)
	if err != nil {
		return nil, err
	}
	src := &source{config: config}
	for _, name := range m.Layers {
		src.layers = append(src.layers, blob{size: -1, open: openBlob(fs, name)})
	}
	return src, nil
}

func chooseName(list []dockerManifest, r Reference) (dockerManifest, error) {
	var tags []string
	for _, m := range list {
		for _, tag := range m.RepoTags {
			_, version, _ := strings.Cut(filepath.Base(tag), ":")
			if r.Tag != "" && (tag == r.Tag || tag == r.Tag+":latest" || version == r.Tag) {
				return m, nil
			}
			tags = append(tags, tag)
		}
	}
	if r.Tag == "" && len(list) == 1 {
		return list[0], nil
	}
	return dockerManifest{}, oneOf(r, tags)
}
