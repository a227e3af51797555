// Package vnc speaks RFB, the protocol of VNC (RFC 6143; QEMU's extensions as
// in the "rfbproto" community document): a client, a small server, a proxy
// that lets observers see what people type, and the two formats of recordings:
// kb (keys and pointer, text) and fb (the screen, gzip).
//
// What comes from the network or from a file is hostile: every length is
// checked before memory is taken. Values belong to one goroutine unless they
// say otherwise.
package vnc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"image"
)

// Encoding numbers a way to send a rectangle, or (negative) an ability of the client.
type Encoding int32

// The encodings that this package decodes, and some that it must recognise.
const (
	EncRaw                 Encoding = 0
	EncCopyRect            Encoding = 1
	EncZlib                Encoding = 6
	EncTight               Encoding = 7
	EncDesktopSize         Encoding = -223
	EncLastRect            Encoding = -224
	EncPointerPos          Encoding = -232
	EncCursor              Encoding = -239
	EncXCursor             Encoding = -240
	EncPointerTypeChange   Encoding = -257
	EncExtendedKey         Encoding = -258
	EncAudio               Encoding = -259
	EncLEDState            Encoding = -261
	EncDesktopName         Encoding = -307
	EncExtendedDesktopSize Encoding = -308
	encExtendedMouse       Encoding = -316
	encExtendedClipboard   Encoding = -0x3f5e1a32 // 0xC0A1E5CE
)

// Limits on what a peer may make this side hold.
const (
	MaxSide   = 16384          // pixels, width and height
	MaxPixels = 64 << 20       // pixels of one screen: 256 MiB
	maxName   = 4096           // bytes of a desktop's name
	maxReason = 4096           // bytes of a refusal
	MaxCut    = 256 << 10      // bytes of clipboard text kept
	alpha     = uint8(0xff)    // screens are opaque
	bpp       = 4              // bytes per pixel in the standard format
	banner    = len(version38) // bytes of a version message
)

const (
	version33 = "RFB 003.003\n"
	version37 = "RFB 003.007\n"
	version38 = "RFB 003.008\n"
)

// Security types (RFC 6143 §7.1.2).
const (
	secNone    = 1
	secVNCAuth = 2
)

// ErrTooLarge says that a peer or file asks for more memory than the limits allow.
var ErrTooLarge = errors.New("screen is larger than the limit")

// PixelFormat says how a pixel is sent (RFC 6143 §7.4).
type PixelFormat struct {
	BPP, Depth                      uint8 // bits
	BigEndian, TrueColour           bool
	RedMax, GreenMax, BlueMax       uint16
	RedShift, GreenShift, BlueShift uint8
}

// StandardFormat is 32 bits, little-endian, shifts 16/8/0: what the client
// asks for and what fb recordings hold.
func StandardFormat() PixelFormat {
	return PixelFormat{BPP: 32, Depth: 24, TrueColour: true,
		RedMax: 255, GreenMax: 255, BlueMax: 255, RedShift: 16, GreenShift: 8}
}

func (f PixelFormat) append(b []byte) []byte {
	b = append(b, f.BPP, f.Depth, flag(f.BigEndian), flag(f.TrueColour))
	b = binary.BigEndian.AppendUint16(b, f.RedMax)
	b = binary.BigEndian.AppendUint16(b, f.GreenMax)
	b = binary.BigEndian.AppendUint16(b, f.BlueMax)
	return append(b, f.RedShift, f.GreenShift, f.BlueShift, 0, 0, 0)
}

// parsePixelFormat reads the 16 bytes of a pixel format.
func parsePixelFormat(b []byte) PixelFormat {
	return PixelFormat{
		BPP: b[0], Depth: b[1], BigEndian: b[2] != 0, TrueColour: b[3] != 0,
		RedMax: binary.BigEndian.Uint16(b[4:]), GreenMax: binary.BigEndian.Uint16(b[6:]),
		BlueMax:  binary.BigEndian.Uint16(b[8:]),
		RedShift: b[10], GreenShift: b[11], BlueShift: b[12],
	}
}

func flag(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

// checkSize refuses screens of more than limit pixels, or too long a side.
func checkSize(w, h, limit int) error {
	if w < 0 || h < 0 || w > MaxSide || h > MaxSide || w*h > limit {
		return fmt.Errorf("%w: %dx%d", ErrTooLarge, w, h)
	}
	return nil
}

// newScreen makes an opaque black image.
func newScreen(w, h int) *image.RGBA {
	m := image.NewRGBA(image.Rect(0, 0, w, h))
	for i := 3; i < len(m.Pix); i += bpp {
		m.Pix[i] = alpha
	}
	return m
}
