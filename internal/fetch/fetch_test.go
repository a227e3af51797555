package fetch

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"minimega/internal/errs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// names are all files below dir.
func names(t *testing.T, dir string) string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, path)
		all = append(all, rel)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, " ")
}

func TestDownload(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
	dir := t.TempDir()
	if err := NewClient().Download(t.Context(), url, dir, "a/b/c"); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(dir + "/a/b/c"); string(b) != "hello" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	if got := names(t, dir); got != ". a a/b a/b/c" {
		t.Errorf("files %s", got)
	}
}

// A transfer that breaks off leaves nothing.
func TestDownloadCutShort(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "hello")
	})
	dir := t.TempDir()
	if err := NewClient().Download(t.Context(), url, dir, "c"); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
	if got := names(t, dir); got != "." {
		t.Errorf("files %s", got)
	}
}

func stuck(t *testing.T) string {
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "hello")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
}

func TestDownloadStalls(t *testing.T) {
	c := NewClient()
	c.stall = 50 * time.Millisecond
	dir := t.TempDir()
	if err := c.Download(t.Context(), stuck(t), dir, "c"); !errors.Is(err, errs.Unreachable) || !strings.Contains(err.Error(), "nothing came for 50ms") {
		t.Errorf("got %v", err)
	}
	if got := names(t, dir); got != "." {
		t.Errorf("files %s", got)
	}
}

func TestDownloadCancelled(t *testing.T) {
	gone := errors.New("gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := time.AfterFunc(50*time.Millisecond, func() { cancel(gone) })
	defer stop.Stop()
	dir := t.TempDir()
	if err := NewClient().Download(ctx, stuck(t), dir, "c"); !errors.Is(err, gone) {
		t.Errorf("got %v", err)
	}
	if got := names(t, dir); got != "." {
		t.Errorf("files %s", got)
	}
}

func TestDownloadTooBig(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "1000000000000000") })
	if err := NewClient().Download(t.Context(), url, t.TempDir(), "c"); !errors.Is(err, errs.Resource) {
		t.Errorf("got %v", err)
	}
}

func TestDownloadErrors(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no", http.StatusNotFound) })
	c := NewClient()
	if err := c.Download(t.Context(), url, t.TempDir(), "c"); !errors.Is(err, errs.NotFound) || !strings.Contains(err.Error(), "404 Not Found") {
		t.Errorf("got %v", err)
	}
	if err := c.Download(t.Context(), "http://127.0.0.1:1/x", t.TempDir(), "c"); !errors.Is(err, errs.Unreachable) {
		t.Errorf("got %v", err)
	}
}

// A link out of the directory is not followed.
func TestDownloadThroughLink(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
	outside, dir := t.TempDir(), t.TempDir()
	if err := os.Symlink(outside, dir+"/out"); err != nil {
		t.Fatal(err)
	}
	if err := NewClient().Download(t.Context(), url, dir, "out/c"); err == nil {
		t.Error("followed")
	}
	if got := names(t, outside); got != "." {
		t.Errorf("files %s", got)
	}
}

func TestDownloadOverDirectory(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
	dir := t.TempDir()
	if err := os.Mkdir(dir+"/c", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := NewClient().Download(t.Context(), url, dir, "c"); err == nil || !strings.Contains(err.Error(), "not an ordinary file") {
		t.Errorf("got %v", err)
	}
	if got := names(t, dir); got != ". c" {
		t.Errorf("files %s", got)
	}
}
