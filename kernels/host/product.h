/* Products in dot form, for one instruction set: every output is one dot product over k in 16 lanes, lane l taking
 * k = l, l+16, .. in order, then the tree of v_sum. The weights are read as they lie, [N, K]. A tile of MR x NR
 * outputs shares its loads; which tile an output falls into changes no bit of it.
 *
 * Where a vec is several registers, a tile takes one register of all its vecs at a time and passes over k once for
 * each: lanes never meet before the end, and a tile of so many outputs needs the fewest loads. MR x NR by instruction
 * set: as many accumulators as the registers hold beside MR + NR operands. SR is the width of a tile of one row
 * (decode), which takes whole vecs, so that weights pass by once and enough sums are under way to hide the latency of
 * fma. */
#if SIMD_WIDTH == 16
#define MR 6
#define NR 4
#define SR 8
#elif SIMD_WIDTH == 8
#define MR 3
#define NR 4
#define SR 4
#elif defined(SIMD_NEON)
#define MR 6
#define NR 4
#define SR 4
#else
#define MR 2
#define NR 2
#define SR 4
#endif

enum {
  TILE_ROOM = 32, /* outputs of the largest tile, rounded up to whole vecs */
  PASS_K = 512    /* k's of one pass: rows and columns of a tile stay in the first-level cache for the next one */
};

/* Element `at` of a matrix of either type. */
ALWAYS const void *element(const void *matrix, bool bf16, int64_t at) {
  return bf16 ? (const void *)((const uint16_t *)matrix + at) : (const void *)((const float *)matrix + at);
}
ALWAYS vf r_get(const void *from, bool bf16, int64_t at) {
  return bf16 ? r_load_bf16((const uint16_t *)from + at) : r_load((const float *)from + at);
}

/* Adds the products of k's 0 .. k-1, whole vecs, to lanes lane0 .. lane0 + lanes - 1 of a tile's sums, in the
 * registers acc; they start at zero if `fresh`, else where they were put. mr, nr, lane0, lanes, fresh and the types are
 * constants after inlining. */
ALWAYS void pass(int mr, int nr, int lane0, int lanes, bool fresh, const void *x, bool x_bf16, int64_t ldx, const void *w, bool w_bf16,
                 int64_t ldw, int64_t k, float (*from)[LANES], vf *acc) {
  const int parts = lanes / SIMD_WIDTH;
#pragma GCC unroll 32
  for (int i = 0; i < mr * nr; i++) {
#pragma GCC unroll 4
    for (int p = 0; p < parts; p++) acc[i * parts + p] = fresh ? r_set(0.0f) : r_load(from[i] + lane0 + p * SIMD_WIDTH);
  }
  for (int64_t at = lane0; at < k; at += LANES) {
#pragma GCC unroll 4
    for (int p = 0; p < parts; p++) {
      vf row[MR];
#pragma GCC unroll 8
      for (int i = 0; i < mr; i++) row[i] = r_get(x, x_bf16, i * ldx + at + p * SIMD_WIDTH);
#pragma GCC unroll 8
      for (int j = 0; j < nr; j++) {
        const vf column = r_get(w, w_bf16, j * ldw + at + p * SIMD_WIDTH);
#pragma GCC unroll 8
        for (int i = 0; i < mr; i++) acc[(i * nr + j) * parts + p] = r_fma(row[i], column, acc[(i * nr + j) * parts + p]);
      }
    }
  }
}
ALWAYS void put(int outputs, int lane0, int lanes, float (*to)[LANES], const vf *acc) {
  const int parts = lanes / SIMD_WIDTH;
#pragma GCC unroll 32
  for (int i = 0; i < outputs; i++) {
#pragma GCC unroll 4
    for (int p = 0; p < parts; p++) r_store(to[i] + lane0 + p * SIMD_WIDTH, acc[i * parts + p]);
  }
  __asm__ volatile("" ::: "memory"); /* else gcc moves loads of the next pass up here, and spills this one's sums for them */
}

/* All passes over k's 0 .. k-1. The last lanes stay in acc. */
ALWAYS void passes(int mr, int nr, int lanes, bool fresh, const void *x, bool x_bf16, int64_t ldx, const void *w, bool w_bf16, int64_t ldw,
                   int64_t k, float (*memory)[LANES], vf *acc) {
  int lane0 = 0;
#pragma GCC unroll 4
  for (; lane0 + lanes < LANES; lane0 += lanes) {
    pass(mr, nr, lane0, lanes, fresh, x, x_bf16, ldx, w, w_bf16, ldw, k, memory, acc);
    put(mr * nr, lane0, lanes, memory, acc);
  }
  pass(mr, nr, lane0, lanes, fresh, x, x_bf16, ldx, w, w_bf16, ldw, k, memory, acc);
}

/* A slab of a product: some of its rows and columns, and PASS_K of its k's (of one row, all). */
typedef struct slab {
  adcgk_product p;    /* x, w, bias and y at the slab's first k, row and column; k as many as it has */
  bool first, last;   /* of the product's k's */
  float (*sums)[LANES]; /* where sums wait for the next slab, tile after tile */
} slab;

