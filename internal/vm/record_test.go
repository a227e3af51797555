package vm

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// recordText is a record as a daemon writes it, in a line.
const recordText = `{"ID":3,"Name":"a","Namespace":"ns","UUID":"u","Type":"kvm","Made":true,"Config":{}}` + "\n"

func TestLastRecord(t *testing.T) {
	for text, want := range map[string]string{
		recordText:                               "a",
		strings.ReplaceAll(recordText, "\n", ""): "a",
		recordText + strings.Replace(recordText, `"a"`, `"b"`, 1):                                "b",
		recordText + strings.Replace(recordText, `"a"`, `"b"`, 1)[:40]:                           "a", // died over it
		recordText + "\x00\x00" + recordText:                                                     "a",
		"{\n\t\"ID\": 3,\n\t\"Name\": \"old\",\n\t\"Type\": \"kvm\"\n}\n" + recordText[:1]:       "old",
		strings.Repeat(recordText, maxRecords) + strings.Replace(recordText, `"a"`, `"last"`, 1): "last",
		"": "", "[": "", recordText[:40]: "", `"a"`: "",
	} {
		r, err := lastRecord([]byte(text))
		if (err == nil) != (want != "") || err == nil && r.Name != want {
			t.Errorf("%q: %+v, %v", text, r, err)
		}
	}
}

// A file of records does not grow for ever, and its last one is the newest.
func TestRecords(t *testing.T) {
	v := &VM{ID: 3, Name: "a", Namespace: "ns", UUID: "u", Type: KVM, config: NewConfig(), made: true,
		manager: &Manager{opts: Options{Base: t.TempDir()}}}
	if err := os.Mkdir(v.Dir(), 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range 3*maxRecords + 2 {
		v.config.Memory = uint64(i)
		if err := v.writeRecord(); err != nil {
			t.Fatal(err)
		}
		r, err := readRecord(v.Dir())
		if err != nil || r.Config.Memory != uint64(i) {
			t.Fatalf("after %d: %+v, %v", i+1, r, err)
		}
	}
	text, err := os.ReadFile(filepath.Join(v.Dir(), recordName))
	if n := bytes.Count(text, []byte("\n")); err != nil || n != 2 {
		t.Errorf("%d records, %v", n, err)
	}
}

func FuzzLastRecord(f *testing.F) {
	f.Add([]byte(recordText + recordText[:50]))
	f.Add([]byte("{}[]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := lastRecord(text)
		if (r == nil) == (err == nil) {
			t.Errorf("%+v, %v", r, err)
		}
		if r != nil {
			_ = r.check("/base/3") // whatever stands in it
		}
	})
}
