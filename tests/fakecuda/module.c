/* Modules, libraries and functions. A library is a module here, and its kernels are functions. An image is PTX, or names a shared object
 * of kernels in C (fakecuda.h); compiled images stand for the object that FAKECUDA_KERNELS names. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "state.h"

enum { MAX_REGISTERED = 128, MAX_SHARED = 232448 };

static struct {
  char name[128];
  fakecuda_kernel_fn run;
} registered[MAX_REGISTERED];

fakecuda_kernel_fn fc_registered(const char *name) {
  for (size_t i = 0; i < MAX_REGISTERED; i++) {
    if (registered[i].run && strcmp(registered[i].name, name) == 0) return registered[i].run;
  }
  return NULL;
}

void fakecuda_register_kernel(const char *name, fakecuda_kernel_fn run) {
  if (!name || fc_enter(__func__, ANY_TIME | UNCOUNTED)) return;
  size_t at = MAX_REGISTERED;
  for (size_t i = MAX_REGISTERED; i-- > 0;) {
    if (!registered[i].run && at == MAX_REGISTERED) at = i;
    if (strcmp(registered[i].name, name) == 0) at = i;
  }
  if (at < MAX_REGISTERED) {
    snprintf(registered[at].name, sizeof registered[at].name, "%s", name);
    registered[at].run = run;
  }
  fc_leave(CUDA_SUCCESS);
}

/* ---- Functions ------------------------------------------------------------------------------------------------------------------ */

void fc_body_drop(fc_body *body) {
  if (!body || --body->refs) return;
  fc_program_drop(body->program);
  free(body);
}

bool fc_body_set(fc_function *function, fakecuda_kernel_fn run, struct fc_program *program) {
  function->body = calloc(1, sizeof *function->body);
  if (!function->body) return false;
  *function->body = (fc_body){1, run, program};
  return true;
}

fc_function *fc_function_add(fc_module *module, const char *name, size_t length) {
  fc_function **grown = realloc(module->functions, (module->num_functions + 1) * sizeof(fc_function *));
  if (!grown) return NULL;
  module->functions = grown;
  fc_function *function = fc_new(FC_FUNCTION, sizeof *function);
  if (!function) return NULL;
  grown[module->num_functions++] = function;
  function->module = module;
  function->max_dynamic_shared = 49152;
  function->carveout = -1;
  function->name = malloc(length + 1);
  function->offsets = malloc(MAX_PARAMS * sizeof(uint32_t));
  function->sizes = malloc(MAX_PARAMS * sizeof(uint32_t));
  if (!function->name || !function->offsets || !function->sizes) return NULL;
  memcpy(function->name, name, length);
  function->name[length] = 0;
  return function;
}

/* Recorded: an alignment beyond 16 counts as 16. */
bool fc_function_param(fc_function *function, uint32_t size, uint32_t alignment) {
  if (function->num_params == MAX_PARAMS || !alignment || (alignment & (alignment - 1))) return false;
  if (alignment > 16) alignment = 16;
  uint32_t offset = ((uint32_t)function->packed_bytes + alignment - 1) & ~(alignment - 1);
  function->offsets[function->num_params] = offset;
  function->sizes[function->num_params++] = size;
  function->packed_bytes = offset + size;
  return true;
}

void fc_function_free(fc_function *function) {
  free(function->name);
  free(function->offsets);
  free(function->sizes);
}

void fc_module_end(fc_module *module) {
  for (size_t i = 0; i < module->num_functions; i++) {
    fc_body_drop(module->functions[i]->body);
    module->functions[i]->body = NULL;
    module->functions[i]->o.alive = false;
  }
  free(module->functions);
  module->functions = NULL;
  module->num_functions = 0;
  module->o.alive = false;
}

/* ---- Images --------------------------------------------------------------------------------------------------------------------- */

static CUresult load_object(fc_module *module, const char *path) {
  void *object = dlopen(path, RTLD_NOW | RTLD_LOCAL); /* stays: its kernels may be in flight or in graphs */
  const fakecuda_kernel *kernel = object ? (const fakecuda_kernel *)dlsym(object, "fakecuda_kernels") : NULL;
  if (!kernel) {
    fc_say("cuModuleLoadData: %s: no object with fakecuda_kernels: %s", path, dlerror());
    return CUDA_ERROR_INVALID_IMAGE;
  }
  for (; kernel->name; kernel++) {
    fc_function *function = fc_function_add(module, kernel->name, strlen(kernel->name));
    if (!function || !fc_body_set(function, kernel->run, NULL)) return CUDA_ERROR_OUT_OF_MEMORY;
    for (size_t i = 0; i < kernel->num_params; i++) {
      if (!fc_function_param(function, kernel->sizes[i], kernel->alignments[i])) return CUDA_ERROR_INVALID_IMAGE;
    }
  }
  return CUDA_SUCCESS;
}

