/* The caller's tensors: whether they fit, where they are used, and what is copied in and out. */
#include "tape.h"

#include <stdio.h>
#include <string.h>

static const char kReplay[] = "adcg_exec_replay";

adcg_status tape_check_tensor(const tape_exec *exec, const char *function, const char *what, const tape_value *value,
                              const DLTensor *tensor, int64_t min_rows, bool exact) {
  const adcg_type *type = &value->type;
  DLDataType want = adcg_dtype_to_dlpack(type->dtype);
  if (UNLIKELY(tensor->device.device_type != exec->device.device_type || tensor->device.device_id != exec->device.device_id))
    return tape_fail(ADCG_ERR_DEVICE, function, "%s `%s`: device type %d number %d, needs type %d number %d", what, value->name,
                     (int)tensor->device.device_type, (int)tensor->device.device_id, (int)exec->device.device_type,
                     (int)exec->device.device_id);
  if (UNLIKELY(tensor->dtype.code != want.code || tensor->dtype.bits != want.bits || tensor->dtype.lanes != want.lanes))
    return tape_fail(ADCG_ERR_DTYPE, function, "%s `%s`: DLPack dtype (code %d, %d bits, %d lanes), needs (code %d, %d bits, 1 lane)", what,
                     value->name, tensor->dtype.code, tensor->dtype.bits, tensor->dtype.lanes, want.code, want.bits);
  if (UNLIKELY(tensor->ndim != type->ndim))
    return tape_fail(ADCG_ERR_SHAPE, function, "%s `%s`: %d dims, needs %d", what, value->name, (int)tensor->ndim, (int)type->ndim);
  if (UNLIKELY(!tensor->shape)) return tape_fail(ADCG_ERR_SHAPE, function, "%s `%s`: shape: NULL", what, value->name);
  int64_t rows = tensor->shape[0];
  if (UNLIKELY(rows < min_rows || (exact && rows != min_rows)))
    return tape_fail(ADCG_ERR_SHAPE, function, "%s `%s`: %lld rows, needs %s%lld", what, value->name, (long long)rows,
                     exact ? "" : "at least ", (long long)min_rows);
  for (int32_t d = 1; d < type->ndim; d++)
    if (UNLIKELY(tensor->shape[d] != type->dims[d].constant))
      return tape_fail(ADCG_ERR_SHAPE, function, "%s `%s`: dim %d is %lld, needs %lld", what, value->name, (int)d,
                       (long long)tensor->shape[d], (long long)type->dims[d].constant);
  if (tensor->strides) {
    int64_t step = 1;
    for (int32_t d = type->ndim - 1; d >= 0; d--) {
      if (UNLIKELY(tensor->shape[d] > 1 && tensor->strides[d] != step))
        return tape_fail(ADCG_ERR_SHAPE, function, "%s `%s`: not contiguous: stride %lld in dim %d, needs %lld", what, value->name,
                         (long long)tensor->strides[d], (int)d, (long long)step);
      step *= tensor->shape[d];
    }
  }
  uintptr_t address = (uintptr_t)tensor->data + tensor->byte_offset;
  if (UNLIKELY(!tensor->data && rows > 0)) return tape_fail(ADCG_ERR_ADDRESS, function, "%s `%s`: data: NULL", what, value->name);
  if (UNLIKELY(address & ((uintptr_t)want.bits / 8 - 1)))
    return tape_fail(ADCG_ERR_ADDRESS, function, "%s `%s`: data: %p is not a multiple of the element size %d", what, value->name,
                     (void *)address, want.bits / 8);
  return ADCG_OK;
}

static bool overlap(const char *a, int64_t a_bytes, const char *b, int64_t b_bytes) {
  return (uintptr_t)a < (uintptr_t)b + (uintptr_t)b_bytes && (uintptr_t)b < (uintptr_t)a + (uintptr_t)a_bytes;
}

/* What the step touches of one of the caller's tensors. */
typedef struct span {
  const char *data;
  int64_t bytes;      /* that are read or written */
  int64_t real_bytes; /* of those, the caller's own rows */
} span;

static span touched(const tape_exec *exec, const tape_port *port, const DLTensor *tensor, const tape_route *r) {
  const tape_value *value = &exec->values[port->value];
  int64_t rows = tape_rows(value, r->tokens, r->seqs), real = tape_rows(value, exec->real_tokens, exec->real_seqs);
  bool in_place = port->staged && tensor->shape[0] >= rows;
  return (span){adcg_data(tensor), (in_place ? rows : real) * value->row_bytes, real * value->row_bytes};
}

/* Outputs must not overlap anything, and the tails that the engine zeroes in inputs nothing that counts. Bound values are
 * compared only when an address or one of them has changed. */
