package host_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/libadcg/libadcg/kernels/host"
	"github.com/libadcg/libadcg/piecewise"
)

// mla is one model of latent attention and a cache.
type mla struct {
	heads, dn, dr, dv, r int64
	scale                float64
	weight               *array
	cache                *array // [slots, max_len, r+dr]
	pool                 uintptr
	pages                *paging // nil: a slot cache
}

// latent are the inputs of some tokens.
type latent struct{ nope, pe, ckv, kpe *array }

func (m *mla) random(rng *rand.Rand, dtype piecewise.DType, n int64) latent {
	return latent{random(rng, dtype, n, m.heads, m.dn), random(rng, dtype, n, m.heads, m.dr), random(rng, dtype, n, m.r), random(rng, dtype, n, m.dr)}
}

func (x latent) rows(from, to int64) latent {
	return latent{x.nope.rows(from, to), x.pe.rows(from, to), x.ckv.rows(from, to), x.kpe.rows(from, to)}
}

func join(parts ...latent) latent {
	all := make([][]*array, 4)
	for _, p := range parts {
		for i, a := range []*array{p.nope, p.pe, p.ckv, p.kpe} {
			all[i] = append(all[i], a)
		}
	}
	return latent{concat(all[0]...), concat(all[1]...), concat(all[2]...), concat(all[3]...)}
}

// step runs the sequences of a step, of which the last `decodes` decode. Rows and sequences of padding hold NaN and nonsense.
func (m *mla) step(x latent, cu, pos, slots []int32, decodes, padding int64) (*array, error) {
	real, seqs := x.nope.dims[0], int64(len(slots))
	out := filled(x.nope.dtype, 77, real+padding, m.heads, m.dv)
	inputs := []*array{padded(x.nope, padding), padded(x.pe, padding), padded(x.ckv, padding), padded(x.kpe, padding), m.weight}
	name, caches, index := layOut("adcg.mla_attention", m.pages, []*array{m.cache}, cu, pos, slots, padding)
	inputs = append(append(inputs, caches...), index...)
	batch := host.Batch{PrefillSeqs: seqs - decodes, PrefillTokens: real - decodes, DecodeSeqs: decodes}
	err := launch(name, m.pool, []piecewise.Attr{float("scale", m.scale)}, inputs, []*array{out}, batch, 0)
	m.pages.back(caches, []*array{m.cache})
	for _, f := range out.f[real*m.heads*m.dv:] {
		if f != 77 {
			panic("a padded row was written")
		}
	}
	return out.rows(0, real), err
}

// reference is latent attention in float64, expanded, over rows [positions, r+dr] of one sequence: queries from position pos on.
func (m *mla) reference(x latent, rows []float64, pos int64) []float64 {
	scale := m.scale
	if scale == 0 {
		scale = 1 / math.Sqrt(float64(m.dn+m.dr))
	}
	var out []float64
	width := m.r + m.dr
	for t := range x.nope.dims[0] {
		for h := range m.heads {
			expand := func(j, row int64) (sum float64) {
				for e := range m.r {
					sum += rows[j*width+e] * float64(m.weight.f[(h*(m.dn+m.dv)+row)*m.r+e])
				}
				return sum
			}
			scores, total, largest := make([]float64, pos+t+1), 0.0, math.Inf(-1)
			for j := range scores {
				for e := range m.dn {
					scores[j] += float64(x.nope.f[(t*m.heads+h)*m.dn+e]) * expand(int64(j), e)
				}
				for e := range m.dr {
					scores[j] += float64(x.pe.f[(t*m.heads+h)*m.dr+e]) * rows[int64(j)*width+m.r+e]
				}
				scores[j] *= scale
				largest = max(largest, scores[j])
			}
			sums := make([]float64, m.dv)
			for j := range scores {
				w := math.Exp(scores[j] - largest)
				total += w
				for e := range sums {
					sums[e] += w * expand(int64(j), m.dn+int64(e))
				}
			}
			for e := range sums {
				out = append(out, sums[e]/total)
			}
		}
	}
	return out
}

// latentRows are rows of a cache: ckv and kpe, rounded to its type.
func latentRows(x latent, dtype piecewise.DType) []float64 {
	var rows []float64
	for t := range x.ckv.dims[0] {
		for _, part := range []*array{x.ckv, x.kpe} {
			for _, f := range part.rows(t, t+1).f {
				rows = append(rows, float64(rounded(f, dtype)))
			}
		}
	}
	return rows
}

