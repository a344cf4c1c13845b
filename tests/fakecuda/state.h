/* The objects of the stand-in and how they hang together. One lock guards all of them (entry.c); every function below is called with it
 * held. Objects that a caller holds handles of are never freed, only emptied and marked as dead, so that a handle used after its
 * object's end is answered and not followed. */
#ifndef ADCG_TESTS_FAKECUDA_STATE_H_
#define ADCG_TESTS_FAKECUDA_STATE_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cuda_api.h"
#include "fakecuda.h"

#define MIB ((size_t)1 << 20)
#define BLOCK (2 * MIB) /* the granularity of device memory */
#define MAX_PARAMS 256

typedef enum fc_kind {
  FC_CONTEXT,
  FC_STREAM,
  FC_EVENT,
  FC_MODULE,
  FC_FUNCTION,
  FC_GRAPH,
  FC_NODE,
  FC_EXEC,
  FC_PHYSICAL,
  FC_NUM_KINDS
} fc_kind;

/* First in every object with a handle. */
typedef struct fc_object {
  fc_kind kind;
  bool alive;
  uint64_t made_by; /* number of the call */
} fc_object;

/* ---- Entry (entry.c) ---------------------------------------------------------------------------------------------------------- */

enum {
  ANY_TIME = 1,       /* works before cuInit */
  NEED_CONTEXT = 2,   /* a current context that lives: 201, 709 */
  STICKY = 4,         /* 700 once the current context has faulted */
  UNSAFE = 8,         /* may not be called while certain captures last: 900 (capture.c) */
  UNCOUNTED = 16,     /* faults are not injected */
  CALL = NEED_CONTEXT | STICKY,
};

/* Takes the lock, or says why the call ends here. */
CUresult fc_enter(const char *name, unsigned flags);
CUresult fc_leave(CUresult status);

#define ENTER(flags)                               \
  do {                                             \
    CUresult early_ = fc_enter(__func__, (flags)); \
    if (early_) return early_;                     \
  } while (0)
#define LEAVE(status) return fc_leave(status)
/* Ends the call unless the expression succeeds. */
#define TRY(expression)                    \
  do {                                     \
    CUresult status_ = (expression);       \
    if (status_) return fc_leave(status_); \
  } while (0)
#define CHECK(condition, status)               \
  do {                                         \
    if (!(condition)) return fc_leave(status); \
  } while (0)

typedef struct fc_settings {
  int version;
  size_t exec_base, exec_per_kernel, total_memory;
  int poison; /* -1: zeros */
  uint64_t seed;
} fc_settings;

typedef struct fc_state {
  bool initialised;
  int pid; /* of cuInit: a fork's child has no driver */
  uint64_t calls;
  uint64_t now; /* virtual nanoseconds (work.c) */
  uint64_t polls; /* queries in a row */
  bool faulted; /* some context of this process has faulted: no new one comes to life */
  fc_settings set;
  struct fc_context *primary;
  struct fc_capture *captures;
  struct fc_region *regions;
  size_t num_regions, cap_regions;
} fc_state;
extern fc_state fc;

void fc_say(const char *format, ...) __attribute__((format(printf, 1, 2))); /* fakecuda_reason's text */
uint64_t fc_random(uint64_t *state);

/* ---- Handles (handles.c) ------------------------------------------------------------------------------------------------------- */

void *fc_new(fc_kind kind, size_t size); /* zeroed; NULL when memory is out */
/* The object of this kind, dead or alive; NULL for every other pointer. */
void *fc_find(const void *handle, fc_kind kind);
void *fc_live(const void *handle, fc_kind kind);
void fc_each(fc_kind kind, void (*visit)(void *object, void *arg), void *arg);
void fc_forget_all(void);

/* ---- Contexts (context.c) ------------------------------------------------------------------------------------------------------ */

enum { FC_NUM_LIMITS = 5 };
typedef struct fc_context {
  fc_object o;
  bool primary;
  unsigned retained; /* the primary one's count */
  unsigned life;     /* how often it has come to life: objects remember it */
  CUresult fault;    /* sticky */
  unsigned flags;    /* the primary one's outlive it */
  size_t limits[FC_NUM_LIMITS];
  int cache_config;
  struct fc_stream *legacy, *streams; /* destroyed ones stay listed while they hold work */
} fc_context;

