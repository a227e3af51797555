package inject

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"minimega/internal/errs"
	"minimega/internal/host"
	"minimega/internal/host/hosttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
	return string(out)
}

// newDir makes a directory for images. In the end no process or mount may have
// to do with it.
func newDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	hosttest.Machine{Marks: []string{dir}}.Check(t)
	return dir
}

// newExt makes a file system without a partition table.
func newExt(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts")
	}
	mkfs, err := host.FindProgram("mkfs.ext4")
	if err != nil {
		t.Fatal("apt-get install e2fsprogs: ", err)
	}
	path := filepath.Join(newDir(t), "disk.img")
	run(t, "truncate", "-s", "8M", path)
	run(t, mkfs, "-q", "-F", path)
	return path
}

func newFile(t testing.TB, name, content string) string {
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o754); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPermissions(t *testing.T) {
	image := newExt(t)
	r := Request{Image: image, Partition: Whole, Put: []Pair{{newFile(t, "a", "first"), "/a/b"}}}
	if err := Run(t.Context(), r, quiet); err != nil {
		t.Fatal(err)
	}
	debugfs, err := host.FindProgram("debugfs")
	if err != nil {
		t.Fatal(err)
	}
	if out := run(t, debugfs, "-R", "stat /a/b", image); !strings.Contains(out, "Mode:  0754") || !strings.Contains(out, "User:     0 ") {
		t.Error(out)
	}
	entries, err := os.ReadDir(filepath.Dir(image))
	if err != nil || len(entries) != 1 {
		t.Errorf("left %v, %v", entries, err)
	}
}

// TestNTFS changes what the kernel alone often cannot.
func TestNTFS(t *testing.T) {
	mkfs, err := host.FindProgram("mkfs.ntfs")
	if err != nil || os.Geteuid() != 0 {
		t.Skip("needs root and the package ntfs-3g")
	}
	image := filepath.Join(newDir(t), "disk.img")
	run(t, "truncate", "-s", "16M", image)
	run(t, mkfs, "-q", "-F", image)
	r := Request{Image: image, Partition: Whole, Put: []Pair{{newFile(t, "a", "first"), "/Windows/System32/a.txt"}, {newFile(t, "b", "second"), "/b"}}}
	if err := Run(t.Context(), r, quiet); err != nil {
		t.Fatal(err)
	}
	if out := run(t, "ntfscat", "-f", image, "/Windows/System32/a.txt"); !strings.Contains(out, "first") {
		t.Error(out)
	}
	if err := Run(t.Context(), Request{Image: image, Partition: Whole, Delete: []string{"/b", "/Windows"}}, quiet); err != nil {
		t.Fatal(err)
	}
	if out := run(t, "ntfsls", "-f", image); strings.Contains(out, "b\n") || strings.Contains(out, "Windows") {
		t.Error(out)
	}
}

// TestAlone refuses a second injection, and cleans up after one that was killed.
func TestAlone(t *testing.T) {
	image := newExt(t)
	r := Request{Image: image, Partition: Whole, Put: []Pair{{newFile(t, "a", "x"), "/a"}}}
	unlock, err := lock(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), r, quiet); !errors.Is(err, errs.State) || !strings.Contains(err.Error(), "another command is changing it") {
		t.Error(err)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	stale := filepath.Join(filepath.Dir(image), ".disk.img.inject.123")
	if err := os.MkdirAll(filepath.Join(stale, "mnt"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), r, quiet); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(stale); err == nil {
		t.Error("what a killed one left is still there")
	}
}

// TestCancelled ends at any moment: the image is as before, or complete.
func TestCancelled(t *testing.T) {
	image := newExt(t)
	before, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	r := Request{Image: image, Partition: Whole, Put: []Pair{{newFile(t, "a", "x"), "/a"}}}
	for i := range 12 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i*8)*time.Millisecond)
		err := Run(ctx, r, quiet)
		cancel()
		if err == nil {
			break
		}
		after, readErr := os.ReadFile(image)
		if readErr != nil || !bytes.Equal(before, after) {
			t.Fatalf("changed although it failed with %v, %v", err, readErr)
		}
		if entries, _ := os.ReadDir(filepath.Dir(image)); len(entries) != 1 {
			t.Fatalf("left %v", entries)
		}
	}
}

func TestSplitImage(t *testing.T) {
	for in, want := range map[string][2]string{
		"/a/b:1": {"/a/b", "1"}, "/a/b": {"/a/b", ""}, "/a:none": {"/a", "none"}, "/a:b": {"/a:b", ""}, "/a:b:2": {"/a:b", "2"}, "/a:": {"/a:", ""}, ":1": {":1", ""},
	} {
		if image, part := SplitImage(in); image != want[0] || part != want[1] {
			t.Errorf("%s: %q %q", in, image, part)
		}
	}
}

