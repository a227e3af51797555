package rfbplay

import (
	"cmp"
	"image"
	"slices"
)

// bin holds the pixels of which the upper five bits of each channel are equal.
type bin struct {
	n   uint64
	sum [3]uint64 // of the channels
	at  [3]uint8  // the five bits
	key uint16
}

// box is a set of bins that share a colour of the palette.
type box struct {
	bins []bin
	n    uint64
	axis int    // along which it is longest
	cost uint64 // pixels times the length of that axis
}

// quantise chooses 256 colours for area: bins are put into boxes that are cut
// in two, at the median of their longest side, the costliest first (the median
// cut of Heckbert, "Color image quantization for frame buffer display", 1982).
func (c *colours) quantise(m *image.RGBA, area image.Rectangle) {
	if c.lut == nil {
		c.bins, c.lut = make([]bin, 1<<15), make([]uint8, 1<<15)
	}
	c.count(m, area)
	boxes := []box{newBox(slices.DeleteFunc(slices.Clone(c.bins), func(b bin) bool { return b.n == 0 }))}
	for len(boxes) < most {
		i := costliest(boxes)
		if len(boxes[i].bins) < 2 {
			break
		}
		a, b := boxes[i].cut()
		boxes[i] = a
		boxes = append(boxes, b)
	}
	c.palette = c.palette[:0]
	for i, b := range boxes {
		c.palette = append(c.palette, b.mean())
		for _, x := range b.bins {
			c.lut[x.key] = uint8(i)
		}
	}
	c.pix = c.pix[:0]
	each(m, area, func(r, g, b uint8) { c.pix = append(c.pix, c.lut[key(r, g, b)]) })
}

func key(r, g, b uint8) uint16 { return uint16(r>>3)<<10 | uint16(g>>3)<<5 | uint16(b>>3) }

func each(m *image.RGBA, area image.Rectangle, do func(r, g, b uint8)) {
	for y := area.Min.Y; y < area.Max.Y; y++ {
		row := m.Pix[m.PixOffset(area.Min.X, y):][:area.Dx()*4]
		for ; len(row) > 0; row = row[4:] {
			do(row[0], row[1], row[2])
		}
	}
}

func (c *colours) count(m *image.RGBA, area image.Rectangle) {
	for i := range c.bins {
		c.bins[i] = bin{key: uint16(i), at: [3]uint8{uint8(i >> 10), uint8(i >> 5 & 31), uint8(i & 31)}}
	}
	each(m, area, func(r, g, b uint8) {
		x := &c.bins[key(r, g, b)]
		x.n++
		x.sum[0] += uint64(r)
		x.sum[1] += uint64(g)
		x.sum[2] += uint64(b)
	})
}

func newBox(bins []bin) box {
	b := box{bins: bins}
	low, high := [3]uint8{31, 31, 31}, [3]uint8{}
	for _, x := range bins {
		b.n += x.n
		for i, v := range x.at {
			low[i], high[i] = min(low[i], v), max(high[i], v)
		}
	}
	longest := 0
	for i := range low {
		if side := int(high[i]) - int(low[i]); side > longest {
			longest, b.axis = side, i
		}
	}
	b.cost = b.n * uint64(longest)
	return b
}

func costliest(boxes []box) int {
	best := 0
	for i := range boxes {
		if boxes[i].cost > boxes[best].cost {
			best = i
		}
	}
	return best
}

// cut halves the pixels of a box of at least two bins.
func (b box) cut() (left, right box) {
	slices.SortFunc(b.bins, func(x, y bin) int { return cmp.Compare(x.at[b.axis], y.at[b.axis]) })
	var n uint64
	at := 1
	for i, x := range b.bins[:len(b.bins)-1] {
		n += x.n
		at = i + 1
		if 2*n >= b.n {
			break
		}
	}
	return newBox(b.bins[:at:at]), newBox(b.bins[at:])
}

func (b box) mean() rgb {
	var sum [3]uint64
	for _, x := range b.bins {
		for i, v := range x.sum {
			sum[i] += v
		}
	}
	n := max(b.n, 1)
	return rgb(sum[0]/n<<16 | sum[1]/n<<8 | sum[2]/n)
}
