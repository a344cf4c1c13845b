/* Caches of attention: see cache.h. */
#include "cache.h"

#include <stdio.h>
#include <string.h>

/* ---- Checks --------------------------------------------------------------------------------------------- */

/* A set of indices, in windows of as many as fit the stack. */
enum { WORDS = 512, WINDOW = 64 * WORDS };
static bool take(uint64_t *taken, int64_t at) {
  const bool free = !(taken[at / 64] >> (at % 64) & 1);
  taken[at / 64] |= UINT64_C(1) << (at % 64);
  return free;
}

/* Where the pages that sequence s writes begin and end in cache_loc. */
static int64_t first_written(const adcgk_cache *c, int64_t s) { return c->cu_pages[s] + c->input_pos[s] / c->length; }
static int64_t positions(const adcgk_cache *c, int64_t s) { return (int64_t)c->input_pos[s] + c->cu[s + 1] - c->cu[s]; }

adcg_status adcgk_check_pages(const adcg_op_call *call, const int32_t *cu_pages, int64_t entries) {
  const int64_t seqs = adcg_batch_seqs(call->batch);
  if (seqs == 0) return ADCG_OK;
  if (cu_pages[0] != 0) return adcgk_fail(call, "cu_num_pages[0] is %d, must be 0", cu_pages[0]);
  for (int64_t s = 0; s < seqs; s++) {
    if (cu_pages[s + 1] < cu_pages[s])
      return adcgk_fail(call, "cu_num_pages[%lld] is %d, must not be less than cu_num_pages[%lld], which is %d", (long long)s + 1,
                        cu_pages[s + 1], (long long)s, cu_pages[s]);
    if (cu_pages[s + 1] > entries)
      return adcgk_fail(call, "cu_num_pages[%lld] is %d, cache_loc has %lld entries", (long long)s + 1, cu_pages[s + 1],
                        (long long)entries);
  }
  return ADCG_OK;
}

/* Every sequence has the pages that it needs, they are in range, and none is written twice. */
static adcg_status check_pages(const adcg_op_call *call, const adcgk_cache *c, const int32_t *last_page_len, int64_t entries,
                               int64_t count) {
  const int64_t seqs = adcg_batch_seqs(call->batch);
  const adcg_status status = adcgk_check_pages(call, c->cu_pages, entries);
  if (status != ADCG_OK) return status;
  for (int64_t s = 0; s < seqs; s++) {
    const int64_t pages = c->cu_pages[s + 1] - c->cu_pages[s], length = positions(c, s), need = adcgk_ceil_div(length, c->length);
    if (pages != need)
      return adcgk_fail(call,
                        "cu_num_pages[%lld] is %d: sequence %lld has %lld pages of %lld positions, its %lld positions (input_pos %d and "
                        "%d tokens) need %lld",
                        (long long)s + 1, c->cu_pages[s + 1], (long long)s, (long long)pages, (long long)c->length, (long long)length,
                        c->input_pos[s], c->cu[s + 1] - c->cu[s], (long long)need);
    const int64_t last = length - (need - 1) * c->length;
    if (last_page_len[s] != last)
      return adcgk_fail(call, "last_page_len[%lld] is %d, must be %lld: input_pos is %d and the sequence has %d tokens, in pages of %lld",
                        (long long)s, last_page_len[s], (long long)last, c->input_pos[s], c->cu[s + 1] - c->cu[s], (long long)c->length);
  }
  for (int64_t i = 0; i < c->cu_pages[seqs]; i++) {
    if (c->pages[i] < 0 || c->pages[i] >= count)
      return adcgk_fail(call, "cache_loc[%lld] is %d, the cache has %lld pages", (long long)i, c->pages[i], (long long)count);
  }
  for (int64_t base = 0; base < count; base += WINDOW) {
    uint64_t taken[WORDS];
    memset(taken, 0, (size_t)adcgk_ceil_div(adcgk_min(count - base, WINDOW), 64) * 8);
    for (int64_t s = 0; s < seqs; s++) {
      for (int64_t i = first_written(c, s); i < c->cu_pages[s + 1]; i++) {
        const int64_t at = c->pages[i] - base;
        if (at < 0 || at >= WINDOW || take(taken, at)) continue;
        int64_t other = 0, j = first_written(c, 0);
        while (c->pages[j] != c->pages[i]) {
          if (++j == c->cu_pages[other + 1]) j = first_written(c, ++other);
        }
        return adcgk_fail(call, "cache_loc[%lld] is %d, which the step writes for cache_loc[%lld] too", (long long)i, c->pages[i],
                          (long long)j);
      }
    }
  }
  return ADCG_OK;
}

