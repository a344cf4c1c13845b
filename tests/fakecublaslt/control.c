/* Faults, counts, reasons, and the names of statuses. */
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "state.h"

enum { NAMES = 32 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
  char name[64]; /* "": any */
  uint64_t left; /* 0: disarmed */
  cublasStatus_t status;
  int delivered;
} fault;
static struct {
  const char *name;
  uint64_t calls;
} counts[NAMES];
static _Thread_local char reason[256];

cublasStatus_t enter(const char *name) {
  cublasStatus_t status = CUBLAS_STATUS_SUCCESS;
  reason[0] = '\0';
  pthread_mutex_lock(&lock);
  for (int i = 0; i < NAMES; i++) {
    if (counts[i].name && strcmp(counts[i].name, name) != 0) continue;
    counts[i].name = name;
    counts[i].calls++;
    break;
  }
  if (fault.left > 0 && (fault.name[0] == '\0' || strcmp(fault.name, name) == 0) && --fault.left == 0) {
    status = fault.status;
    fault.delivered = 1;
  }
  pthread_mutex_unlock(&lock);
  if (status != CUBLAS_STATUS_SUCCESS) refuse(status, "%s: an armed fault", name);
  return status;
}

cublasStatus_t refuse(cublasStatus_t status, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(reason, sizeof reason, format, arguments);
  va_end(arguments);
  return status;
}

EXPORT void fakecublaslt_fail(const char *name, uint64_t n, int status) {
  pthread_mutex_lock(&lock);
  snprintf(fault.name, sizeof fault.name, "%s", name ? name : "");
  fault.left = n;
  fault.status = status;
  fault.delivered = 0;
  pthread_mutex_unlock(&lock);
}

EXPORT uint64_t fakecublaslt_calls(const char *name) {
  uint64_t calls = 0;
  pthread_mutex_lock(&lock);
  for (int i = 0; i < NAMES && counts[i].name; i++) {
    if (!name || strcmp(counts[i].name, name) == 0) calls += counts[i].calls;
  }
  pthread_mutex_unlock(&lock);
  return calls;
}

EXPORT int fakecublaslt_failed(void) {
  pthread_mutex_lock(&lock);
  const int delivered = fault.delivered;
  pthread_mutex_unlock(&lock);
  return delivered;
}

EXPORT const char *fakecublaslt_reason(void) { return reason; }

EXPORT void fakecublaslt_reset(void) {
  pthread_mutex_lock(&lock);
  memset(&fault, 0, sizeof fault);
  memset(counts, 0, sizeof counts);
  pthread_mutex_unlock(&lock);
  fakecublaslt_hide(0);
}

EXPORT size_t cublasLtGetVersion(void) { return 130102; }

EXPORT const char *cublasLtGetStatusName(cublasStatus_t status) {
  switch (status) {
#define NAME(status) \
  case status: return #status;
    NAME(CUBLAS_STATUS_SUCCESS)
    NAME(CUBLAS_STATUS_NOT_INITIALIZED)
    NAME(CUBLAS_STATUS_ALLOC_FAILED)
    NAME(CUBLAS_STATUS_INVALID_VALUE)
    NAME(CUBLAS_STATUS_ARCH_MISMATCH)
    NAME(CUBLAS_STATUS_MAPPING_ERROR)
    NAME(CUBLAS_STATUS_EXECUTION_FAILED)
    NAME(CUBLAS_STATUS_INTERNAL_ERROR)
    NAME(CUBLAS_STATUS_NOT_SUPPORTED)
    NAME(CUBLAS_STATUS_LICENSE_ERROR)
#undef NAME
    default: return "unrecognized status";
  }
}
