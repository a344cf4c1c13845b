/* libadcg: piecewise CUDA graphs behind a C ABI.
 *
 * A host registers a model graph once. The engine splits it at its dynamic ops (attention, state-space
 * scans), plans one arena for all segments and all buckets of token counts, captures each static segment
 * per bucket, and replays a step into buffers that the caller provides. On the device "host" the same
 * program runs in CPU memory.
 *
 * The simplest program, without its error checks:
 *
 *   adcg_engine *engine; adcg_graph *graph; adcg_exec *exec;
 *   adcg_engine_create("host", NULL, &engine);
 *   adcg_graph_limits limits = ADCG_GRAPH_LIMITS_INIT;
 *   limits.max_tokens = 512; limits.max_seqs = 8; limits.max_seq_len = 256;
 *   adcg_graph_create(engine, &limits, &graph);
 *
 *   adcg_dim rows[] = {ADCG_DIM_TOKENS, ADCG_DIM(64)}, square[] = {ADCG_DIM(64), ADCG_DIM(64)};
 *   adcg_value x, w, y;
 *   adcg_graph_add_input(graph, "x", ADCG_F32, 2, rows, &x);
 *   adcg_graph_add_weight(graph, "w", ADCG_F32, 2, square, &w);
 *   adcg_graph_add_op(graph, "adcg.linear", (adcg_value[]){x, w}, 2, NULL, 0, &y, 1);
 *   adcg_graph_add_output(graph, "y", y);
 *   adcg_graph_freeze(graph);
 *
 *   adcg_exec_create(graph, NULL, &exec);
 *   adcg_exec_bind(exec, w, &w_tensor);
 *   adcg_batch batch = ADCG_BATCH_INIT;
 *   batch.prefill_seqs = 2; batch.prefill_tokens = 37; batch.decode_seqs = 3;         // 40 rows of x and y
 *   adcg_exec_replay(exec, &batch, &x_tensor, 1, &y_tensor, 1, NULL, NULL);
 *
 * Words
 *   value     a tensor of the graph; each dim of its shape is a*tokens + b*seqs + c
 *   segment   a maximal run of static ops between dynamic ops
 *   bucket    a size (tokens, seqs) that segments, or the whole graph, are captured for
 *   arena     the one block of memory that holds every activation, output of a dynamic op and workspace
 *   exec      a frozen graph with its plan, its arena and its captured buckets
 *   ladder    a rising list of buckets
 *
 * Conventions of this header
 *   - Functions return an adcg_status; ADCG_OK is 0. On failure adcg_last_error() tells what was wrong, in the
 *     form "function: what: value"; out parameters are NULL, or zero for values and for all of a
 *     struct but its struct_size; every handle is as it was.
 *   - "in" parameters are borrowed for the call unless said otherwise. Strings are UTF-8 and end in NUL.
 *   - Any function may return ADCG_ERR_ARGUMENT (NULL where not allowed, wrong struct_size), ADCG_ERR_HANDLE
 *     (a handle that is destroyed, foreign or of another kind), ADCG_ERR_OUT_OF_MEMORY, ADCG_ERR_FORKED (in a
 *     forked child), ADCG_ERR_POISONED and ADCG_ERR_INTERNAL (a fault of the library's own); further statuses
 *     are named at each function.
 *   - Structs that may grow begin with struct_size; initialise them with their _INIT macro. Callers compiled
 *     against an older header keep working: fields behind their struct_size take their defaults. A struct_size
 *     below that of the first version is ADCG_ERR_ARGUMENT.
 *   - Threads: functions that take a handle as const may run concurrently on it. Others need the caller's own
 *     order, except that calls on one exec detect each other and return ADCG_ERR_BUSY. Different execs, of one
 *     graph or of several, replay in parallel. docs/threading.md has the table.
 *   - Sizes are in bytes, shapes in elements, counts in tokens or sequences.
 */
#ifndef ADCG_ADCG_H_
#define ADCG_ADCG_H_

#include <stddef.h>
#include <stdint.h>

#include "dlpack.h"

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define ADCG_API __attribute__((visibility("default")))
#else
#define ADCG_API
#endif

/* ---- Library ------------------------------------------------------------------------------------------- */

#define ADCG_VERSION_MAJOR 0
#define ADCG_VERSION_MINOR 1
#define ADCG_VERSION_PATCH 0
#define ADCG_VERSION (ADCG_VERSION_MAJOR * 10000 + ADCG_VERSION_MINOR * 100 + ADCG_VERSION_PATCH)

/* What a call came to. The numbers are stable; the gaps leave room for finer ones. */
typedef int32_t adcg_status;
enum {
  ADCG_OK = 0,
  ADCG_ERR_ARGUMENT = 10,      /* NULL, a wrong struct_size, a count or a string that cannot be meant */
  ADCG_ERR_HANDLE = 11,        /* destroyed, foreign, or of another kind */
  ADCG_ERR_STATE = 12,         /* right call, wrong time: not frozen, already frozen, weight not bound, ... */
  ADCG_ERR_BUSY = 13,          /* another thread is in a call on this exec */
  ADCG_ERR_NOT_FOUND = 14,     /* no value, op, bucket or device of that name or number */
  ADCG_ERR_GRAPH = 20,         /* the graph is not valid; the message names op and value */
  ADCG_ERR_SHAPE = 21,         /* rank, dims, rows or strides do not fit */
  ADCG_ERR_DTYPE = 22,         /* element type does not fit */
  ADCG_ERR_ATTRIBUTE = 23,     /* unknown, missing, of the wrong type or out of range */
  ADCG_ERR_ADDRESS = 24,       /* NULL data, misaligned, or overlapping what a step reads or writes */
  ADCG_ERR_BATCH = 30,         /* counts that contradict each other, or exceed the graph's limits */
  ADCG_ERR_DEVICE = 40,        /* wrong device for this engine, or the device failed */
  ADCG_ERR_UNSUPPORTED = 41,   /* known, and not done by this device or build */
  ADCG_ERR_OUT_OF_MEMORY = 42, /* host or device */
  ADCG_ERR_OP = 50,            /* an op's callback failed, or broke its contract */
  ADCG_ERR_CANCELLED = 51,     /* the caller's callback asked to stop */
  ADCG_ERR_FORKED = 60,        /* this process is a fork of the one that loaded the library */
  ADCG_ERR_POISONED = 61,      /* an earlier internal fault: the process can no longer use the library */
  ADCG_ERR_INTERNAL = 62       /* a fault of the library; later calls return ADCG_ERR_POISONED */
};

/* The version of the loaded library, as ADCG_VERSION encodes it. Concurrent; never fails. */
ADCG_API int32_t adcg_version(void);

/* The name of a status, "ADCG_ERR_SHAPE"; "ADCG_ERR_UNKNOWN" for a number that is none. Static memory.
 * Concurrent; never fails. */
ADCG_API const char *adcg_status_name(adcg_status status);

/* The message of the last failed call on this thread; "" if none failed yet. Never NULL; the library's memory,
 * valid until the thread's next failing call. */
ADCG_API const char *adcg_last_error(void);

enum { ADCG_LOG_ERROR = 1, ADCG_LOG_WARNING = 2, ADCG_LOG_INFO = 3, ADCG_LOG_DEBUG = 4 };
typedef void (*adcg_log_fn)(int32_t level, const char *message, void *user_data);

