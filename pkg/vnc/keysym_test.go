package vnc

import (
	"strings"
	"testing"
)

func TestKeysymNames(t *testing.T) {
	for name, number := range map[string]uint32{
		"a": 'a', "A": 'A', "exclam": '!', "space": ' ', "Shift_L": 0xffe1, "Return": 0xff0d, "F11": 0xffc8,
		"EuroSign": 0x20ac, "apostrophe": '\'', "XF86AudioMute": 0x1008ff12, "U+4E2D": 0x1004e2d, "0x4000001": 0x4000001,
	} {
		k, err := ParseKeysym(name)
		if err != nil || k != number || KeysymName(number) != name {
			t.Errorf("%s is %x (%v), %x is %s", name, k, err, number, KeysymName(number))
		}
	}
	for name, number := range map[string]uint32{"Page_Up": 0xff55, "quoteright": '\'', "U+41": 'A', "U+20AC": 0x10020ac} {
		if k, err := ParseKeysym(name); err != nil || k != number {
			t.Errorf("%s is %x: %v", name, k, err)
		}
	}
	for _, name := range []string{"", "NoSuchKey", "U+", "U+110000", "U+-1", "0xfffffffff", "XK_a"} {
		if k, err := ParseKeysym(name); err == nil {
			t.Errorf("%q is %x", name, k)
		}
	}
	for number, name := range keysyms().name {
		if k, err := ParseKeysym(name); err != nil || k != number {
			t.Errorf("%s: %x, want %x: %v", name, k, number, err)
		}
	}
}

func FuzzKeysym(f *testing.F) {
	for _, k := range []uint32{0, 'a', 0xff0d, 0x1000041, 0x10020ac, 0x100ff91, 0x110ffff, 0x1110000, 0xffffffff} {
		f.Add(k)
	}
	f.Fuzz(func(t *testing.T, k uint32) {
		if got, err := ParseKeysym(KeysymName(k)); err != nil || got != k {
			t.Errorf("%x is called %s, which is %x: %v", k, KeysymName(k), got, err)
		}
	})
}

func TestTypeKeys(t *testing.T) {
	var got []string
	for _, k := range TypeKeys("a:\r\n\té~") {
		got = append(got, FormatKBEvent(k)[len("KeyEvent,"):])
	}
	want := "true,a false,a true,Shift_L true,colon false,colon false,Shift_L true,Return false,Return true,Tab false,Tab " +
		"true,Shift_L true,asciitilde false,asciitilde false,Shift_L"
	if strings.Join(got, " ") != want {
		t.Errorf("got %s", got)
	}
	for r := ' '; r < 0x7f; r++ {
		n := len(TypeKeys(string(r)))
		if needs := strings.ContainsRune(`~!@#$%^&*()_+{}|:"<>?`, r) || r >= 'A' && r <= 'Z'; n != 2 && !needs || n != 4 && needs {
			t.Errorf("%q takes %d events", r, n)
		}
	}
}
