// Package fetch brings files into the files directory: downloads over HTTP and
// the content of tar archives. What it makes appears complete or not at all,
// within bounds, and never outside the directory it was told.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
)

const (
	// MaxDownload bounds one file, in bytes.
	MaxDownload = 1 << 40
	// StallTimeout is how long a server may send nothing.
	StallTimeout = time.Minute
	// unfinished begins the names of what is still coming; whoever lists or
	// shares the files directory (pkg/iomeshage) leaves such names out.
	unfinished = ".iomeshage-"
	// reserve is what a download or an archive leaves free on the disk.
	reserve = 64 << 20
)

// Client downloads files.
type Client struct {
	http  *http.Client
	stall time.Duration
}

// NewClient makes a client that honours the proxy variables of the environment.
func NewClient() *Client {
	t := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:   15 * time.Second,
		ResponseHeaderTimeout: 30 * time.Second,
		DisableCompression:    true, // keep what the server has, byte by byte
		DisableKeepAlives:     true, // downloads are rare: leave no connection and no goroutine behind
	}
	return &Client{http: &http.Client{Transport: t}, stall: StallTimeout}
}

// Download makes name, a slash separated path in dir, from what url has. The
// directories above it are made. It fails when the server is silent for
// StallTimeout.
func (c *Client) Download(ctx context.Context, url, dir, name string) (err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	resp, err := c.get(ctx, url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := room(root, max(0, resp.ContentLength)); err != nil {
		return errs.New(errs.Resource, "download %s: %w", url, err)
	}
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	body := &watched{r: resp.Body, root: root, stall: c.stall}
	body.timer = time.AfterFunc(c.stall, func() { cancel(errs.New(errs.Unreachable, "nothing came for %v", c.stall)) })
	defer body.timer.Stop()
	err = writeFile(root, name, body, resp.ContentLength)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	if err != nil {
		return fmt.Errorf("download %s: %w", url, err)
	}
	return nil
}

// get starts the download.
func (c *Client) get(ctx context.Context, url string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, errs.New(errs.Invalid, "download: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, errs.New(errs.Unreachable, "download: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		kind := errs.Unreachable
		if resp.StatusCode == http.StatusNotFound {
			kind = errs.NotFound
		}
		return nil, errs.New(kind, "download %s: the server says %s", url, resp.Status)
	}
	return resp, nil
}

// writeFile makes name from r, in one step. size is what r promises, -1 for
// unknown.
func writeFile(root *os.Root, name string, r io.Reader, size int64) (err error) {
	tmp := path.Join(path.Dir(name), unfinished+suffix())
	f, err := root.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = root.Remove(tmp)
		}
	}()
	n, err := io.Copy(f, io.LimitReader(r, MaxDownload+1))
	switch {
	case err != nil:
	case n > MaxDownload:
		err = errs.New(errs.Resource, "more than %d bytes", int64(MaxDownload))
	case size >= 0 && n != size:
		err = io.ErrUnexpectedEOF
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if st, err := root.Stat(name); err == nil && !st.Mode().IsRegular() {
		return &fs.PathError{Op: "replace", Path: name, Err: errors.New("not an ordinary file")}
	}
	return root.Rename(tmp, name)
}

// watched is a download's body: it moves the deadline with each read, and
// looks now and then whether there is room for more.
type watched struct {
	r     io.Reader
	root  *os.Root
	timer *time.Timer
	stall time.Duration
	since int // bytes since the last look
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	w.timer.Reset(w.stall)
	if w.since += n; w.since > reserve/2 {
		w.since = 0
		if full := room(w.root, 0); full != nil {
			return n, full
		}
	}
	return n, err
}

// room fails when less than size and a reserve is free where root is.
func room(root *os.Root, size int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(root.Name(), &st); err != nil {
		return err
	}
	if free := st.Bavail * uint64(st.Bsize); free < uint64(size)+reserve {
		return errs.New(errs.Resource, "%d MiB left in %s, %d MiB needed", free>>20, root.Name(), (uint64(size)+reserve)>>20)
	}
	return nil
}