static CUresult load_image(fc_module *module, const char *image) {
  static const char head[] = "fakecuda-image 1\nlibrary ";
  if (strncmp(image, head, sizeof head - 1) == 0) {
    char path[4096];
    snprintf(path, sizeof path, "%.*s", (int)strcspn(image + sizeof head - 1, "\n"), image + sizeof head - 1);
    return load_object(module, path);
  }
  if (strncmp(image, "\177ELF", 4) == 0 || strncmp(image, "\x50\xed\x55\xba", 4) == 0) {
    const char *path = getenv("FAKECUDA_KERNELS");
    if (path && *path) return load_object(module, path);
    fc_say("cuModuleLoadData: a compiled image, and FAKECUDA_KERNELS names no object to run in its place");
    return CUDA_ERROR_NO_BINARY_FOR_GPU;
  }
  return fc_ptx_load(module, image);
}

static CUresult load(const void *image, bool library, fc_module **out) {
  if (!image) return CUDA_ERROR_INVALID_VALUE;
  fc_module *module = fc_new(FC_MODULE, sizeof *module);
  if (!module) return CUDA_ERROR_OUT_OF_MEMORY;
  module->context = fc_current();
  module->life = module->context->life;
  module->library = library;
  CUresult status = load_image(module, image);
  if (status)
    fc_module_end(module);
  else
    *out = module;
  return status;
}

CUresult cuModuleLoadData(CUmodule *out, const void *image) {
  ENTER(CALL);
  fc_module *module;
  CHECK(out, CUDA_ERROR_INVALID_VALUE);
  TRY(load(image, false, &module));
  *out = (CUmodule)module;
  LEAVE(CUDA_SUCCESS);
}

CUresult cuModuleLoadFatBinary(CUmodule *out, const void *image) {
  ENTER(CALL);
  fc_module *module;
  CHECK(out, CUDA_ERROR_INVALID_VALUE);
  TRY(load(image, false, &module));
  *out = (CUmodule)module;
  LEAVE(CUDA_SUCCESS);
}

/* The whole file and a zero behind it, NULL if it cannot be read or memory is out. */
static char *contents(FILE *file) {
  size_t size = 0, capacity = 4096;
  char *text = malloc(capacity);
  while (text) {
    size += fread(text + size, 1, capacity - size - 1, file);
    if (size < capacity - 1) break;
    char *grown = realloc(text, capacity *= 2);
    if (!grown) free(text);
    text = grown;
  }
  if (text) text[size] = 0;
  return text;
}

CUresult cuModuleLoad(CUmodule *out, const char *path) {
  ENTER(CALL);
  fc_module *module;
  CHECK(out && path, CUDA_ERROR_INVALID_VALUE);
  FILE *file = fopen(path, "rb");
  CHECK(file, CUDA_ERROR_FILE_NOT_FOUND);
  char *image = contents(file);
  fclose(file);
  CHECK(image, CUDA_ERROR_OUT_OF_MEMORY);
  CUresult status = load(image, false, &module);
  free(image);
  TRY(status);
  *out = (CUmodule)module;
  LEAVE(CUDA_SUCCESS);
}

CUresult cuModuleLoadDataEx(CUmodule *out, const void *image, unsigned count, int *options, void **values) {
  ENTER(CALL);
  fc_module *module;
  CHECK(out && (!count || (options && values)), CUDA_ERROR_INVALID_VALUE);
  TRY(load(image, false, &module));
  *out = (CUmodule)module;
  LEAVE(CUDA_SUCCESS);
}

static fc_module *module_of(const void *handle, bool library) {
  fc_module *module = fc_live(handle, FC_MODULE);
  return module && module->library == library ? module : NULL;
}

CUresult cuModuleUnload(CUmodule handle) {
  ENTER(CALL | UNSAFE);
  fc_module *module = module_of(handle, false);
  CHECK(module, CUDA_ERROR_INVALID_HANDLE);
  fc_module_end(module);
  LEAVE(CUDA_SUCCESS);
}

static CUresult function_in(const fc_module *module, const char *name, fc_function **out) {
  if (!module) return CUDA_ERROR_INVALID_HANDLE;
  if (!name) return CUDA_ERROR_INVALID_VALUE;
  if (module->context->fault) return module->context->fault;
  for (size_t i = 0; i < module->num_functions; i++) {
    if (strcmp(module->functions[i]->name, name) != 0) continue;
    *out = module->functions[i];
    if ((*out)->body) return CUDA_SUCCESS;
    fc_say("%s: a body that the stand-in cannot run; register a function for it (fakecuda_register_kernel)", name);
    return CUDA_ERROR_NO_BINARY_FOR_GPU;
  }
  return CUDA_ERROR_NOT_FOUND;
}

