package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/sys/unix"

	"minimega/internal/errs"
)

// twoLayers is an image that runs `server -x` from PATH as a named user.
func twoLayers(t testing.TB) v1.Image {
	server := file("usr/bin/server", "program")
	server.Mode = 0o755
	return picture(t, func(f *v1.ConfigFile) {
		f.Config = v1.Config{Entrypoint: []string{"server"}, Cmd: []string{"-x"}, Env: []string{"PATH=/opt:/bin", "A=b"}, WorkingDir: "/srv", User: "app:web"}
	}, archive(t, dir("usr"), dir("usr/bin"), server, link("bin", "usr/bin"), file("etc/passwd", "root:x:0:0::/root:/bin/sh\napp:x:77:88::/home/app:/bin/sh\n"),
		file("etc/group", "web:x:99:\nextra:x:100:app,x\n"), file("gone", "1")),
		archive(t, file(".wh.gone", ""), file("srv/page", "hello")))
}

func TestRegistry(t *testing.T) {
	s := newStore(t)
	ref := push(t, newRegistry(t), "team/web:1", twoLayers(t))
	root := open(t, s, ref)
	if len(root.Layers) != 2 || root.Writable {
		t.Fatalf("%+v", root)
	}
	if got := listing(t, root.Layers[1]); !strings.Contains(got, "srv/page hello") || !strings.Contains(got, "Dc--------- gone") {
		t.Errorf("upper layer:\n%s", got)
	}
	p, err := root.Program()
	if err != nil {
		t.Fatal(err)
	}
	want := &Program{Args: []string{"/bin/server", "-x"}, Env: []string{"PATH=/opt:/bin", "A=b", "HOME=/home/app"}, Dir: "/srv", User: User{UID: 77, GID: 99, Home: "/home/app"}}
	if d := cmp.Diff(want, p); d != "" {
		t.Error(d)
	}
	leftovers(t, s)

	other := NewStore(Options{Dir: s.dir})
	again := open(t, other, ref)
	if d := cmp.Diff(root.Layers, again.Layers); d != "" {
		t.Error(d)
	}
}

// A reference that is known needs no registry; what the registry has now is
// brought in by an import.
func TestTagMoves(t *testing.T) {
	ctx := context.Background()
	host := newRegistry(t)
	s := newStore(t)
	ref := push(t, host, "x:latest", picture(t, nil, archive(t, file("f", "old"))))
	old := open(t, s, ref)
	push(t, host, "x:latest", picture(t, nil, archive(t, file("f", "new"))))
	again := open(t, s, ref)
	if again.Layers[0] != old.Layers[0] {
		t.Error("the registry was asked")
	}
	r, err := Parse(ref)
	if err != nil {
		t.Fatal(err)
	}
	var m Meter
	if _, err := s.Import(ctx, r, "", &m); err != nil {
		t.Fatal(err)
	}
	now := open(t, s, ref)
	if listing(t, now.Layers[0]) != "-rw-r--r-- f new" {
		t.Error("an old image after an import")
	}
	if read, total, ready, layers := m.Progress(); read == 0 || read != total || ready != 1 || layers != 1 {
		t.Errorf("progress %d of %d, %d of %d layers", read, total, ready, layers)
	}
	if err := s.Collect(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(old.Layers[0]); err != nil {
		t.Error("collected an image that is held")
	}
	if err := errors.Join(old.Release(), again.Release()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Import(ctx, r, "", &m); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(old.Layers[0]); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("kept an image without a name: %v", err)
	}
}

// Whatever else it comes from, an image is the same.
func TestSources(t *testing.T) {
	img := twoLayers(t)
	tmp := t.TempDir()
	tag := name.MustParseReference("example.com/team/web:1")
	docker := filepath.Join(tmp, "docker.tar")
	if err := tarball.WriteToFile(docker, tag, img); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(tmp, "layout")
	l, err := layout.Write(dir, mutate.AppendManifests(empty.Index))
	if err == nil {
		err = l.AppendImage(img, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "1"}))
	}
	if err == nil {
		err = l.AppendImage(picture(t, nil, archive(t, file("other", ""))), layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "2"}))
	}
	if err != nil {
		t.Fatal(err)
	}
	run(t, "tar", "-C", dir, "-cf", filepath.Join(tmp, "layout.tar"), ".")
	run(t, "gzip", "-k", filepath.Join(tmp, "layout.tar"))
	run(t, "zstd", "-q", docker)
	want := ""
	for _, ref := range []string{"docker-archive:" + docker, "docker-archive:" + docker + ":example.com/team/web:1", "docker-archive:" + docker + ":1", "docker-archive:" + docker + ".zst", docker,
		"oci:" + dir + ":1", "oci:" + filepath.Join(tmp, "layout.tar:1"), "oci:" + filepath.Join(tmp, "layout.tar.gz:1")} {
		s := newStore(t)
		root := open(t, s, ref)
		got := ""
		for _, l := range root.Layers {
			got += filepath.Base(l) + "\n" + listing(t, l) + "\n"
		}
		if want == "" {
			want = got
		}
		if got != want || root.Config.User != "app:web" {
			t.Errorf("%s:\n%s", ref, got)
		}
		leftovers(t, s)
	}
	for ref, text := range map[string]string{"oci:" + dir: "name one after a colon", "oci:" + dir + ":3": `no image "3"`, "docker-archive:" + docker + ":x": `no image "x"`,
		"oci:" + docker: "no OCI layout", "docker-archive:" + dir + "/none": "does not exist", "oci:/dev/null": "neither a directory nor an archive"} {
		if _, err := newStore(t).Open(context.Background(), ref); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", ref, err)
		}
	}
}

