// A C++17 host: handles in unique_ptr, lambdas as callbacks, an exec on each of two threads.
#include <adcg/adcg.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

namespace {

struct Destroy {
  void operator()(adcg_engine *p) const { adcg_engine_destroy(p); }
  void operator()(adcg_graph *p) const { adcg_graph_destroy(p); }
  void operator()(adcg_exec *p) const { adcg_exec_destroy(p); }
};
template <typename T>
using Handle = std::unique_ptr<T, Destroy>;

void check(adcg_status status) {
  if (status != ADCG_OK) throw std::runtime_error(std::string(adcg_status_name(status)) + ": " + adcg_last_error());
}

// Any of the three create functions; their arguments are not deduced from, so that nullptr may be one.
template <typename A, typename B, typename T>
Handle<T> make(adcg_status (*create)(A, B, T **), std::common_type_t<A> parent, std::common_type_t<B> options) {
  T *handle = nullptr;
  check(create(parent, options, &handle));
  return Handle<T>(handle);
}

DLTensor tensor(std::vector<float> &data, std::vector<int64_t> &shape) {
  return {data.data(), {kDLCPU, 0}, static_cast<int32_t>(shape.size()), adcg_dtype_to_dlpack(ADCG_F32), shape.data(), nullptr, 0};
}

constexpr int64_t kWidth = 24, kTokens = 96;

// y = x + x * base^3, the exponent from an attribute; checked against the formula.
void run(const adcg_graph *graph, adcg_value weight, float base, int32_t mode, std::string *error) try {
  adcg_exec_options options = ADCG_EXEC_OPTIONS_INIT;
  const int64_t buckets[] = {16, 96};
  options.mode = mode;
  options.buckets = buckets;
  options.num_buckets = 2;
  auto exec = make(adcg_exec_create, graph, &options);

  std::vector<float> w(kWidth, base), x(kTokens * kWidth), y(kTokens * kWidth);
  std::vector<int64_t> w_shape{kWidth}, io_shape{kTokens, kWidth};
  const DLTensor w_tensor = tensor(w, w_shape), x_tensor = tensor(x, io_shape), y_tensor = tensor(y, io_shape);
  check(adcg_exec_bind(exec.get(), weight, &w_tensor));
  for (int64_t tokens : {1, 15, 16, 17, 96}) {
    for (size_t i = 0; i < x.size(); i++) x[i] = base + static_cast<float>(i % 31);
    adcg_batch batch = ADCG_BATCH_INIT;
    batch.prefill_seqs = 1;
    batch.prefill_tokens = tokens;
    adcg_step step = ADCG_STEP_INIT;
    check(adcg_exec_replay(exec.get(), &batch, &x_tensor, 1, &y_tensor, 1, nullptr, &step));
    if (mode != ADCG_MODE_NONE && step.bucket_tokens != (tokens <= 16 ? 16 : 96))
      throw std::runtime_error("bucket of " + std::to_string(tokens));
    for (size_t i = 0; i < static_cast<size_t>(tokens * kWidth); i++) {
      const float expected = base + static_cast<float>(i % 31) + (base + static_cast<float>(i % 31)) * base * base * base;
      if (std::fabs(y[i] - expected) > 1e-5f * std::fabs(expected))
        throw std::runtime_error("y[" + std::to_string(i) + "]: " + std::to_string(y[i]));
    }
  }
} catch (const std::exception &e) {
  *error = e.what();
}

}  // namespace

int main() try {
  auto engine = make(adcg_engine_create, "host", nullptr);

  adcg_attr_spec power = {ADCG_ATTR_INT("power", 1), 0, "how often the weight is multiplied in"};
  adcg_op_schema schema = ADCG_OP_SCHEMA_INIT;
  schema.name = "cpp.scale_rows";
  schema.kind = ADCG_OP_DYNAMIC;
  schema.num_inputs = 2;
  schema.num_outputs = 1;
  schema.num_attrs = 1;
  schema.attrs = &power;
  schema.infer = [](const adcg_infer_call *call, void *) -> adcg_status {
    if (call->inputs[1].dims[0].constant != call->inputs[0].dims[1].constant) {
      call->set_error("widths differ");
      return ADCG_ERR_SHAPE;
    }
    call->outputs[0] = call->inputs[0];
    return ADCG_OK;
  };
  schema.launch = [](const adcg_op_call *call, void *) -> adcg_status {
    const auto *x = static_cast<const float *>(adcg_data(&call->inputs[0]));
    const auto *w = static_cast<const float *>(adcg_data(&call->inputs[1]));
    auto *y = static_cast<float *>(adcg_data(&call->outputs[0]));
    const int64_t width = call->inputs[0].shape[1], rows = adcg_batch_tokens(call->batch);
    for (int64_t i = 0; i < rows * width; i++) {
      y[i] = x[i];
      for (int64_t p = 0; p < call->attrs[0].i; p++) y[i] *= w[i % width];
    }
    return ADCG_OK;
  };
  check(adcg_engine_register_op(engine.get(), &schema, nullptr));

  adcg_graph_limits limits = ADCG_GRAPH_LIMITS_INIT;
  limits.max_tokens = kTokens;
  limits.max_seqs = 4;
  auto graph = make(adcg_graph_create, engine.get(), &limits);
  const adcg_dim rows[] = {ADCG_DIM_TOKENS, ADCG_DIM(kWidth)}, row[] = {ADCG_DIM(kWidth)};
  adcg_value x, w, s, y;
  check(adcg_graph_add_input(graph.get(), "x", ADCG_F32, 2, rows, &x));
  check(adcg_graph_add_weight(graph.get(), "w", ADCG_F32, 1, row, &w));
  const adcg_value scaled[] = {x, w};
  const adcg_attr attrs[] = {ADCG_ATTR_INT("power", 3)};
  check(adcg_graph_add_op(graph.get(), "cpp.scale_rows", scaled, 2, attrs, 1, &s, 1));
  const adcg_value added[] = {x, s};
  check(adcg_graph_add_op(graph.get(), "adcg.add", added, 2, nullptr, 0, &y, 1));
  check(adcg_graph_add_output(graph.get(), "y", y));
  check(adcg_graph_freeze(graph.get()));

  std::string errors[2];
  std::thread first(run, graph.get(), w, 1.5f, ADCG_MODE_PIECEWISE, &errors[0]);
  std::thread second(run, graph.get(), w, 0.5f, ADCG_MODE_NONE, &errors[1]);
  first.join();
  second.join();
  engine.reset();  // out of order: the graph keeps what it needs
  std::string third;
  run(graph.get(), w, 2.0f, ADCG_MODE_FULL_AND_PIECEWISE, &third);
  for (const auto &error : {errors[0], errors[1], third})
    if (!error.empty()) std::fprintf(stderr, "%s\n", error.c_str());
  return errors[0].empty() && errors[1].empty() && third.empty() ? 0 : 1;
} catch (const std::exception &e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