/* Sends the library's log lines of `level` and more severe ones to `log`, process-wide. NULL turns logging off,
 * as at load. `log` may be called from any thread that is in a library call, from a replay only when it captures a bucket on
 * first use; it must not call the library. `user_data` must live until the next adcg_set_log. Concurrent. */
ADCG_API adcg_status adcg_set_log(adcg_log_fn log, int32_t level, void *user_data);

/* Receives text in pieces: `size` bytes at `data`, not NUL-terminated. Non-zero stops the writing. */
typedef int32_t (*adcg_write_fn)(const char *data, size_t size, void *user_data);

/* ---- Types, dims, attributes --------------------------------------------------------------------------- */

typedef int32_t adcg_dtype;
enum {
  ADCG_F32 = 1,
  ADCG_F16 = 2,
  ADCG_BF16 = 3,
  ADCG_F8E4M3 = 4,
  ADCG_I32 = 5,
  ADCG_I64 = 6,
  ADCG_U8 = 7,
  ADCG_BOOL = 8,
};

/* One extent of a shape: tokens * (token count) + seqs * (sequence count) + constant, in elements.
 * Only the first dim of a shape may depend on a count (tensors are token-major); coefficients are not negative. */
typedef struct adcg_dim {
  int64_t tokens;
  int64_t seqs;
  int64_t constant;
} adcg_dim;

/* Initialisers: adcg_dim shape[] = {ADCG_DIM_TOKENS, ADCG_DIM(64)}; */
/* clang-format off */
#define ADCG_DIM_TOKENS {1, 0, 0}
#define ADCG_DIM_SEQS {0, 1, 0}
#define ADCG_DIM_SEQS_PLUS(n) {0, 1, (n)}
#define ADCG_DIM(n) {0, 0, (n)}
/* clang-format on */

#define ADCG_MAX_NDIM 8

/* The type of a value: its element type and symbolic shape. */
typedef struct adcg_type {
  adcg_dtype dtype;
  int32_t ndim; /* 1 .. ADCG_MAX_NDIM */
  adcg_dim dims[ADCG_MAX_NDIM];
} adcg_type;

/* A value of one graph: a small non-negative number. */
typedef int32_t adcg_value;

enum { ADCG_ATTR_TYPE_INT = 1, ADCG_ATTR_TYPE_FLOAT = 2, ADCG_ATTR_TYPE_BOOL = 3, ADCG_ATTR_TYPE_STRING = 4, ADCG_ATTR_TYPE_INTS = 5 };

/* A named attribute; which of the last four fields counts, `type` says. */
typedef struct adcg_attr {
  const char *name;
  int32_t type;        /* ADCG_ATTR_TYPE_* */
  int32_t count;       /* of ints */
  int64_t i;           /* INT, BOOL (0 or 1) */
  double f;            /* FLOAT */
  const char *s;       /* STRING */
  const int64_t *ints; /* INTS */
} adcg_attr;

/* Initialisers: adcg_attr attrs[] = {ADCG_ATTR_INT("heads", 8), ADCG_ATTR_FLOAT("scale", 0.125)}; */
/* clang-format off */
#define ADCG_ATTR_INT(name, value) {(name), ADCG_ATTR_TYPE_INT, 0, (value), 0.0, NULL, NULL}
#define ADCG_ATTR_FLOAT(name, value) {(name), ADCG_ATTR_TYPE_FLOAT, 0, 0, (value), NULL, NULL}
#define ADCG_ATTR_BOOL(name, value) {(name), ADCG_ATTR_TYPE_BOOL, 0, (value) ? 1 : 0, 0.0, NULL, NULL}
#define ADCG_ATTR_STRING(name, value) {(name), ADCG_ATTR_TYPE_STRING, 0, 0, 0.0, (value), NULL}
#define ADCG_ATTR_INTS(name, values, n) {(name), ADCG_ATTR_TYPE_INTS, (n), 0, 0.0, NULL, (values)}
/* clang-format on */

/* What an op's schema says of one attribute. The default's `type` is the attribute's type. */
typedef struct adcg_attr_spec {
  adcg_attr default_value; /* name, type, and the value taken when the attribute is left out */
  int32_t required;        /* non-zero: must be given, the default is ignored */
  const char *doc;         /* one line; may be NULL */
} adcg_attr_spec;

/* ---- A step's batch ------------------------------------------------------------------------------------ */

/* What one step holds. Rows of token tensors are all sequences' tokens one after the other: prefill sequences
 * first, then extend (speculative) ones, then decode ones (one token each). */
typedef struct adcg_batch {
  size_t struct_size;
  int64_t prefill_seqs;
  int64_t prefill_tokens; /* of all prefill sequences together; at least one a sequence */
  int64_t extend_seqs;
  int64_t extend_tokens; /* of all extend sequences together; at least one a sequence */
  int64_t decode_seqs;
  int64_t query_len; /* if not 0: a promise that every sequence of the step has exactly this many tokens */
} adcg_batch;
#define ADCG_BATCH_INIT {sizeof(adcg_batch), 0, 0, 0, 0, 0, 0}

/* ---- Ops ----------------------------------------------------------------------------------------------- */

enum {
  ADCG_OP_STATIC = 1,  /* a pure function of its shapes: captured */
  ADCG_OP_DYNAMIC = 2, /* looks at the batch: runs between segments, unless its capture support covers the step */
  ADCG_OP_METADATA = 3 /* dynamic, and prepares index tensors whose size has an upper bound */
};

/* Which batches a dynamic op may be captured for. */
enum {
  ADCG_CAPTURE_NEVER = 0,          /* always a split */
  ADCG_CAPTURE_UNIFORM_DECODE = 1, /* every sequence has one token */
  ADCG_CAPTURE_UNIFORM_BATCH = 2,  /* every sequence has the same count of tokens */
  ADCG_CAPTURE_ALWAYS = 3          /* its launch depends on shapes alone; counts are read on the device */
};

enum {
  ADCG_OP_HOST_SYNC = 1u << 0,     /* launch synchronises with the host: a static op is demoted to dynamic */
  ADCG_OP_STREAM_SWITCH = 1u << 1, /* launch uses other streams: likewise */
  ADCG_OP_ZEROES_TAIL = 1u << 2,   /* a dynamic op that zeroes rows [real, bucket) of its outputs itself */
  ADCG_OP_PARAMETRIC = 1u << 3,    /* launches only through call->launcher, the same kernels in every step of a bucket */
  ADCG_OP_ROW_WISE = 1u << 4       /* each output row depends on the same row of the inputs alone */
};

enum {
  ADCG_ALIAS_VIEW = 1,     /* the output is the input's memory under another shape: launch has nothing to do */
  ADCG_ALIAS_IN_PLACE = 2, /* the output may be given the input's memory, when nobody reads the input afterwards */
  ADCG_ALIAS_PART = 3,     /* the output is a part of the input, and may be given as one: then launch has nothing to copy */
  ADCG_ALIAS_JOIN = 4      /* the input is a part of the output, and may lie there already: likewise */
};
typedef struct adcg_op_alias {
  int32_t output; /* which output */
  int32_t input;  /* which input it may share memory with */
  int32_t kind;   /* ADCG_ALIAS_* */
} adcg_op_alias;

/* Where a part of a tensor lies: from `start` on along `axis`, as many elements as the part's own extent there. All other
 * dims are the whole's. A part along any axis but the first has strides, and is given as one only where all that read it
 * say that they take them (adcg_op_schema.strided_inputs). */
