/* Caches of attention: where the positions of a sequence lie, the checks of what says so, writing and reading.
 *
 * A cache is rows, one a position: of a slot `length` rows behind each other, or of pages of `length` rows anywhere. */
#ifndef ADCGK_CACHE_H_
#define ADCGK_CACHE_H_

#include "../common/strides.h"
#include "internal.h"

typedef struct adcgk_cache {
  const int32_t *cu, *input_pos;
  const int32_t *slots;            /* of a slot cache, else NULL */
  const int32_t *cu_pages, *pages; /* of a paged one: page of position p of sequence s is pages[cu_pages[s] + p / length] */
  int64_t length;                  /* rows of a slot or page */
} adcgk_cache;

/* Fills *cache from the call's inputs, of which `tensor` is a cache tensor and `cu` is cu_seqlens; input_pos and
 * slot_idx (or cu_num_pages, cache_loc and last_page_len) follow. Checks them all for the step's real sequences. */
adcg_status adcgk_cache_of(const adcg_op_call *call, int32_t tensor, int32_t cu, bool paged, adcgk_cache *cache);

/* Checks cu_num_pages of the step's real sequences: it starts at 0, never falls and ends within cache_loc's entries. */
adcg_status adcgk_check_pages(const adcg_op_call *call, const int32_t *cu_num_pages, int64_t entries);

/* Element types of caches and of what is written to them. */
typedef enum adcgk_element { ADCGK_F32, ADCGK_BF16, ADCGK_FP8 } adcgk_element;
static inline adcgk_element adcgk_element_of(const DLTensor *t) {
  return adcgk_is_fp8(t) ? ADCGK_FP8 : adcgk_is_bf16(t) ? ADCGK_BF16 : ADCGK_F32;
}
static inline int64_t adcgk_element_size(adcgk_element e) { return e == ADCGK_FP8 ? 1 : e == ADCGK_BF16 ? 2 : 4; }

/* Columns of a cache's rows that the step's tokens write. */
typedef struct adcgk_written {
  const char *from; /* [tokens, heads, d], f32 or bf16, in strides of elements */
  bool bf16;
  int64_t token, head, heads, d;
  char *to;
  adcgk_element element;
  int64_t at, width; /* first column, and elements of a row */
} adcgk_written;

/* Writes tokens first .. end-1 of the step. */
void adcgk_cache_write(const adcgk_cache *cache, const adcgk_kernels *kernels, const adcgk_written *written, int64_t first, int64_t end);

/* Columns of one sequence's rows that attention reads as keys and as values. */
typedef struct adcgk_read {
  const adcgk_cache *cache;
  const adcgk_kernels *kernels;
  int64_t sequence;
  adcgk_element element;
  const char *keys, *values;       /* row 0, at the first column; values NULL: a value is the first columns of its key */
  int64_t key_width, value_width;  /* elements from row to row */
  int64_t d, dv;                   /* columns */
  float *room; /* ADCGK_ROOM_FLOATS for blocks that do not lie in one piece, or are fp8; NULL: there are none */
} adcgk_read;

enum { ADCGK_ROOM_FLOATS = ADCGK_KEY_BLOCK * 1024 }; /* 256 KiB, on the stack */

/* Whether blocks need room, and whether there is enough: d + dv (d alone without values) may be 1024. */
static inline bool adcgk_needs_room(const adcgk_cache *cache, adcgk_element element) { return !cache->slots || element == ADCGK_FP8; }
adcg_status adcgk_check_room(const adcg_op_call *call, const adcgk_cache *cache, adcgk_element element, int64_t dims);

/* attend over a cache: a->load and a->source are set here, from `read`. */
void adcgk_attend_cache(adcgk_attend *a, adcgk_read *read);

/* Rows of positions first .. end-1, columns 0 .. n-1, as f32 [end - first, n]. */
void adcgk_cache_rows(const adcgk_cache *cache, const adcgk_kernels *kernels, int64_t sequence, int64_t first, int64_t end,
                      const char *rows, adcgk_element element, int64_t n, float *to);

#endif /* ADCGK_CACHE_H_ */
