/* Launching the ops on indices: embedding, gather_tokens, argmax, attention_metadata, paged_metadata. */
#include "launch.h"

/* Rows of x by index, in the types of x and y. */
static adcg_status take(const adcg_op_call *call, void *user_data, const DLTensor *x, const DLTensor *index, const adcg_batch *batch,
                        adcgk_runs runs) {
  const DLTensor *y = &call->outputs[0];
  adcg_take_args args = {.y = adcg_data(y),
                         .x = adcg_data(x),
                         .index = adcg_data(index),
                         .batch = batch,
                         .rows = y->shape[0],
                         .x_rows = x->shape[0],
                         .y_stride = adcgk_stride(y, 0),
                         .x_stride = adcgk_stride(x, 0),
                         .runs = runs};
  const int64_t chunks = args.rows * runs.count * adcgk_ceil_div(runs.length, ADCGK_CHUNK);
  const int32_t kernel = ADCGK_K_adcg_take_f32_f32 + 2 * adcgk_is_bf16(x) + adcgk_is_bf16(y);
  return adcgk_cuda_launch(call, user_data, kernel, adcgk_cuda_blocks(chunks), 256, 0, &args);
}

adcg_status adcgk_cuda_embedding(const adcg_op_call *call, void *user_data) {
  const DLTensor *table = &call->inputs[1], *y = &call->outputs[0];
  return take(call, user_data, table, &call->inputs[0], NULL, adcgk_runs_of((const DLTensor *[]){y, table}, 2, 1, false));
}

adcg_status adcgk_cuda_gather_tokens(const adcg_op_call *call, void *user_data) {
  const DLTensor *hidden = &call->inputs[0], *y = &call->outputs[0];
  return take(call, user_data, hidden, &call->inputs[1], call->device_batch, adcgk_runs_of((const DLTensor *[]){y, hidden}, 2, 1, false));
}

adcg_status adcgk_cuda_argmax(const adcg_op_call *call, void *user_data) {
  const DLTensor *x = &call->inputs[0];
  adcg_argmax_args args = {adcg_data(&call->outputs[0]), adcg_data(x), x->shape[0], x->shape[1], adcgk_stride(x, 0)};
  return adcgk_cuda_launch(call, user_data, ADCGK_K_adcg_argmax_f32 + adcgk_is_bf16(x), args.rows, args.n > 4096 ? 1024 : 128, 0, &args);
}

adcg_status adcgk_cuda_attention_metadata(const adcg_op_call *call, void *user_data) {
  adcg_attention_metadata_args args = {.batch_indices = adcg_data(&call->outputs[0]),
                                       .positions = adcg_data(&call->outputs[1]),
                                       .cu_seqlens = adcg_data(&call->inputs[0]),
                                       .input_pos = adcg_data(&call->inputs[1]),
                                       .batch = call->device_batch,
                                       .tokens = call->outputs[0].shape[0]};
  return adcgk_cuda_launch(call, user_data, ADCGK_K_adcg_attention_metadata, adcgk_cuda_blocks(args.tokens), 256, 0, &args);
}

adcg_status adcgk_cuda_paged_metadata(const adcg_op_call *call, void *user_data) {
  adcg_paged_metadata_args args = {.block_tables = adcg_data(&call->outputs[0]),
                                   .cu_num_pages = adcg_data(&call->inputs[0]),
                                   .cache_loc = adcg_data(&call->inputs[1]),
                                   .batch = call->device_batch,
                                   .seqs = call->outputs[0].shape[0],
                                   .most = call->outputs[0].shape[1],
                                   .pages = call->inputs[1].shape[0]};
  return adcgk_cuda_launch(call, user_data, ADCGK_K_adcg_paged_metadata, adcgk_cuda_blocks(args.seqs * args.most), 256, 0, &args);
}