/* A tile of a slab: y[i][j] = activation(bias[j] + x[i] . w[j]), for the first mr rows and the columns from n on. */
ALWAYS void dots(int mr, int nr, const slab *s, bool x_bf16, bool w_bf16, int64_t n) {
  const adcgk_product *p = &s->p;
  const void *x = p->x, *w = element(p->w, w_bf16, n * p->ldw);
  const int64_t whole = p->k / LANES * LANES;
  const int lanes = mr == 1 ? LANES : SIMD_WIDTH, kept = LANES - lanes; /* from lane `kept` on, sums are in registers */
  float (*memory)[LANES] = s->first && s->last ? s->sums : s->sums + n * mr;
  vf regs[TILE_ROOM];
  if (s->first)
    passes(mr, nr, lanes, true, x, x_bf16, p->ldx, w, w_bf16, p->ldw, whole, memory, regs);
  else
    passes(mr, nr, lanes, false, x, x_bf16, p->ldx, w, w_bf16, p->ldw, whole, memory, regs);
  if (!s->last) {
    put(mr * nr, kept, lanes, memory, regs);
    return;
  }
  if (whole < p->k) { /* the last k's, fewer than a vec */
    const int left = (int)(p->k - whole);
    put(mr * nr, kept, lanes, memory, regs);
    for (int i = 0; i < mr; i++) {
      const vec row = v_get(x, x_bf16, i * p->ldx + whole, left);
      for (int j = 0; j < nr; j++) {
        float *to = memory[i * nr + j];
        v_store(to, v_fma(row, v_get(w, w_bf16, j * p->ldw + whole, left), v_load(to)));
      }
    }
    pass(mr, nr, kept, lanes, false, x, x_bf16, p->ldx, w, w_bf16, p->ldw, 0, memory, regs); /* back to registers */
  }

  vec acc[TILE_ROOM];
#pragma GCC unroll 32
  for (int i = 0; i < mr * nr; i++) {
#define DO(part, l) acc[i].part = l < kept ? r_load(memory[i] + l) : regs[(i * lanes + l - kept) / SIMD_WIDTH];
    EACH(DO)
#undef DO
  }
  float sums[TILE_ROOM];
  int summed = 0;
#pragma GCC unroll 2
  for (; summed + 16 <= mr * nr; summed += 16) v_sum16(acc + summed, sums + summed);
  if (summed + 8 <= mr * nr) {
    v_sum8(acc + summed, sums + summed);
    summed += 8;
  }
  if (summed + 4 <= mr * nr) {
    v_sum4(acc + summed, sums + summed);
    summed += 4;
  }
#pragma GCC unroll 4
  for (int i = summed; i < mr * nr; i++) sums[i] = v_sum(acc[i]);
  if (p->bias) {
#pragma GCC unroll 8
    for (int j = 0; j < nr; j++) {
      float bias;
      if (p->bias_bf16) {
        uint32_t bits = (uint32_t)((const uint16_t *)p->bias)[n + j] << 16;
        memcpy(&bias, &bits, sizeof(bias));
      } else {
        bias = ((const float *)p->bias)[n + j];
      }
#pragma GCC unroll 8
      for (int i = 0; i < mr; i++) sums[i * nr + j] += bias;
    }
  }
  if (p->activation != ADCGK_NONE || p->y_bf16) {
    for (int i = mr * nr; i % LANES != 0; i++) sums[i] = 0.0f;
  }
  if (p->activation != ADCGK_NONE) activate_all(p->activation, sums, (mr * nr + LANES - 1) / LANES * LANES);
  if (p->y_bf16) {
    uint16_t rounded[TILE_ROOM];
#pragma GCC unroll 2
    for (int i = 0; i < mr * nr; i += LANES) v_store_bf16(rounded + i, v_load(sums + i));
#pragma GCC unroll 8
    for (int i = 0; i < mr; i++) memcpy((uint16_t *)p->y + i * p->ldy + n, rounded + i * nr, (size_t)nr * sizeof(uint16_t));
  } else {
#pragma GCC unroll 8
    for (int i = 0; i < mr; i++) memcpy((float *)p->y + i * p->ldy + n, sums + i * nr, (size_t)nr * sizeof(float));
  }
}

/* The functions of all tile shapes, for one pair of element types: strips of rows, NR columns at a time, and what
 * remains of the columns one at a time. A strip keeps its rows of x close while the columns' weights pass by. */
#define TILE(mr)                                                           \
  case mr:                                                                 \
    for (; n + NR <= columns; n += NR) dots(mr, NR, s, x_bf16, w_bf16, n); \
    for (; n < columns; n++) dots(mr, 1, s, x_bf16, w_bf16, n);            \
    break;
ALWAYS void strip(const slab *s, bool x_bf16, bool w_bf16, int rows, int64_t columns) {
  int64_t n = 0;
  switch (rows) {
    case 1:
      for (; n + SR <= columns; n += SR) dots(1, SR, s, x_bf16, w_bf16, n);
      for (; n < columns; n++) dots(1, 1, s, x_bf16, w_bf16, n);
      break;
      TILE(2)
#if MR >= 3
      TILE(3)
#endif
#if MR >= 6
      TILE(4)
      TILE(5)
      TILE(6)
#endif
    default: break;
  }
}
#undef TILE

