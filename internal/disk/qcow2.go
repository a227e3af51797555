package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"minimega/internal/errs"
)

// The qcow2 format, as of
// https://www.qemu.org/docs/master/interop/qcow2.html, all big-endian.
const (
	qcowMagic      = "QFI\xfb"
	clusterBits    = 16 // of the overlays that we make: 64 KiB
	clusterSize    = 1 << clusterBits
	l2Entries      = clusterSize / 8
	headerLen      = 104
	maxBackingName = 1023
	maxL1Bytes     = 32 << 20 // QEMU's own limit
	maxHeader      = 1 << 21  // QEMU's largest cluster; the header lies in the first

	extEnd           = 0
	extBackingFormat = 0xE2792ACA
	extDataFile      = 0x44415441
	incompatDataFile = 1 << 2
)

// header is the fixed part of version 3.
type header struct {
	Magic                [4]byte
	Version              uint32
	BackingOffset        uint64
	BackingSize          uint32
	ClusterBits          uint32
	Size                 uint64
	CryptMethod          uint32
	L1Size               uint32
	L1Offset             uint64
	RefcountTableOffset  uint64
	RefcountTableCluster uint32
	Snapshots            uint32
	SnapshotsOffset      uint64
	Incompatible         uint64
	Compatible           uint64
	Autoclear            uint64
	RefcountOrder        uint32
	HeaderLen            uint32
}

// qcow2Info is what the header tells.
type qcow2Info struct {
	size          int64
	backing       string // as written: relative to the image's directory
	backingFormat string // "" if the image does not say
	dataFile      bool   // guest data lies in another file
}

// parseQcow2 reads the header of an image. It trusts nothing in it: offsets
// and lengths are checked before they are used.
func parseQcow2(r io.ReaderAt) (*qcow2Info, error) {
	var raw [headerLen]byte
	if n, err := r.ReadAt(raw[:], 0); n < 72 {
		return nil, fmt.Errorf("qcow2 header is cut short: %w", err)
	}
	var h header
	if err := binary.Read(bytes.NewReader(raw[:]), binary.BigEndian, &h); err != nil {
		return nil, err
	}
	switch {
	case string(h.Magic[:]) != qcowMagic:
		return nil, errors.New("no qcow2 header")
	case h.Version == 2:
		h.Incompatible, h.HeaderLen = 0, 72
	case h.Version != 3 || h.HeaderLen < headerLen:
		return nil, fmt.Errorf("unknown qcow2 version %d", h.Version)
	}
	if h.ClusterBits < 9 || h.ClusterBits > 21 {
		return nil, fmt.Errorf("impossible qcow2 cluster size 2^%d", h.ClusterBits)
	}
	if h.Size > 1<<62 {
		return nil, fmt.Errorf("impossible qcow2 disk size %d", h.Size)
	}
	info := &qcow2Info{size: int64(h.Size), dataFile: h.Incompatible&incompatDataFile != 0}
	end := int64(1) << h.ClusterBits
	if err := info.readBacking(r, &h, end); err != nil {
		return nil, err
	}
	if h.BackingOffset != 0 {
		end = int64(h.BackingOffset)
	}
	return info, info.readExtensions(r, int64(h.HeaderLen), end)
}

func (q *qcow2Info) readBacking(r io.ReaderAt, h *header, end int64) error {
	if h.BackingOffset == 0 {
		return nil
	}
	if h.BackingSize > maxBackingName || h.BackingOffset > uint64(end) || int64(h.BackingOffset)+int64(h.BackingSize) > end {
		return errors.New("qcow2 backing file name is out of bounds")
	}
	name := make([]byte, h.BackingSize)
	if _, err := r.ReadAt(name, int64(h.BackingOffset)); err != nil {
		return fmt.Errorf("qcow2 backing file name: %w", err)
	}
	if bytes.IndexByte(name, 0) >= 0 {
		return errors.New("qcow2 backing file name holds a NUL")
	}
	q.backing = string(name)
	return nil
}

func (q *qcow2Info) readExtensions(r io.ReaderAt, at, end int64) error {
	for at+8 <= end {
		var ext [8]byte
		if _, err := r.ReadAt(ext[:], at); err != nil {
			if err == io.EOF { // an image without extensions may end here
				return nil
			}
			return err
		}
		kind, size := binary.BigEndian.Uint32(ext[:4]), int64(binary.BigEndian.Uint32(ext[4:]))
		at += 8
		switch {
		case kind == extEnd:
			return nil
		case at+size > end:
			return errors.New("qcow2 header extension is out of bounds")
		case kind == extDataFile:
			q.dataFile = true
		case kind == extBackingFormat && size <= 64:
			name := make([]byte, size)
			if _, err := r.ReadAt(name, at); err != nil {
				return fmt.Errorf("qcow2 backing format: %w", err)
			}
			q.backingFormat = string(name)
		}
		at += (size + 7) &^ 7
	}
	return nil
}

