/* The data plane: what a replay runs, without Go.
 *
 * Go plans and writes the tables of a tape_exec once (program.go); from then on replay reads them and writes only
 * the fields that are marked "per step". Nothing here allocates, except for the building of a unit at capture.
 */
#ifndef ADCG_TAPE_TAPE_H_
#define ADCG_TAPE_TAPE_H_

#include <adcg/adcg.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "device.h"

#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

/* ---- Messages, log, process state (process.c) -------------------------------------------------------- */

/* Sets this thread's message, "function: text"; returns `status`. Never fails. */
adcg_status tape_fail(adcg_status status, const char *function, const char *format, ...) __attribute__((format(printf, 3, 4)));
const char *tape_last_error(void);
void tape_set_message(adcg_status status, const char *function, const char *message);
/* The message that an op's callback left for the failure that it is about to return. */
void tape_set_op_error(const char *message);
const char *tape_op_error(void);  /* "" if it left none */
void tape_clear_op_error(void);

/* ADCG_OK, ADCG_ERR_FORKED or ADCG_ERR_POISONED, with the message set. */
adcg_status tape_process_check(const char *function);
/* After an internal fault: every later call fails. */
void tape_poison(void);
/* Registers the fork handler; called once, at load. */
void tape_process_init(void);

void tape_set_log(adcg_log_fn log, int32_t level, void *user_data);
int32_t tape_log_level(void); /* 0: off */
void tape_log(int32_t level, const char *message);

const char *tape_status_name(adcg_status status);

/* ---- The program: tables that Go writes once ------------------------------------------------------------ */

enum { TAPE_ARENA = 1, TAPE_INPUT = 2, TAPE_BOUND = 3, TAPE_OUTPUT = 4 }; /* piecewise.Place */

typedef struct tape_value {
  const char *name;
  adcg_type type;    /* only dims[0] depends on counts */
  int64_t row_bytes; /* of one row: everything behind the first dim */
  int32_t place;     /* TAPE_*: whose memory */
  int32_t index;     /* which block of the arena, input, bound value or output */
  int64_t offset;    /* bytes, in that block or tensor */
  const int64_t *strides; /* per dim, in elements, the last dim's 1; NULL: compact */
  int32_t role;      /* ADCG_ROLE_* */
  int32_t last;      /* the last node that reads it; num_nodes if the caller does; -1: nobody (verify mode) */
} tape_value;

/* Where the arena's blocks lie in the steps of some sizes. */
typedef struct tape_layout {
  int64_t max_tokens;     /* it serves steps up to here that no earlier one serves */
  const int64_t *offsets; /* per block */
  const int64_t *bytes;
} tape_layout;

/* What a built-in op's launch gets as user_data; kernels/host/host.h declares the same two words. */
typedef struct tape_builtin {
  void *context; /* the device's: on the host its thread pool */
  void *state;   /* the node's, made once from its attributes */
} tape_builtin;

typedef struct tape_node {
  const char *name; /* "adcg.linear#3" */
  adcg_op_launch_fn launch;
  adcg_op_workspace_fn workspace; /* may be NULL */
  void *user_data;
  tape_builtin builtin; /* user_data points here for built-in ops */
  const int32_t *inputs;
  const int32_t *outputs;
  const adcg_attr *attrs;
  int32_t num_inputs;
  int32_t num_outputs;
  int32_t num_attrs;
  int32_t partition;
  int32_t dynamic;     /* its outputs' tails are zeroed behind it, unless zeroes_tail */
  int32_t parametric;  /* launches kernels through the launcher alone, the same ones in every step of a size */
  int32_t zeroes_tail;
  int32_t skip;        /* every output only shows an input: nothing to run */
  uint64_t mutates;
  int32_t workspace_block; /* of the arena; -1: none */
} tape_node;

/* Which nodes a unit holds. The first four are piecewise.PartitionKind. */
enum { TAPE_TOKEN_SEGMENT = 1, TAPE_SEQ_SEGMENT = 2, TAPE_DYNAMIC = 3, TAPE_VIEWS = 4, TAPE_ALL = 5 };

typedef struct tape_port { /* an input or an output of the graph */
  const char *name;
  int32_t value;
  int32_t staged;        /* outputs: the value lives in the caller's buffer, or here; 0: it is copied out at the end */
  int32_t staging_block; /* of the arena */
} tape_port;