#define STRIP(NAME, X, W) \
  static __attribute__((noinline)) void NAME(const slab *s, int rows, int64_t columns) { strip(s, X, W, rows, columns); }
STRIP(strip_f32_f32, false, false)
STRIP(strip_f32_bf16, false, true)
STRIP(strip_bf16_f32, true, false)
STRIP(strip_bf16_bf16, true, true)
#undef STRIP

enum {
  BLOCK_W = 4 << 10,                     /* elements of a block of weights that leaves room in the first-level cache, */
  BLOCK_N = 64,                          /* and its columns at most */
  ROOM_ROWS = 96,                        /* rows of x that pass by a block, */
  ROOM = ROOM_ROWS * (BLOCK_W / PASS_K), /* and outputs of theirs whose sums can wait for the next slab */
  WORTH_COPY = 8 * MR                    /* rows from which a block of weights is copied */
};

ALWAYS int64_t row_of(const adcgk_product *p, int64_t m) { return p->rows ? p->rows[m] : m; }

/* Blocks of weights pass by all strips of rows, slab after slab, in strips as even as they can be: 8 rows are 4 + 4 and
 * not 6 + 2. A block that many rows use is copied where it is bf16, or rows of w a power of two apart would share
 * their places in the cache; a strip of x is copied where it is bf16, or its rows are not neighbours. */
static void product(const adcgk_product *p, int64_t m0, int64_t m1, int64_t n0, int64_t n1) {
  void (*const strips[2][2])(const slab *, int, int64_t) = {{strip_f32_f32, strip_f32_bf16}, {strip_bf16_f32, strip_bf16_bf16}};
  float rows_of_x[MR * PASS_K] __attribute__((aligned(64))), block_of_w[BLOCK_W + BLOCK_N * LANES] __attribute__((aligned(64)));
  float sums[ROOM][LANES] __attribute__((aligned(64)));
  for (; m1 - m0 > ROOM_ROWS; m0 += ROOM_ROWS) product(p, m0, m0 + ROOM_ROWS, n0, n1);
  const int64_t rows = m1 - m0, strip_count = (rows + MR - 1) / MR;
  const int64_t slab_k = rows == 1 || p->k <= PASS_K ? p->k : PASS_K;
  const int64_t ldx = (slab_k + LANES - 1) / LANES * LANES, ldw = ldx + LANES;
  const bool copy_x = (p->x_bf16 || (p->rows && rows > 1)) && slab_k <= PASS_K;
  const bool copy_w = (p->w_bf16 || p->ldw % 512 == 0) && rows >= WORTH_COPY;
  void (*const one)(const slab *, int, int64_t) = strips[p->x_bf16 && !copy_x][p->w_bf16 && !copy_w];
  int64_t block = BLOCK_W / ldx / (2 * NR) * (2 * NR);
  if (block > BLOCK_N) block = BLOCK_N;
  if (block < 2 * NR) block = 2 * NR;
  if (strip_count == 1) block = slab_k == p->k ? n1 - n0 : ROOM / rows;
  for (int64_t n = n0; n < n1; n += block) {
    const int64_t columns = n + block < n1 ? block : n1 - n;
    for (int64_t k = 0; k < p->k || k == 0; k += slab_k) {
      slab s = {.p = *p, .first = k == 0, .last = k + slab_k >= p->k, .sums = sums};
      s.p.k = s.last ? p->k - k : slab_k;
      s.p.w = element(p->w, p->w_bf16, n * p->ldw + k);
      if (p->bias) s.p.bias = element(p->bias, p->bias_bf16, n);
      if (copy_w) {
        for (int64_t j = 0; j < columns; j++) convert(block_of_w + j * ldw, false, element(s.p.w, p->w_bf16, j * p->ldw), p->w_bf16, s.p.k);
        s.p.w = block_of_w;
        s.p.w_bf16 = false;
        s.p.ldw = ldw;
      }
      int64_t strips_left = strip_count;
      for (int64_t m = m0; m < m1; strips_left--) {
        const int strip_rows = (int)((m1 - m + strips_left - 1) / strips_left);
        s.p.x = element(p->x, p->x_bf16, row_of(p, m) * p->ldx + k);
        s.p.y = (char *)p->y + (m * p->ldy + n) * (p->y_bf16 ? 2 : 4);
        s.sums = slab_k == p->k ? sums : sums + (m - m0) * columns;
        if (copy_x) {
          for (int i = 0; i < strip_rows; i++)
            convert(rows_of_x + i * ldx, false, element(p->x, p->x_bf16, row_of(p, m + i) * p->ldx + k), p->x_bf16, s.p.k);
          s.p.x = rows_of_x;
          s.p.x_bf16 = false;
          s.p.ldx = ldx;
        }
        one(&s, strip_rows, columns);
        m += strip_rows;
      }
      if (p->k == 0) break;
    }
  }
}
