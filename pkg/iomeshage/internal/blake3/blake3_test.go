package blake3

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"lukechampine.com/blake3"
)

func TestBlock(t *testing.T) {
	t.Logf("by AVX-512: %v", fast)
	var zero [BlockSize]byte
	blocks := [][BlockSize]byte{zero, [BlockSize]byte(bytes.Repeat([]byte{1, 2, 3, 4}, BlockSize/4))}
	for range 8 {
		var b [BlockSize]byte
		_, _ = rand.Read(b[:])
		blocks = append(blocks, b)
	}
	for i := range blocks {
		want := blake3.Sum256(blocks[i][:])
		if got := Block(&blocks[i]); got != want {
			t.Errorf("block %d: %x, want %x", i, got, want)
		}
		if got := library(&blocks[i]); got != want {
			t.Errorf("block %d by the library: %x, want %x", i, got, want)
		}
	}
}

// Every byte counts, in its place.
func TestBlockEachByte(t *testing.T) {
	b := new([BlockSize]byte)
	for i := 0; i < BlockSize; i += 509 {
		b[i] = 0xa5
		if got, want := Block(b), blake3.Sum256(b[:]); got != want {
			t.Fatalf("byte %d: %x, want %x", i, got, want)
		}
		b[i] = 0
	}
}

// The assembly is what the generator makes.
func TestGenerated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.s")
	if out, err := exec.Command("go", "run", "gen.go", path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	made, err1 := os.ReadFile(path)
	here, err2 := os.ReadFile("compress_amd64.s")
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(made, here) {
		t.Error("run `go generate ./pkg/iomeshage/internal/blake3`")
	}
}

func BenchmarkBlock(b *testing.B) {
	block := new([BlockSize]byte)
	_, _ = rand.Read(block[:])
	b.Run("ours", func(b *testing.B) {
		b.SetBytes(BlockSize)
		for b.Loop() {
			Block(block)
		}
	})
	b.Run("library", func(b *testing.B) {
		b.SetBytes(BlockSize)
		for b.Loop() {
			library(block)
		}
	})
}

// What is no block is hashed as well.
func TestSum(t *testing.T) {
	b := make([]byte, BlockSize+1)
	_, _ = rand.Read(b)
	for _, n := range []int{0, 1, 1 << 10, BlockSize - 1, BlockSize, BlockSize + 1} {
		if Sum(b[:n]) != blake3.Sum256(b[:n]) {
			t.Errorf("of %d bytes it is another", n)
		}
	}
}