typedef struct tape_copy { /* an output that is not written in place */
  int32_t value;
  int32_t output;
} tape_copy;

/* ---- Units: bound calls ----------------------------------------------------------------------------------- */

typedef struct tape_step {
  adcg_op_launch_fn run; /* an op's launch, or what runs a captured graph */
  const adcg_op_call *call;
  void *user_data;
} tape_step;

typedef struct tape_patch { /* a tensor whose memory is the caller's */
  DLTensor *tensor;
  int32_t slot;   /* input i: i; output i: num_inputs + i; bound value i: num_inputs + num_outputs + i */
  int32_t unused;
  int64_t offset; /* bytes from the slot's address */
} tape_patch;

typedef struct tape_graph { /* a captured segment, or a captured whole */
  const struct tape_exec *exec;
  tape_executable *executable;
  int32_t first, last; /* nodes that it holds, those between them of its partition too */
} tape_graph;

/* The calls of some partitions at one size, in one block of memory. Steps and calls do not change once it is captured; tensors
 * change their data pointers when the caller's memory moves. The two units that serve every size (eager, dynamic) are resized. */
typedef struct tape_unit {
  int64_t bytes; /* of this block */
  int64_t tokens;
  int64_t seqs;
  const tape_layout *layout; /* of that size */
  int32_t num_steps;
  int32_t num_tensors;
  int32_t num_patches;     /* those of inputs and outputs first, by slot */
  int32_t num_io_patches;
  int32_t num_graphs;
  bool stale;              /* on a device that captures: a bound value has moved; it is captured anew before its next step */
  tape_step *steps;        /* one an op */
  tape_step *runs;         /* what a replay runs: the steps themselves, or once captured on a device one step a graph */
  int32_t *run_begin;      /* [num_partitions + 1]: runs of each partition; `begin` where runs are steps */
  int32_t num_runs;
  int32_t unused;
  tape_step *graph_runs;     /* room for the others, on devices that capture; NULL on the host, as the next three */
  int32_t *graph_begin;
  tape_graph *graphs;
  bool *fixed;               /* per input and output: graphs hold its staging block's address for good */
  adcg_op_call *calls;       /* one a step */
  int32_t *nodes;            /* the node of each step */
  int32_t *begin;            /* [num_partitions + 1]: steps of each partition */
  DLTensor *tensors;
  int32_t *values;           /* the value of each tensor */
  tape_patch *patches;
  int32_t *patch_begin;      /* [num_inputs + num_outputs + 1]: patches of each slot */
  void **seen;               /* per input and output: the address its tensors hold now; NULL before the first step */
  void **held;               /* likewise: the address that its graphs hold; room on devices that capture */
  int64_t bound_generation;  /* of the bound values that its tensors hold */
  void *stream;              /* that its calls have */
} tape_unit;

typedef struct tape_bucket {
  adcg_bucket size;
  _Atomic int32_t state; /* ADCG_BUCKET_* */
  tape_unit *unit;
  _Atomic int64_t replays;
} tape_bucket;

/* Sizes of one sort in rising order, each with its bucket. */
typedef struct tape_ladder {
  const int64_t *sizes;
  const int32_t *buckets;
  int32_t count;
  int32_t last; /* per step: where the last search ended */
} tape_ladder;
enum { TAPE_LADDER_TOKENS, TAPE_LADDER_SEQS, TAPE_LADDER_DECODE, TAPE_LADDER_UNIFORM, TAPE_LADDER_MIXED, TAPE_NUM_LADDERS };

typedef struct tape_counters {
  _Atomic int64_t steps, failed_steps, full_steps, piecewise_steps, eager_steps;
  _Atomic int64_t reasons[ADCG_NUM_REASONS];
  _Atomic int64_t real_tokens, padded_tokens, repointed, staged_tensors, staged_bytes;
} tape_counters;

typedef struct tape_bound { /* a weight or a state */
  void *data; /* NULL until it is bound */
  int64_t bytes;
} tape_bound;

/* What overlap checks found last time for an input or output. */
typedef struct tape_checked {
  const char *data;
  int64_t bytes;
  int64_t bound_generation;
} tape_checked;

/* What a step runs in. Of the buckets, full or the parts are set; -1: none. */
typedef struct tape_route {
  int32_t mode;   /* ADCG_MODE_* */
  int32_t reason; /* ADCG_REASON_* */
  int32_t full, token_part, seq_part;
  int64_t tokens, seqs; /* the size it runs at */
} tape_route;

