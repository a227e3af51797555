package vnc

import (
	_ "embed"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

//go:embed keysyms.txt
var keysymText string

//go:embed shifted_enus.txt
var shiftedText string

// Keysyms with a meaning of their own here.
const (
	keyShiftL     = 0xffe1
	keyBackSpace  = 0xff08
	keyTab        = 0xff09
	keyReturn     = 0xff0d
	keyEscape     = 0xff1b
	keyDelete     = 0xffff
	unicodeKeysym = 0x01000000 // plus the code point (X11 protocol, appendix A)
)

type keysymTable struct {
	number map[string]uint32
	name   map[uint32]string
}

var keysyms = sync.OnceValue(func() keysymTable {
	t := keysymTable{number: map[string]uint32{}, name: map[uint32]string{}}
	for line := range strings.Lines(keysymText) {
		name, hex, ok := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.ParseUint(hex, 16, 32)
		if !ok || err != nil {
			continue // the comment at the top
		}
		t.number[name] = uint32(n)
		if _, known := t.name[uint32(n)]; !known {
			t.name[uint32(n)] = name
		}
	}
	return t
})

var shifted = sync.OnceValue(func() string {
	_, chars, _ := strings.Cut(shiftedText, "\n")
	return strings.TrimSpace(chars)
})

// KeysymName returns the X11 name of a keysym without "XK_", U+XXXX for a
// character without one, and 0x… for other numbers.
func KeysymName(k uint32) string {
	if name, ok := keysyms().name[k]; ok {
		return name
	}
	if r := rune(k - unicodeKeysym); k > unicodeKeysym && r > 0xff && r <= utf8.MaxRune {
		return fmt.Sprintf("U+%04X", r)
	}
	return fmt.Sprintf("0x%x", k)
}

// ParseKeysym is the inverse of KeysymName. It takes every X11 name.
func ParseKeysym(s string) (uint32, error) {
	if k, ok := keysyms().number[s]; ok {
		return k, nil
	}
	if hex, ok := strings.CutPrefix(s, "U+"); ok {
		n, err := strconv.ParseUint(hex, 16, 32)
		if err == nil && n <= utf8.MaxRune {
			return RuneKeysym(rune(n)), nil
		}
	} else if hex, ok := strings.CutPrefix(s, "0x"); ok {
		if n, err := strconv.ParseUint(hex, 16, 32); err == nil {
			return uint32(n), nil
		}
	}
	return 0, fmt.Errorf("no keysym is called %.40q", s)
}

// RuneKeysym returns the keysym that types r.
func RuneKeysym(r rune) uint32 {
	switch r {
	case '\n', '\r':
		return keyReturn
	case '\t':
		return keyTab
	case '\b':
		return keyBackSpace
	case 0x1b:
		return keyEscape
	case 0x7f:
		return keyDelete
	}
	if r <= 0xff {
		return uint32(r)
	}
	return unicodeKeysym + uint32(r)
}

// Typeable tells whether an en-us keyboard has a key for r.
func Typeable(r rune) bool {
	return r >= ' ' && r <= 0x7f || r == '\n' || r == '\r' || r == '\t' || r == '\b' || r == 0x1b
}

// TypeKeys returns the key events that type text on an en-us keyboard: down
// and up for each character, within Shift_L where it is needed. Characters
// that such a keyboard lacks are left out; CR LF counts as one Return.
func TypeKeys(text string) []KeyEvent {
	var keys []KeyEvent
	for _, r := range strings.ReplaceAll(text, "\r\n", "\n") {
		if !Typeable(r) {
			continue
		}
		k := RuneKeysym(r)
		tap := []KeyEvent{{Down: true, Keysym: k}, {Down: false, Keysym: k}}
		if strings.ContainsRune(shifted(), r) {
			keys = append(keys, KeyEvent{Down: true, Keysym: keyShiftL})
			tap = append(tap, KeyEvent{Down: false, Keysym: keyShiftL})
		}
		keys = append(keys, tap...)
	}
	return keys
}