typedef struct adcg_part {
  int32_t axis;
  int64_t start;
} adcg_part;

/* What part is asked: where the part of aliases[alias] lies, an ADCG_ALIAS_PART or _JOIN. */
typedef struct adcg_part_call {
  size_t struct_size;
  int32_t alias; /* its index in the schema */
  int32_t num_inputs;
  int32_t num_outputs;
  int32_t num_attrs;
  const adcg_type *inputs;
  const adcg_type *outputs;
  const adcg_attr *attrs;
  void (*set_error)(const char *message); /* says why part fails; copied; may be left uncalled */
} adcg_part_call;

/* What infer is asked: fill outputs[0 .. num_outputs) from the inputs' types. Optional inputs that were left out
 * are absent from the end of the list. Attributes stand in the schema's order, complete with defaults. */
typedef struct adcg_infer_call {
  size_t struct_size;
  int32_t num_inputs;
  int32_t num_outputs;
  int32_t num_attrs;
  const adcg_type *inputs;
  const adcg_attr *attrs;
  adcg_type *outputs;                     /* zeroed on entry */
  void (*set_error)(const char *message); /* says why infer fails; copied; may be left uncalled */
} adcg_infer_call;

enum {
  ADCG_PHASE_WARMUP = 1,  /* once before a bucket is captured: initialise lazily here. The batch is empty (zero real rows) */
  ADCG_PHASE_CAPTURE = 2, /* on a CUDA device, while it records: only enqueue. An op that is PARAMETRIC and reads or writes an input
                             or output of the graph is launched once more with other addresses, where no memory need be: those
                             launches show where in the kernels' parameters the addresses are, and go no further */
  ADCG_PHASE_REPLAY = 3,  /* a step, captured or eager */
  ADCG_PHASE_DISCOVER = 4 /* at freeze, for ops without infer: say the outputs' shapes, see launch */
};

/* One launch of a kernel on a CUDA device, as cuLaunchKernel takes it. */
typedef struct adcg_kernel_launch {
  size_t struct_size;
  void *function;        /* a CUfunction of the engine's device */
  uint32_t grid[3];      /* blocks */
  uint32_t block[3];     /* threads of one */
  uint32_t shared_bytes; /* dynamic shared memory of one */
  void **params;         /* one pointer a parameter; read at the call */
} adcg_kernel_launch;
#define ADCG_KERNEL_LAUNCH_INIT {sizeof(adcg_kernel_launch), NULL, {1, 1, 1}, {1, 1, 1}, 0, NULL}

/* Launches kernels for an op's launch: on the stream of its call, with the driver's answer as a status and a message. Ops that
 * are PARAMETRIC launch through it alone; others may, or use call->stream with the driver's own functions. The library's memory,
 * valid during the call. */
typedef struct adcg_launcher adcg_launcher;
struct adcg_launcher {
  adcg_status (*launch)(const adcg_launcher *launcher, const adcg_kernel_launch *launch);
};

/* One launch. Tensors have the bucket's sizes; the batch has the step's real counts. */
typedef struct adcg_op_call {
  size_t struct_size;
  int32_t phase; /* ADCG_PHASE_* */
  int32_t num_inputs;
  int32_t num_outputs;
  int32_t num_attrs;
  int64_t tokens;          /* the bucket, in tokens: rows of token tensors */
  int64_t seqs;            /* the bucket, in sequences; 0 in a segment that no sequence count reaches, as tokens is in the other */
  const adcg_batch *batch; /* the step's real counts; never NULL */
  const DLTensor *inputs;  /* a mutated input is written through its data pointer */
  DLTensor *outputs;       /* always given: write them where they are */
  const adcg_attr *attrs;  /* in the schema's order, complete with defaults */
  void *workspace;         /* workspace_bytes of scratch, 64-byte aligned; NULL if the op asked for none */
  size_t workspace_bytes;
  void *stream;                           /* a CUstream; NULL on the host device */
  const adcg_launcher *launcher;          /* NULL on the host device */
  void (*set_error)(const char *message); /* says why launch fails; copied; may be left uncalled */
  const adcg_batch *device_batch;         /* on a CUDA device: `batch` in its memory, for kernels to read when they run; a full graph
                                             serves many steps with one launch recorded. NULL on the host device */
} adcg_op_call;

typedef adcg_status (*adcg_op_infer_fn)(const adcg_infer_call *call, void *user_data);

/* Static ops alone have parts. A launch whose op has some looks where its tensors lie: an output that is given as a part of
 * its input has the address of that part, and so has an input that was joined; everything else it copies. */
typedef adcg_status (*adcg_op_part_fn)(const adcg_part_call *call, adcg_part *out_part, void *user_data);

/* How much workspace launch needs for these shapes; a pure function of them. The tensors of `call` may have no data. The plan
 * holds the most over all buckets and the graph's limits, it need not grow with the size; a step of another size (an eager one)
 * that wants more than that fails with ADCG_ERR_OP. */
typedef adcg_status (*adcg_op_workspace_fn)(const adcg_op_call *call, size_t *out_bytes, void *user_data);

/* Runs the op: on the host device it computes, on a CUDA device it only enqueues on call->stream. It never
 * allocates, never synchronises unless it declared so, writes every output (rows [0, real) suffice for a dynamic
 * op) and reads and writes nothing that it did not declare. Anything but ADCG_OK ends the step with that error.
 *
 * In ADCG_PHASE_DISCOVER, which only ops without `infer` see, inputs have concrete shapes at some token and
 * sequence count and no data, and every output is an empty tensor (ndim 1, shape {0}, no data). The op may set
 * outputs[i].dtype, .ndim and .shape[0 .. ndim) (there is room for ADCG_MAX_NDIM); an output that it leaves alone
 * gets dtype and shape of inputs[0]. It is asked at several counts, an affine shape is fitted, and a further
 * count must agree. */
typedef adcg_status (*adcg_op_launch_fn)(const adcg_op_call *call, void *user_data);

/* An op: built in or the host's own. */
typedef struct adcg_op_schema {
  size_t struct_size;
  const char *name; /* "my.scale"; the prefix "adcg." is the library's */
  int32_t kind;     /* ADCG_OP_STATIC, _DYNAMIC, _METADATA */
  int32_t capture;  /* of a dynamic or metadata op: ADCG_CAPTURE_* */
  uint32_t flags;   /* ADCG_OP_HOST_SYNC, ... */
  int32_t num_inputs;
  int32_t num_outputs;
  uint64_t mutates; /* bit i: input i is written; it must be a state of the graph */
  int32_t num_optional_inputs; /* how many of the last inputs may be left out */
  int32_t num_aliases;
  const adcg_op_alias *aliases;
  int32_t num_attrs;
  const adcg_attr_spec *attrs;
  const char *doc;                /* one line; may be NULL */
  adcg_op_infer_fn infer;         /* NULL: shapes are discovered, see launch */
  adcg_op_workspace_fn workspace; /* NULL: none */
  adcg_op_launch_fn launch;       /* may be NULL only if every output is a view */
  uint64_t strided_inputs;        /* bit i: input i may have strides (the last dim's is 1); else DLTensor.strides is NULL */
  uint64_t strided_outputs;       /* bit k: output k likewise */
  adcg_op_part_fn part;           /* NULL: no alias is a PART or JOIN */
} adcg_op_schema;
#define ADCG_OP_SCHEMA_INIT \
  {sizeof(adcg_op_schema), NULL, ADCG_OP_STATIC, ADCG_CAPTURE_NEVER, 0, 0, 0, 0, 0, 0, NULL, 0, NULL, NULL, NULL, NULL, NULL, 0, 0, NULL}

