package node

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxBytes = 1 << 40 // of /bytes
	maxEcho  = 1 << 30 // of /echo
)

// serveHTTP answers on port 80 of every address.
func serveHTTP(ctx context.Context) error {
	l, err := net.Listen("tcp", ":80")
	if err != nil {
		return err
	}
	s := &http.Server{
		Handler: httpHandler(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute,
		MaxHeaderBytes: 16 << 10, ErrorLog: log.New(io.Discard, "", 0),
	}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	return s.Serve(l)
}

// httpHandler serves / (who is this), /bytes?n=N (N zero bytes) and /echo (the
// request's body).
func httpHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", serveWho)
	mux.HandleFunc("GET /bytes", serveBytes)
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		io.Copy(w, http.MaxBytesReader(w, r.Body, maxEcho)) // the client learns of an error by the cut
	})
	return mux
}

func serveWho(w http.ResponseWriter, r *http.Request) {
	name, _ := os.Hostname() // empty is what we know
	ifs, err := Interfaces()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintf(w, "hostname: %s\nuptime: %s\n", name, Uptime().Round(time.Second))
	for _, i := range ifs {
		var addrs []string
		for _, a := range i.Addresses {
			addrs = append(addrs, a.String())
		}
		fmt.Fprintf(w, "%s: %s\n", i.Name, strings.Join(addrs, " "))
	}
	fmt.Fprintf(w, "client: %s\n", r.RemoteAddr)
}

func serveBytes(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.ParseInt(r.FormValue("n"), 10, 64)
	if err != nil || n < 0 || n > maxBytes {
		http.Error(w, fmt.Sprintf("want /bytes?n=COUNT, up to %d", int64(maxBytes)), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	chunk := make([]byte, 64<<10)
	for n > 0 {
		wrote, err := w.Write(chunk[:min(n, int64(len(chunk)))])
		if err != nil {
			return // the client left
		}
		n -= int64(wrote)
	}
}

// Uptime is the time since the kernel started.
func Uptime() time.Duration {
	var si unix.Sysinfo_t
	if err := unix.Sysinfo(&si); err != nil {
		return 0
	}
	return time.Duration(si.Uptime) * time.Second
}