func TestMLAGolden(t *testing.T) {
	for _, name := range []string{"mla_attention", "mla_attention_scale"} {
		x, at := load(t, name)
		size := func(name string) int64 { return int64(number(at[name], 0)) }
		cu, pos, history := x["cu_seqlens"].i, x["input_pos"].i, x["cu_history"].i
		fresh := func(pages *paging) (*mla, []int32) {
			m := &mla{heads: size("num_heads"), dn: size("qk_nope_head_dim"), dr: size("qk_rope_head_dim"), dv: size("v_head_dim"), r: size("kv_lora_rank"),
				scale: number(at["scale"], 0), weight: x["w"], pages: pages}
			m.cache = filled(piecewise.F32, float32(math.NaN()), int64(len(pos))+1, 64, m.r+m.dr)
			var slots []int32
			for s := range pos {
				slot := int32(len(pos) - s)
				slots = append(slots, slot)
				for j := range history[s+1] - history[s] {
					row := (int64(slot)*64 + int64(j)) * (m.r + m.dr)
					copy(m.cache.f[row:], x["ckv_history"].rows(int64(history[s]+j), int64(history[s]+j+1)).f)
					copy(m.cache.f[row+m.r:], x["kpe_history"].rows(int64(history[s]+j), int64(history[s]+j+1)).f)
				}
			}
			return m, slots
		}
		all := latent{x["q_nope"], x["q_pe"], x["ckv"], x["kpe"]}
		want := doubles(x["out"].f)
		for _, pages := range pagings(rand.New(rand.NewPCG(1, 9))) {
			m, slots := fresh(pages)
			out, err := m.step(all, cu, pos, slots, 0, 3)
			require.NoError(t, err)
			requireNear(t, want, out, 4e-6, 4e-6, name)
			row := m.heads * m.dv
			for _, chunk := range []int32{1, 4} { // chunks of 1 are decodes
				m, slots := fresh(pages)
				for s := range pos {
					for first := cu[s]; first < cu[s+1]; first += chunk {
						end := min(first+chunk, cu[s+1])
						decodes := map[bool]int64{true: 1}[chunk == 1]
						got, err := m.step(all.rows(int64(first), int64(end)), []int32{0, end - first}, []int32{pos[s] + first - cu[s]}, slots[s:s+1], decodes, 0)
						require.NoError(t, err)
						requireNear(t, want[int64(first)*row:int64(end)*row], got, 4e-6, 4e-6, "%s in chunks of %d", name, chunk)
						if chunk > 1 {
							requireSameBits(t, out.rows(int64(first), int64(end)), got, "%s in chunks of %d", name, chunk)
						}
					}
				}
			}
		}
	}
}