/* ---- Engine -------------------------------------------------------------------------------------------- */

typedef struct adcg_engine adcg_engine;

typedef struct adcg_engine_options {
  size_t struct_size;
  int32_t host_threads; /* of the host device's kernels; 0: one a core. Changes no bit of any result */
} adcg_engine_options;
#define ADCG_ENGINE_OPTIONS_INIT {sizeof(adcg_engine_options), 0}

/* Creates an engine on a device.
 *   device      in: "host"; or "cuda:0" and so on ("cuda" is the first), by the driver libcuda.so.1, which is looked for now
 *   options     in: may be NULL for the defaults
 *   out_engine  out: the caller's, to be given to adcg_engine_destroy
 * Returns ADCG_ERR_DEVICE for a device, or a driver, that is not there; ADCG_ERR_UNSUPPORTED for a driver older than CUDA 12.0 and for
 * a device of compute capability below 8.0. */
ADCG_API adcg_status adcg_engine_create(const char *device, const adcg_engine_options *options, adcg_engine **out_engine);

/* Gives the handle up. NULL does nothing. Graphs and execs of the engine stay usable and keep what they need. */
ADCG_API void adcg_engine_destroy(adcg_engine *engine);

/* Registers an op of the host's own. `schema` is copied; its callbacks and `user_data` must live until the engine and
 * all its graphs and execs are destroyed. Callbacks may be called from any thread that is in a library call.
 * Returns ADCG_ERR_ARGUMENT for a schema that contradicts itself, ADCG_ERR_STATE for a name that is taken. */
ADCG_API adcg_status adcg_engine_register_op(adcg_engine *engine, const adcg_op_schema *schema, void *user_data);

typedef struct adcg_device_info {
  size_t struct_size;
  char name[64];        /* "host" */
  char description[128]; /* for people: model, instruction set */
  int32_t device_type;  /* DLDeviceType */
  int32_t device_id;
  int32_t threads; /* of the host device's kernels; 0 on others */
  int64_t memory_bytes;
} adcg_device_info;
#define ADCG_DEVICE_INFO_INIT {sizeof(adcg_device_info), {0}, {0}, 0, 0, 0, 0}

/* What the engine runs on. out_info: in its struct_size, out the rest. */
ADCG_API adcg_status adcg_engine_get_device_info(const adcg_engine *engine, adcg_device_info *out_info);

/* What an op is. Pointers are the engine's memory, valid until adcg_engine_destroy. */
typedef struct adcg_op_info {
  size_t struct_size;
  const char *name;
  const char *doc; /* never NULL */
  int32_t kind;
  int32_t capture;
  uint32_t flags;
  int32_t num_inputs;
  int32_t num_optional_inputs;
  int32_t num_outputs;
  uint64_t mutates;
  int32_t num_attrs;
  const adcg_attr_spec *attrs;
} adcg_op_info;
#define ADCG_OP_INFO_INIT {sizeof(adcg_op_info), NULL, NULL, 0, 0, 0, 0, 0, 0, 0, 0, NULL}

/* Op number `index` of the library's and the host's own, in order of registration.
 * Returns ADCG_ERR_NOT_FOUND beyond the last one: count up from 0 until then. */
ADCG_API adcg_status adcg_engine_get_op_info(const adcg_engine *engine, int32_t index, adcg_op_info *out_info);

/* ---- Graph --------------------------------------------------------------------------------------------- */

typedef struct adcg_graph adcg_graph;

typedef struct adcg_graph_limits {
  size_t struct_size;
  int64_t max_tokens;  /* of one step; at least 1 */
  int64_t max_seqs;    /* of one step; at least 1 */
  int64_t max_seq_len; /* tokens that one sequence may bring in one step; 0: max_tokens */
} adcg_graph_limits;
#define ADCG_GRAPH_LIMITS_INIT {sizeof(adcg_graph_limits), 0, 0, 0}

/* Creates an empty graph. out_graph: the caller's, to be given to adcg_graph_destroy. The graph keeps its engine alive.
 * Returns ADCG_ERR_BATCH for limits below 1, or beyond 2^31 - 1. */
ADCG_API adcg_status adcg_graph_create(adcg_engine *engine, const adcg_graph_limits *limits, adcg_graph **out_graph);

/* Gives the handle up. NULL does nothing. Execs of the graph stay usable. */
ADCG_API void adcg_graph_destroy(adcg_graph *graph);

/* Adds an input: a tensor that the caller provides at each replay, in the order in which inputs are added.
 *   name  in: unique among inputs, weights, states and outputs
 *   dims  in: ndim dims; only the first may depend on a count
 * Returns ADCG_ERR_STATE (frozen), ADCG_ERR_GRAPH (name taken or empty), ADCG_ERR_SHAPE, ADCG_ERR_DTYPE. */
ADCG_API adcg_status adcg_graph_add_input(adcg_graph *graph, const char *name, adcg_dtype dtype, int32_t ndim, const adcg_dim *dims,
                                          adcg_value *out_value);

/* Adds a weight: the caller's memory, bound with adcg_exec_bind, only read. All dims constant. Otherwise as an input. */
ADCG_API adcg_status adcg_graph_add_weight(adcg_graph *graph, const char *name, adcg_dtype dtype, int32_t ndim, const adcg_dim *dims,
                                           adcg_value *out_value);

/* Adds a state: the caller's memory, bound with adcg_exec_bind, read and written (KV cache). All dims constant. */
ADCG_API adcg_status adcg_graph_add_state(adcg_graph *graph, const char *name, adcg_dtype dtype, int32_t ndim, const adcg_dim *dims,
                                          adcg_value *out_value);

/* Adds an op. Ops run in the order in which they are added.
 *   op          in: the exact name of a registered op
 *   inputs      in: num_inputs values of this graph
 *   attrs       in: num_attrs attributes, in any order; NULL if none
 *   out_values  out: num_outputs values, as many as the op has; may be the memory of `inputs`
 * Shapes of ops that have an infer function are known afterwards; those of others at freeze.
 * Returns ADCG_ERR_STATE (frozen), ADCG_ERR_NOT_FOUND (no such op), ADCG_ERR_GRAPH (arity, a value that is none, a
 * mutated input that is not a state), ADCG_ERR_ATTRIBUTE, ADCG_ERR_SHAPE, ADCG_ERR_DTYPE, ADCG_ERR_OP (infer failed). */
ADCG_API adcg_status adcg_graph_add_op(adcg_graph *graph, const char *op, const adcg_value *inputs, int32_t num_inputs,
                                       const adcg_attr *attrs, int32_t num_attrs, adcg_value *out_values, int32_t num_outputs);

/* Adds an output: `value` is written into a tensor that the caller provides at each replay, in the order in which
 * outputs are added. Returns ADCG_ERR_STATE (frozen), ADCG_ERR_GRAPH (name taken or empty, no such value). */
ADCG_API adcg_status adcg_graph_add_output(adcg_graph *graph, const char *name, adcg_value value);

/* Ends the building: discovers the shapes that are not known, validates the whole graph and splits it. A failed
 * freeze leaves the graph open for additions. Returns ADCG_ERR_STATE (already frozen), ADCG_ERR_GRAPH (no outputs,
 * unused values), ADCG_ERR_SHAPE, ADCG_ERR_DTYPE, ADCG_ERR_OP (discovery failed). */