CUresult cuModuleGetFunction(CUfunction *out, CUmodule module, const char *name) {
  ENTER(0);
  fc_function *function;
  CHECK(out, CUDA_ERROR_INVALID_VALUE);
  TRY(function_in(module_of(module, false), name, &function));
  *out = (CUfunction)function;
  LEAVE(CUDA_SUCCESS);
}

CUresult cuLibraryLoadData(CUlibrary *out, const void *image, int *jit, void **jit_values, unsigned jit_count, int *options, void **values,
                           unsigned count) {
  ENTER(CALL);
  fc_module *module;
  CHECK(out && (!jit_count || (jit && jit_values)) && (!count || (options && values)), CUDA_ERROR_INVALID_VALUE);
  TRY(load(image, true, &module));
  *out = (CUlibrary)module;
  LEAVE(CUDA_SUCCESS);
}

CUresult cuLibraryUnload(CUlibrary handle) {
  ENTER(CALL | UNSAFE);
  fc_module *module = module_of(handle, true);
  CHECK(module, CUDA_ERROR_INVALID_HANDLE);
  fc_module_end(module);
  LEAVE(CUDA_SUCCESS);
}

CUresult cuLibraryGetKernel(CUkernel *out, CUlibrary library, const char *name) {
  ENTER(0);
  fc_function *function;
  CHECK(out, CUDA_ERROR_INVALID_VALUE);
  TRY(function_in(module_of(library, true), name, &function));
  *out = (CUkernel)function;
  LEAVE(CUDA_SUCCESS);
}

CUresult cuKernelGetFunction(CUfunction *out, CUkernel kernel) {
  ENTER(NEED_CONTEXT);
  CHECK(out, CUDA_ERROR_INVALID_VALUE);
  CHECK(fc_live(kernel, FC_FUNCTION), CUDA_ERROR_INVALID_HANDLE);
  *out = (CUfunction)(void *)kernel;
  LEAVE(CUDA_SUCCESS);
}

/* ---- Questions ------------------------------------------------------------------------------------------------------------------ */

static CUresult function_of(CUfunction handle, fc_function **function) {
  *function = fc_live(handle, FC_FUNCTION);
  return *function ? (*function)->module->context->fault : CUDA_ERROR_INVALID_HANDLE;
}

CUresult cuFuncGetParamInfo(CUfunction handle, size_t index, size_t *offset, size_t *size) {
  ENTER(0);
  fc_function *function;
  TRY(function_of(handle, &function));
  CHECK(offset && index < function->num_params, CUDA_ERROR_INVALID_VALUE);
  *offset = function->offsets[index];
  if (size) *size = function->sizes[index];
  LEAVE(CUDA_SUCCESS);
}

CUresult cuFuncGetAttribute(int *value, int attribute, CUfunction handle) {
  static const int values[16] = {1024, 0, 0, 0, 18, 70, 90}; /* threads, static memories, registers, PTX, binary; the rest 0 */
  ENTER(0);
  fc_function *function;
  TRY(function_of(handle, &function));
  CHECK(value && attribute >= 0 && attribute < 16, CUDA_ERROR_INVALID_VALUE);
  *value = attribute == 8 ? function->max_dynamic_shared : attribute == 9 ? function->carveout : values[attribute];
  LEAVE(CUDA_SUCCESS);
}

CUresult cuFuncSetAttribute(CUfunction handle, int attribute, int value) {
  ENTER(0);
  fc_function *function;
  TRY(function_of(handle, &function));
  CHECK(attribute == 8 || attribute == 9, CUDA_ERROR_INVALID_VALUE);
  CHECK(attribute == 8 ? value >= 0 && value <= MAX_SHARED : value >= -1 && value <= 100, CUDA_ERROR_INVALID_VALUE);
  if (attribute == 8)
    function->max_dynamic_shared = value;
  else
    function->carveout = value;
  LEAVE(CUDA_SUCCESS);
}

CUresult cuFuncGetName(const char **name, CUfunction handle) {
  ENTER(0);
  fc_function *function;
  CHECK(name, CUDA_ERROR_INVALID_VALUE);
  TRY(function_of(handle, &function));
  *name = function->name;
  LEAVE(CUDA_SUCCESS);
}

CUresult cuFuncGetModule(CUmodule *module, CUfunction handle) {
  ENTER(0);
  fc_function *function;
  CHECK(module, CUDA_ERROR_INVALID_VALUE);
  TRY(function_of(handle, &function));
  *module = (CUmodule)function->module;
  LEAVE(CUDA_SUCCESS);
}
