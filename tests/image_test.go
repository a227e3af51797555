package tests

import (
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/vishvananda/netns"
)

// store is the registry of a script's host, with a door on each side.
type store struct {
	inside, outside string // addresses on the loopback of the script's host, and of ours
}

// serve starts a registry.
func (h *host) serve(ts *testscript.TestScript) *store {
	handler := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	l, err := h.listen()
	ts.Check(err)
	srv := httptest.NewUnstartedServer(handler)
	srv.Listener.Close()
	srv.Listener = l
	srv.Start()
	ours := httptest.NewServer(handler)
	ts.Defer(func() { srv.Close(); ours.Close() })
	return &store{inside: l.Addr().String(), outside: ours.Listener.Addr().String()}
}

// listen listens on the loopback of the script's host.
func (h *host) listen() (l net.Listener, err error) {
	runtime.LockOSThread()
	own, err := netns.Get()
	if err != nil {
		return nil, err
	}
	defer own.Close()
	other, err := netns.GetFromName(h.netns)
	if err != nil {
		return nil, err
	}
	defer other.Close()
	if err := netns.Set(other); err != nil {
		return nil, err
	}
	l, err = net.Listen("tcp", "127.0.0.1:0")
	if back := netns.Set(own); back != nil {
		return l, errors.Join(err, back) // the thread stays locked, and ends with its goroutine
	}
	runtime.UnlockOSThread()
	return l, err
}

// cmdRegistry pushes an image to the registry on the loopback of the host,
// which is started with the first one: registry REPOSITORY:TAG CONFIG DIR...
// Each directory is a layer. $REGISTRY is the registry's address.
func cmdRegistry(ts *testscript.TestScript, neg bool, args []string) {
	h := theHost(ts)
	if h.registry == nil {
		h.registry = h.serve(ts)
		ts.Setenv("REGISTRY", h.registry.inside)
	}
	ref, err := name.ParseReference(h.registry.outside + "/" + args[0])
	ts.Check(err)
	img, err := pack(ts, args[1], args[2:])
	ts.Check(err)
	ts.Check(remote.Write(ref, img))
}

func pack(ts *testscript.TestScript, config string, dirs []string) (v1.Image, error) {
	img := empty.Image
	for _, d := range dirs {
		file := ts.MkAbs(d) + ".layer.tar"
		if out, err := exec.Command("tar", "-C", ts.MkAbs(d), "--owner=0", "--group=0", "-cf", file, ".").CombinedOutput(); err != nil {
			return nil, errors.Join(err, errors.New(string(out)))
		}
		l, err := tarball.LayerFromFile(file)
		if err != nil {
			return nil, err
		}
		if img, err = mutate.AppendLayers(img, l); err != nil {
			return nil, err
		}
	}
	f, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	f = f.DeepCopy()
	f.OS, f.Architecture = "linux", runtime.GOARCH
	text, err := os.ReadFile(ts.MkAbs(config))
	if err == nil {
		err = json.Unmarshal(text, f)
	}
	if err != nil {
		return nil, err
	}
	return mutate.ConfigFile(img, f)
}