ADCG_API adcg_status adcg_graph_freeze(adcg_graph *graph);

/* Finds an input, weight, state or output by name. Returns ADCG_ERR_NOT_FOUND. */
ADCG_API adcg_status adcg_graph_find_value(const adcg_graph *graph, const char *name, adcg_value *out_value);

enum { ADCG_ROLE_INPUT = 1, ADCG_ROLE_WEIGHT = 2, ADCG_ROLE_STATE = 3, ADCG_ROLE_ACTIVATION = 4 };

typedef struct adcg_value_info {
  size_t struct_size;
  const char *name; /* the graph's memory, valid until adcg_graph_destroy */
  int32_t role;     /* ADCG_ROLE_* */
  adcg_type type;   /* ndim 0 while not known */
} adcg_value_info;
/* clang-format off */
#define ADCG_VALUE_INFO_INIT {sizeof(adcg_value_info), NULL, 0, {0, 0, {{0, 0, 0}}}}
/* clang-format on */

/* What a value is. Returns ADCG_ERR_NOT_FOUND for a number that is no value. */
ADCG_API adcg_status adcg_graph_get_value_info(const adcg_graph *graph, adcg_value value, adcg_value_info *out_info);

/* ---- Exec options, forecast, plan ---------------------------------------------------------------------- */

enum {
  ADCG_MODE_NONE = 0, /* every step eager */
  ADCG_MODE_PIECEWISE = 1,
  ADCG_MODE_FULL = 2,              /* one graph where every op's capture support covers the step, else eager */
  ADCG_MODE_FULL_DECODE_ONLY = 3,  /* one graph for uniform decode, else eager */
  ADCG_MODE_FULL_AND_PIECEWISE = 4 /* one graph where it is covered, else piecewise */
};

enum {
  ADCG_CAPTURE_ON_FIRST_USE = 0, /* a step that needs a bucket captures it */
  ADCG_CAPTURE_EXPLICIT = 1      /* only adcg_exec_capture captures; a replay before its first call is ADCG_ERR_STATE */
};

/* Whether all sizes have the same offsets in the arena. Sizes need not grow with the step: the scratch of a split product,
 * or of experts' padded tokens, may be largest at a small one. */
enum {
  ADCG_LAYOUT_FIXED = 0,      /* one set of offsets, from the most that each block needs at any size */
  ADCG_LAYOUT_PER_BUCKET = 1, /* each token bucket has its own offsets in the one arena: a size pays for what it needs itself. An
                                 eager step has those of the bucket that would hold it, and fails if it needs more scratch */
  ADCG_LAYOUT_AUTO = 2        /* per bucket where that makes the arena smaller, else fixed */
};

/* What may not be done elsewhere while a CUDA device captures, as the driver defines it: calls that synchronise or allocate on the
 * thread that captures, on any thread, or nowhere. */
enum { ADCG_CAPTURE_MODE_THREAD_LOCAL = 0, ADCG_CAPTURE_MODE_GLOBAL = 1, ADCG_CAPTURE_MODE_RELAXED = 2 };

typedef struct adcg_exec_options {
  size_t struct_size;
  int32_t mode;                /* ADCG_MODE_*: what the exec may do; the default is FULL_AND_PIECEWISE */
  int32_t capture;             /* ADCG_CAPTURE_ON_FIRST_USE or _EXPLICIT */
  const int64_t *buckets;      /* token counts of piecewise buckets; sorted, deduplicated, capped at max_tokens */
  int32_t num_buckets;         /* 0: 64, 128, ... and max_tokens */
  int32_t num_seq_buckets;     /* 0: 1, 2, 4, 8, ... and max_seqs */
  const int64_t *seq_buckets;  /* sequence counts, of full graphs and of segments behind the token gather */
  int64_t query_len;           /* full graphs of uniform batches with this many tokens a sequence, beside decode; 0 or 1: decode alone */
  int32_t verify;              /* non-zero: every step runs eagerly with its contracts checked; slow */
  int32_t layout;              /* ADCG_LAYOUT_* */
  int64_t plan_nodes;          /* how long a smaller arena is searched for if the first is above its bound: nodes of search trees;
                                  0: 100,000 (tenths of a second), -1: no search. Equal nodes give equal plans */
  double plan_seconds;         /* a limit on the same in seconds; 0: none. With one, plans may differ from machine to machine */
  int32_t capture_mode;        /* ADCG_CAPTURE_MODE_*; the host device has nothing that it could break */
  int32_t batch_invariant;     /* non-zero: on a CUDA device too, the bits of a sequence depend on its own tokens alone, whatever bucket
                                  and batch it runs in; products are slower. On the host device they always do */
} adcg_exec_options;
#define ADCG_EXEC_OPTIONS_INIT     \
  {sizeof(adcg_exec_options),      \
   ADCG_MODE_FULL_AND_PIECEWISE,   \
   ADCG_CAPTURE_ON_FIRST_USE,      \
   NULL,                           \
   0,                              \
   0,                              \
   NULL,                           \
   0,                              \
   0,                              \
   ADCG_LAYOUT_FIXED,              \
   0,                              \
   0.0,                            \
   ADCG_CAPTURE_MODE_THREAD_LOCAL, \
   0}

/* Every byte that an exec will hold, and what its plan compares with. */
typedef struct adcg_forecast {
  size_t struct_size;
  int64_t total_bytes;        /* arena + metadata + tape + graphs */
  int64_t arena_bytes;        /* activations, outputs of dynamic ops, workspaces and staging of all buckets, in one block */
  int64_t metadata_bytes;     /* host memory: the exec's tables */
  int64_t tape_bytes;         /* host memory: the tapes of all buckets */
  int64_t graph_bytes;        /* device memory of the driver's graphs; 0 on the host device */
  int64_t staging_bytes;      /* of the arena: what a step whose tensors are all too short for their bucket needs */
  int64_t workspace_bytes;    /* of the arena: the largest workspace of one op */
  int64_t lower_bound_bytes;  /* the most that is ever live at once: no plan can be smaller */
  int64_t bucket_sum_bytes;   /* what an arena of its own for each token bucket would take at the least, added up */
  int32_t num_buckets;        /* captured sizes, of all kinds */
  int32_t num_segments;       /* static segments that are captured */
  int32_t num_dynamic_ops;    /* partitions that run between them */
} adcg_forecast;
#define ADCG_FORECAST_INIT {sizeof(adcg_forecast), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

/* What an exec with these options will hold, before anything is allocated.
 *   graph         in: frozen
 *   options       in: may be NULL for the defaults
 *   out_forecast  in: its struct_size; out: the rest
 * Returns ADCG_ERR_STATE (not frozen), ADCG_ERR_ARGUMENT (options), ADCG_ERR_OP (a workspace function failed). */
ADCG_API adcg_status adcg_graph_forecast(const adcg_graph *graph, const adcg_exec_options *options, adcg_forecast *out_forecast);

/* Forms of a plan, all UTF-8. JSON has everything, under stable names. Text is for a terminal of 100 columns: a sketch of
 * the arena, and tables. SVG is one self-contained picture, of a few MiB however large the graph: op order across,
 * offsets up, partitions shaded, the peak and the bound marked; pointing at a block names its values, bytes and times. */
enum { ADCG_PLAN_JSON = 1, ADCG_PLAN_TEXT = 2, ADCG_PLAN_SVG = 3 };

