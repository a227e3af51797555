package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"

	"minimega/internal/errs"
)

// extract unpacks an archive into a directory that lies in another one, so
// that what leaves it is seen.
func extract(t testing.TB, b []byte, limits Limits) (string, unpacked, error) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "outer", "root")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	u, err := unpack(context.Background(), dir, bytes.NewReader(b), limits.withDefaults(), nil)
	return dir, u, err
}

// nothingOutside fails if anything lies beside the directory.
func nothingOutside(t testing.TB, dir string) {
	t.Helper()
	for at := filepath.Dir(dir); ; at = filepath.Dir(at) {
		list, err := os.ReadDir(at)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) != 1 {
			t.Errorf("beside the root: %v", list)
		}
		if filepath.Base(at) == "outer" {
			return
		}
	}
}

func TestUnpack(t *testing.T) {
	needRoot(t)
	setuid := file("bin/su", "su")
	setuid.Mode, setuid.Uid, setuid.Gid = 0o4755, 12, 34
	setuid.PAXRecords = map[string]string{"SCHILY.xattr.user.note": "kept", "SCHILY.xattr.trusted.overlay.redirect": "/etc", "SCHILY.xattr.user.overlay.opaque": "y"}
	sticky := dir("tmp")
	sticky.Mode = 0o1777
	b := archive(t, dir("./"), dir("bin"), setuid, hard("bin/sudo", "bin/su"), hard("/abs", "/bin/su"), dir("usr/lib"), link("lib", "/usr/lib"), file("lib/in", "through a link"),
		sticky, file("a/b/c", "no parents"), file("a/b/c", "twice"), dir("etc"), link("escape", "../../../../etc"), file("escape/x", "inside"),
		tar.Header{Name: "dev/sda", Typeflag: tar.TypeBlock, Devmajor: 8}, tar.Header{Name: "dev/null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3},
		tar.Header{Name: "pipe", Typeflag: tar.TypeFifo, Mode: 0o600})
	dir, u, err := extract(t, gz(t, b), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	nothingOutside(t, dir)
	want := strings.Join([]string{
		"-rw-r--r-- a/b/c twice", "-rw-r--r-- etc/x inside", "-rw-r--r-- usr/lib/in through a link",
		"Lrwxrwxrwx escape -> ../../../../etc", "Lrwxrwxrwx lib -> /usr/lib",
		"drwxr-xr-x a", "drwxr-xr-x a/b", "drwxr-xr-x bin", "drwxr-xr-x dev", "drwxr-xr-x etc", "drwxr-xr-x usr", "drwxr-xr-x usr/lib",
		"dtrwxrwxrwx tmp", "prw------- pipe",
		"urwxr-xr-x abs su", "urwxr-xr-x bin/su su", "urwxr-xr-x bin/sudo su",
	}, "\n")
	if got := listing(t, dir); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if u.diffID.String() != digestOf(string(b)) || u.digest.String() != digestOf(string(gz(t, b))) {
		t.Errorf("digests %v %v", u.diffID, u.digest)
	}
	st, err := os.Stat(filepath.Join(dir, "bin/su"))
	if err != nil {
		t.Fatal(err)
	}
	sys := st.Sys().(*syscall.Stat_t)
	if owned := sys.Uid == 12 && sys.Gid == 34; owned == inUserSpace(t) || sys.Nlink != 3 || !st.ModTime().Equal(when) {
		t.Errorf("owner %d:%d, %d links, %v", sys.Uid, sys.Gid, sys.Nlink, st.ModTime())
	}
	list := make([]byte, 1000)
	n, err := unix.Listxattr(filepath.Join(dir, "bin/su"), list)
	if err != nil || string(list[:n]) != "user.note\x00" {
		t.Errorf("attributes %q, %v", list[:n], err)
	}
}

// What a layer says of those below becomes what the overlay file system knows.
func TestUnpackWhiteouts(t *testing.T) {
	needRoot(t)
	b := archive(t, file(".wh.gone", ""), dir("d"), file("d/.wh..wh..opq", ""), file("d/new", "n"),
		file(".wh.back", ""), file("back", "again"), // hidden below, and there
		dir("e"), file(".wh.e", ""), file("e/f", "f"), // likewise, in the other order
		file(".wh.g", ""), dir("g"), file("deep/er/.wh.x", ""), dir(".wh..wh.plnk"))
	dir, _, err := extract(t, b, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Join([]string{"-rw-r--r-- back again", "-rw-r--r-- d/new n", "-rw-r--r-- e/f f",
		"Dc--------- deep/er/x", "Dc--------- gone", "drwxr-xr-x d", "drwxr-xr-x deep", "drwxr-xr-x deep/er", "drwxr-xr-x e", "drwxr-xr-x g"}, "\n")
	if got := listing(t, dir); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for name, opaque := range map[string]bool{"d": true, "e": true, "g": true, "deep": false} {
		if isOpaque(filepath.Join(dir, name)) != opaque {
			t.Errorf("%s: opaque is %v", name, !opaque)
		}
	}
}

func TestUnpackRefuses(t *testing.T) {
	deep := archive(t, file(strings.Repeat("d/", 600)+"f", ""))
	chain := []tar.Header{dir("x")}
	for i := range 5 { // each a hundred deeper than the one before, by way of a link
		chain = append(chain, dir(fmt.Sprintf("x%s", strings.Repeat("/y", 110))), link(fmt.Sprintf("l%d", i), "x"+strings.Repeat("/y", 110)))
		chain = append(chain, dir(fmt.Sprintf("l%d%s", i, strings.Repeat("/z", 110))), link(fmt.Sprintf("m%d", i), fmt.Sprintf("l%d%s", i, strings.Repeat("/z", 110))),
			dir(fmt.Sprintf("m%d%s", i, strings.Repeat("/w", 200))), link(fmt.Sprintf("n%d", i), fmt.Sprintf("m%d%s", i, strings.Repeat("/w", 200))),
			dir(fmt.Sprintf("n%d%s", i, strings.Repeat("/v", 200))))
	}
	owner := file("f", "")
	owner.Uid, owner.Format = 1<<32-1, tar.FormatGNU
	huge := tar.Header{Name: "huge", Typeflag: tar.TypeReg, Size: 1 << 50, Mode: 0o644}
	var sized bytes.Buffer
	if err := tar.NewWriter(&sized).WriteHeader(&huge); err != nil {
		t.Fatal(err)
	}
	good := archive(t, file("f", strings.Repeat("text", 1000)))
	for name, c := range map[string]struct {
		archive []byte
		kind    errs.Kind
		text    string
	}{
		"above":               {archive(t, file("../x", "out")), errs.Invalid, "leaves the root"},
		"above in the middle": {archive(t, file("a/../../x", "out")), errs.Invalid, "leaves the root"},
		"above, absolute":     {archive(t, file("/../x", "out")), errs.Invalid, "leaves the root"},
		"link above":          {archive(t, hard("passwd", "../../../../etc/passwd")), errs.Invalid, "leaves the root"},
		"link outside":        {archive(t, hard("passwd", "/etc/passwd")), errs.Invalid, "not in the archive"},
		"link by link":        {archive(t, link("e", "/etc"), hard("passwd", "e/passwd")), errs.Invalid, "not in the archive"},
		"link to directory":   {archive(t, dir("d"), hard("l", "d")), errs.Invalid, "no file"},
		"link to whiteout":    {archive(t, file(".wh.w", ""), hard("l", "w")), errs.Invalid, "no file"},
		"whiteout of ..":      {archive(t, file("d/.wh...", "")), errs.Invalid, "whiteout"},
		"whiteout of .":       {archive(t, file("d/.wh..", "")), errs.Invalid, "whiteout"},
		"whiteout of nothing": {archive(t, file("d/.wh.", "")), errs.Invalid, "whiteout"},
		"in a whiteout":       {archive(t, file(".wh.d/f", "")), errs.Invalid, "whiteout"},
		"file as root":        {archive(t, file(".", "")), errs.Invalid, "root"},
		"link as root":        {archive(t, link("./.", "/etc")), errs.Invalid, "root"},
		"file as directory":   {archive(t, file("f", ""), file("f/g", "")), errs.Invalid, "no directory"},
		"loop as directory":   {archive(t, link("l", "l"), file("l/g", "")), errs.Invalid, "no directory"},
		"dangling":            {archive(t, link("l", "nowhere"), file("l/g", "")), errs.Invalid, "no directory"},
		"too deep":            {deep, errs.Invalid, "directories in each other"},
		"too deep by links":   {archive(t, chain...), errs.Invalid, "directories in each other"},
		"owner":               {archive(t, owner), errs.Invalid, "owner"},
		"larger than disks":   {sized.Bytes(), errs.Resource, "max-bytes"},
		"cut off":             {good[:2000], errs.Invalid, "cut off"},
		"cut off, packed":     {gz(t, good)[:60], errs.Invalid, "cut off"},
		"no archive":          {[]byte(strings.Repeat("no archive ", 100)), errs.Invalid, "no tar archive"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, _, err := extract(t, c.archive, Limits{})
			if errs.KindOf(err) != c.kind || !strings.Contains(fmt.Sprint(err), c.text) {
				t.Errorf("%s: %v", errs.KindOf(err), err)
			}
			nothingOutside(t, dir)
		})
	}
}

func TestLimits(t *testing.T) {
	packed := zeroFile(t, slack>>26+1)
	many := archive(t, file("a", ""), file("b", ""), file("c", ""))
	for name, c := range map[string]struct {
		archive []byte
		limits  Limits
		text    string
	}{
		"ratio":          {packed, Limits{}, "-max-ratio N"},
		"trailing zeros": {append(gz(t, archive(t, file("f", ""))), zeroRuns(t, slack>>26+1)...), Limits{}, "-max-ratio N"},
		"bytes":          {archive(t, file("f", "12345678")), Limits{Bytes: 7}, "-max-bytes N"},
		"entries":        {many, Limits{Entries: 2}, "-max-entries N"},
		"room":           {archive(t, file("f", "x")), Limits{Reserve: 1 << 60}, "free"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := extract(t, c.archive, c.limits)
			if !errors.Is(err, errs.Resource) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%v", err)
			}
		})
	}
	if _, _, err := extract(t, packed, Limits{Ratio: -1}); err != nil {
		t.Errorf("without limit: %v", err)
	}
}

