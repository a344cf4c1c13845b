/* Loads the library with dlopen, from a thread that is not main's, and uses it from others; ADCG_LIBRARY names the file. A host
 * that loads it late has little static TLS left: threads that run already must be served too. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>

#include "harness.h"

static void *library;
static pthread_barrier_t loaded;

/* One function of the library, by the type that the header gives it. */
#define FUNCTION(name) __typeof__(&name) name##_ = (__typeof__(&name))(uintptr_t)dlsym(library, #name)

static void *load(void *argument) {
  const char *path = getenv("ADCG_LIBRARY");
  library = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
  if (!library) fprintf(stderr, "dlopen: %s\n", path ? dlerror() : "ADCG_LIBRARY is not set");
  pthread_barrier_wait(&loaded);
  return argument;
}

static adcg_status add_launch(const adcg_op_call *call, void *user_data) {
  for (int64_t i = 0; i < call->outputs[0].shape[0]; i++) {
    float *out = (float *)call->outputs[0].data;
    out[i] = ((const float *)call->inputs[0].data)[i] + *(const float *)user_data;
  }
  return ADCG_OK;
}

static void *use(void *argument) {
  if (argument) pthread_barrier_wait(&loaded); /* a thread that was there before the library */
  if (!library) exit(1);
  FUNCTION(adcg_engine_create);
  FUNCTION(adcg_engine_register_op);
  FUNCTION(adcg_graph_create);
  FUNCTION(adcg_graph_add_input);
  FUNCTION(adcg_graph_add_op);
  FUNCTION(adcg_graph_add_output);
  FUNCTION(adcg_graph_freeze);
  FUNCTION(adcg_exec_create);
  FUNCTION(adcg_exec_replay);
  FUNCTION(adcg_exec_destroy);
  FUNCTION(adcg_graph_destroy);
  FUNCTION(adcg_engine_destroy);
  FUNCTION(adcg_last_error);
#define DO(call)                                                                            \
  do {                                                                                      \
    if ((call) != ADCG_OK) fprintf(stderr, "%s: %s\n", #call, adcg_last_error_()), exit(1); \
  } while (0)
  adcg_engine *engine;
  adcg_graph *graph;
  adcg_exec *exec;
  float two = 2, data[8] = {1, 2, 3, 4}, out[8] = {0};
  DO(adcg_engine_create_("host", NULL, &engine));
  adcg_op_schema schema = ADCG_OP_SCHEMA_INIT;
  schema.name = "t.add", schema.num_inputs = schema.num_outputs = 1, schema.launch = add_launch;
  DO(adcg_engine_register_op_(engine, &schema, &two));
  adcg_graph_limits limits = {sizeof limits, 8, 2, 0};
  DO(adcg_graph_create_(engine, &limits, &graph));
  adcg_dim dims[] = {ADCG_DIM_TOKENS};
  adcg_value x, y;
  DO(adcg_graph_add_input_(graph, "x", ADCG_F32, 1, dims, &x));
  DO(adcg_graph_add_op_(graph, "t.add", &x, 1, NULL, 0, &y, 1));
  DO(adcg_graph_add_output_(graph, "y", y));
  DO(adcg_graph_freeze_(graph));
  DO(adcg_exec_create_(graph, NULL, &exec));
  int64_t shape[] = {8};
  DLTensor in = {data, {kDLCPU, 0}, 1, {kDLFloat, 32, 1}, shape, NULL, 0}, result = in;
  result.data = out;
  adcg_batch batch = {sizeof batch, 1, 4, 0, 0, 0, 0};
  for (int i = 0; i < 100; i++) DO(adcg_exec_replay_(exec, &batch, &in, 1, &result, 1, NULL, NULL));
  if (!(out[0] == 3 && out[1] == 4 && out[2] == 5 && out[3] == 6)) fprintf(stderr, "wrong numbers\n"), exit(1);
  adcg_exec_destroy_(exec);
  adcg_graph_destroy_(graph);
  adcg_engine_destroy_(engine);
  return NULL;
}

static void in_another_thread(void) {
  pthread_t before, loader, after;
  if (pthread_barrier_init(&loaded, NULL, 2) || pthread_create(&before, NULL, use, &library)) exit(1);
  if (pthread_create(&loader, NULL, load, NULL) || pthread_join(loader, NULL)) exit(1);
  if (pthread_create(&after, NULL, use, NULL) || pthread_join(after, NULL) || pthread_join(before, NULL)) exit(1);
  use(NULL); /* main's */
  if (dlclose(library)) exit(1); /* it stays loaded; the call is harmless */
  use(NULL);
}

static const harness_case cases[] = {{"in_another_thread", in_another_thread}};

/* harness.h's checks name functions of the library; this program is not linked with it and calls none of them. */
const char *adcg_last_error(void) { return ""; }
const char *adcg_status_name(adcg_status status) {
  (void)status;
  return "";
}
HARNESS_MAIN(cases)
