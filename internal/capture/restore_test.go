package capture

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"minimega/internal/capture/pcap"
)

const restoreSnaplen = 100

// written is a file of a capture that was killed, with its last records torn
// off at every place.
func written(enc pcap.Encoder) (file []byte, ends []int) {
	file = enc.Header(nil, restoreSnaplen)
	file = enc.AddInterface(file, pcap.Interface{Name: "x", Snaplen: restoreSnaplen})
	ends = []int{len(file)}
	for _, size := range []int{60, 1, 100} {
		file = enc.Packet(file, 0, 1, 2, size, nil, make([]byte, size))
		ends = append(ends, len(file))
	}
	return file, ends
}

// Whatever was written of a file, whole records stay, and more can be appended.
func TestResume(t *testing.T) {
	for name, enc := range map[string]pcap.Encoder{"pcap": pcap.Classic{}, "pcapng": pcap.NG{}} {
		file, ends := written(enc)
		head := enc.AddInterface(enc.Header(nil, restoreSnaplen), pcap.Interface{Name: "x", Snaplen: restoreSnaplen})
		for n := range len(file) + 1 {
			path := filepath.Join(t.TempDir(), "c."+name)
			if err := os.WriteFile(path, file[:n], 0o600); err != nil {
				t.Fatal(err)
			}
			want := uint64(0)
			for _, end := range ends[1:] {
				if n >= end {
					want++
				}
			}
			resumed(t, path, enc, head, want)
		}
	}
}

func resumed(t *testing.T, path string, enc pcap.Encoder, head []byte, want uint64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	at, packets, _, err := repair(f, enc, head, restoreSnaplen)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	if packets != want {
		t.Errorf("%s: %d packets, want %d", path, packets, want)
	}
	if _, err := f.WriteAt(enc.Packet(nil, 0, 3, 4, 5, nil, make([]byte, 5)), at); err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	reader, err := pcap.NewReader(in)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	count := uint64(0)
	for {
		_, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		count++
	}
	if count != want+1 {
		t.Errorf("%s: %d packets can be read, want %d", path, count, want+1)
	}
}

// A file that is somebody else's by now is left as it is.
func TestResumeForeign(t *testing.T) {
	other := pcap.Classic{}.Header(nil, restoreSnaplen+1)
	for name, content := range map[string][]byte{"text": bytes.Repeat([]byte("text"), 20), "snaplen": other} {
		path := filepath.Join(t.TempDir(), name+".pcap")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, _, err := repair(f, pcap.Classic{}, nil, restoreSnaplen); err == nil {
			t.Errorf("%s was taken", name)
		}
		f.Close()
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s was changed: %v", name, err)
		}
	}
}

func FuzzWhole(f *testing.F) {
	for _, enc := range []pcap.Encoder{pcap.Classic{}, pcap.NG{}} {
		file, _ := written(enc)
		f.Add(file, enc == pcap.Encoder(pcap.NG{}))
	}
	f.Fuzz(func(t *testing.T, file []byte, ng bool) {
		var enc pcap.Encoder = pcap.Classic{}
		if ng {
			enc = pcap.NG{}
		}
		n, _, _, err := whole(bytes.NewReader(file), enc, restoreSnaplen)
		if err == nil && n > int64(len(file)) {
			t.Errorf("%d whole bytes of %d", n, len(file))
		}
		if err == nil && n > 0 {
			again, _, _, err := whole(bytes.NewReader(file[:n]), enc, restoreSnaplen)
			if err != nil || again != n {
				t.Errorf("%d, then %d, %v", n, again, err)
			}
		}
	})
}
