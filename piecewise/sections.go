package piecewise

import (
	"cmp"
	"slices"
)

// sections are the times that matter to a packing: those at which no interval can be added to the ones that are live.
// Every other time's live intervals are among those of a section, so that what fits at the sections fits always.
type sections struct {
	count  int32
	lo, hi []int32 // per interval: its first and last section, inclusive
}

func newSections(items []Interval) sections {
	type event struct {
		time int // an interval begins here, or has ended before
		ends bool
		item int32
	}
	events := make([]event, 0, 2*len(items))
	for i, it := range items {
		events = append(events, event{it.First, false, int32(i)}, event{it.Last + 1, true, int32(i)})
	}
	slices.SortFunc(events, func(a, b event) int {
		switch {
		case a.time != b.time:
			return cmp.Compare(a.time, b.time)
		case a.ends != b.ends && a.ends:
			return -1
		case a.ends != b.ends:
			return 1
		}
		return cmp.Compare(a.item, b.item)
	})
	s := sections{lo: make([]int32, len(items)), hi: make([]int32, len(items))}
	grown := false // something has begun since the last section was closed
	for _, e := range events {
		if !e.ends {
			s.lo[e.item], grown = s.count, true
			continue
		}
		if grown {
			s.count++
			grown = false
		}
		s.hi[e.item] = s.count - 1
	}
	return s
}

// reach is the number of sections that each interval lives through, added up.
func (s *sections) reach() int64 {
	var sum int64
	for i := range s.lo {
		sum += int64(s.hi[i] - s.lo[i] + 1)
	}
	return sum
}
