/* What the programs of the bad input table share. */
#ifndef ADCG_TESTS_BAD_H_
#define ADCG_TESTS_BAD_H_

#include "world.h"

static world w;

/* After a failure everything works as if it had not happened. */
#define STILL_GOOD() \
  do {               \
    world_good(&w);  \
    world_close(&w); \
  } while (0)

/* The same for graphs: w is still open for additions, and becomes the good world. */
static inline void finish(void) {
  TRY(adcg_graph_freeze(w.graph));
  world_exec(&w, NULL);
  STILL_GOOD();
}

static inline int32_t write_nothing(const char *data, size_t size, void *user_data) {
  (void)data, (void)size, (void)user_data;
  return 0;
}

static inline adcg_status copy_launch(const adcg_op_call *call, void *user_data) {
  (void)user_data;
  return device_keep(call, adcg_data(&call->inputs[0]), adcg_data(&call->outputs[0]), adcg_numel(&call->outputs[0]));
}

static inline adcg_op_schema copy_schema(const char *name) {
  adcg_op_schema schema = ADCG_OP_SCHEMA_INIT;
  schema.name = name;
  schema.num_inputs = schema.num_outputs = 1;
  schema.infer = infer_like_input;
  schema.launch = copy_launch;
  schema.flags = device_flags();
  return schema;
}

static adcg_exec *made_exec; /* where a call that must fail would put it */

#endif /* ADCG_TESTS_BAD_H_ */