func run(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", args, err, out)
	}
}

// A bare file system is an archive, however it is packed, with or without a
// directory around it.
func TestTarballs(t *testing.T) {
	tmp := t.TempDir()
	plain := filepath.Join(tmp, "root.tar")
	write(t, plain, archive(t, file("etc/x", "x"), file("init", "i")))
	write(t, filepath.Join(tmp, "packed.tar"), archive(t, file("rootfs/etc/x", "x"), file("rootfs/init", "i")))
	write(t, filepath.Join(tmp, "only.tar"), archive(t, file("bin/x", "x")))
	for _, z := range []string{"gzip", "bzip2", "xz", "zstd"} {
		run(t, z, "-k", plain)
	}
	s := newStore(t)
	want := listing(t, open(t, s, plain).Layers[0])
	for _, ref := range []string{"tar:" + plain, plain + ".gz", plain + ".bz2", plain + ".xz", plain + ".zst", filepath.Join(tmp, "packed.tar")} {
		root := open(t, s, ref)
		if got := listing(t, root.Layers[0]); got != want || len(root.Layers) != 1 || root.Writable {
			t.Errorf("%s: %+v\n%s", ref, root, got)
		}
		if p, err := root.Program(); p != nil || err != nil {
			t.Errorf("%s: a program %v, %v", ref, p, err)
		}
	}
	if got := listing(t, open(t, s, filepath.Join(tmp, "only.tar")).Layers[0]); got != "-rw-r--r-- bin/x x\ndrwxr-xr-x bin" {
		t.Errorf("only.tar:\n%s", got)
	}
	if list, err := filepath.Glob(s.path(layersDir, "*.json")); err != nil || len(list) != 3 {
		t.Errorf("layers %v, %v", list, err)
	}
	write(t, plain, archive(t, file("changed", "")))
	if got := listing(t, open(t, s, plain).Layers[0]); got != "-rw-r--r-- changed " {
		t.Errorf("after a change:\n%s", got)
	}
	if root := open(t, s, tmp); !root.Writable || root.Layers[0] != tmp {
		t.Errorf("directory: %+v", root)
	}
	leftovers(t, s)
}