// 10 GiB of zeros in a layer of 10 MB are refused, from a registry too, and
// nothing stays.
func TestBomb(t *testing.T) {
	packed := zeroFile(t, 160)
	if len(packed) > 50<<20 {
		t.Fatalf("%d bytes", len(packed))
	}
	l := static.NewLayer(packed, types.DockerLayer)
	img, err := mutate.Append(picture(t, nil), mutate.Addendum{Layer: bombLayer{l, strings.Repeat("0", 64)}})
	if err != nil {
		t.Fatal(err)
	}
	s := newStore(t)
	_, err = s.Open(t.Context(), push(t, newRegistry(t), "bomb", img))
	if !errors.Is(err, errs.Resource) || !strings.Contains(err.Error(), "limit (max-ratio)") || !strings.Contains(err.Error(), "import -max-ratio N") {
		t.Errorf("%v", err)
	}
	leftovers(t, s)
}

// zeroRuns is n times 64 MiB of zeros, packed; gzip allows one member after the
// other.
func zeroRuns(t *testing.T, n int) []byte {
	return bytes.Repeat(gz(t, make([]byte, 64<<20)), n)
}

// zeroFile is a packed archive of one file of so many runs of zeros.
func zeroFile(t *testing.T, n int) []byte {
	t.Helper()
	var head bytes.Buffer
	h := tar.Header{Name: "zeros", Typeflag: tar.TypeReg, Size: int64(n) << 26, Mode: 0o644, Format: tar.FormatGNU}
	if err := tar.NewWriter(&head).WriteHeader(&h); err != nil {
		t.Fatal(err)
	}
	return append(gz(t, head.Bytes()), zeroRuns(t, n)...)
}

// bombLayer says what it would unpack to: finding out takes a while.
type bombLayer struct {
	v1.Layer
	diffID string
}

func (b bombLayer) DiffID() (v1.Hash, error) { return v1.Hash{Algorithm: "sha256", Hex: b.diffID}, nil }

// Zeros become holes, whatever they come as.
func TestSparse(t *testing.T) {
	text := strings.Repeat("\x00", 8<<20) + "end" + strings.Repeat("\x00", 1<<20)
	dir, _, err := extract(t, archive(t, file("f", text)), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, "f"))
	if err != nil || string(got) != text {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "f"), &st); err != nil || st.Blocks*512 > 1<<20 {
		t.Errorf("%d bytes on disk, %v", st.Blocks*512, err)
	}
}
