package piecewise

// sumBuckets adds up the lower bounds of an arena for each token bucket alone, at max_seqs: for each, the most bytes that
// are live at one time. There are many times and many buckets, but few times come into question: one pass bounds what is
// live at each time from below and from above, as a line over the tokens, and a time whose upper line is below the lower one
// of another, at the smallest bucket and at the largest, is left out. Blocks that live at none of those that stay are too.
func (p *Plan) sumBuckets(blocks []block) (sum int64) {
	l := p.Graph.Limits
	low, high := p.Buckets[0], p.Buckets[len(p.Buckets)-1]
	end := len(p.Graph.Nodes) + 1
	lines := make([]line, end+2) // changes at times first, then what is live there
	for k := range blocks {
		b := &blocks[k]
		c := line{b.formula.Tokens, b.formula.Seqs*l.MaxSeqs + b.formula.Constant, Alignment}
		if b.scratch != nil {
			c = line{0, 0, b.scratch.most + Alignment}
		}
		lines[b.first].add(c, 1)
		lines[b.last+1].add(c, -1)
	}
	var small, large int // the times whose lower lines are the highest, at the smallest bucket and at the largest
	for t := 1; t < len(lines); t++ {
		lines[t].add(lines[t-1], 1)
		atLow, atHigh := lines[t].at(low), lines[t].at(high)
		if highest := lines[small].at(low); atLow > highest || atLow == highest && atHigh > lines[small].at(high) {
			small = t
		}
		if highest := lines[large].at(high); atHigh > highest || atHigh == highest && atLow > lines[large].at(low) {
			large = t
		}
	}
	below := func(c, other *line) bool {
		return c.at(low)+c.slack < other.at(low) && c.at(high)+c.slack < other.at(high)
	}
	number := make([]int32, end+3) // of a time among those that stay: how many stay before it
	for t := range lines {
		number[t+1] = number[t]
		if !below(&lines[t], &lines[small]) && !below(&lines[t], &lines[large]) {
			number[t+1]++
		}
	}
	type sized struct { // a block, from one time that stays to before another
		perToken, fixed int64
		scratch         *workspace
		first, past     int32
	}
	stay := 0
	for k := range blocks {
		if b := &blocks[k]; number[b.first] < number[b.last+1] {
			stay++
		}
	}
	list := make([]sized, 0, stay)
	for k := range blocks {
		b := &blocks[k]
		if first, past := number[b.first], number[b.last+1]; first < past {
			list = append(list, sized{b.formula.Tokens, b.formula.Seqs*l.MaxSeqs + b.formula.Constant, b.scratch, first, past})
		}
	}
	change := make([]int64, number[len(lines)]+1)
	for k, bucket := range p.Buckets {
		clear(change)
		for i := range list {
			b := &list[i]
			bytes := b.perToken*bucket + b.fixed
			if b.scratch != nil {
				bytes = b.scratch.buckets[k]
			}
			bytes = reserve(bytes)
			change[b.first] += bytes
			change[b.past] -= bytes
		}
		var live, most int64
		for _, c := range change {
			live += c
			most = max(most, live)
		}
		sum += most
	}
	return sum
}

// line bounds bytes over the tokens of a step: at least perToken*tokens + fixed, and at most `slack` more.
type line struct{ perToken, fixed, slack int64 }

func (c *line) at(tokens int64) int64 { return c.perToken*tokens + c.fixed }

func (c *line) add(d line, times int64) {
	c.perToken += times * d.perToken
	c.fixed += times * d.fixed
	c.slack += times * d.slack
}