adcg_status adcgk_cache_of(const adcg_op_call *call, int32_t tensor, int32_t cu, bool paged, adcgk_cache *cache) {
  const DLTensor *t = &call->inputs[tensor], *index = &call->inputs[cu];
  const int64_t seqs = adcg_batch_seqs(call->batch);
  *cache = (adcgk_cache){.cu = adcg_data(&index[0]), .input_pos = adcg_data(&index[1]), .length = t->shape[1]};
  char limit[64];
  if (paged) {
    cache->cu_pages = adcg_data(&index[2]);
    cache->pages = adcg_data(&index[3]);
    snprintf(limit, sizeof(limit), "positions are 32 bits wide");
  } else {
    cache->slots = adcg_data(&index[2]);
    snprintf(limit, sizeof(limit), "the cache holds %lld positions", (long long)cache->length);
  }
  const adcg_status status = adcgk_check_sequences(call, cache->cu, cache->input_pos, paged ? INT32_MAX : cache->length, limit);
  if (status != ADCG_OK) return status;
  if (paged) return check_pages(call, cache, adcg_data(&index[4]), index[3].shape[0], t->shape[0]);
  return adcgk_check_slots(call, cache->slots, seqs, t->shape[0], "cache");
}

adcg_status adcgk_check_room(const adcg_op_call *call, const adcgk_cache *cache, adcgk_element element, int64_t dims) {
  if (adcgk_needs_room(cache, element) && dims * ADCGK_KEY_BLOCK > ADCGK_ROOM_FLOATS)
    return adcgk_fail(call, "%lld dims of keys and values are too many: a paged or fp8 cache takes up to %d", (long long)dims,
                      ADCGK_ROOM_FLOATS / ADCGK_KEY_BLOCK);
  return ADCG_OK;
}

/* ---- Rows ------------------------------------------------------------------------------------------------ */

static int64_t row_of(const adcgk_cache *c, int64_t s, int64_t position) {
  if (c->slots) return c->slots[s] * c->length + position;
  return c->pages[c->cu_pages[s] + position / c->length] * c->length + position % c->length;
}

/* How many positions from `position` on, before `end`, have rows behind each other. */
static int64_t run_of(const adcgk_cache *c, int64_t s, int64_t position, int64_t end) {
  if (c->slots) return end - position;
  int64_t next = (position / c->length + 1) * c->length;
  for (const int32_t *page = c->pages + c->cu_pages[s] + position / c->length; next < end && page[1] == page[0] + 1; page++)
    next += c->length;
  return adcgk_min(next, end) - position;
}

static void store(const adcgk_kernels *kernels, const adcgk_written *w, char *to, const char *from, int64_t n) {
  if (w->element == ADCGK_FP8)
    kernels->to_fp8((uint8_t *)to, from, w->bf16, n);
  else if (w->bf16 == (w->element == ADCGK_BF16))
    memcpy(to, from, (size_t)(n * (w->bf16 ? 2 : 4)));
  else
    kernels->convert(to, w->element == ADCGK_BF16, from, w->bf16, n);
}

