#define _POSIX_C_SOURCE 200809L
#include "checkpoint.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <yyjson.h>

/* A safetensors file is: uint64 n, little-endian; n bytes of JSON, {"name": {"dtype", "shape", "data_offsets"}, ...}; data. */
typedef struct file {
  struct file *next;
  char *path;
  char *bytes;
  size_t size;
  yyjson_doc *header;
} file;

struct checkpoint {
  file *files;
  checkpoint_tensor *tensors; /* by name */
  int64_t count, room;
  void **copies; /* memory of tensors that could not stay where they were */
  int64_t num_copies;
};

static file *map_file(const char *path) {
  int fd = open(path, O_RDONLY);
  if (fd < 0) return NULL;
  struct stat status;
  if (fstat(fd, &status) != 0) die("%s: cannot be read", path);
  file *f = allocate(1, sizeof *f);
  f->path = strdup(path);
  f->size = (size_t)status.st_size;
  f->bytes = mmap(NULL, f->size ? f->size : 1, PROT_READ, MAP_PRIVATE, fd, 0);
  close(fd);
  if (f->bytes == MAP_FAILED) die("%s: %lld bytes cannot be mapped", path, (long long)status.st_size);
  return f;
}

static float half_to_float(uint16_t half) {
  uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 31, fraction = half & 1023, bits;
  if (exponent == 0) { /* a multiple of 2^-24 */
    float value = (float)fraction * 0x1p-24f;
    return sign ? -value : value;
  }
  bits = sign | (exponent == 31 ? 255u : exponent + 112) << 23 | fraction << 13;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static void *keep(checkpoint *c, void *copy) {
  c->copies = realloc(c->copies, (size_t)(c->num_copies + 1) * sizeof *c->copies);
  if (!c->copies) die("out of memory");
  return c->copies[c->num_copies++] = copy;
}

static const struct {
  const char *name;
  adcg_dtype dtype;
  int64_t size;
} dtypes[] = {{"F32", ADCG_F32, 4}, {"F16", ADCG_F16, 2}, {"BF16", ADCG_BF16, 2},
              {"I32", ADCG_I32, 4}, {"I64", ADCG_I64, 8}, {"U8", ADCG_U8, 1}};

static void add_tensor(checkpoint *c, const file *f, const char *name, yyjson_val *entry, size_t data_begin) {
  const char *dtype = yyjson_get_str(yyjson_obj_get(entry, "dtype"));
  yyjson_val *shape = yyjson_obj_get(entry, "shape"), *offsets = yyjson_obj_get(entry, "data_offsets");
  size_t kind = 0;
  while (dtype && kind < sizeof dtypes / sizeof *dtypes && strcmp(dtypes[kind].name, dtype) != 0) kind++;
  if (!dtype || kind == sizeof dtypes / sizeof *dtypes) die("%s: %s: dtype %s is not supported", f->path, name, dtype ? dtype : "missing");
  checkpoint_tensor t = {.name = name, .dtype = dtypes[kind].dtype};
  if (yyjson_arr_size(shape) > ADCG_MAX_NDIM) die("%s: %s: %zu dims", f->path, name, yyjson_arr_size(shape));
  int64_t count = 1;
  size_t i, max;
  yyjson_val *extent;
  yyjson_arr_foreach(shape, i, max, extent) {
    t.shape[t.ndim] = yyjson_get_sint(extent);
    if (t.shape[t.ndim] < 0 || __builtin_mul_overflow(count, t.shape[t.ndim], &count)) die("%s: %s: shape", f->path, name);
    t.ndim++;
  }
  uint64_t begin = yyjson_get_uint(yyjson_arr_get(offsets, 0)), end = yyjson_get_uint(yyjson_arr_get(offsets, 1));
  uint64_t bytes = (uint64_t)count * (uint64_t)dtypes[kind].size;
  if (yyjson_arr_size(offsets) != 2 || end < begin || end - begin != bytes || end > f->size - data_begin)
    die("%s: %s: data_offsets [%llu, %llu] do not hold %lld elements", f->path, name, (unsigned long long)begin, (unsigned long long)end,
        (long long)count);
  t.data = f->bytes + data_begin + begin;
  if (t.dtype == ADCG_F16) { /* the products take float32 and bfloat16 */
    float *wide = keep(c, allocate(count, sizeof *wide));
    for (int64_t k = 0; k < count; k++) {
      uint16_t half;
      memcpy(&half, (char *)t.data + 2 * k, 2);
      wide[k] = half_to_float(half);
    }
    t.data = wide;
    t.dtype = ADCG_F32;
  } else if ((uintptr_t)t.data % (size_t)dtypes[kind].size) {
    t.data = memcpy(keep(c, allocate((int64_t)bytes, 1)), t.data, bytes);
  }
  if (c->count == c->room) {
    c->room = 2 * c->room + 64;
    c->tensors = realloc(c->tensors, (size_t)c->room * sizeof *c->tensors);
    if (!c->tensors) die("out of memory");
  }
  c->tensors[c->count++] = t;
}

static bool add_file(checkpoint *c, const char *path) {
  file *f = map_file(path);
  if (!f) return false;
  f->next = c->files;
  c->files = f;
  uint64_t header = 0;
  for (int i = 7; i >= 0 && f->size >= 8; i--) header = header << 8 | (unsigned char)f->bytes[i];
  if (f->size < 8 || header > f->size - 8) die("%s: not a safetensors file", path);
  yyjson_read_err error;
  f->header = yyjson_read_opts(f->bytes + 8, (size_t)header, 0, NULL, &error);
  if (!f->header) die("%s: header: %s at byte %zu", path, error.msg, error.pos);
  size_t i, max;
  yyjson_val *key, *entry;
  yyjson_obj_foreach(yyjson_doc_get_root(f->header), i, max, key, entry) {
    if (strcmp(yyjson_get_str(key), "__metadata__") != 0) add_tensor(c, f, yyjson_get_str(key), entry, 8 + (size_t)header);
  }
  return true;
}

static int by_name(const void *a, const void *b) {
  return strcmp(((const checkpoint_tensor *)a)->name, ((const checkpoint_tensor *)b)->name);
}

static checkpoint *finish(checkpoint *c) {
  if (c->count) qsort(c->tensors, (size_t)c->count, sizeof *c->tensors, by_name);
  return c;
}

checkpoint *checkpoint_open_file(const char *path) {
  checkpoint *c = allocate(1, sizeof *c);
  if (add_file(c, path)) return finish(c);
  free(c);
  return NULL;
}

checkpoint *checkpoint_open(const char *folder) {
  char path[4096];
  snprintf(path, sizeof path, "%s/model.safetensors.index.json", folder);
  yyjson_doc *index = yyjson_read_file(path, 0, NULL, NULL);
  if (!index) {
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    checkpoint *c = checkpoint_open_file(path);
    if (!c) die("%s: no such file", path);
    return c;
  }
  checkpoint *c = allocate(1, sizeof *c);
  size_t i, max;
  yyjson_val *key, *shard;
  yyjson_obj_foreach(yyjson_obj_get(yyjson_doc_get_root(index), "weight_map"), i, max, key, shard) {
    snprintf(path, sizeof path, "%s/%s", folder, yyjson_get_str(shard) ? yyjson_get_str(shard) : "");
    const file *known = c->files;
    while (known && strcmp(known->path, path) != 0) known = known->next;
    if (!known && !add_file(c, path)) die("%s: no such file", path);
  }
  yyjson_doc_free(index);
  return finish(c);
}

const checkpoint_tensor *checkpoint_find(const checkpoint *c, const char *name) {
  checkpoint_tensor wanted = {.name = name};
  return c->count ? bsearch(&wanted, c->tensors, (size_t)c->count, sizeof wanted, by_name) : NULL;
}

void checkpoint_close(checkpoint *c) {
  if (!c) return;
  while (c->files) {
    file *f = c->files;
    c->files = f->next;
    munmap(f->bytes, f->size ? f->size : 1);
    yyjson_doc_free(f->header);
    free(f->path);
    free(f);
  }
  for (int64_t i = 0; i < c->num_copies; i++) free(c->copies[i]);
  free(c->copies);
  free(c->tensors);
  free(c);
}