/* Writes the plan of an exec with these options: partitions, values with offsets, sizes and lifetimes, the bound and what
 * is live at the peak. Statuses as adcg_graph_forecast; ADCG_ERR_ARGUMENT for an unknown format; ADCG_ERR_CANCELLED if
 * `write` asked to stop. */
ADCG_API adcg_status adcg_graph_write_plan(const adcg_graph *graph, const adcg_exec_options *options, int32_t format, adcg_write_fn write,
                                           void *user_data);

/* ---- Exec ---------------------------------------------------------------------------------------------- */

typedef struct adcg_exec adcg_exec;

/* Plans, checks the plan and allocates the arena. out_exec: the caller's, to be given to adcg_exec_destroy. The exec keeps
 * its graph alive. Several execs of one graph have an arena each and replay in parallel.
 * Returns as adcg_graph_forecast. */
ADCG_API adcg_status adcg_exec_create(const adcg_graph *graph, const adcg_exec_options *options, adcg_exec **out_exec);

/* Frees the exec; waits for a replay that another thread is in. NULL does nothing. */
ADCG_API void adcg_exec_destroy(adcg_exec *exec);

/* Binds a weight or a state to the caller's memory, which must stay valid and in place until the exec is destroyed or the
 * value bound anew. Buckets that are captured follow. The tensor is compact, of the value's dtype and shape.
 * Returns ADCG_ERR_NOT_FOUND (no such value), ADCG_ERR_STATE (neither weight nor state), ADCG_ERR_SHAPE, ADCG_ERR_DTYPE,
 * ADCG_ERR_DEVICE, ADCG_ERR_ADDRESS, ADCG_ERR_BUSY. */
ADCG_API adcg_status adcg_exec_bind(adcg_exec *exec, adcg_value value, const DLTensor *tensor);

/* One captured size. A piecewise bucket is captured in parts: the segments that depend on tokens (tokens > 0, seqs = 0) and
 * those behind the token gather that depend on sequences alone (tokens = 0, seqs > 0). A full graph has both. */
typedef struct adcg_bucket {
  int32_t mode; /* ADCG_MODE_PIECEWISE or ADCG_MODE_FULL */
  int64_t tokens;
  int64_t seqs;
} adcg_bucket;

typedef struct adcg_progress {
  size_t struct_size;
  int32_t index; /* of the bucket that was just done, 0 .. count - 1 */
  int32_t count; /* buckets of this call */
  adcg_bucket bucket;
  adcg_status status; /* not ADCG_OK: this bucket failed and will run eagerly */
} adcg_progress;

/* Called after each bucket; non-zero stops the capturing (ADCG_ERR_CANCELLED; what is captured stays). */
typedef int32_t (*adcg_progress_fn)(const adcg_progress *progress, void *user_data);

/* Captures buckets, in the order given. Those that are captured already are skipped.
 *   buckets   in: num_buckets sizes of this exec (adcg_exec_get_bucket lists them); NULL and 0: all, the largest first
 *   progress  in: may be NULL
 * Every weight and state must be bound. A bucket that fails leaves the others usable and runs eagerly; the call goes on and
 * returns the first failure. Returns ADCG_ERR_NOT_FOUND (not a size of this exec), ADCG_ERR_STATE (something is not bound,
 * or the exec is released),
 * ADCG_ERR_OP (the message names the op that broke the capture), ADCG_ERR_CANCELLED, ADCG_ERR_BUSY. */
ADCG_API adcg_status adcg_exec_capture(adcg_exec *exec, const adcg_bucket *buckets, int32_t num_buckets, adcg_progress_fn progress,
                                       void *user_data);

enum { ADCG_BUCKET_EMPTY = 0, ADCG_BUCKET_CAPTURED = 1, ADCG_BUCKET_FAILED = 2 };

typedef struct adcg_bucket_info {
  size_t struct_size;
  adcg_bucket bucket;
  int32_t state;      /* ADCG_BUCKET_* */
  int32_t num_steps;  /* on its tape, once captured */
  int64_t tape_bytes; /* that it holds, once captured */
  int64_t replays;    /* steps that ran in it */
} adcg_bucket_info;
#define ADCG_BUCKET_INFO_INIT {sizeof(adcg_bucket_info), {0, 0, 0}, 0, 0, 0, 0}

/* Bucket number `index` of this exec. Returns ADCG_ERR_NOT_FOUND beyond the last one: count up from 0 until then.
 * Safe beside a replay; the counters are then a moment's. */
ADCG_API adcg_status adcg_exec_get_bucket(const adcg_exec *exec, int32_t index, adcg_bucket_info *out_info);

/* Why a step did not run as one full graph, or not even piecewise. */
enum {
  ADCG_REASON_NONE = 0,           /* it ran as one full graph */
  ADCG_REASON_MODE = 1,           /* the exec's mode has nothing better for such a step */
  ADCG_REASON_SUPPORT = 2,        /* an op's capture support does not cover this batch */
  ADCG_REASON_TOO_LARGE = 3,      /* larger than the largest bucket */
  ADCG_REASON_NOT_CAPTURED = 4,   /* no bucket that holds it has been captured (explicit capture only) */
  ADCG_REASON_CAPTURE_FAILED = 5, /* its bucket's capture failed */
  ADCG_REASON_EMPTY = 6,          /* the batch is empty: nothing ran */
  ADCG_REASON_VERIFY = 7          /* verify mode runs every step eagerly */
};
#define ADCG_NUM_REASONS 8

/* What a replay did. */
typedef struct adcg_step {
  size_t struct_size;
  int32_t mode;          /* ADCG_MODE_FULL, _PIECEWISE, or _NONE for eager */
  int32_t reason;        /* ADCG_REASON_* */
  int64_t bucket_tokens; /* the size it ran at; eager steps run at the real counts */
  int64_t bucket_seqs;
  int64_t padded_tokens; /* bucket_tokens less the real ones */
  int64_t repointed;     /* tensors of the caller's that had moved since the bucket last ran */
  int64_t staged_bytes;  /* copied because a tensor was too short for the bucket */
} adcg_step;
#define ADCG_STEP_INIT {sizeof(adcg_step), 0, 0, 0, 0, 0, 0, 0}

/* Runs one step.
 *   batch    in: the step's real counts
 *   inputs   in: num_inputs tensors, in the order in which inputs were added; compact
 *   outputs  in: num_outputs tensors to be written, in the order in which outputs were added; compact
 *   stream   in: on a CUDA device the CUstream in whose order the step runs; NULL: the exec's own, a non-blocking one. The default
 *            streams are 1 (legacy) and 2 (of the thread), as in DLPack. NULL on the host device
 *   out_step out: what was done; may be NULL
 * The first dim of each tensor that depends on a count is its capacity in rows, at least the real rows of the step. If it
 * covers the bucket, the tensor is used in place: the rows behind the real ones are lent to the library, which zeroes them in
 * inputs and may write anything there in outputs. If it does not, real rows alone are touched, through a staged copy.
 * Outputs must not overlap inputs, other outputs, weights or states. Enters no lock and allocates nothing, except for a bucket
 * that is captured on first use.
 * Returns ADCG_ERR_BATCH, ADCG_ERR_SHAPE, ADCG_ERR_DTYPE, ADCG_ERR_DEVICE, ADCG_ERR_ADDRESS, ADCG_ERR_STATE (something is not
 * bound, nothing captured, released), ADCG_ERR_OP (the message names the op; states may be partly written), ADCG_ERR_BUSY. */