adcg_status tape_check_overlaps(tape_exec *exec, const DLTensor *inputs, const DLTensor *outputs, const tape_route *r) {
  int32_t ni = exec->num_inputs, no = exec->num_outputs;
  for (int32_t i = 0; i < ni + no; i++) {
    bool output = i >= ni;
    const tape_port *port = output ? &exec->outputs[i - ni] : &exec->inputs[i];
    span mine = touched(exec, port, output ? &outputs[i - ni] : &inputs[i], r);
    const char *write = output ? mine.data : mine.data + mine.real_bytes; /* what the step writes of it */
    int64_t write_bytes = output ? mine.bytes : mine.bytes - mine.real_bytes;
    const char *what = output ? "outputs" : "inputs";
    int32_t number = output ? i - ni : i;
    if (write_bytes > 0) {
      for (int32_t k = 0; k < ni; k++) {
        if (k == i) continue;
        span other = touched(exec, &exec->inputs[k], &inputs[k], r);
        if (UNLIKELY(overlap(write, write_bytes, other.data, output ? other.bytes : other.real_bytes)))
          return tape_fail(ADCG_ERR_ADDRESS, kReplay, "%s[%d] `%s`: rows that the step writes overlap inputs[%d] `%s`", what, (int)number,
                           port->name, (int)k, exec->inputs[k].name);
      }
    }
    if (output) {
      for (int32_t k = 0; k < number; k++) {
        span other = touched(exec, &exec->outputs[k], &outputs[k], r);
        if (UNLIKELY(overlap(write, write_bytes, other.data, other.bytes)))
          return tape_fail(ADCG_ERR_ADDRESS, kReplay, "outputs[%d] `%s`: overlaps outputs[%d] `%s`", (int)number, port->name, (int)k,
                           exec->outputs[k].name);
      }
    }
    tape_checked *seen = &exec->checked[i];
    if (LIKELY(seen->data == mine.data && seen->bytes >= mine.bytes && seen->bound_generation == exec->bound_generation)) continue;
    for (int32_t b = 0; b < exec->num_bound; b++) {
      const tape_value *value = &exec->values[exec->bound_values[b]];
      /* a weight is only read: an input may share memory with it, as long as no tail is zeroed there */
      bool harmless = !output && value->role == ADCG_ROLE_WEIGHT && write_bytes <= 0;
      if (UNLIKELY(!harmless && overlap(mine.data, mine.bytes, exec->bound[b].data, exec->bound[b].bytes)))
        return tape_fail(ADCG_ERR_ADDRESS, kReplay, "%s[%d] `%s`: overlaps the bound value `%s`", what, (int)number, port->name,
                         value->name);
    }
    *seen = (tape_checked){mine.data, mine.bytes, exec->bound_generation};
  }
  return ADCG_OK;
}

/* Whether a first dim depends on no count: then it is exact. */
static bool is_fixed(const tape_value *value) { return !value->type.dims[0].tokens && !value->type.dims[0].seqs; }

adcg_status tape_check_tensors(tape_exec *exec, const DLTensor *inputs, const DLTensor *outputs) {
  char what[32];
  for (int32_t i = 0; i < exec->num_inputs + exec->num_outputs; i++) {
    bool output = i >= exec->num_inputs;
    int32_t number = output ? i - exec->num_inputs : i;
    const tape_value *value = &exec->values[output ? exec->outputs[number].value : exec->inputs[number].value];
    const DLTensor *tensor = output ? &outputs[number] : &inputs[number];
    int64_t real = tape_rows(value, exec->real_tokens, exec->real_seqs);
    adcg_status status = tape_check_tensor(exec, kReplay, "", value, tensor, real, is_fixed(value));
    if (UNLIKELY(status)) { /* once more, with a name */
      tape_value named = *value;
      named.name = output ? exec->outputs[number].name : value->name;
      snprintf(what, sizeof what, "%s[%d]", output ? "outputs" : "inputs", (int)number);
      return tape_check_tensor(exec, kReplay, what, &named, tensor, real, is_fixed(value));
    }
  }
  return ADCG_OK;
}

static adcg_status fail_port(adcg_status status, const char *what, int32_t number, const char *name) {
  char where[256];
  snprintf(where, sizeof where, "copy of %s[%d] `%s`", what, (int)number, name);
  return tape_fail_device(status, kReplay, where);
}

/* Whether graphs of the route hold a slot's staging block for good. */
static bool is_staged_for_good(const tape_exec *exec, const tape_route *r, int32_t slot) {
  const int32_t buckets[] = {r->full, r->token_part, r->seq_part};
  for (int32_t i = 0; i < 3; i++) {
    const tape_unit *unit = buckets[i] >= 0 ? exec->buckets[buckets[i]].unit : NULL;
    if (unit && unit->fixed && unit->fixed[slot]) return true;
  }
  return false;
}