// TestMLA runs sequences whole, in chunks, decoded, padded, on several threads and instruction sets, against float64 and then
// bit for bit. Rows that nobody may see hold NaN.
func TestMLA(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	nan := float32(math.NaN())
	for _, c := range []struct {
		x, w, cache          piecewise.DType
		heads, dn, dr, dv, r int64
		scale                float64
		length, second       int64
		absolute, relative   float64
	}{
		{piecewise.F32, piecewise.F32, piecewise.F32, 3, 12, 8, 10, 20, 0, 150, 37, 1e-5, 1e-5},
		{piecewise.F32, piecewise.BF16, piecewise.BF16, 2, 64, 16, 48, 64, 0.05, 330, 1, 1e-5, 1e-5},
		{piecewise.BF16, piecewise.BF16, piecewise.BF16, 18, 16, 8, 24, 33, 0, 70, 20, 1e-3, 1e-2},
		{piecewise.BF16, piecewise.F32, piecewise.F32, 1, 7, 3, 100, 130, 0.2, 65, 129, 1e-3, 1e-2},
		{piecewise.F32, piecewise.F32, piecewise.F32, 1, 4, 4, 4, 4, 0, 1100, 3, 1e-5, 1e-5}, // more queries than the workspace has room for at once
		{piecewise.F32, piecewise.F32, piecewise.F8E4M3, 3, 12, 8, 10, 20, 0, 80, 37, 1e-5, 1e-5},
		{piecewise.BF16, piecewise.BF16, piecewise.F8E4M3, 2, 16, 4, 8, 40, 0, 66, 5, 1e-3, 1e-2},
	} {
		what := fmt.Sprintf("%+v", c)
		lengths := []int64{c.length, c.second}
		fresh := func(pages *paging) *mla {
			m := &mla{heads: c.heads, dn: c.dn, dr: c.dr, dv: c.dv, r: c.r, scale: c.scale, pages: pages}
			m.cache = filled(c.cache, nan, 3, 1280, c.r+c.dr)
			return m
		}
		weight := random(rng, c.w, c.heads*(c.dn+c.dv), c.r)
		for i, f := range weight.f { // keys and values of about 1
			weight.f[i] = rounded(f/float32(math.Sqrt(float64(c.r))), c.w)
		}
		x := []latent{fresh(nil).random(rng, c.x, c.length), fresh(nil).random(rng, c.x, c.second)}
		slots, cu := []int32{2, 0}, []int32{0, int32(lengths[0]), int32(lengths[0] + lengths[1])}
		whole := func(pages *paging, pool uintptr, padding int64) (*array, *mla) {
			m := fresh(pages)
			m.weight, m.pool = weight, pool
			out, err := m.step(join(x...), cu, []int32{0, 0}, slots, 0, padding)
			require.NoError(t, err)
			return out, m
		}
		want, m := whole(nil, 0, 0)
		for s := range x {
			// The step's own tokens count as they came, unless the cache is what holds them best.
			own := c.cache
			if own == piecewise.F8E4M3 {
				own = c.x
			}
			requireNear(t, m.reference(x[s], latentRows(x[s], own), 0), want.rows(int64(cu[s]), int64(cu[s+1])), c.absolute, c.relative, what)
			rows := latentRows(x[s], c.cache)
			for i := range rows { // what was written, and nothing behind it
				require.Equal(t, rows[i], float64(m.cache.f[int64(slots[s])*1280*(c.r+c.dr)+int64(i)]), what)
			}
			behind := m.cache.f[(int64(slots[s])*1280+lengths[s])*(c.r+c.dr)]
			require.NotEqual(t, behind, behind, what)
		}
		for _, isa := range isas(t) {
			require.NoError(t, host.SetISA(isa))
			got, _ := whole(nil, 0, 5)
			requireSameBits(t, want, got, "isa %s, padded: %s", isa, what)
		}
		require.NoError(t, host.SetISA(""))
		for _, threads := range []int32{1, 2, 3} {
			pool := host.NewPool(threads)
			got, _ := whole(nil, pool, 0)
			requireSameBits(t, want, got, "%d threads: %s", threads, what)
			host.FreePool(pool)
		}
		for _, pages := range pagings(rng) {
			got, p := whole(pages, 0, 2)
			requireSameBits(t, want, got, "%v: %s", pages, what)
			requireSameBits(t, m.cache, p.cache, "cache, %v: %s", pages, what)
		}

		for _, chunk := range []int64{1, 3, 16, 100} {
			m := fresh(nil)
			m.weight = weight
			if chunk < c.length/30 {
				continue
			}
			for s, n := range lengths {
				rows := latentRows(x[s], c.cache)
				for at := int64(0); at < n; at += chunk {
					end := min(at+chunk, n)
					got, err := m.step(x[s].rows(at, end), []int32{0, int32(end - at)}, []int32{int32(at)}, slots[s:s+1], 0, 0)
					require.NoError(t, err)
					if c.cache != piecewise.F8E4M3 {
						requireSameBits(t, want.rows(int64(cu[s])+at, int64(cu[s])+end), got, "chunks of %d, at %d: %s", chunk, at, what)
						continue
					}
					seen := append(rows[:at*(c.r+c.dr):at*(c.r+c.dr)], latentRows(x[s].rows(at, end), c.x)...)
					requireNear(t, m.reference(x[s].rows(at, end), seen, at), got, c.absolute, c.relative, "chunks of %d, at %d: %s", chunk, at, what)
				}
			}
		}

		// Decodes: of the last token of each sequence, alone, together, beside a prefill, on each instruction set.
		decode := func(pages *paging, pool uintptr, seqs []int, beside, padding int64) []*array {
			m := fresh(pages)
			m.weight, m.pool = weight, pool
			parts, cu, pos, of := []latent{}, []int32{0}, []int32{}, []int32{}
			if beside > 0 {
				parts, cu, pos, of = append(parts, x[0].rows(0, beside)), append(cu, int32(beside)), append(pos, 0), append(of, 1)
			}
			for _, s := range seqs {
				n := lengths[s]
				if n > 1 {
					_, err := m.step(x[s].rows(0, n-1), []int32{0, int32(n - 1)}, []int32{0}, slots[s:s+1], 0, 0)
					require.NoError(t, err)
				}
				parts, cu, pos, of = append(parts, x[s].rows(n-1, n)), append(cu, cu[len(cu)-1]+1), append(pos, int32(n-1)), append(of, slots[s])
			}
			out, err := m.step(join(parts...), cu, pos, of, int64(len(seqs)), padding)
			require.NoError(t, err)
			if beside > 0 && c.cache != piecewise.F8E4M3 {
				requireSameBits(t, want.rows(0, beside), out.rows(0, beside), "prefill beside decodes: %s", what)
			}
			results := make([]*array, 2)
			for i, s := range seqs {
				results[s] = out.rows(beside+int64(i), beside+int64(i)+1)
			}
			return results
		}
		both := decode(nil, 0, []int{0, 1}, 0, 0)
		for s, n := range lengths {
			requireNear(t, m.reference(x[s].rows(n-1, n), latentRows(x[s], c.cache), n-1), both[s], c.absolute, c.relative, "decode: %s", what)
			requireSameBits(t, both[s], decode(nil, 0, []int{s}, 0, 1)[s], "decoded alone: %s", what)
			requireSameBits(t, both[s], decode(nil, 0, []int{1, 0}, 20, 3)[s], "decoded beside a prefill: %s", what)
		}
		for _, isa := range isas(t) {
			require.NoError(t, host.SetISA(isa))
			pool := host.NewPool(3)
			for s, got := range decode(nil, pool, []int{0, 1}, 0, 0) {
				requireSameBits(t, both[s], got, "decoded on %s: %s", isa, what)
			}
			host.FreePool(pool)
		}
		require.NoError(t, host.SetISA(""))
		for _, pages := range pagings(rng) {
			for s, got := range decode(pages, 0, []int{0, 1}, 0, 0) {
				requireSameBits(t, both[s], got, "decoded, %v: %s", pages, what)
			}
		}
	}
}