fc_context *fc_current(void);
void fc_context_fault(fc_context *context, CUresult status);
void fc_context_end(fc_context *context);
void fc_thread_forget(void);
void fc_preferences_reset(fc_context *context);
bool fc_context_alive(const fc_context *context, unsigned life);

/* ---- Work and streams (work.c, stream.c) --------------------------------------------------------------------------------------- */

typedef struct fc_item fc_item;
typedef struct fc_stream {
  fc_object o;
  fc_context *context;
  unsigned life;
  unsigned flags;
  int priority;
  bool per_thread;
  uint64_t thread;
  fc_item *first, *last; /* what is not over, in order */
  uint64_t ended;        /* when the last piece of work that ran was over */
  struct fc_stream *sibling;
  struct fc_capture *capture;
  struct fc_stream *next_captured;
  struct fc_node **deps; /* what the next captured node depends on */
  size_t num_deps, cap_deps;
} fc_stream;

/* A piece of work in a stream. It runs when something forces or observes it, never before all it comes after. */
struct fc_item {
  unsigned refs;
  fc_stream *stream;
  fc_item *next;
  fc_item **after; /* beside the one before it in its stream */
  size_t num_after;
  struct fc_payload **payloads; /* in running order; none: a marker */
  size_t num_payloads;
  uint64_t enqueued, start, end; /* virtual ns; start and end once it has run */
  bool done;
};

/* What a node or an asynchronous call does. Never changed once shared: executables replace it, and work in flight keeps the old one. */
typedef struct fc_payload {
  unsigned refs;
  int type; /* CU_GRAPH_NODE_TYPE_* */
  struct { /* kernel */
    struct fc_function *function;
    struct fc_body *body;
    uint32_t grid[3], block[3], shared;
    unsigned char *packed;
    bool by_extra;
    size_t extra_bytes;
  } k;
  CUDA_MEMCPY3D copy;
  unsigned char *staged; /* the bytes of pageable host memory, taken at the call, laid out as there */
  CUDA_MEMSET_NODE_PARAMS set;
  CUDA_HOST_NODE_PARAMS host;
  struct fc_event *event;
  CUdeviceptr address; /* alloc and free nodes */
  size_t bytes;
  fc_context *context;
} fc_payload;

fc_payload *fc_payload_new(int type, fc_context *context);
fc_payload *fc_payload_keep(fc_payload *payload);
void fc_payload_drop(fc_payload *payload);
CUresult fc_payload_run(fc_payload *payload, uint64_t *duration); /* 700 faults the context */

/* Appends to the stream; takes over the references to the payloads, not the array. */
CUresult fc_enqueue(fc_stream *stream, fc_payload **payloads, size_t count, fc_item *const *after, size_t num_after, fc_item **out);
void fc_item_drop(fc_item *item);
CUresult fc_finish(fc_item *item);          /* forces it and waits */
bool fc_poll(fc_item *item);                /* whether it is over by now */
CUresult fc_finish_stream(fc_stream *stream);
CUresult fc_finish_context(fc_context *context);
void fc_stream_clear(fc_stream *stream);

CUresult fc_stream_of(CUstream handle, fc_stream **stream); /* 0, 1 and 2 mean the current context's */
bool fc_stream_blocking(const fc_stream *stream);
fc_stream *fc_stream_new(fc_context *context, unsigned flags);
/* Asynchronous work of one payload, captured or enqueued; takes the payload over. */
CUresult fc_submit(fc_stream *stream, fc_payload *payload);

/* ---- Events (event.c) ---------------------------------------------------------------------------------------------------------- */

typedef struct fc_event {
  fc_object o;
  fc_context *context;
  unsigned life;
  unsigned flags;
  fc_item *item;           /* of the last record outside a capture */
  uint64_t capture;        /* of the last record inside one: the capture's id, 0 for none */
  struct fc_node **nodes;  /* what was captured at that point */
  size_t num_nodes;
} fc_event;

CUresult fc_event_of(CUevent handle, fc_event **event);
CUresult fc_event_record_item(fc_event *event, fc_stream *stream);

/* ---- Captures (capture.c) ------------------------------------------------------------------------------------------------------ */

typedef struct fc_capture {
  struct fc_capture *next;
  uint64_t id, thread;
  int mode;
  bool valid;
  fc_stream *origin, *streams;
  struct fc_graph *graph;
} fc_capture;