static adcg_status take_input(const tape_exec *exec, int32_t i, const DLTensor *tensor, const tape_route *r, const int64_t *offsets,
                              adcg_step *step) {
  const tape_device *on = exec->on;
  const tape_value *value = &exec->values[exec->inputs[i].value];
  int64_t rows = tape_rows(value, r->tokens, r->seqs), real = tape_rows(value, exec->real_tokens, exec->real_seqs);
  char *data = adcg_data(tensor);
  adcg_status status = ADCG_OK;
  exec->slots[i] = data;
  if (tensor->shape[0] < rows || is_staged_for_good(exec, r, i)) {
    exec->slots[i] = exec->arena + offsets[exec->inputs[i].staging_block];
    if (real > 0) status = on->copy(on, exec->stream, exec->slots[i], data, (size_t)(real * value->row_bytes));
    step->staged_bytes += real * value->row_bytes;
  }
  if (LIKELY(!status) && rows > real)
    status = on->fill(on, exec->stream, (char *)exec->slots[i] + real * value->row_bytes, 0, (size_t)((rows - real) * value->row_bytes));
  return LIKELY(!status) ? ADCG_OK : fail_port(status, "inputs", i, value->name);
}

adcg_status tape_take_tensors(tape_exec *exec, const DLTensor *inputs, const DLTensor *outputs, const tape_route *r, adcg_step *step) {
  int64_t staged_tensors = 0;
  const int64_t *offsets = tape_layout_of(exec, r->tokens)->offsets;
  for (int32_t i = 0; i < exec->num_inputs; i++) {
    adcg_status status = take_input(exec, i, &inputs[i], r, offsets, step);
    if (UNLIKELY(status)) return status;
    staged_tensors += exec->slots[i] != adcg_data(&inputs[i]);
  }
  for (int32_t i = 0; i < exec->num_outputs; i++) {
    const tape_port *port = &exec->outputs[i];
    const tape_value *value = &exec->values[port->value];
    bool in_place = !port->staged ||
                    (outputs[i].shape[0] >= tape_rows(value, r->tokens, r->seqs) && !is_staged_for_good(exec, r, exec->num_inputs + i));
    exec->slots[exec->num_inputs + i] = in_place ? adcg_data(&outputs[i]) : exec->arena + offsets[port->staging_block];
    staged_tensors += !in_place;
  }
  if (staged_tensors) tape_count(&exec->counters.staged_tensors, staged_tensors);
  return ADCG_OK;
}

/* The address of a value's first row, in this step. */
static const char *address_of(const tape_exec *exec, const tape_value *value, const tape_layout *layout) {
  switch (value->place) {
    case TAPE_INPUT: return (char *)exec->slots[value->index] + value->offset;
    case TAPE_OUTPUT: return (char *)exec->slots[exec->num_inputs + value->index] + value->offset;
    case TAPE_BOUND: return (char *)exec->bound[value->index].data + value->offset;
    default: return exec->arena + layout->offsets[value->index] + value->offset;
  }
}

adcg_status tape_give_outputs(const tape_exec *exec, const DLTensor *outputs, int64_t tokens, adcg_step *step) {
  const tape_device *on = exec->on;
  for (int32_t i = 0; i < exec->num_outputs; i++) {
    const char *at = exec->slots[exec->num_inputs + i];
    char *data = adcg_data(&outputs[i]);
    if (LIKELY(at == data)) continue;
    const tape_value *value = &exec->values[exec->outputs[i].value];
    int64_t bytes = tape_rows(value, exec->real_tokens, exec->real_seqs) * value->row_bytes;
    adcg_status status = bytes > 0 ? on->copy(on, exec->stream, data, at, (size_t)bytes) : ADCG_OK;
    if (UNLIKELY(status)) return fail_port(status, "outputs", i, exec->outputs[i].name);
    step->staged_bytes += bytes;
  }
  const tape_layout *layout = exec->num_copies ? tape_layout_of(exec, tokens) : NULL;
  for (int32_t i = 0; i < exec->num_copies; i++) {
    const tape_copy *copy = &exec->copies[i];
    const tape_value *value = &exec->values[copy->value];
    int64_t bytes = tape_rows(value, exec->real_tokens, exec->real_seqs) * value->row_bytes;
    adcg_status status =
        bytes > 0 ? on->copy(on, exec->stream, adcg_data(&outputs[copy->output]), address_of(exec, value, layout), (size_t)bytes) : ADCG_OK;
    if (UNLIKELY(status)) return fail_port(status, "outputs", copy->output, exec->outputs[copy->output].name);
  }
  return ADCG_OK;
}
