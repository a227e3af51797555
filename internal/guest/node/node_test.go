package node

import (
	"bytes"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestCompareDevices(t *testing.T) {
	want := []string{
		"/sys/devices/pci0000:00/0000:00:03.0",
		"/sys/devices/pci0000:00/0000:00:04.0/virtio2",
		"/sys/devices/pci0000:00/0000:00:04.0/virtio10",
		"/sys/devices/pci0000:00/0000:00:0a.0",
		"/sys/devices/pci0000:00/0000:00:1e.0/0000:01:01.0",
		"/sys/devices/pci0000:00/0000:00:1e.0/0000:01:02.0/virtio0",
	}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, compareDevices)
	if !slices.Equal(got, want) {
		t.Errorf("order: %q", got)
	}
}

func TestDrivers(t *testing.T) {
	list := parseDrivers("/lib/a.ko /lib/b.ko pci:v00008086d0000100Esv* pci:v1*\n\nlate /lib/c.ko scsi:t-0x00*\n/lib/d.ko \njunk\n")
	if len(list) != 3 || len(list[0].files) != 2 || !list[1].late || list[2].late {
		t.Fatalf("parsed %+v", list)
	}
	nic := []string{"acpi:X:", "pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00"}
	for i, want := range []bool{true, false, true} {
		if got := list[i].wanted(nic); got != want {
			t.Errorf("driver %d wanted: %v", i, got)
		}
	}
}

func TestAddedDevice(t *testing.T) {
	for event, want := range map[string]string{
		"add@/devices/x\x00ACTION=add\x00MODALIAS=pci:v1\x00SEQNUM=1\x00": "pci:v1",
		"remove@/devices/x\x00ACTION=remove\x00MODALIAS=pci:v1\x00":       "",
		"add@/x\x00ACTION=add\x00":                                        "",
		"":                                                                "",
	} {
		if got := addedDevice(event); got != want {
			t.Errorf("%q: %q", event, got)
		}
	}
}

func TestParseStat(t *testing.T) {
	p, ok := parseStat(7, "7 (a b) c) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 9 1000 3 18446744073709551615 1")
	if !ok || p.Name != "a b) c" || p.State != "S" || p.Parent != 1 || p.RSS == 0 {
		t.Errorf("%+v %v", p, ok)
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add("1 (init) S 0 1")
	f.Add(")(")
	f.Fuzz(func(t *testing.T, s string) { parseStat(1, s) })
}

func FuzzDrivers(f *testing.F) {
	f.Add("late /x pci:[a-*", "pci:v1")
	f.Fuzz(func(t *testing.T, list, device string) {
		for _, d := range parseDrivers(list) {
			d.wanted([]string{device})
		}
	})
}

func TestARPAnnouncement(t *testing.T) {
	got := arpAnnouncement([]byte{2, 0, 0, 0, 0, 1}, netip.MustParseAddr("10.0.0.5"))
	want := "ffffffffffff0200000000010806" + "0001080006040001" + "020000000001" + "0a000005" + "000000000000" + "0a000005" + strings.Repeat("00", 18)
	if hex.EncodeToString(got) != want {
		t.Errorf("frame %x", got)
	}
}

func TestProcesses(t *testing.T) {
	found := slices.ContainsFunc(Processes(), func(p Process) bool { return strings.Contains(p.Command, "node.test") })
	if !found {
		t.Error("this test is not among the processes")
	}
}

func TestHTTP(t *testing.T) {
	s := httptest.NewServer(httpHandler())
	defer s.Close()
	get := func(path string) (int, string) {
		resp, err := http.Get(s.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	if status, body := get("/"); status != 200 || !strings.Contains(body, "lo: 127.0.0.1/8") || !strings.HasPrefix(body, "hostname: ") {
		t.Errorf("/: %d %s", status, body)
	}
	if status, body := get("/bytes?n=100001"); status != 200 || len(body) != 100001 {
		t.Errorf("/bytes: %d, %d bytes", status, len(body))
	}
	for _, bad := range []string{"/bytes", "/bytes?n=-1", "/bytes?n=9999999999999999999"} {
		if status, _ := get(bad); status != http.StatusBadRequest {
			t.Errorf("%s: %d", bad, status)
		}
	}
	if status, _ := get("/nosuch"); status != http.StatusNotFound {
		t.Errorf("/nosuch: %d", status)
	}
	sent := bytes.Repeat([]byte("x"), 300_000)
	resp, err := http.Post(s.URL+"/echo", "text/plain", bytes.NewReader(sent))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("/echo: %d bytes, %v", len(got), err)
	}
}