// overlayBytes returns the non-empty parts of an empty qcow2 image over a
// backing file, by offset, and the length of the file.
//
//	cluster 0: header, extensions, backing file name
//	cluster 1: refcount table, one entry
//	cluster 2: refcount block
//	cluster 3…: L1 table, all zero: every read goes to the backing file
func overlayBytes(size int64, backing, format string) (parts map[int64][]byte, length int64, err error) {
	if backing == "" || len(backing) > maxBackingName {
		return nil, 0, fmt.Errorf("path of the backing file has %d bytes, a qcow2 image holds 1 to %d", len(backing), maxBackingName)
	}
	l1 := (size + l2Entries*clusterSize - 1) / (l2Entries * clusterSize)
	if l1*8 > maxL1Bytes {
		return nil, 0, fmt.Errorf("disk of %d bytes is too large for qcow2", size)
	}
	clusters := 3 + max(1, (l1*8+clusterSize-1)/clusterSize)

	ext := binary.BigEndian.AppendUint32(nil, extBackingFormat)
	ext = binary.BigEndian.AppendUint32(ext, uint32(len(format)))
	ext = append(ext, format...)
	ext = append(ext, make([]byte, 8+(8-len(format)%8)%8)...) // padding, end of extensions

	h := header{
		Version: 3, BackingOffset: uint64(headerLen + len(ext)), BackingSize: uint32(len(backing)), ClusterBits: clusterBits,
		Size: uint64(size), L1Size: uint32(l1), L1Offset: 3 * clusterSize,
		RefcountTableOffset: clusterSize, RefcountTableCluster: 1, RefcountOrder: 4, HeaderLen: headerLen,
	}
	copy(h.Magic[:], qcowMagic)
	var first bytes.Buffer
	if err := binary.Write(&first, binary.BigEndian, &h); err != nil {
		return nil, 0, err
	}
	first.Write(ext)
	first.WriteString(backing)

	counts := make([]byte, 0, 2*clusters)
	for range clusters {
		counts = binary.BigEndian.AppendUint16(counts, 1)
	}
	return map[int64][]byte{
		0:               first.Bytes(),
		clusterSize:     binary.BigEndian.AppendUint64(nil, 2*clusterSize),
		2 * clusterSize: counts,
	}, clusters * clusterSize, nil
}

// Overlay makes an empty qcow2 image at dst (which must not exist) whose
// contents are those of base, without running a program. The path of base is
// stored relative to dst's directory, or absolute with abs. A failed Overlay
// leaves no file.
func Overlay(base, dst string, abs bool) error {
	base, err := filepath.Abs(base)
	if err != nil {
		return err
	}
	h, err := Inspect(base)
	if err != nil {
		return err
	}
	backing, err := backingPath(base, dst, abs)
	if err != nil {
		return err
	}
	parts, length, err := overlayBytes(h.VirtualSize, backing, h.Format)
	if err != nil {
		return errs.Wrap(errs.Invalid, err)
	}
	return writeSparse(dst, parts, length)
}

// backingPath words the path of base as stored in an overlay at dst. Both are
// taken as they are after links, since QEMU resolves it from there.
func backingPath(base, dst string, abs bool) (string, error) {
	if abs {
		return base, nil
	}
	dst, err := filepath.Abs(dst)
	if err != nil {
		return "", err
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(dst))
	if err != nil {
		return "", noDirectory(err, dst)
	}
	rel, err := filepath.Rel(dir, base)
	if err != nil {
		return "", err
	}
	// A directory of base may be a link; then ".." from it leads elsewhere, but
	// rel only ever climbs from dir, which holds none.
	return rel, nil
}

func noDirectory(err error, path string) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errs.New(errs.NotFound, "directory %s does not exist", filepath.Dir(path))
	}
	return err
}

func writeSparse(path string, parts map[int64][]byte, length int64) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return wordWrite(err, path)
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			_ = os.Remove(path)
			err = wordWrite(err, path)
		}
	}()
	for at, b := range parts {
		if _, err := f.WriteAt(b, at); err != nil {
			return err
		}
	}
	return f.Truncate(length)
}