fc_capture *fc_capture_by_id(uint64_t id);
void fc_capture_forget(void); /* this thread's mode */
void fc_capture_invalidate(fc_capture *capture);
void fc_capture_drop(fc_capture *capture); /* its streams go back to normal, its graph ends */
void fc_capture_leave(fc_stream *stream);
bool fc_capture_join(fc_stream *stream, fc_capture *capture);
bool fc_capture_depend(fc_stream *stream, struct fc_node *const *nodes, size_t count);
/* 900 if this thread may not make an unsafe call now; those captures that forbid it are invalidated. */
CUresult fc_capture_unsafe(void);
/* Before work on the stream: 901 if its capture is invalid, 906 if it is the legacy stream beside a capture on a blocking one. */
CUresult fc_capture_check(fc_stream *stream);
CUresult fc_capture_legacy(fc_context *context);
/* A call that a capturing stream does not bear: invalidates its capture. */
CUresult fc_capture_refuse(fc_stream *stream);
CUresult fc_capture_add(fc_stream *stream, fc_payload *payload);
uint64_t fc_thread(void);

/* ---- Graphs (graph.c, node.c, exec.c, update.c) -------------------------------------------------------------------------------- */

typedef struct fc_node {
  fc_object o;
  struct fc_graph *graph;
  int type;
  fc_payload *payload;
  struct fc_graph *child; /* owned */
  struct fc_node **deps;
  size_t num_deps, cap_deps;
  struct fc_node *origin; /* of an executable's or a clone's node: what it was made from */
  bool enabled;
  size_t mark;
  struct fc_guard *guard; /* what GetParams handed out */
} fc_node;

typedef struct fc_graph {
  fc_object o;
  fc_node **nodes; /* in the order of adding */
  size_t num_nodes, cap_nodes;
  fc_node *owner;         /* the child node that holds it */
  bool internal;          /* an executable's snapshot: no handles */
  fc_capture *capture;    /* that is filling it */
  unsigned executables;   /* that live, where it allocates */
} fc_graph;

typedef struct fc_exec {
  fc_object o;
  fc_context *context;
  unsigned life;
  fc_graph *snapshot;
  fc_graph *source; /* may be dead */
  uint64_t flags;
  size_t bytes;
  fc_item *last; /* launches of one executable follow each other */
} fc_exec;

fc_graph *fc_graph_new(bool internal);
void fc_graph_end(fc_graph *graph);
fc_graph *fc_graph_copy(const fc_graph *graph, bool internal);
bool fc_graph_allocates(const fc_graph *graph);
size_t fc_graph_kernels(const fc_graph *graph);
/* An order in which its nodes can run, drawn from the seed; false if there is none, or no memory. */
bool fc_graph_order(const fc_graph *graph, fc_node **order, uint64_t *seed);
/* Takes the payload over; NULL when memory is out. */
fc_node *fc_node_add(fc_graph *graph, int type, fc_node *const *deps, size_t count, fc_payload *payload);
bool fc_node_depend(fc_node *node, fc_node *on);
bool fc_node_list_add(fc_node ***list, size_t *count, size_t *capacity, fc_node *node);
CUresult fc_node_of(CUgraphNode handle, int type, fc_node **node); /* type -1: any */
/* Adds a node for a caller; takes the payload over. */
CUresult fc_node_insert(CUgraph graph, const CUgraphNode *deps, size_t count, int type, fc_payload *payload, CUgraphNode *out);
void fc_guard_drop(fc_node *node);

CUresult fc_kernel_payload(const CUDA_KERNEL_NODE_PARAMS *params, fc_payload **out);
CUresult fc_copy_payload(const CUDA_MEMCPY3D *params, fc_context *context, fc_payload **out);
CUresult fc_set_payload(const CUDA_MEMSET_NODE_PARAMS *params, fc_context *context, fc_payload **out);
CUresult fc_host_payload(const CUDA_HOST_NODE_PARAMS *params, fc_payload **out);
/* Whether an executable's node may take the new payload: 0, or a CU_GRAPH_EXEC_UPDATE_ERROR_*. */
int fc_payload_compatible(const fc_payload *old, const fc_payload *fresh);
int fc_update(fc_graph *snapshot, fc_graph *graph, fc_node **error_node, fc_node **error_from);
fc_node *fc_exec_node(fc_graph *snapshot, const fc_node *origin);

