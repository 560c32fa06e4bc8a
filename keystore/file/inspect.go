package file

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// bbolt maps the file into memory and follows the offsets it finds there. In a
// damaged file these lead it out of the mapping, and the process dies. It also
// turns an empty file into a database. So the file is walked here first, with
// every step checked, by plain reads that change nothing. What passes is safe
// for bbolt to open.
//
// The format, in the byte order of the machine: a page starts with its id (8
// bytes), flags (2), count (2) and overflow (4, the further pages it spans).
// Pages 0 and 1 are meta pages; the valid one with the higher transaction id
// counts. It names the root page and the page that lists the free pages.
const (
	pageHeader  = 16
	elementSize = 16
	metaSize    = 64
	boltMagic   = 0xED0CDAED
	boltVersion = 2
	maxDepth    = 64

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagFreelist = 0x10
	flagBucket   = 0x01 // of an element: its value is a bucket
)

var errStructure = errors.New("damaged")

// structural is an error that says what is wrong with the file, as opposed to
// one of reading it.
type structural struct{ why string }

func (e structural) Error() string        { return e.why }
func (e structural) Is(target error) bool { return target == errStructure }

func wrong(format string, args ...any) error { return structural{fmt.Sprintf(format, args...)} }

var order = binary.NativeEndian

type inspector struct {
	f        io.ReaderAt
	pageSize uint64
	pages    uint64 // in use: no id is at or above it
	seen     []bool // by page: reached, or free
}

type meta struct {
	pageSize              uint64
	root, freelist, pages uint64
	txid                  uint64
}

// inspect checks the structure of a whole database.
func inspect(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	size := uint64(info.Size())
	if size == 0 {
		return wrong("it is empty")
	}
	m, err := readMeta(f, size)
	if err != nil {
		return err
	}
	if m.pages > size/m.pageSize {
		return wrong("it is cut off: %d bytes are there, %d pages of %d in use", size, m.pages, m.pageSize)
	}
	i := &inspector{f: f, pageSize: m.pageSize, pages: m.pages, seen: make([]bool, m.pages)}
	i.seen[0], i.seen[1] = true, true
	if err := i.freelist(m.freelist); err != nil {
		return err
	}
	return i.tree(m.root, nil, nil, 0)
}

// readMeta finds the valid meta page with the higher transaction id. The
// second is looked for where bbolt looks: at each possible page size.
func readMeta(f io.ReaderAt, size uint64) (meta, error) {
	first, err := metaAt(f, 0)
	if err != nil && !errors.Is(err, errStructure) {
		return meta{}, err
	}
	if err == nil {
		second, secondErr := metaAt(f, first.pageSize)
		if secondErr != nil && !errors.Is(secondErr, errStructure) {
			return meta{}, secondErr
		}
		if secondErr == nil && second.pageSize == first.pageSize && second.txid > first.txid {
			return second, nil
		}
		return first, nil
	}
	for at := uint64(1024); at <= 16<<20 && at < size; at *= 2 {
		m, secondErr := metaAt(f, at)
		if secondErr == nil && m.pageSize == at {
			return m, nil
		}
		if secondErr != nil && !errors.Is(secondErr, errStructure) {
			return meta{}, secondErr
		}
	}
	return meta{}, err
}

// metaAt reads one meta page.
func metaAt(f io.ReaderAt, at uint64) (meta, error) {
	var page [pageHeader + metaSize]byte
	if n, err := f.ReadAt(page[:], int64(at)); err == io.EOF || err == nil && n < len(page) {
		return meta{}, wrong("it is too short for a database")
	} else if err != nil {
		return meta{}, err
	}
	b := page[pageHeader:]
	if order.Uint32(b) != boltMagic {
		return meta{}, wrong("it is not a database")
	}
	if v := order.Uint32(b[4:]); v != boltVersion {
		return meta{}, wrong("it is a bbolt database of version %d, %d is known", v, boltVersion)
	}
	h := fnv.New64a()
	h.Write(b[:metaSize-8])
	if order.Uint64(b[metaSize-8:]) != h.Sum64() {
		return meta{}, wrong("its first pages do not match their checksums")
	}
	m := meta{
		pageSize: uint64(order.Uint32(b[8:])),
		root:     order.Uint64(b[16:]),
		freelist: order.Uint64(b[32:]),
		pages:    order.Uint64(b[40:]),
		txid:     order.Uint64(b[48:]),
	}
	if m.pageSize < 1024 || m.pageSize > 16<<20 || m.pageSize&(m.pageSize-1) != 0 || m.pages < 4 {
		return meta{}, wrong("its first pages make no sense")
	}
	return m, nil
}