/* The last step, so that one just like it need not be checked and dispatched again: same counts, same tensors, and nothing
 * bound or captured in between. */
typedef struct tape_memo {
  int64_t generation; /* of the exec when the step ended well; 0: no memo */
  tape_route route;
  void *stream;
  bool plain;     /* all tensors were used in place, without tails: nothing to bring or to give */
  DLTensor *ports; /* [num_inputs + num_outputs]: as they were; shape and strides are not kept here */
  int64_t *rows;   /* likewise: their first dims */
} tape_memo;

typedef struct tape_exec {
  /* written once */
  int64_t program_bytes; /* of the block that holds this struct and every table below */
  int64_t max_tokens, max_seqs, max_seq_len;
  int32_t mode;    /* ADCG_MODE_* */
  int32_t policy;  /* ADCG_CAPTURE_ON_FIRST_USE, _EXPLICIT */
  int32_t verify;
  int64_t query_len;
  DLDevice device;
  const tape_device *on;
  int32_t capture_mode; /* ADCG_CAPTURE_MODE_* */
  char *arena;
  int64_t arena_bytes;  /* of the plan */
  adcg_batch *device_batch; /* `batch` in the device's memory, for ops; NULL on the host */
  adcg_launcher launcher;   /* of every call; its launch is NULL on the host */
  int32_t num_values, num_nodes, num_inputs, num_outputs, num_bound, num_copies, num_partitions, num_buckets, num_layouts;
  const tape_value *values;
  const tape_node *nodes;
  const tape_port *inputs;
  const tape_port *outputs;
  const int32_t *bound_values; /* the value of each bound one */
  const tape_copy *copies;
  const int32_t *partitions; /* the kind of each: TAPE_* */
  const tape_layout *layouts; /* by rising max_tokens; the last one's is the exec's */
  tape_bucket *buckets;
  tape_ladder ladders[TAPE_NUM_LADDERS];

  /* written by control calls under `busy` */
  tape_bound *bound;
  int32_t num_unbound;
  int32_t capture_called;
  int64_t bound_generation; /* rises with every bind */
  int64_t generation;       /* rises with every control call; from 1 */
  bool released;            /* the arena's memory is given back: nothing may run */
  tape_unit *eager;         /* every node, at any size */
  tape_unit *dynamic;       /* dynamic partitions, at any size */
  _Atomic int64_t arena_held; /* what has memory behind it, from the start */
  int64_t arena_wanted;     /* with TAPE_WANT_MEMORY: what the step needs */
  int64_t fits_tokens, fits_seqs; /* a size that is known to fit into what is held */
  void *own_stream;         /* NULL on the host, as all that follow */
  void *mark;               /* the end of the last step, in its stream */
  tape_executable *capturing; /* what launches are recorded in; NULL but during a capture */
  _Atomic int64_t graph_bytes; /* of all executables */

  /* per step */
  _Atomic int32_t busy;
  adcg_batch batch; /* what calls point at */
  int64_t real_tokens, real_seqs;
  adcg_batch given;      /* what device_batch holds, or will when the stream gets there */
  void *stream;          /* where this step runs */
  void *marked_stream;   /* where the last one ran */
  bool marked;           /* there was one */
  void **slots;          /* [num_inputs + num_outputs]: the addresses of this step */
  int64_t *moved;        /* likewise: the step at which each was last found moved */
  tape_checked *checked; /* likewise */
  uint64_t *verify_hashes;   /* [num_values], only of verify execs */
  int32_t *verify_producers; /* likewise */
  char *verify_scratch;      /* host memory for one value; NULL on the host device */
  tape_memo memo;
  tape_counters counters;
} tape_exec;

/* ---- Building (unit.c) -------------------------------------------------------------------------------------- */

static inline int64_t tape_rows(const tape_value *value, int64_t tokens, int64_t seqs) {
  const adcg_dim *d = &value->type.dims[0];
  return d->tokens * tokens + d->seqs * seqs + d->constant;
}

/* Bytes from a value's first to its last one, of `rows` rows. */
static inline int64_t tape_span(const tape_value *value, int64_t rows) {
  if (rows <= 0) return 0;
  if (!value->strides || !value->row_bytes) return rows * value->row_bytes;
  int64_t elements = 1, last = (rows - 1) * value->strides[0];
  for (int32_t d = 1; d < value->type.ndim; d++) {
    elements *= value->type.dims[d].constant;
    last += (value->type.dims[d].constant - 1) * value->strides[d];
  }
  return (last + 1) * (value->row_bytes / elements);
}