func write(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// Many at a time, in two stores over one directory as two processes have them,
// fetch each layer once.
func TestConcurrent(t *testing.T) {
	host := newRegistry(t)
	var layers [][]byte
	for i := range 6 {
		b := make([]byte, 1<<20)
		rand.New(rand.NewSource(int64(i))).Read(b)
		layers = append(layers, archive(t, file(fmt.Sprintf("f%d", i), string(b))))
	}
	img := picture(t, nil, layers...)
	refs := []string{push(t, host, "a", img), push(t, host, "b", img), push(t, host, "c", picture(t, nil, layers[:3]...))}
	stores := []*Store{newStore(t)}
	stores = append(stores, NewStore(Options{Dir: stores[0].dir}))
	var wg sync.WaitGroup
	var read atomic.Int64
	for i := range 12 {
		wg.Go(func() {
			r, err := Parse(refs[i%3])
			if err != nil {
				t.Error(err)
				return
			}
			var m Meter
			if _, err := stores[i%2].Import(context.Background(), r, "", &m); err != nil {
				t.Error(err)
			}
			read.Add(m.read.Load())
			open(t, stores[(i+1)%2], refs[i%3])
		})
	}
	wg.Wait()
	list, err := filepath.Glob(stores[0].path(layersDir, "*.json"))
	if err != nil || len(list) != 6 {
		t.Errorf("layers %v, %v", list, err)
	}
	leftovers(t, stores[0])
}

func TestRemove(t *testing.T) {
	ctx := context.Background()
	host := newRegistry(t)
	s := newStore(t)
	base := archive(t, file("base", "b"))
	one := push(t, host, "one:1", picture(t, nil, base, archive(t, file("one", "1"))))
	two := push(t, host, "two:1", picture(t, nil, base))
	held, err := s.Open(ctx, one)
	if err != nil {
		t.Fatal(err)
	}
	second := open(t, s, two)
	if err := second.Release(); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(ctx, one); !errors.Is(err, errs.State) {
		t.Errorf("removed an image in use: %v", err)
	}
	if err := s.Remove(ctx, two); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(held.Layers[0]); err != nil {
		t.Errorf("a shared layer is gone: %v", err)
	}
	if err := held.Release(); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(ctx, strings.TrimPrefix(one, "docker://")); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{layersDir, imagesDir, refsDir, tmpDir} {
		if list, err := os.ReadDir(s.path(d)); err != nil || len(list) != 0 {
			t.Errorf("%s: %v, %v", d, list, err)
		}
	}
	if err := s.Remove(ctx, one); !errors.Is(err, errs.NotFound) {
		t.Errorf("removed twice: %v", err)
	}
}

// A container that runs holds its image, though no process of ours knows.
func TestMountedIsInUse(t *testing.T) {
	needRoot(t)
	ctx := context.Background()
	s := newStore(t)
	ref := push(t, newRegistry(t), "m", picture(t, nil, archive(t, file("a", "lower"), file("b", "hidden")), archive(t, file("a", "upper"), file(".wh.b", ""))))
	root := open(t, s, ref)
	at := t.TempDir()
	if err := unix.Mount("overlay", at, "overlay", 0, "lowerdir="+root.Layers[1]+":"+root.Layers[0]); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(at, unix.MNT_DETACH)
	if got := listing(t, at); got != "-rw-r--r-- a upper" {
		t.Errorf("mounted:\n%s", got)
	}
	if err := root.Release(); err != nil {
		t.Fatal(err)
	}
	list, err := s.List(ctx)
	if err != nil || len(list) != 1 || !list[0].InUse {
		t.Errorf("%+v, %v", list, err)
	}
	if err := s.Remove(ctx, ref); !errors.Is(err, errs.State) {
		t.Errorf("removed: %v", err)
	}
	if err := unix.Unmount(at, 0); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(ctx, ref); err != nil {
		t.Error(err)
	}
}

func TestOtherProcessor(t *testing.T) {
	host := newRegistry(t)
	s := newStore(t)
	other := picture(t, func(f *v1.ConfigFile) { f.Architecture = "s390x" }, archive(t, file("f", "")))
	index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: other, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "s390x"}}})
	tag, err := name.ParseReference(host + "/index:1")
	if err == nil {
		err = remote.WriteIndex(tag, index)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{push(t, host, "other", other), "docker://" + tag.String()} {
		_, err := s.Open(context.Background(), ref)
		if !errors.Is(err, errs.Unsupported) || !strings.Contains(err.Error(), "linux/s390x, and this host") {
			t.Errorf("%s: %v", ref, err)
		}
	}
	leftovers(t, s)
}