// page reads a page with all it spans, and takes it off the pages that may
// still be reached.
func (i *inspector) page(id uint64) (flags, count uint16, page []byte, err error) {
	if id >= i.pages {
		return 0, 0, nil, wrong("it refers to page %d of %d", id, i.pages)
	}
	var head [pageHeader]byte
	if _, err := i.f.ReadAt(head[:], int64(id*i.pageSize)); err != nil {
		return 0, 0, nil, err
	}
	flags, count = order.Uint16(head[8:]), order.Uint16(head[10:])
	span := uint64(order.Uint32(head[12:])) + 1
	if order.Uint64(head[:]) != id || span > i.pages-id {
		return 0, 0, nil, wrong("page %d is not what it should be", id)
	}
	for n := id; n < id+span; n++ {
		if i.seen[n] {
			return 0, 0, nil, wrong("page %d is used twice", n)
		}
		i.seen[n] = true
	}
	page = make([]byte, span*i.pageSize)
	if _, err := i.f.ReadAt(page, int64(id*i.pageSize)); err != nil {
		return 0, 0, nil, err
	}
	return flags, count, page, nil
}

func (i *inspector) freelist(id uint64) error {
	flags, count, page, err := i.page(id)
	if err != nil {
		return err
	}
	if flags != flagFreelist {
		return wrong("page %d does not list the free pages", id)
	}
	ids, n := page[pageHeader:], uint64(count)
	if count == 0xFFFF { // the true count does not fit and comes first
		n, ids = order.Uint64(ids), ids[8:]
	}
	if n > uint64(len(ids)/8) {
		return wrong("the list of free pages is too long")
	}
	for ; n > 0; n, ids = n-1, ids[8:] {
		free := order.Uint64(ids)
		if free >= i.pages || i.seen[free] {
			return wrong("page %d cannot be free", free)
		}
		i.seen[free] = true
	}
	return nil
}

// element is one entry of a branch or leaf page.
type element struct {
	key, value []byte
	child      uint64 // branch
	bucket     bool   // leaf
}

// elements reads the entries of a page, all within it and in order.
func elements(flags, count uint16, page []byte) ([]element, error) {
	if flags != flagBranch && flags != flagLeaf {
		return nil, wrong("a page of the tree has type %#x", flags)
	}
	first := pageHeader + uint64(count)*elementSize // where the data may begin
	if first > uint64(len(page)) || flags == flagBranch && count == 0 {
		return nil, wrong("a page of the tree has %d entries", count)
	}
	list := make([]element, count)
	for n := range list {
		at := pageHeader + uint64(n)*elementSize
		b, e := page[at:at+elementSize], &list[n]
		var pos, keySize, valueSize uint64
		if flags == flagBranch {
			pos, keySize, e.child = uint64(order.Uint32(b)), uint64(order.Uint32(b[4:])), order.Uint64(b[8:])
		} else {
			e.bucket = order.Uint32(b)&flagBucket != 0
			pos, keySize, valueSize = uint64(order.Uint32(b[4:])), uint64(order.Uint32(b[8:])), uint64(order.Uint32(b[12:]))
		}
		start := at + pos
		if keySize == 0 || start < first || start+keySize+valueSize > uint64(len(page)) {
			return nil, wrong("an entry lies outside its page")
		}
		e.key = page[start : start+keySize]
		e.value = page[start+keySize : start+keySize+valueSize]
		if n > 0 && bytes.Compare(list[n-1].key, e.key) >= 0 {
			return nil, wrong("the entries of a page are out of order")
		}
	}
	return list, nil
}

// tree checks a page of the tree and all below it. Its keys must be in
// [low, high), where nil means no bound.
func (i *inspector) tree(id uint64, low, high []byte, depth int) error {
	if depth > maxDepth {
		return wrong("its tree is too deep")
	}
	flags, count, page, err := i.page(id)
	if err != nil {
		return err
	}
	list, err := elements(flags, count, page)
	if err != nil {
		return err
	}
	if n := len(list); n > 0 && (low != nil && bytes.Compare(list[0].key, low) < 0 ||
		high != nil && bytes.Compare(list[n-1].key, high) >= 0) {
		return wrong("the entries of page %d belong elsewhere", id)
	}
	for n, e := range list {
		switch {
		case flags == flagBranch:
			below := high
			if n+1 < len(list) {
				below = list[n+1].key
			}
			err = i.tree(e.child, e.key, below, depth+1)
		case e.bucket:
			err = i.bucket(e.value, depth)
		case depth == 0: // bbolt takes what it finds at the root for buckets
			err = wrong("its root holds something that is no bucket")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// bucket checks a bucket: its root page and a sequence number (8 bytes each),
// where root page zero means that a single leaf page follows inline.
func (i *inspector) bucket(value []byte, depth int) error {
	if len(value) < 16 {
		return wrong("a bucket is cut off")
	}
	if root := order.Uint64(value); root != 0 {
		return i.tree(root, nil, nil, depth+1)
	}
	page := value[16:]
	if len(page) < pageHeader || order.Uint16(page[8:]) != flagLeaf {
		return wrong("a bucket is cut off")
	}
	list, err := elements(flagLeaf, order.Uint16(page[10:]), page)
	if err != nil {
		return err
	}
	for _, e := range list {
		if e.bucket {
			return wrong("a bucket lies in an inline bucket")
		}
	}
	return nil
}
