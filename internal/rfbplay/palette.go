package rfbplay

import (
	"encoding/binary"
	"image"
	"slices"
)

// rgb is a colour as 0xRRGGBB.
type rgb uint32

// colours is the palette of a picture and, row by row, which colour of it each
// pixel has. It is reused from picture to picture.
type colours struct {
	palette []rgb
	pix     []uint8
	keys    [tableSize]uint32 // colour + 1, by hash
	values  [tableSize]uint8
	bins    []bin
	lut     []uint8
}

// tableSize is of the hash table of an exact palette: four times its most colours.
const (
	tableBits = 10
	tableSize = 1 << tableBits
	most      = 256
)

// of takes the colours of area as they are if they are few, else the nearest
// of 256 that it chooses.
func (c *colours) of(m *image.RGBA, area image.Rectangle) {
	if !c.exact(m, area) {
		c.quantise(m, area)
	}
}

// exact tells whether area has at most 256 colours, and takes them.
func (c *colours) exact(m *image.RGBA, area image.Rectangle) bool {
	c.palette = c.palette[:0]
	c.pix = slices.Grow(c.pix[:0], area.Dx()*area.Dy())
	clear(c.keys[:])
	last, index := ^uint32(0), uint8(0)
	for y := area.Min.Y; y < area.Max.Y; y++ {
		row := m.Pix[m.PixOffset(area.Min.X, y):][:area.Dx()*4]
		for ; len(row) > 0; row = row[4:] {
			v := binary.BigEndian.Uint32(row) >> 8
			if v != last {
				var ok bool
				if index, ok = c.index(v); !ok {
					return false
				}
				last = v
			}
			c.pix = append(c.pix, index)
		}
	}
	return true
}

// index finds or adds a colour.
func (c *colours) index(v uint32) (uint8, bool) {
	h := v * 2654435761 >> (32 - tableBits)
	for c.keys[h] != 0 {
		if c.keys[h] == v+1 {
			return c.values[h], true
		}
		h = (h + 1) % tableSize
	}
	if len(c.palette) == most {
		return 0, false
	}
	c.keys[h], c.values[h] = v+1, uint8(len(c.palette))
	c.palette = append(c.palette, rgb(v))
	return c.values[h], true
}