ADCG_API adcg_status adcg_exec_replay(adcg_exec *exec, const adcg_batch *batch, const DLTensor *inputs, int32_t num_inputs,
                                      const DLTensor *outputs, int32_t num_outputs, void *stream, adcg_step *out_step);

/* Waits until everything that replays enqueued is done. On the host device they are done when they return. A step on a CUDA device
 * that failed in a kernel is reported here, or by whichever call meets it first: ADCG_ERR_DEVICE. */
ADCG_API adcg_status adcg_exec_synchronize(adcg_exec *exec);

/* Order between an exec and streams of the caller's, on the device: neither waits on the host. Steps of one exec are always in order,
 * also where they run on different streams.
 *   adcg_exec_wait_stream  steps from now on run behind everything that is in `stream` now
 *   adcg_stream_wait_exec  what enters `stream` from now on runs behind the exec's last step
 *   stream  in: a CUstream, 1 or 2; NULL on the host device, where there is nothing to order
 * A replay on a stream of the caller's needs neither. Returns ADCG_ERR_DEVICE, ADCG_ERR_BUSY. */
ADCG_API adcg_status adcg_exec_wait_stream(adcg_exec *exec, void *stream);
ADCG_API adcg_status adcg_stream_wait_exec(void *stream, adcg_exec *exec);

/* Gives the arena's memory back to its device, and has it again.
 *   adcg_exec_release  waits until every step is done, and then gives the memory back. Nothing else changes: buckets stay captured,
 *                      values bound, counters as they are, addresses reserved. What an arena holds is of use within a step alone, so
 *                      nothing is lost; states, weights, inputs and outputs are the caller's memory anyway
 *   adcg_exec_restore  puts as much memory as was given back behind the same addresses: steps go on as if nothing had happened, and
 *                      nothing is captured anew. The host device brings pages as steps touch them
 * In between, adcg_exec_replay and adcg_exec_capture are refused (ADCG_ERR_STATE), adcg_stats.arena_bytes is 0, and everything else
 * may be called. Execs that never run at once can so live on memory for the largest of them, by turns:
 *
 *   adcg_exec_release(a); adcg_exec_restore(b);      // and replay b
 *
 * adcg_exec_create reserves addresses, and on a CUDA device little memory: others can be created while one is released.
 * Return ADCG_ERR_STATE (released already; not released), ADCG_ERR_BUSY, ADCG_ERR_DEVICE (release: a step failed, or the memory is
 * locked, as by mlockall, on the host device: the exec is as it was), ADCG_ERR_OUT_OF_MEMORY (restore: the exec stays released, and
 * can be restored later). */
ADCG_API adcg_status adcg_exec_release(adcg_exec *exec);
ADCG_API adcg_status adcg_exec_restore(adcg_exec *exec);

/* Counters since the exec was created, and the bytes that it holds now. */
typedef struct adcg_stats {
  size_t struct_size;
  int64_t steps;                      /* successful replays */
  int64_t failed_steps;               /* replays that returned an error after they had begun to run */
  int64_t full_steps;                 /* by mode */
  int64_t piecewise_steps;
  int64_t eager_steps;
  int64_t reasons[ADCG_NUM_REASONS];  /* steps by ADCG_REASON_* */
  int64_t real_tokens;
  int64_t padded_tokens;
  int64_t repointed;
  int64_t staged_tensors;
  int64_t staged_bytes;
  int64_t captured_buckets;
  int64_t failed_buckets;
  int64_t total_bytes;                /* as in adcg_forecast, held now */
  int64_t arena_bytes;
  int64_t metadata_bytes;
  int64_t tape_bytes;
  int64_t graph_bytes;
} adcg_stats;
#define ADCG_STATS_INIT {sizeof(adcg_stats), 0, 0, 0, 0, 0, {0}, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

/* out_stats: in its struct_size, out the rest. Safe beside a replay; the counters are then a moment's. */
ADCG_API adcg_status adcg_exec_get_stats(const adcg_exec *exec, adcg_stats *out_stats);

/* ---- Memory --------------------------------------------------------------------------------------------- */

/* Memory of an engine's device, for programs that have no other way to it; tensors from anywhere else serve as well.
 *   adcg_memory_alloc  bytes at least 1; aligned to 64 bytes at least, not cleared. Freed with the engine at the latest, once its
 *                      graphs and execs are gone
 *   adcg_memory_free   waits for nothing: no step may still use it. Memory that this engine did not give is ADCG_ERR_ADDRESS
 *   adcg_memory_copy   between memory of the device and the host's, or within either; waits until it is done. It is in no stream's
 *                      order: adcg_exec_synchronize first, to read what a step wrote
 * Concurrent. Return ADCG_ERR_OUT_OF_MEMORY, ADCG_ERR_ADDRESS, ADCG_ERR_DEVICE. */
ADCG_API adcg_status adcg_memory_alloc(adcg_engine *engine, size_t bytes, void **out_memory);
ADCG_API adcg_status adcg_memory_free(adcg_engine *engine, void *memory);
ADCG_API adcg_status adcg_memory_copy(adcg_engine *engine, void *to, const void *from, size_t bytes);

/* ---- Ladders: which buckets ----------------------------------------------------------------------------- */

/* A ladder is a rising list of token buckets, as adcg_exec_options takes one. A step runs in the smallest bucket that holds
 * it, padded to its size; steps above the largest one run eagerly, unpadded. A histogram says what steps there are: entries in
 * any order, those of one size are added up.
 *
 *   adcg_step_count histogram[] = {{1, 900}, {37, 40}, {512, 3}};                     // 900 steps of one token, ...
 *   adcg_ladder_budget budget = ADCG_LADDER_BUDGET_INIT;
 *   budget.max_buckets = 2;
 *   int64_t buckets[2]; int32_t count;
 *   adcg_ladder_choose(histogram, 3, &budget, buckets, 2, &count);
 *   options.buckets = buckets; options.num_buckets = count;
 *
 * These functions have no handle and may run concurrently. Histograms and ladders have at most ADCG_MAX_LADDER entries. */
#define ADCG_MAX_LADDER 16777216

typedef struct adcg_step_count {
  int64_t tokens; /* of one step; 1 .. 2^31 - 1 */
  int64_t steps;  /* that had so many; at least 1. All steps times the largest size: at most 2^60 */
} adcg_step_count;

/* What a ladder may cost, and what a bucket costs. All limits that are given hold at once; a bucket of n tokens costs
 * bytes_per_bucket + n * bytes_per_token, and likewise in time. Nothing is negative. */
typedef struct adcg_ladder_budget {
  size_t struct_size;
  int32_t max_buckets;      /* 0: no limit */
  int32_t allow_eager;      /* non-zero: where the other limits cannot hold the largest steps, the fewest possible run eagerly;
                               0: that is an error */
  int64_t max_tokens;       /* no bucket is larger, and steps above have no say in the choice; 0: no cap */
  int64_t bytes_per_bucket; /* memory of a captured bucket */
  int64_t bytes_per_token;
  int64_t max_bytes;        /* of all buckets; 0: no limit */
  int64_t ns_per_bucket;    /* time to capture a bucket, in nanoseconds */
  int64_t ns_per_token;
  int64_t max_ns;           /* to capture all buckets; 0: no limit */
} adcg_ladder_budget;
#define ADCG_LADDER_BUDGET_INIT {sizeof(adcg_ladder_budget), 0, 0, 0, 0, 0, 0, 0, 0, 0}