/* ---- Memory (regions.c, memory.c, virtual.c, copy.c) -------------------------------------------------------------------------------------- */

typedef enum fc_region_kind { FC_ALLOC, FC_ASYNC, FC_GRAPH_ALLOC, FC_HOST, FC_MAPPED } fc_region_kind;

typedef struct fc_region {
  CUdeviceptr base;
  size_t size; /* asked for */
  fc_region_kind kind;
  bool readable, writable;
  bool closing;     /* given to cuMemFreeAsync: work may use it, calls may not name it any more */
  bool outstanding; /* a graph's: allocated by a launch and freed by nobody yet */
  fc_context *context;
  struct fc_physical *physical;
  uint64_t made_by;
} fc_region;

fc_region *fc_region_at(CUdeviceptr address); /* the one that covers it */
/* Whether a kernel or a copy may touch all of these bytes; regions that touch each other count as one. */
bool fc_accessible(CUdeviceptr address, size_t bytes, bool write);
bool fc_nameable(CUdeviceptr address, size_t bytes, bool write); /* and may stand in a call */
CUresult fc_region_new(fc_context *context, size_t bytes, fc_region_kind kind, CUdeviceptr *address);
void fc_region_free(fc_region *region);
CUdeviceptr fc_address_take(size_t bytes, size_t alignment);
fc_region *fc_region_insert(fc_region region);
void fc_region_remove(fc_region *region);
bool fc_region_expose(CUdeviceptr base, size_t size, bool read, bool write); /* makes a graph's allocation appear or vanish */
void fc_memory_end(fc_context *context); /* NULL: everything */
size_t fc_memory_used(void);
bool fc_exec_charge(fc_exec *exec);
void fc_exec_release(fc_exec *exec);
void fc_virtual_end(void);
void fc_each_reservation(void (*visit)(size_t size, uint64_t made_by, void *arg), void *arg);
size_t fc_physical_bytes(void);
CUresult fc_copy_run(const fc_payload *payload);
bool fc_copy_stage(fc_payload *payload); /* takes the bytes of a pageable source now */
CUresult fc_set_run(const fc_payload *payload);
bool fc_pinned(const void *address);

/* ---- Modules and kernels (module.c, launch.c, ptx*.c) -------------------------------------------------------------------------- */

/* What runs: kept by its function and by every payload, so that it outlives its module. */
typedef struct fc_body {
  unsigned refs;
  fakecuda_kernel_fn run; /* or */
  struct fc_program *program;
} fc_body;

typedef struct fc_function {
  fc_object o;
  struct fc_module *module;
  char *name;
  size_t num_params;
  uint32_t *offsets, *sizes;
  size_t packed_bytes;
  int max_dynamic_shared, carveout;
  fc_body *body;
} fc_function;

typedef struct fc_module {
  fc_object o;
  fc_context *context;
  unsigned life;
  bool library;
  fc_function **functions;
  size_t num_functions;
} fc_module;

void fc_module_end(fc_module *module);
void fc_function_free(fc_function *function); /* what payloads read of it, module or no module */
void fc_body_drop(fc_body *body);
fc_function *fc_function_add(fc_module *module, const char *name, size_t length);
bool fc_function_param(fc_function *function, uint32_t size, uint32_t alignment);
CUresult fc_ptx_load(fc_module *module, const char *text);
fakecuda_kernel_fn fc_registered(const char *name);
bool fc_body_set(fc_function *function, fakecuda_kernel_fn run, struct fc_program *program);
CUresult fc_kernel_run(const fc_payload *payload, uint64_t *duration);
CUresult fc_launch_check(const fc_function *function, const uint32_t grid[3], const uint32_t block[3], uint32_t shared);
CUresult fc_params_pack(const fc_function *function, void *const *params, void *const *extra, fc_payload *payload);

struct fc_program *fc_program_parse(const fc_function *function, const char *text, const char *end);
void fc_program_drop(struct fc_program *program);
/* One thread of the grid after another; counts instructions. False: an address it may not touch. */
bool fc_program_run(const struct fc_program *program, const fc_payload *payload, uint64_t *instructions);

#endif