// TestMLAManyDecodes has more sequences than share one reading of the weights.
func TestMLAManyDecodes(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	m := &mla{heads: 2, dn: 5, dr: 3, dv: 6, r: 9, weight: random(rng, piecewise.F32, 22, 9)}
	m.cache = random(rng, piecewise.F32, 80, 40, 12)
	x := m.random(rng, piecewise.F32, 75)
	cu, pos, slots := []int32{0}, []int32{}, []int32{}
	for s := range int32(75) {
		cu, pos, slots = append(cu, s+1), append(pos, s*7%40), append(slots, 79-s)
	}
	before := m.cache.clone()
	out, err := m.step(x, cu, pos, slots, 75, 4)
	require.NoError(t, err)
	for s := range int64(75) {
		rows := doubles(before.rows(79-s, 80-s).f[:int64(pos[s])*12])
		rows = append(rows, latentRows(x.rows(s, s+1), piecewise.F32)...)
		requireNear(t, m.reference(x.rows(s, s+1), rows, int64(pos[s])), out.rows(s, s+1), 1e-5, 1e-5, "sequence %d", s)
	}
	requireSameBits(t, before.rows(0, 5), m.cache.rows(0, 5), "slots that no sequence has")
}

func TestMLAErrorsWriteNothing(t *testing.T) {
	m := &mla{heads: 1, dn: 2, dr: 2, dv: 2, r: 4, weight: filled(piecewise.F32, 1, 4, 4), cache: filled(piecewise.F32, 5, 3, 16, 6)}
	x := m.random(rand.New(rand.NewPCG(7, 8)), piecewise.F32, 4)
	for _, c := range []struct {
		cu, pos, slots []int32
		message        string
	}{
		{[]int32{0, 3, 4}, []int32{0, 0}, []int32{0, 3}, "slot_idx[1] is 3, the cache has 3 slots"},
		{[]int32{0, 3, 4}, []int32{0, 16}, []int32{0, 1}, "input_pos[1] is 16 and the sequence has 1 tokens, the cache holds 16 positions"},
		{[]int32{0, 2, 4}, []int32{0, 0}, []int32{0, 1}, "cu_seqlens[2] is 4, which gives sequence 1 2 tokens: it decodes, so it has one"},
	} {
		_, err := m.step(x, c.cu, c.pos, c.slots, 1, 0)
		var failure *host.Error
		require.ErrorAs(t, err, &failure)
		require.Equal(t, c.message, failure.Message)
		requireSameBits(t, filled(piecewise.F32, 5, 3, 16, 6), m.cache, c.message)
	}
	_, err := m.step(m.random(rand.New(rand.NewPCG(7, 8)), piecewise.F32, 0), []int32{0}, nil, nil, 0, 4) // an empty batch
	require.NoError(t, err)
}