// A registry that lies, breaks off or refuses.
func TestBadRegistry(t *testing.T) {
	good := newRegistry(t)
	img := picture(t, nil, archive(t, file("f", strings.Repeat("x", 1<<20)), file("g", randomText(1<<20))))
	push(t, good, "x", img)
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	digest, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	var mode atomic.Value
	var asked atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		resp, err := http.Get("http://" + good + r.URL.Path)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err == nil && strings.Contains(r.URL.Path, digest.Hex) {
			asked.Add(1)
			switch mode.Load() {
			case "lies":
				b[len(b)/2]++
			case "breaks":
				w.Header().Set("Content-Length", fmt.Sprint(len(b)))
				b = b[:len(b)/2]
			case "refuses":
				w.WriteHeader(http.StatusForbidden)
				return
			}
		}
		w.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
		w.WriteHeader(resp.StatusCode)
		_, _ = w.Write(b)
	}))
	defer srv.Close()
	ref := "docker://" + strings.TrimPrefix(srv.URL, "http://") + "/x"
	for how, want := range map[string]struct {
		kind  errs.Kind
		asked int32
	}{"lies": {errs.Invalid, 1}, "breaks": {errs.Unreachable, attempts}, "refuses": {errs.Permission, 1}} {
		mode.Store(how)
		asked.Store(0)
		s := newStore(t)
		_, err := s.Open(context.Background(), ref)
		if errs.KindOf(err) != want.kind || asked.Load() != want.asked {
			t.Errorf("%s: asked %d times, %s: %v", how, asked.Load(), errs.KindOf(err), err)
		}
		leftovers(t, s)
	}
	mode.Store("")
	open(t, newStore(t), ref)
	if _, err := newStore(t).Open(context.Background(), ref+"none"); !errors.Is(err, errs.NotFound) {
		t.Errorf("no such image: %v", err)
	}
	if _, err := newStore(t).Open(context.Background(), "docker://127.0.0.1:1/x"); !errors.Is(err, errs.Unreachable) {
		t.Errorf("no registry: %v", err)
	}
	if _, err := newStore(t).Open(context.Background(), ref+"@sha256:"+strings.Repeat("0", 64)); !errors.Is(err, errs.NotFound) {
		t.Errorf("no such digest: %v", err)
	}
}

func randomText(n int) string {
	b := make([]byte, n)
	rand.New(rand.NewSource(1)).Read(b)
	return string(b)
}

// Layouts and archives whose parts do not fit together.
func TestBadLayout(t *testing.T) {
	tmp := t.TempDir()
	if _, err := layout.Write(tmp, mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: twoLayers(t)})); err != nil {
		t.Fatal(err)
	}
	blobs, err := filepath.Glob(filepath.Join(tmp, "blobs/sha256/*"))
	if err != nil || len(blobs) != 4 {
		t.Fatal(blobs, err)
	}
	open(t, newStore(t), "oci:"+tmp)
	for _, b := range blobs {
		was, err := os.ReadFile(b)
		if err != nil {
			t.Fatal(err)
		}
		changed := append([]byte(nil), was...)
		changed[len(changed)-10]++
		for what, content := range map[string][]byte{"changed": changed, "cut off": was[:len(was)/2], "empty": nil} {
			write(t, b, content)
			s := newStore(t)
			if _, err := s.Open(context.Background(), "oci:"+tmp); errs.KindOf(err) != errs.Invalid {
				t.Errorf("%s, %s: %s: %v", filepath.Base(b), what, errs.KindOf(err), err)
			}
			leftovers(t, s)
		}
		write(t, b, was)
	}
	// The digests are right, but what is packed is another archive than promised.
	lie := picture(t, func(f *v1.ConfigFile) { f.RootFS.DiffIDs[0].Hex = strings.Repeat("0", 64) }, archive(t, file("f", "")))
	s := newStore(t)
	if _, err := s.Open(context.Background(), push(t, newRegistry(t), "lie", lie)); !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "digest") {
		t.Errorf("another archive: %v", err)
	}
	leftovers(t, s)
	few := picture(t, func(f *v1.ConfigFile) { f.RootFS.DiffIDs = nil }, archive(t, file("f", "")))
	if _, err := s.Open(context.Background(), push(t, newRegistry(t), "few", few)); !errors.Is(err, errs.Invalid) {
		t.Errorf("layers without names: %v", err)
	}
}

