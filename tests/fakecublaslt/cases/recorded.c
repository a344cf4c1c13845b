/* What a cuBLASLt answers that needs no GPU: descriptors, names of statuses, and a handle without a driver. Prints one line a question;
 * recorded.txt has the answers of real libraries. `recorded LIBRARY`. */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "../../../kernels/cuda/lt_api.h"

static lt_functions call;

static void sizes_of(const char *what, int attribute, lt_status (*set)(int attribute, const void *value, size_t size)) {
  static const size_t sizes[] = {1, 2, 4, 8, 16};
  static const uint64_t value[2] = {1, 0};
  printf("%s attribute %d:", what, attribute);
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    const lt_status status = set(attribute, value, sizes[i]);
    if (status == LT_SUCCESS)
      printf(" %zu bytes", sizes[i]);
    else if (status != LT_INVALID_VALUE)
      printf(" %zu: %d", sizes[i], status);
  }
  printf("; NULL %d\n", set(attribute, NULL, 4));
}

static lt_desc desc;
static lt_preference preference;
static lt_status set_desc(int attribute, const void *value, size_t size) {
  return call.MatmulDescSetAttribute(&desc, attribute, value, size);
}
static lt_status set_preference(int attribute, const void *value, size_t size) {
  return call.MatmulPreferenceSetAttribute(&preference, attribute, value, size);
}

int main(int argc, char **argv) {
  void *library = argc == 2 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
  if (!library) {
    fprintf(stderr, "recorded LIBRARY: %s\n", argc == 2 ? dlerror() : "none given");
    return 2;
  }
  void *found;
#define X(result, name, parameters)                            \
  found = dlsym(library, "cublasLt" #name);                    \
  printf("cublasLt%s: %s\n", #name, found ? "there" : "none"); \
  memcpy(&call.name, &found, sizeof found);
  LT_FUNCTIONS(X)
#undef X
  lt_layout layout;
  static const size_t rooms[] = {0, 8, 32, 64, 256};
  for (size_t i = 0; i < sizeof rooms / sizeof rooms[0]; i++) {
    if (rooms[i] != 64)
      printf("a product in %zu bytes: %d\n", rooms[i], call.MatmulDescInit_internal(&desc, rooms[i], LT_COMPUTE_32F, LT_R_32F));
    if (rooms[i] > 64) continue;
    printf("a layout in %zu bytes: %d\n", rooms[i], call.MatrixLayoutInit_internal(&layout, rooms[i], LT_R_16BF, 8, 8, 8));
    printf("a preference in %zu bytes: %d\n", rooms[i], call.MatmulPreferenceInit_internal(&preference, rooms[i]));
  }
  for (int a = 0; a < 40; a++) {
    if (a == 16 || (a >= 27 && a <= 30) || a == 38) continue; /* not in every version, and not used */
    sizes_of("product", a, set_desc);
  }
  for (int a = 0; a < 16; a++) sizes_of("preference", a, set_preference);
  printf("numbers that mean nothing: layout %d, type %d, ld %d, compute type %d",
         call.MatrixLayoutInit_internal(&layout, 64, LT_R_16BF, 0, 8, 8), call.MatrixLayoutInit_internal(&layout, 64, 999, 8, 8, 8),
         call.MatrixLayoutInit_internal(&layout, 64, LT_R_16BF, 8, 8, 7),
         call.MatmulDescInit_internal(&desc, sizeof desc, 12345, LT_R_32F));
  const uint32_t odd = 9999;
  printf(", epilogue %d, operation %d, alignment %d, scheme %d\n", set_desc(LT_DESC_EPILOGUE, &odd, 4), set_desc(LT_DESC_TRANSA, &odd, 4),
         set_preference(LT_PREFERENCE_ALIGNMENT_A, &odd, 4), set_preference(LT_PREFERENCE_REDUCTION_MASK, &odd, 4));
  for (int s = 0; s < 18; s++) printf("status %d: %s\n", s, call.GetStatusName(s));
  lt_handle handle = NULL;
  const lt_status status = call.Create(&handle);
  printf("a handle without a context: %d, %s\n", status, handle ? "one" : "NULL");
  return 0;
}
