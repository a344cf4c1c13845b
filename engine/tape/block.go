package tape

import "unsafe"

// block is one piece of C memory that is carved into tables. Without memory behind it, it only measures: the same
// code runs twice, first to learn the size, then to write.
type block struct {
	base unsafe.Pointer // nil while measuring
	used uintptr
}

func (b *block) measuring() bool { return b.base == nil }

// array carves n zeroed elements; while measuring they are Go memory that is thrown away.
func array[T any](b *block, n int) []T {
	var zero T
	size := uintptr(n) * unsafe.Sizeof(zero)
	at := b.used
	b.used += (size + 7) &^ 7
	if b.measuring() || n == 0 {
		return make([]T, n)
	}
	return unsafe.Slice((*T)(unsafe.Add(b.base, at)), n)
}

// first is the address of a table's first element; nil for an empty one.
func first[T any](s []T) *T {
	if len(s) == 0 {
		return nil
	}
	return &s[0]
}

// text carves a NUL-terminated copy of s.
func text(b *block, s string) *byte {
	bytes := array[byte](b, len(s)+1)
	copy(bytes, s)
	return &bytes[0]
}