// A disk that fills up in the middle, without what is kept free noticing.
func TestFullDisk(t *testing.T) {
	needRoot(t)
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=16m"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(disk, unix.MNT_DETACH)
	tar := filepath.Join(t.TempDir(), "big.tar")
	write(t, tar, archive(t, file("a", randomText(8<<20)), file("b", randomText(8<<20)), file("c", randomText(8<<20))))
	for _, limits := range []Limits{{Reserve: -1}, {Reserve: 1 << 20}, {}} {
		s := NewStore(Options{Dir: filepath.Join(disk, "images"), Limits: limits})
		_, err := s.Open(context.Background(), tar)
		if !errors.Is(err, errs.Resource) || !strings.Contains(err.Error(), "disk full") {
			t.Errorf("%v: %v", limits, err)
		}
		leftovers(t, s)
		var st unix.Statfs_t
		if err := unix.Statfs(disk, &st); err != nil || st.Blocks-st.Bfree > 64 {
			t.Errorf("%d of %d blocks in use, %v", st.Blocks-st.Bfree, st.Blocks, err)
		}
	}
}

// What a process that was killed has left goes at the next start.
func TestSweep(t *testing.T) {
	s := newStore(t)
	if err := s.prepare(); err != nil {
		t.Fatal(err)
	}
	b := archive(t, file("f", "whole"))
	for _, p := range []string{s.path(tmpDir, "123", "half"), filepath.Join(s.layerPath(digestOf(string(b))), "half")} {
		if err := os.MkdirAll(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	tar := filepath.Join(t.TempDir(), "f.tar")
	write(t, tar, b)
	s = NewStore(Options{Dir: s.dir})
	if got := listing(t, open(t, s, tar).Layers[0]); got != "-rw-r--r-- f whole" {
		t.Error(got)
	}
	leftovers(t, s)
}

func TestCancel(t *testing.T) {
	s := newStore(t)
	ctx, cancel := context.WithCancel(context.Background())
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	}))
	defer srv.Close()
	if _, err := s.Open(ctx, "docker://"+strings.TrimPrefix(srv.URL, "http://")+"/x"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestInspect(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	if list, err := s.List(ctx); list != nil || err != nil {
		t.Errorf("empty: %v, %v", list, err)
	}
	ref, err := Parse(push(t, newRegistry(t), "x:y", twoLayers(t)))
	if err != nil {
		t.Fatal(err)
	}
	id, err := s.Import(ctx, ref, "mine", new(Meter))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{ref.String(), "mine", id, short(id)[:6]} {
		i, err := s.Inspect(ctx, name)
		if err != nil || i.ID != id || len(i.Names) != 2 || i.Config.User != "app:web" || i.InUse || len(i.Layers) != 2 {
			b, _ := json.Marshal(i)
			t.Errorf("%s: %s, %v", name, b, err)
		}
	}
	open(t, s, "image:mine")
	if err := s.Remove(ctx, ref.String()); err != nil {
		t.Errorf("taking a name off: %v", err)
	}
	if i, err := s.Inspect(ctx, id); err != nil || len(i.Names) != 1 || !i.InUse {
		t.Errorf("%+v, %v", i, err)
	}
	if _, err := s.Open(ctx, "image:none"); !errors.Is(err, errs.NotFound) {
		t.Errorf("%v", err)
	}
}