func TestParsePairs(t *testing.T) {
	for in, want := range map[string]string{
		"a:/b": "", "a": "malformed command; expected src:dst pairs", ":b": "malformed command; expected src:dst pairs",
		"a:b:c": "malformed command; expected src:dst pairs", "a:/x c:/x": "destination appears twice: `/x`", "a:/x c:/y/../x": "destination appears twice: `/y/../x`",
	} {
		_, err := ParsePairs(strings.Fields(in))
		if got := fmt.Sprint(err); want == "" && err != nil || want != "" && got != want {
			t.Errorf("%s: %v", in, err)
		}
	}
}

// table makes an MBR; each entry has kind, first sector and sectors.
func table(entries ...[3]uint32) []byte {
	b := make([]byte, 512)
	for i, e := range entries {
		at := b[446+16*i:]
		at[4] = byte(e[0])
		binary.LittleEndian.PutUint32(at[8:], e[1])
		binary.LittleEndian.PutUint32(at[12:], e[2])
	}
	b[510], b[511] = 0x55, 0xaa
	return b
}

func place(disk []byte, sector int, b []byte) { copy(disk[sector*512:], b) }

func TestPartitions(t *testing.T) {
	disk := make([]byte, 100*512)
	parts := func() string {
		p, err := Partitions(bytes.NewReader(disk), int64(len(disk)))
		return fmt.Sprint(p, err)
	}
	if got := parts(); got != "[] <nil>" {
		t.Error("empty:", got)
	}
	// Two primary ones, one beyond the end, and two logical ones.
	place(disk, 0, table([3]uint32{0x83, 1, 9}, [3]uint32{0x5, 20, 40}, [3]uint32{7, 90, 11}, [3]uint32{7, 90, 10}))
	place(disk, 20, table([3]uint32{0x83, 1, 5}, [3]uint32{0x5, 10, 10}))
	place(disk, 30, table([3]uint32{0x82, 2, 3}))
	if got := parts(); got != "[{1 512 4608} {4 46080 5120} {5 10752 2560} {6 16384 1536}] <nil>" {
		t.Error("MBR:", got)
	}
	place(disk, 30, table([3]uint32{0x82, 2, 3}, [3]uint32{0x5, 10, 10})) // its own successor
	if got := parts(); !strings.HasSuffix(got, "{6 16384 1536}] <nil>") {
		t.Error("circle:", got)
	}
	gptDisk(disk)
	if got := parts(); got != "[{1 20480 5120} {3 30720 512}] <nil>" {
		t.Error("GPT:", got)
	}
	binary.LittleEndian.PutUint32(disk[512+80:], 1<<31)
	if got := parts(); !strings.Contains(got, "makes no sense") {
		t.Error("huge GPT:", got)
	}
	copy(disk[54:], "FAT16")
	if got := parts(); got != "[] <nil>" {
		t.Error("boot sector:", got)
	}
}

func gptDisk(disk []byte) {
	clear(disk)
	place(disk, 0, table([3]uint32{0xee, 1, 99}))
	h := disk[512:]
	copy(h, "EFI PART")
	binary.LittleEndian.PutUint64(h[72:], 2)
	binary.LittleEndian.PutUint32(h[80:], 4)
	binary.LittleEndian.PutUint32(h[84:], 128)
	for i, r := range [][2]uint64{{40, 49}, {0, 0}, {60, 60}, {70, 1000}} {
		e := disk[1024+128*i:]
		if r[0] != 0 {
			e[0] = 1
		}
		binary.LittleEndian.PutUint64(e[32:], r[0])
		binary.LittleEndian.PutUint64(e[40:], r[1])
	}
}

func FuzzPartitions(f *testing.F) {
	f.Add(table([3]uint32{0x83, 1, 9}, [3]uint32{0x5, 1, 40}))
	disk := make([]byte, 100*512)
	gptDisk(disk)
	f.Add(disk)
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := Partitions(bytes.NewReader(b), int64(len(b)))
		for _, p := range all {
			if p.Number < 1 || p.Start <= 0 || p.Size <= 0 || p.Start+p.Size > int64(len(b)) {
				t.Errorf("%+v outside of %d bytes, %v", p, len(b), err)
			}
		}
		_ = detect(bytes.NewReader(b), 0)
	})
}

// A process that is started meanwhile has the descriptors of the files that are
// written, for a moment: the file system is unmounted all the same.
func TestForkMeanwhile(t *testing.T) {
	image := newExt(t)
	defer hosttest.Forks(t)()
	r := Request{Image: image, Partition: Whole, Put: []Pair{{newFile(t, "a", "first"), "/a/b"}}}
	for range 30 {
		if err := Run(t.Context(), r, quiet); err != nil {
			t.Fatal(err)
		}
	}
}