/* Rows of a step that count; never negative. */
static inline int64_t tape_real_rows(const tape_exec *exec, const tape_value *value) {
  int64_t rows = tape_rows(value, exec->real_tokens, exec->real_seqs);
  return rows < 0 ? 0 : rows;
}

/* The layout of a step's size. */
static inline const tape_layout *tape_layout_of(const tape_exec *exec, int64_t tokens) {
  int32_t low = 0, high = exec->num_layouts - 1;
  while (low < high) {
    int32_t middle = low + (high - low) / 2;
    if (exec->layouts[middle].max_tokens < tokens)
      low = middle + 1;
    else
      high = middle;
  }
  return &exec->layouts[low];
}

/* The bytes of a unit with the partitions of `kind` (TAPE_*), of any size. */
int64_t tape_unit_bytes(const tape_exec *exec, int32_t kind);
/* Of a captured one, for whose graphs there is room on devices that capture; NULL if out of memory. */
tape_unit *tape_unit_create(tape_exec *exec, int32_t kind, int64_t tokens, int64_t seqs);
/* Sets the size of every tensor and call. */
void tape_unit_resize(const tape_exec *exec, tape_unit *unit, int64_t tokens, int64_t seqs);
/* Points the unit's tensors and graphs at this step's addresses, and its tensors at the bound values; returns how many slots had moved. */
int64_t tape_unit_point(tape_exec *exec, tape_unit *unit);
void tape_unit_point_bound(const tape_exec *exec, tape_unit *unit);
/* Points the unit's graphs at the address of a slot that its tensors hold. */
void tape_unit_point_graphs(const tape_exec *exec, tape_unit *unit, int32_t slot);
/* The stream of every call. */
void tape_unit_stream(tape_unit *unit, void *stream);
/* Gives the graphs back; the unit then runs its steps. The device is this thread's. */
void tape_unit_drop_graphs(tape_exec *exec, tape_unit *unit);
void tape_unit_free(tape_exec *exec, tape_unit *unit);
/* Whether the arena holds what a step of this size needs; if not, exec->arena_wanted says how much that is. */
bool tape_fits(tape_exec *exec, int64_t tokens, int64_t seqs);
/* Which partitions a bucket holds. */
int32_t tape_bucket_kind(const adcg_bucket *size);
static inline void *tape_pointer(uintptr_t address) { return (void *)address; }

/* ---- Parts of a step (step.c, dispatch.c, ports.c) ------------------------------------------------------------------ */

/* Adds to a counter. One writer at a time (`busy`): readers see a moment's value, and no locked instruction is needed. */
static inline void tape_count(_Atomic int64_t *counter, int64_t n) {
  atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n, memory_order_relaxed);
}

/* Calls fn on the bytes of one row of a value that begins at `data`, run by run of contiguous ones, in order. */
void tape_each_run(const tape_value *value, char *data, int64_t row, void (*fn)(char *run, int64_t bytes, void *context), void *context);
/* The step that a dynamic op runs as: launch, then zeroed tails. user_data is its tape_node. */
adcg_status tape_run_dynamic(const adcg_op_call *call, void *user_data);
/* The run that launches a captured graph; user_data is its tape_graph, `call` the first of its segment. */
adcg_status tape_run_graph(const adcg_op_call *call, void *user_data);
/* "op `my.scale#1`: message": what a failed step says. */
adcg_status tape_fail_step(const tape_exec *exec, const char *function, const tape_unit *unit, const tape_step *step, adcg_status status);

/* Checks a batch, copies it into the exec, where the calls point, and adds it up. */
adcg_status tape_take_batch(tape_exec *exec, const adcg_batch *batch);
/* Chooses: the smallest full graph that covers the batch, else the smallest parts, else eager. */
tape_route tape_dispatch(tape_exec *exec);

/* Checks a tensor of the caller's against a value: device, dtype, rank, dims behind the first, compactness, alignment.
 * `min_rows`: rows it must have at least, or exactly if `exact`. `what` is "inputs[0]" and so on. */
adcg_status tape_check_tensor(const tape_exec *exec, const char *function, const char *what, const tape_value *value,
                              const DLTensor *tensor, int64_t min_rows, bool exact);
