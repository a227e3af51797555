package rfbplay

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"image/jpeg"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
)

//go:embed listing.html
var listingText string

// site shows the recordings of a directory.
type site struct {
	root *os.Root
	rate time.Duration
	from time.Duration // offset of those who do not ask for one
	page *template.Template
	log  *slog.Logger
}

func (c *Config) serveHTTP(ctx context.Context, stdout, stderr io.Writer) error {
	root, err := os.OpenRoot(c.Input)
	if err != nil {
		return errs.New(errs.NotFound, "cannot read %s: %w", c.Input, plainError(err))
	}
	defer root.Close()
	page, err := template.New("listing").Parse(listingText)
	if err != nil {
		return err
	}
	ln, err := listen(ctx, c.address(c.Port))
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	s := &site{root: root, rate: c.period(), from: c.Offset, page: page, log: log}
	srv := &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 64 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx }, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
	fmt.Fprintf(stdout, "http://%s/ shows the recordings in %s\n", ln.Addr(), c.Input)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	select {
	case err = <-done:
		return err
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	err = errors.Join(srv.Shutdown(last), srv.Close())
	<-done
	if errors.Is(err, context.DeadlineExceeded) {
		err = nil // those who do not read were cut off
	}
	return err
}

func listen(ctx context.Context, addr string) (net.Listener, error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, errs.WithRemedy(errs.New(errs.Resource, "cannot listen: %w", err), "choose another port or address")
	}
	return ln, nil
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
		return
	}
	name := strings.TrimPrefix(path.Clean("/"+r.URL.Path), "/")
	if name == "" {
		name = "."
	}
	f, err := s.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		http.Error(w, "there is no such recording", http.StatusNotFound)
		return
	}
	defer f.Close() // the recording closes it, too
	st, err := f.Stat()
	switch {
	case err != nil:
		http.Error(w, "it cannot be read", http.StatusInternalServerError)
	case st.IsDir():
		s.listing(w, r, f)
	default:
		s.play(w, r, f)
	}
}

// entry is a line of the listing.
type entry struct {
	Name, Link, Size, Time string
}

// maxEntries bounds a listing.
const maxEntries = 10000

func (s *site) listing(w http.ResponseWriter, r *http.Request, dir *os.File) {
	if !strings.HasSuffix(r.URL.Path, "/") {
		http.Redirect(w, r, path.Base(r.URL.Path)+"/", http.StatusMovedPermanently)
		return
	}
	found, err := dir.ReadDir(maxEntries)
	if err != nil && !errors.Is(err, io.EOF) {
		http.Error(w, "the directory cannot be read", http.StatusInternalServerError)
		return
	}
	var list []entry
	for _, d := range found {
		if info, err := d.Info(); err == nil && (d.IsDir() || info.Mode().IsRegular()) {
			list = append(list, newEntry(info))
		}
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if err := s.page.Execute(w, map[string]any{"Dir": path.Clean("/" + r.URL.Path), "List": list}); err != nil {
		s.log.Debug("a listing was not sent", "err", err)
	}
}

func newEntry(info fs.FileInfo) entry {
	e := entry{Name: info.Name(), Link: "./" + url.PathEscape(info.Name()), Time: info.ModTime().Format(time.DateTime)}
	if info.IsDir() {
		e.Name += "/"
		e.Link += "/"
		return e
	}
	e.Size = fmt.Sprintf("%.1f MB", float64(info.Size())/1e6)
	return e
}

// play sends a recording as MJPEG: each picture replaces the one before.
func (s *site) play(w http.ResponseWriter, r *http.Request, f *os.File) {
	from := s.from
	if text := r.URL.Query().Get("offset"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil || d < 0 {
			http.Error(w, "offset is a duration like 1m30s", http.StatusBadRequest)
			return
		}
		from = d
	}
	rec, err := newRecording(f)
	if err != nil {
		http.Error(w, "this is not a recording made by vnc record fb", http.StatusUnsupportedMediaType)
		return
	}
	w.Header().Set("Content-Type", "multipart/x-mixed-replace; boundary="+boundary)
	w.Header().Set("Cache-Control", "no-store")
	if r.Method == http.MethodHead {
		return
	}
	if err := s.stream(r.Context(), w, rec, from); err != nil && r.Context().Err() == nil {
		s.log.Info("a recording was not played to its end", "file", f.Name(), "to", r.RemoteAddr, "err", err)
	}
}

const (
	boundary  = "frame"
	sendTime  = 30 * time.Second // for a client to take a picture
	jpegLevel = 85
)

func (s *site) stream(ctx context.Context, w http.ResponseWriter, rec *recording, from time.Duration) error {
	// A picture that stays is sent again each period: browsers show one only
	// when the next one comes, and ffmpeg counts them.
	p := newPace(rec, from, s.rate)
	defer p.close()
	ctl := http.NewResponseController(w)
	var pic strings.Builder
	for {
		c, err := p.next(ctx)
		if err != nil {
			return err
		}
		if (c.any() || pic.Len() == 0) && !rec.screen.Rect.Empty() {
			pic.Reset()
			if err := jpeg.Encode(&pic, rec.screen, &jpeg.Options{Quality: jpegLevel}); err != nil {
				return err
			}
		}
		if pic.Len() > 0 {
			_ = ctl.SetWriteDeadline(time.Now().Add(sendTime)) // not all writers can
			if _, err := fmt.Fprintf(w, "--%s\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n", boundary, pic.Len(), pic.String()); err != nil {
				return err
			}
			if err := ctl.Flush(); err != nil {
				return err
			}
		}
		if rec.end != nil {
			_, err := fmt.Fprintf(w, "--%s--\r\n", boundary)
			return err
		}
	}
}
