package iomeshage

import (
	"slices"
	"testing"
	"time"
)

// The hash of a chunk tells which blocks are zero, and not how they came.
func TestChunkHash(t *testing.T) {
	b := random(17, blockSize)
	var x, y, z chunkHash
	x.block(b)
	x.zero()
	y.zero()
	y.block(b)
	z.block(b)
	if x.sum() == y.sum() || x.sum() == z.sum() {
		t.Error("zeros do not count")
	}
}

// Small files have enough chunks for several receivers, large ones not too many.
func TestLayout(t *testing.T) {
	for size, want := range map[int64]layout{
		1: {1, minChunk}, 4 << 20: {4 << 20, minChunk}, 24 << 20: {24 << 20, 512 << 10}, 128 << 20: {128 << 20, 2 << 20},
		1 << 30: {1 << 30, midChunk}, 5 << 30: {5 << 30, 8 << 20}, maxSize: {maxSize, maxChunk},
	} {
		if got := layoutOf(size); got != want {
			t.Errorf("%d bytes: %+v, want %+v", size, got, want)
		}
	}
}

func TestCrowd(t *testing.T) {
	c := newCrowd()
	var leave []func()
	for range perFile {
		l, ok := c.enter("f")
		if !ok {
			t.Fatal("refused too early")
		}
		leave = append(leave, l)
	}
	if _, ok := c.enter("f"); ok {
		t.Error("too many")
	}
	if l, ok := c.enter("g"); !ok {
		t.Error("another file is refused")
	} else {
		l()
	}
	leave[0]()
	l, ok := c.enter("f")
	if !ok {
		t.Fatal("nobody takes the place of who has left")
	}
	leave[0] = l
	for i := range c.began["f"] { // who takes long does not count
		c.began["f"][i] = c.began["f"][i].Add(-long)
	}
	if l, ok = c.enter("f"); !ok {
		t.Error("slow ones keep others waiting")
	} else {
		l()
	}
	c.began = map[string][]time.Time{} // their times are others now
	for _, l := range leave {
		l()
	}
}

// Of the chunks that the fewest have, a host fetches first those that are its own
// to see to.
func TestPick(t *testing.T) {
	p := newPlan(12)
	holders := []*found{{Partial: true, Done: []byte{1 << 1, 0}}, {Partial: true, Done: []byte{1<<1 | 1<<4, 0}}}
	p.count(holders, 1) // of three
	var order []int
	for range 12 {
		order = append(order, p.pick(func(int) bool { return true }))
	}
	slices.Sort(order[:2])
	slices.Sort(order[2:10])
	if want := []int{7, 10, 0, 2, 3, 5, 6, 8, 9, 11, 4, 1}; !slices.Equal(order, want) {
		t.Errorf("%v, want %v", order, want)
	}
	if p.pick(func(int) bool { return true }) != -1 {
		t.Error("there is more")
	}
}