void adcgk_cache_write(const adcgk_cache *c, const adcgk_kernels *kernels, const adcgk_written *w, int64_t first, int64_t end) {
  const int64_t size = w->bf16 ? 2 : 4, cache_size = adcgk_element_size(w->element);
  const bool row = w->head == w->d || w->heads == 1; /* the heads of a token lie in one piece */
  const bool whole = row && w->token == w->heads * w->d && w->token == w->width;
  for (int64_t s = 0, t = first; t < end; s++) {
    if (c->cu[s + 1] <= t) continue;
    const int64_t last = adcgk_min(end, c->cu[s + 1]);
    while (t < last) {
      const int64_t position = c->input_pos[s] + t - c->cu[s], run = run_of(c, s, position, position + last - t);
      char *to = w->to + (row_of(c, s, position) * w->width + w->at) * cache_size;
      if (whole) {
        store(kernels, w, to, w->from + t * w->token * size, run * w->width);
      } else {
        for (int64_t i = 0; i < run; i++) {
          const char *from = w->from + (t + i) * w->token * size;
          for (int64_t h = 0; h < (row ? 1 : w->heads); h++)
            store(kernels, w, to + (i * w->width + h * w->d) * cache_size, from + h * w->head * size, row ? w->heads * w->d : w->d);
        }
      }
      t += run;
    }
  }
}

void adcgk_cache_rows(const adcgk_cache *c, const adcgk_kernels *kernels, int64_t s, int64_t first, int64_t end, const char *rows,
                      adcgk_element element, int64_t n, float *to) {
  for (int64_t p = first; p < end;) {
    const int64_t run = run_of(c, s, p, end);
    const char *from = rows + row_of(c, s, p) * n * adcgk_element_size(element);
    if (element == ADCGK_FP8)
      kernels->from_fp8(to, (const uint8_t *)from, run * n);
    else
      kernels->convert(to, false, from, element == ADCGK_BF16, run * n);
    to += run * n;
    p += run;
  }
}

/* ---- Blocks of keys and values --------------------------------------------------------------------------- */

/* Puts columns of the rows of positions block .. end-1 together: as they are, or as f32 if they are fp8. */
static void gather(const adcgk_read *r, int64_t block, int64_t end, const char *from, int64_t width, int64_t d, char *to) {
  const int64_t size = adcgk_element_size(r->element), room_size = r->element == ADCGK_BF16 ? 2 : 4;
  for (int64_t p = block; p < end;) {
    const int64_t run = run_of(r->cache, r->sequence, p, end), row = row_of(r->cache, r->sequence, p);
    for (int64_t i = row; i < row + run; i++, to += d * room_size) {
      if (r->element == ADCGK_FP8)
        r->kernels->from_fp8((float *)(void *)to, (const uint8_t *)from + i * width, d);
      else
        memcpy(to, from + i * width * size, (size_t)(d * size));
    }
    p += run;
  }
}

static void load(adcgk_attend *a, int64_t block, int64_t end) {
  const adcgk_read *r = a->source;
  a->cache_bf16 = r->element == ADCGK_BF16;
  if (r->element != ADCGK_FP8 && run_of(r->cache, r->sequence, block, end) == end - block) {
    const int64_t row = row_of(r->cache, r->sequence, block), size = adcgk_element_size(r->element);
    a->key_stride = r->key_width;
    a->keys = r->keys + row * r->key_width * size;
    a->value_stride = r->values ? r->value_width : r->key_width;
    a->values = r->values ? r->values + row * r->value_width * size : a->keys;
    return;
  }
  char *keys = (char *)r->room, *values = keys;
  gather(r, block, end, r->keys, r->key_width, r->d, keys);
  a->value_stride = r->d;
  if (r->values) {
    values = keys + (end - block) * r->d * (a->cache_bf16 ? 2 : 4);
    gather(r, block, end, r->values, r->value_width, r->dv, values);
    a->value_stride = r->dv;
  }
  a->keys = keys;
  a->values = values;
  a->key_stride = r->d;
}

static __attribute__((noinline)) void attend_with_room(adcgk_attend *a, adcgk_read *r) {
  float room[ADCGK_ROOM_FLOATS] __attribute__((aligned(64)));
  r->room = room;
  r->kernels->attend(a);
}

void adcgk_attend_cache(adcgk_attend *a, adcgk_read *r) {
  a->load = load;
  a->source = r;
  if (adcgk_needs_room(r->cache, r->element))
    attend_with_room(a, r);
  else
    r->kernels->attend(a);
}
