package vm

import (
	"strings"
)

// blocks gives the output of `vm config`: a title and the fields under it.
// userns, which scripts of other minimegas do not expect, is there once it is set.
var blocks = []struct {
	title  string
	fields []string
}{
	{"VM configuration:", []string{"memory", "vcpus", "networks", "bonds", "snapshot", "uuid", "schedule", "coschedule", "colocate", "backchannel", "tags"}},
	{"KVM configuration:", []string{"state", "disks", "cdrom", "kernel", "initrd", "append", "qemu", "qemu-append", "serial-ports", "virtio-ports",
		"machine", "cpu", "cores", "threads", "sockets", "vga", "usb-use-xhci", "bidirectional-copy-paste", "tpm-socket"}},
	{"Container configuration:", []string{"filesystem", "hostname", "init", "preinit", "fifos", "volume", "userns"}},
	{"Android configuration:", []string{"android-sdk", "android-emulator", "android-adb", "android-avd", "android-avd-dir", "android-no-window",
		"android-console-base-port", "android-extra-args", "android-writable-system"}},
}

// Text prints the whole configuration, a block per kind of VM.
func (c *Config) Text() string {
	var b strings.Builder
	for _, bl := range blocks {
		b.WriteString(bl.title + "\n")
		var fields []*Field
		width := 0
		for _, name := range bl.fields {
			if f := FieldNamed(name); name != "userns" || c.UserNS {
				fields = append(fields, f)
				width = max(width, len(f.Label))
			}
		}
		for _, f := range fields {
			b.WriteString(f.Label + ":" + strings.Repeat(" ", width-len(f.Label)+1) + blockValue(f, c) + "\n")
		}
		b.WriteString("\n")
	}
	return b.String()
}

func blockValue(f *Field, c *Config) string {
	switch {
	case f.Name == "tags":
		return tagsJSON(c.Tags)
	case f.Shape == Map:
		if t := f.Text(c); t != "" {
			return "\n  " + strings.ReplaceAll(t, "\n", "\n  ")
		}
		return ""
	case f.Shape == Many:
		return "[" + strings.Join(f.Words(c), " ") + "]"
	}
	return f.Text(c)
}