/* Chooses the ladder that pads the fewest tokens of the histogram's steps within the budget: exactly, not nearly. Of several it
 * takes one with the fewest buckets, and of those the lexicographically smallest. Every bucket is a size of the histogram.
 *   histogram    in: num_sizes entries, at least one
 *   budget       in: without any limit every size becomes a bucket
 *   out_buckets  out: the ladder, rising; NULL with capacity 0: only the count is wanted. It has at most num_sizes entries, and
 *                at most budget->max_buckets if that is given
 *   capacity     in: entries that out_buckets has room for
 *   out_count    out: buckets of the ladder; on failure 0, and out_buckets is as it was
 * For n distinct sizes and k buckets the time is O(k n log n) where buckets cost the same whatever their size (8,192 sizes, 64
 * buckets: 30 ms). Prices by the token take some tens of times that where sizes are dense, as those of steps are; far more where
 * they lie far apart, and then the call may refuse.
 * Returns ADCG_ERR_ARGUMENT: a size or count out of range; a budget that not one bucket fits into, or (without allow_eager) not
 * the one of the largest step; a max_tokens below every step; a capacity that is too small (the message has the count); or a
 * choice too large to be made exactly: more than 2^25 sizes times buckets, or, with prices by the token, too many ladders that
 * are nearly the best. */
ADCG_API adcg_status adcg_ladder_choose(const adcg_step_count *histogram, int32_t num_sizes, const adcg_ladder_budget *budget,
                                        int64_t *out_buckets, int32_t capacity, int32_t *out_count);

/* One bucket's part of a ladder's cost. */
typedef struct adcg_ladder_bucket {
  int64_t tokens;        /* its size */
  int64_t steps;         /* that run in it */
  int64_t real_tokens;   /* of those steps */
  int64_t padded_tokens; /* its size less the real ones, added up over its steps */
  int64_t bytes;         /* by the prices */
  int64_t ns;
} adcg_ladder_bucket;

/* What a ladder costs on a histogram. */
typedef struct adcg_ladder_totals {
  size_t struct_size;
  int64_t steps;         /* of the whole histogram */
  int64_t real_tokens;   /* likewise */
  int64_t padded_tokens; /* of all buckets */
  int64_t eager_steps;   /* that no bucket holds */
  int64_t eager_tokens;  /* of those steps */
  int64_t bytes;         /* of all buckets, by the prices */
  int64_t ns;            /* to capture all buckets, by the prices */
} adcg_ladder_totals;
#define ADCG_LADDER_TOTALS_INIT {sizeof(adcg_ladder_totals), 0, 0, 0, 0, 0, 0, 0}

/* What any ladder costs on a histogram.
 *   histogram    in: num_sizes entries, at least one
 *   buckets      in: num_buckets sizes, rising strictly, 1 .. 2^31 - 1; NULL and 0: every step is eager
 *   budget       in: its prices count, its limits do not; NULL: buckets cost nothing
 *   out_buckets  out: num_buckets entries, in the order of `buckets`, on failure as it was; may be NULL
 *   out_totals   in: its struct_size; out: the rest, on failure zero
 * Returns ADCG_ERR_ARGUMENT for sizes or counts out of range, buckets that do not rise, and sums beyond 63 bits. */
ADCG_API adcg_status adcg_ladder_cost(const adcg_step_count *histogram, int32_t num_sizes, const int64_t *buckets, int32_t num_buckets,
                                      const adcg_ladder_budget *budget, adcg_ladder_bucket *out_buckets, adcg_ladder_totals *out_totals);

/* The ladder that an engine captures unless told otherwise, to compare with.
 *   name         in: "adcg" (64, 128, ... and max_tokens), "vllm", "sglang" (decode), "sglang_piecewise" (prefill);
 *                piecewise/ladder_named.go says which versions, and their rules
 *   max_tokens   in: of one step
 *   max_seqs     in: of one step; "adcg" and "sglang_piecewise" do not depend on it
 *   out_buckets, capacity, out_count  as in adcg_ladder_choose. The ladder may be empty, and its largest bucket below max_tokens
 * Returns ADCG_ERR_NOT_FOUND (no such name; the message lists them), ADCG_ERR_ARGUMENT (limits below 1 or beyond 2^31 - 1, a
 * capacity that is too small, a ladder of more than 2^20 buckets). */
ADCG_API adcg_status adcg_ladder_named(const char *name, int64_t max_tokens, int64_t max_seqs, int64_t *out_buckets, int32_t capacity,
                                       int32_t *out_count);

/* ---- Small helpers for op callbacks -------------------------------------------------------------------- */

/* The first element of a tensor. */
static inline void *adcg_data(const DLTensor *tensor) { return (char *)tensor->data + tensor->byte_offset; }

/* How many elements a tensor has. */
static inline int64_t adcg_numel(const DLTensor *tensor) {
  int64_t n = 1;
  for (int32_t i = 0; i < tensor->ndim; i++) n *= tensor->shape[i];
  return n;
}

/* Sequences and tokens of a batch, all kinds together. */
static inline int64_t adcg_batch_seqs(const adcg_batch *batch) { return batch->prefill_seqs + batch->extend_seqs + batch->decode_seqs; }
static inline int64_t adcg_batch_tokens(const adcg_batch *batch) {
  return batch->prefill_tokens + batch->extend_tokens + batch->decode_seqs;
}

/* Launches a kernel on the call's stream: return adcg_launch(call, &launch); */
static inline adcg_status adcg_launch(const adcg_op_call *call, const adcg_kernel_launch *launch) {
  return call->launcher->launch(call->launcher, launch);
}

/* Ends a launch with a message: return adcg_op_fail(call, "slot 7 is out of range"); */
static inline adcg_status adcg_op_fail(const adcg_op_call *call, const char *message) {
  call->set_error(message);
  return ADCG_ERR_OP;
}

/* An element type as DLPack writes it, and back (0 if it is none of ours). */
static inline DLDataType adcg_dtype_to_dlpack(adcg_dtype dtype) {
  DLDataType t = {(uint8_t)kDLFloat, 32, 1};
  switch (dtype) {
    case ADCG_F16: t.bits = 16; break;
    case ADCG_BF16:
      t.code = (uint8_t)kDLBfloat;
      t.bits = 16;
      break;
    case ADCG_F8E4M3:
      t.code = (uint8_t)kDLFloat8_e4m3fn;
      t.bits = 8;
      break;
    case ADCG_I32: t.code = (uint8_t)kDLInt; break;
    case ADCG_I64:
      t.code = (uint8_t)kDLInt;
      t.bits = 64;
      break;
    case ADCG_U8:
      t.code = (uint8_t)kDLUInt;
      t.bits = 8;
      break;
    case ADCG_BOOL:
      t.code = (uint8_t)kDLBool;
      t.bits = 8;
      break;
    default: break;
  }
  return t;
}
static inline adcg_dtype adcg_dtype_from_dlpack(DLDataType type) {
  for (adcg_dtype d = ADCG_F32; d <= ADCG_BOOL; d++) {
    DLDataType t = adcg_dtype_to_dlpack(d);
    if (t.code == type.code && t.bits == type.bits && t.lanes == type.lanes) return d;
  }
  return 0;
}

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* ADCG_ADCG_H_ */
