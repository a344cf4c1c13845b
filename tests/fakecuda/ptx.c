/* Images in PTX: finds the entries, lays out their parameters, and hands their bodies on. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "state.h"

static bool word_char(char c) { return isalnum((unsigned char)c) || c == '_' || c == '$' || c == '%'; }

/* A copy in which comments are blanks. */
static char *without_comments(const char *text) {
  size_t n = strlen(text);
  char *copy = malloc(n + 1);
  if (!copy) return NULL;
  memcpy(copy, text, n + 1);
  for (char *p = copy; *p; p++) {
    if (p[0] == '/' && p[1] == '/') {
      while (*p && *p != '\n') *p++ = ' ';
      if (!*p) break;
    } else if (p[0] == '/' && p[1] == '*') {
      while (*p && !(p[0] == '*' && p[1] == '/')) *p++ = ' ';
      if (!*p) break;
      p[0] = p[1] = ' ';
    }
  }
  return copy;
}

/* Size in bytes of ".u64" and its like, 0 for another word. */
static uint32_t size_of(const char *type, size_t length) {
  if (length < 3 || !strchr("usbf", type[1])) return 0;
  int bits = atoi(type + 2);
  return bits == 8 || bits == 16 || bits == 32 || bits == 64 || bits == 128 ? (uint32_t)bits / 8 : 0;
}

/* ".param .align 8 .b8 name[20]", from behind ".param" to the comma or bracket. */
static bool param(fc_function *function, const char *at, const char *end) {
  uint32_t size = 0, alignment = 0, elements = 1;
  bool pointee = false;
  while (at < end) {
    if (*at == '[') elements = (uint32_t)strtoul(at + 1, NULL, 0);
    if (*at != '.') {
      at++;
      continue;
    }
    size_t n = 1;
    while (at + n < end && word_char(at[n])) n++;
    if (n == 6 && strncmp(at, ".align", 6) == 0 && !pointee) alignment = (uint32_t)strtoul(at + 6, NULL, 0);
    if (n == 4 && strncmp(at, ".ptr", 4) == 0) pointee = true;
    if (size_of(at, n)) size = size_of(at, n);
    at += n;
  }
  return size && fc_function_param(function, size * elements, alignment > size ? alignment : size);
}

static bool params(fc_function *function, const char *at, const char *end) {
  while ((at = strstr(at, ".param")) && at < end) {
    const char *stop = memchr(at, ',', (size_t)(end - at));
    if (!stop) stop = end;
    if (!param(function, at + 6, stop)) return false;
    at = stop;
  }
  return true;
}

static const char *closing(const char *at) {
  for (int depth = 0; *at; at++) {
    if (*at == '{') depth++;
    if (*at == '}' && !--depth) return at;
  }
  return NULL;
}

/* From behind ".entry"; NULL: not an entry. */
static const char *entry(fc_module *module, const char *at, CUresult *status) {
  while (isspace((unsigned char)*at)) at++;
  const char *name = at;
  while (word_char(*at)) at++;
  size_t length = (size_t)(at - name);
  const char *body = strchr(at, '{'), *end = body ? closing(body) : NULL, *open = strchr(at, '(');
  *status = CUDA_ERROR_INVALID_IMAGE;
  if (!length || !end) return NULL;
  *status = CUDA_ERROR_OUT_OF_MEMORY;
  fc_function *function = fc_function_add(module, name, length);
  if (!function) return NULL;
  *status = CUDA_ERROR_INVALID_IMAGE;
  if (open && open < body && !params(function, open, memchr(open, ')', (size_t)(body - open)))) return NULL;
  fakecuda_kernel_fn own = fc_registered(function->name);
  struct fc_program *program = own ? NULL : fc_program_parse(function, body + 1, end);
  *status = CUDA_ERROR_OUT_OF_MEMORY;
  if ((own || program) && !fc_body_set(function, own, program)) return NULL;
  *status = CUDA_SUCCESS; /* without a body: cuModuleGetFunction says so */
  return end;
}

CUresult fc_ptx_load(fc_module *module, const char *image) {
  char *text = without_comments(image);
  if (!text) return CUDA_ERROR_OUT_OF_MEMORY;
  CUresult status = strncmp(text + strspn(text, " \t\r\n"), ".version", 8) == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_IMAGE;
  const char *at = text;
  while (!status && (at = strstr(at, ".entry"))) {
    if (word_char(at[6]))
      at += 6;
    else
      at = entry(module, at + 6, &status);
  }
  free(text);
  return status;
}