adcg_status tape_check_tensors(tape_exec *exec, const DLTensor *inputs, const DLTensor *outputs);
/* Refuses tensors whose written rows overlap what the step reads or writes elsewhere. */
adcg_status tape_check_overlaps(tape_exec *exec, const DLTensor *inputs, const DLTensor *outputs, const tape_route *r);
/* Decides for each tensor where it is used (exec->slots), and brings inputs to the bucket's size. On failure the message is set. */
adcg_status tape_take_tensors(tape_exec *exec, const DLTensor *inputs, const DLTensor *outputs, const tape_route *r, adcg_step *step);
/* Copies the real rows of outputs that were staged, or that live elsewhere. */
adcg_status tape_give_outputs(const tape_exec *exec, const DLTensor *outputs, int64_t tokens, adcg_step *step);

/* Whether every op of the unit has workspace enough at its size, for which nobody may have planned. */
adcg_status tape_check_workspaces(const tape_exec *exec, const char *function, const tape_unit *unit);

/* ---- Devices (device.c) ------------------------------------------------------------------------------------------- */

/* A failure of the device's, with the message that it left: "function: what: message". */
adcg_status tape_fail_device(adcg_status status, const char *function, const char *what);
/* Makes the device this thread's; the message is set. */
adcg_status tape_enter(const tape_device *device, const char *function, void **was);
void tape_leave(const tape_device *device, void *was);
/* The stream and mark of an exec; close waits for the last step. The device is this thread's. */
adcg_status tape_open_streams(tape_exec *exec);
void tape_close_streams(tape_exec *exec);
/* Of the numbers that stand for streams, as in DLPack, the one that means another stream on each thread. */
enum { TAPE_STREAM_PER_THREAD = 2 };
/* Around a step: the stream that it runs on, behind the one before; its counts in the device's memory; its end. */
adcg_status tape_take_stream(tape_exec *exec, void *stream);
adcg_status tape_give_batch(tape_exec *exec);
adcg_status tape_mark(tape_exec *exec);
/* adcg_exec_synchronize (and whoever else waits for the last step), adcg_exec_wait_stream, adcg_stream_wait_exec; the caller holds the exec. */
adcg_status tape_synchronize(tape_exec *exec, const char *function);
adcg_status tape_order(tape_exec *exec, const char *function, void *stream, bool exec_waits);

/* ---- Running (replay.c, capture.c, verify.c) ------------------------------------------------------------------- */

/* Beside ADCG_*: this bucket must be captured before the step can run; *out_bucket says which. */
#define TAPE_WANT_BUCKET (-1)
/* Likewise: exec->arena_wanted bytes of the arena must be held before the step can run. */
#define TAPE_WANT_MEMORY (-2)

/* What a released exec says to whoever would run something; ADCG_OK if it is not. */
adcg_status tape_check_held(const tape_exec *exec, const char *function);

bool tape_acquire(tape_exec *exec);
void tape_release(tape_exec *exec);

/* adcg_exec_replay; the caller holds the exec. */
adcg_status tape_replay(tape_exec *exec, const adcg_batch *batch, const DLTensor *inputs, int32_t num_inputs, const DLTensor *outputs,
                        int32_t num_outputs, void *stream, adcg_step *out_step, int32_t *out_bucket);

/* Warms up and captures one bucket, or captures it anew; the caller holds the exec. On failure the bucket is ADCG_BUCKET_FAILED.
 * TAPE_WANT_MEMORY: as in tape_replay. */
adcg_status tape_capture(tape_exec *exec, int32_t bucket);
/* Records the graphs of a unit, whose tensors lie in the staging blocks, and tries them (record.c). On failure it has none. */
adcg_status tape_record(tape_exec *exec, tape_unit *unit, int32_t kind);

/* Runs `unit` whole with the contracts of every op checked; the exec's slots and batch are set. */
adcg_status tape_verify_run(tape_exec *exec, tape_unit *unit);

/* Binds or re-binds one weight or state (index among the bound ones); the caller holds the exec. */
adcg_status tape_bind(tape_exec *exec, int32_t index, const DLTensor *tensor);

void tape_read_bucket(const tape_bucket *bucket, adcg_bucket_info *out);
void tape_read_stats(const tape_exec *exec, adcg_stats *out);

/* Frees the units, stream and mark; the arena, the nodes' states and this block are Go's to free. */
void tape_exec_clear(tape_exec *exec);

#endif /* ADCG_TAPE_TAPE_H_ */
