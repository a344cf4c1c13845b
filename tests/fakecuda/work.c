/* Deferred work. A stream holds what was asked of it and runs it only when a call has to know: a synchronisation runs all that the
 * waited-for item comes after and nothing else, so that work of other streams that nobody ordered is still undone. Time is virtual: a
 * call takes a microsecond, work at least four; a query sees a piece of work as over once its time has passed, and each further query in
 * a row lets twice as much time pass, so that a polling host ends soon and gets the same answers in every run. */
#include <stdlib.h>
#include <string.h>

#include "state.h"

enum { LATENCY = 4000 }; /* ns, the least that work takes */

fc_payload *fc_payload_new(int type, fc_context *context) {
  fc_payload *payload = calloc(1, sizeof *payload);
  if (!payload) return NULL;
  payload->refs = 1;
  payload->type = type;
  payload->context = context;
  return payload;
}

fc_payload *fc_payload_keep(fc_payload *payload) {
  if (payload) payload->refs++;
  return payload;
}

void fc_payload_drop(fc_payload *payload) {
  if (!payload || --payload->refs) return;
  fc_body_drop(payload->k.body);
  free(payload->k.packed);
  free(payload->staged);
  free(payload);
}

CUresult fc_payload_run(fc_payload *payload, uint64_t *duration) {
  *duration = LATENCY;
  switch (payload->type) {
    case CU_GRAPH_NODE_TYPE_KERNEL: return fc_kernel_run(payload, duration);
    case CU_GRAPH_NODE_TYPE_MEMCPY: *duration += payload->copy.WidthInBytes / 64; return fc_copy_run(payload);
    case CU_GRAPH_NODE_TYPE_MEMSET: *duration += payload->set.width * payload->set.elementSize / 64; return fc_set_run(payload);
    case CU_GRAPH_NODE_TYPE_HOST: payload->host.fn(payload->host.userData); return CUDA_SUCCESS;
    case CU_GRAPH_NODE_TYPE_MEM_ALLOC:
      return fc_region_expose(payload->address, payload->bytes, true, true) ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
    case CU_GRAPH_NODE_TYPE_MEM_FREE: {
      fc_region *region = fc_region_at(payload->address);
      if (!region) return CUDA_ERROR_ILLEGAL_ADDRESS;
      if (region->kind == FC_GRAPH_ALLOC)
        fc_region_expose(region->base, region->size, false, false);
      else
        fc_region_free(region);
      return CUDA_SUCCESS;
    }
    default: *duration = 0; return CUDA_SUCCESS;
  }
}

/* ---- Items --------------------------------------------------------------------------------------------------------------------- */

static void item_empty(fc_item *item) {
  for (size_t i = 0; i < item->num_after; i++) fc_item_drop(item->after[i]);
  for (size_t i = 0; i < item->num_payloads; i++) fc_payload_drop(item->payloads[i]);
  free(item->after);
  free(item->payloads);
  item->after = NULL;
  item->payloads = NULL;
  item->num_after = item->num_payloads = 0;
}

void fc_item_drop(fc_item *item) {
  if (!item || --item->refs) return;
  item_empty(item);
  free(item);
}

static bool add_after(fc_item *item, fc_item *before) {
  if (!before) return true;
  fc_item **grown = realloc(item->after, (item->num_after + 1) * sizeof *grown);
  if (!grown) return false;
  item->after = grown;
  grown[item->num_after++] = before;
  before->refs++;
  return true;
}

/* The legacy stream and the blocking streams of its context wait for each other. */
static bool add_implicit(fc_item *item, fc_stream *stream) {
  fc_context *context = stream->context;
  if (!fc_stream_blocking(stream)) return true;
  if (stream != context->legacy) return add_after(item, context->legacy->last);
  for (fc_stream *other = context->streams; other; other = other->sibling) {
    if (other != stream && fc_stream_blocking(other) && !add_after(item, other->last)) return false;
  }
  return true;
}

