package command

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"minimega/internal/vm"
)

// The keys of the structured form of `vm info`, as clients know them.
const vmKeys = `UUID VCPUs Memory Snapshot Schedule Colocate Coschedule Backchannel Networks Bonds Tags ID Name Namespace Host State LaunchTime Type
	ActiveCC Pid QemuPath KernelPath InitrdPath CdromPath MigratePath CPU Sockets Cores Threads Machine SerialPorts VirtioPorts Vga Append Disks UsbUseXHCI
	TpmSocketPath BidirectionalCopyPaste QemuAppend QemuOverride VNCPort`

func TestVMData(t *testing.T) {
	c := vm.NewConfig()
	c.Tags = map[string]string{"b": "2", "a": "<\"1\">\n"}
	c.Append = []string{"quiet", "x=\xff"}
	c.Disks = []vm.DiskConfig{{Path: "/d", Interface: "virtio", Raw: "/d,virtio"}}
	c.QemuOverride = []vm.Override{{Match: "a", Repl: "b"}}
	c.Bonds = []vm.BondConfig{{Name: "bond0", Interfaces: []int{0, 1}}}
	nets := []vm.NetConfig{{Alias: "lan", VLAN: 101, Tap: "mega_tap0", MAC: "00:11:22:33:44:55", RxRate: 1.5}, {VLAN: vm.Disconnected}}
	when := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	data := vmData{
		{ID: 1, Name: "a", Namespace: "minimega", State: vm.Running, Type: vm.KVM, LaunchTime: when, Config: c, Networks: nets, VNCPort: 5900},
		{ID: 2, Name: "b", Type: vm.KVM, Config: vm.NewConfig()},
	}
	var got []map[string]any
	raw := data.AppendJSON(nil)
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatalf("%v in %s", err, raw)
	}
	var keys []string
	for k := range got[0] {
		keys = append(keys, k)
	}
	want := strings.Fields(vmKeys)
	slices.Sort(keys)
	slices.Sort(want)
	if !slices.Equal(keys, want) {
		t.Errorf("keys %v\nwant %v", keys, want)
	}
	for _, part := range []struct {
		key  string
		want any
	}{
		{"Tags", c.Tags}, {"Networks", nets}, {"Disks", c.Disks}, {"Append", c.Append}, {"QemuOverride", c.QemuOverride}, {"Bonds", c.Bonds},
		{"LaunchTime", when}, {"State", 2}, {"Type", 1}, {"VNCPort", 5900}, {"Coschedule", -1},
	} {
		a, _ := json.Marshal(got[0][part.key])
		var plain any
		b, _ := json.Marshal(part.want)
		_ = json.Unmarshal(b, &plain)
		b, _ = json.Marshal(plain)
		if string(a) != string(b) {
			t.Errorf("%s: %s, want %s", part.key, a, b)
		}
	}
	for _, key := range []string{"Networks", "Disks", "Append", "Bonds", "QemuOverride"} {
		if got[1][key] != nil {
			t.Errorf("%s without any: %v, want null", key, got[1][key])
		}
	}
}

func TestAndroidData(t *testing.T) {
	c := vm.NewConfig()
	c.AVDName, c.ExtraArgs, c.QemuOverride = "phone", []string{"-read-only"}, []vm.Override{{Match: "a", Repl: "b"}}
	raw := vmData{
		{ID: 1, Name: "a", Type: vm.Android, Config: c, Console: 5556, ADB: 5557},
		{ID: 2, Name: "b", Type: vm.Android, Config: vm.NewConfig()},
	}.AppendJSON(nil)
	var got []map[string]any
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatalf("%v in %s", err, raw)
	}
	for key, want := range map[string]string{
		"Type": "3", "AndroidSDKPath": `""`, "AndroidEmulatorPath": `""`, "AndroidADBPath": `""`, "AndroidAVDName": `"phone"`, "AndroidAVDDir": `""`,
		"AndroidNoWindow": "true", "AndroidConsoleBasePort": "0", "AndroidExtraArgs": `["-read-only"]`, "AndroidWritableSystem": "false",
		"QemuAppend": "null", "QemuOverride": `[{"Match":"a","Repl":"b"}]`,
		"AndroidConsolePort": "5556", "AndroidADBPort": "5557", "AndroidSerial": `"emulator-5556"`,
	} {
		if b, err := json.Marshal(got[0][key]); err != nil || string(b) != want {
			t.Errorf("%s: %s, want %s", key, b, want)
		}
	}
	if got[1]["AndroidSerial"] != "" || got[1]["AndroidConsolePort"] != 0.0 || got[1]["QemuPath"] != nil {
		t.Errorf("without a process: %v", got[1])
	}
}
