package image

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"minimega/internal/errs"
	"minimega/internal/version"
)

// openRegistry finds an image in a registry, which is asked as whom the
// configuration of docker and its like says. Registries on this host and in
// private address ranges may do without TLS.
func (s *Store) openRegistry(ctx context.Context, r Reference) (*source, error) {
	conns := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: dialTime}).DialContext, TLSHandshakeTimeout: dialTime,
		ResponseHeaderTimeout: 2 * dialTime, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: parallel,
	}
	src, err := s.readRegistry(ctx, r, conns)
	if err != nil {
		conns.CloseIdleConnections()
		return nil, registryError(ctx, err)
	}
	src.close = func() error { conns.CloseIdleConnections(); return nil }
	return src, nil
}

const dialTime = 15 * time.Second

func (s *Store) readRegistry(ctx context.Context, r Reference, conns *http.Transport) (*source, error) {
	d, err := remote.Get(r.remote, remote.WithContext(ctx), remote.WithTransport(conns), remote.WithAuthFromKeychain(authn.DefaultKeychain),
		remote.WithUserAgent("minimega/"+version.Version))
	if err != nil {
		return nil, err
	}
	img, err := s.chooseImage(d)
	if err != nil {
		return nil, err
	}
	return readRemote(ctx, img)
}

func (s *Store) chooseImage(d *remote.Descriptor) (v1.Image, error) {
	if !d.MediaType.IsIndex() {
		return d.Image()
	}
	index, err := d.ImageIndex()
	if err != nil {
		return nil, err
	}
	m, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	chosen, err := choosePlatform(m.Manifests, s.arch)
	if err != nil {
		return nil, err
	}
	return index.Image(chosen.Digest)
}

func readRemote(ctx context.Context, img v1.Image) (*source, error) {
	m, err := img.Manifest()
	if err != nil {
		return nil, err
	}
	if m.Config.Size > maxConfig {
		return nil, errs.New(errs.Invalid, "the configuration of the image has %d bytes, the most is %d", m.Config.Size, maxConfig)
	}
	src := &source{}
	if src.config, err = img.RawConfigFile(); err != nil {
		return nil, err
	}
	if src.digest, err = img.Digest(); err != nil {
		return nil, err
	}
	for _, l := range m.Layers {
		src.layers = append(src.layers, blob{digest: l.Digest, size: l.Size, open: func(context.Context) (io.ReadCloser, error) {
			layer, err := img.LayerByDigest(l.Digest)
			if err != nil {
				return nil, registryError(ctx, err)
			}
			r, err := layer.Compressed()
			if err != nil {
				return nil, registryError(ctx, err)
			}
			return r, nil
		}})
	}
	return src, nil
}

// registryError gives the answer of a registry its kind.
func registryError(ctx context.Context, err error) error {
	var answer *transport.Error
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errs.KindOf(err) != errs.Internal:
		return err
	case !errors.As(err, &answer):
		return errs.New(errs.Unreachable, "registry: %w", err)
	case answer.StatusCode == http.StatusNotFound:
		return errs.New(errs.NotFound, "registry: %w", err)
	case answer.StatusCode == http.StatusUnauthorized, answer.StatusCode == http.StatusForbidden:
		return errs.WithRemedy(errs.New(errs.Permission, "registry: %w", err), "log in with docker or podman; their configuration is used")
	}
	return errs.New(errs.Unreachable, "registry: %w", err)
}