CUresult fc_enqueue(fc_stream *stream, fc_payload **payloads, size_t count, fc_item *const *after, size_t num_after, fc_item **out) {
  fc_item *item = calloc(1, sizeof *item);
  bool ok = item != NULL;
  if (ok && count) {
    item->payloads = malloc(count * sizeof *payloads);
    ok = item->payloads != NULL;
  }
  if (ok) {
    item->refs = 1;
    item->stream = stream;
    item->enqueued = fc.now;
    for (size_t i = 0; i < num_after && ok; i++) ok = add_after(item, after[i]);
    ok = ok && add_implicit(item, stream);
  }
  if (!ok) {
    for (size_t i = 0; i < count; i++) fc_payload_drop(payloads[i]);
    if (item) fc_item_drop(item);
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  for (size_t i = 0; i < count; i++) item->payloads[i] = payloads[i];
  item->num_payloads = count;
  if (stream->last)
    stream->last->next = item;
  else
    stream->first = item;
  stream->last = item;
  if (out) {
    item->refs++;
    *out = item;
  }
  return CUDA_SUCCESS;
}

/* ---- Running ------------------------------------------------------------------------------------------------------------------- */

/* Everything before it has run. A context that has faulted runs nothing any more. */
static void run_now(fc_item *item) {
  fc_stream *stream = item->stream;
  uint64_t start = item->enqueued > stream->ended ? item->enqueued : stream->ended;
  for (size_t i = 0; i < item->num_after; i++) {
    if (item->after[i]->end > start) start = item->after[i]->end;
  }
  item->start = item->end = start;
  for (size_t i = 0; i < item->num_payloads && !stream->context->fault; i++) {
    uint64_t duration;
    CUresult status = fc_payload_run(item->payloads[i], &duration);
    item->end += duration;
    if (status) fc_context_fault(stream->context, status);
  }
  item->done = true;
  stream->ended = item->end;
  item_empty(item);
}

static void run(fc_item *item) {
  if (item->done) return;
  for (fc_item *before = item->stream->first; before; before = before->next) {
    if (!before->done) {
      for (size_t i = 0; i < before->num_after; i++) run(before->after[i]);
      run_now(before);
    }
    if (before == item) return;
  }
}

static void collect(fc_stream *stream) {
  while (stream->first && stream->first->done && stream->first->end <= fc.now) {
    fc_item *over = stream->first;
    stream->first = over->next;
    if (!stream->first) stream->last = NULL;
    over->next = NULL;
    fc_item_drop(over);
  }
}

CUresult fc_finish(fc_item *item) {
  fc_context *context = item->stream->context;
  run(item);
  if (item->end > fc.now) fc.now = item->end;
  collect(item->stream);
  return context->fault;
}

CUresult fc_finish_stream(fc_stream *stream) { return stream->last ? fc_finish(stream->last) : stream->context->fault; }

CUresult fc_finish_context(fc_context *context) {
  for (fc_stream *stream = context->streams; stream; stream = stream->sibling) fc_finish_stream(stream);
  return context->fault;
}

/* Runs what could have begun and taken its least time by now. */
bool fc_poll(fc_item *item) {
  if (item->done) return item->end <= fc.now;
  for (fc_item *at = item->stream->first; at; at = at->next) {
    if (!at->done) {
      uint64_t start = at->enqueued > item->stream->ended ? at->enqueued : item->stream->ended;
      for (size_t i = 0; i < at->num_after; i++) {
        if (!fc_poll(at->after[i])) return false;
        if (at->after[i]->end > start) start = at->after[i]->end;
      }
      if (start > fc.now || (at->num_payloads && fc.now < start + LATENCY)) return false;
      run_now(at);
    }
    if (at->end > fc.now) return false;
    if (at == item) break;
  }
  return true;
}

void fc_stream_clear(fc_stream *stream) {
  while (stream->first) {
    fc_item *item = stream->first;
    stream->first = item->next;
    item->next = NULL;
    if (!item->done) {
      item->done = true;
      item->end = fc.now;
      item_empty(item);
    }
    fc_item_drop(item);
  }
  stream->last = NULL;
}

CUresult fc_submit(fc_stream *stream, fc_payload *payload) {
  CUresult status = fc_capture_check(stream);
  if (!status && stream->capture) return fc_capture_add(stream, payload);
  if (!status) return fc_enqueue(stream, &payload, 1, NULL, 0, NULL);
  fc_payload_drop(payload);
  return status;
}
