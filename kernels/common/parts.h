/* Where the parts of adcg.slice and adcg.concat lie. */
#ifndef ADCGK_PARTS_H_
#define ADCGK_PARTS_H_

#include "strides.h"

/* The part of a tensor that begins at `start` of dim `axis` and has the shape of `like`. Its strides are the caller's room. */
static inline DLTensor adcgk_part_of(const DLTensor *whole, const DLTensor *like, int32_t axis, int64_t start, int64_t *strides) {
  for (int32_t d = 0; d < whole->ndim; d++) strides[d] = adcgk_stride(whole, d);
  DLTensor part = *whole;
  part.shape = like->shape;
  part.strides = strides;
  part.byte_offset += (uint64_t)(start * strides[axis]) * adcgk_size(whole);
  return part;
}

/* The dim that the attribute `axis`, the first one, means. */
static inline int32_t adcgk_axis_of(const adcg_op_call *call) {
  const int64_t axis = call->attrs[0].i;
  return (int32_t)(axis < 0 ? axis + call->inputs[0].ndim : axis);
}

#endif /* ADCGK_PARTS_H_ */
