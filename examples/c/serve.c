/* The main job: serve a Llama-family checkpoint with libadcg.
 *
 *   serve --model DIR [--capture upfront] [--temperature 0.8] ...          (--help lists the options)
 *
 * Requests of different lengths arrive over time. A step takes one token of every sequence that is decoding, and fills the rest of
 * its token budget with chunks of prompts; slots of finished requests are used again. Each step replays a captured graph, and,
 * unless --no-check, the same step runs in a second, eager exec with caches of its own: their logits must be equal bit for bit, or
 * the exit status is 1. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report.h"

enum { MAX_LIST = 64 };

typedef struct arguments {
  const char *model, *device, *capture, *mode;
  const char *prompts[MAX_LIST];
  int num_prompts;
  int64_t buckets[MAX_LIST];
  int32_t num_buckets;
  int64_t requests, slots, budget, max_new, max_len, gap, seed, threads;
  double temperature;
  bool check;
} arguments;

/* ---- Arguments ---------------------------------------------------------------------------------------------------------- */

static const char usage[] =
    "usage: serve [--model DIR] [options]\n"
    "  --model DIR             config.json and safetensors (default tests/data/models/tiny-go)\n"
    "  --device DEVICE         host (the default), or cuda:0 and so on\n"
    "  --capture lazy|upfront  when buckets are captured (default lazy: on first use)\n"
    "  --mode MODE             none, piecewise, full, full_decode_only, full_and_piecewise (the default)\n"
    "  --buckets N,N,...       token counts to capture for\n"
    "  --requests N            (12)\n"
    "  --slots N               cache slots, and sequences of one step (4)\n"
    "  --budget N              tokens of one step (48)\n"
    "  --max-new N             the most that a request writes (160)\n"
    "  --max-len N             positions of a slot (0: the model's, at most 1024)\n"
    "  --gap N                 mean steps between arrivals (12)\n"
    "  --prompt FILE           a prompt instead of the model's own; may be repeated; models of bytes only\n"
    "  --temperature T         (0: greedy)\n"
    "  --seed N                (0)\n"
    "  --threads N             of the host device's kernels (0: one a core)\n"
    "  --no-check              leave out the eager exec that every step is compared with\n";

static int64_t parse_integer(const char *option, const char *text, int64_t least) {
  char *end;
  long long value = strtoll(text, &end, 10);
  if (*end || end == text || value < least || value > INT32_MAX) die("%s: %s, is an integer from %lld", option, text, (long long)least);
  return value;
}

static void parse_buckets(arguments *a, char *text) {
  for (char *part = strtok(text, ","); part; part = strtok(NULL, ",")) {
    if (a->num_buckets == MAX_LIST) die("--buckets: more than %d", MAX_LIST);
    a->buckets[a->num_buckets++] = parse_integer("--buckets", part, 1);
  }
}

static arguments parse(int argc, char **argv) {
  arguments a = {.model = "tests/data/models/tiny-go", .device = "host", .capture = "lazy", .mode = "full_and_piecewise", .check = true};
  a.requests = 12, a.slots = 4, a.budget = 48, a.max_new = 160, a.gap = 12;
  const struct {
    const char *name;
    int64_t *value, least;
  } integers[] = {{"--requests", &a.requests, 1}, {"--slots", &a.slots, 1}, {"--budget", &a.budget, 1}, {"--max-new", &a.max_new, 1},
                  {"--max-len", &a.max_len, 0},   {"--gap", &a.gap, 0},     {"--seed", &a.seed, 0},     {"--threads", &a.threads, 0}};
  for (int i = 1; i < argc; i++) {
    const char *option = argv[i];
    if (strcmp(option, "--help") == 0) {
      fputs(usage, stdout);
      exit(0);
    }
    if (strcmp(option, "--no-check") == 0) {
      a.check = false;
      continue;
    }
    if (++i == argc) die("%s: its value is missing, or it is no option; see --help", option);
    size_t k = 0;
    while (k < sizeof integers / sizeof *integers && strcmp(integers[k].name, option) != 0) k++;
    if (k < sizeof integers / sizeof *integers)
      *integers[k].value = parse_integer(option, argv[i], integers[k].least);
    else if (strcmp(option, "--model") == 0)
      a.model = argv[i];
    else if (strcmp(option, "--device") == 0)
      a.device = argv[i];
    else if (strcmp(option, "--capture") == 0)
      a.capture = argv[i];
    else if (strcmp(option, "--mode") == 0)
      a.mode = argv[i];
    else if (strcmp(option, "--buckets") == 0)
      parse_buckets(&a, argv[i]);
    else if (strcmp(option, "--temperature") == 0)
      a.temperature = strtod(argv[i], NULL);
    else if (strcmp(option, "--prompt") == 0 && a.num_prompts < MAX_LIST)
      a.prompts[a.num_prompts++] = argv[i];
    else
      die("%s: no such option; see --help", option);
  }
  if (strcmp(a.capture, "lazy") != 0 && strcmp(a.capture, "upfront") != 0) die("--capture: %s, is lazy or upfront", a.capture);
  if (a.slots > a.budget) die("--slots: %d, is at most the --budget of %d tokens", (int)a.slots, (int)a.budget);
  return a;
}

static adcg_exec_options exec_options(const arguments *a) {
  static const char *const modes[] = {"none", "piecewise", "full", "full_decode_only", "full_and_piecewise"}; /* by ADCG_MODE_* */
  adcg_exec_options options = ADCG_EXEC_OPTIONS_INIT;
  options.mode = 0;
  while (options.mode < 5 && strcmp(modes[options.mode], a->mode) != 0) options.mode++;
  if (options.mode == 5) die("--mode: %s, is none, piecewise, full, full_decode_only or full_and_piecewise", a->mode);
  options.buckets = a->buckets;
  options.num_buckets = a->num_buckets;
  options.batch_invariant = a->check; /* the eager exec, which pads nothing, is to have the same bits on any device */
  return options;
}

/* ---- Prompts ------------------------------------------------------------------------------------------------------------- */

enum { GOLDEN_CONTINUATION = 160 }; /* tokens behind each prompt in tiny-go's golden.safetensors */

typedef struct prompt {
  int32_t *tokens;
  int64_t count;
  const int32_t *golden; /* what a greedy run writes, GOLDEN_CONTINUATION tokens; NULL if nobody knows */
} prompt;

typedef struct prompts {
  prompt list[MAX_LIST];
  int count;
} prompts;

static void add_prompt(prompts *p, int64_t count) {
  if (p->count == MAX_LIST) die("more than %d prompts", MAX_LIST);
  p->list[p->count++] = (prompt){allocate(count, sizeof(int32_t)), count, NULL};
}

static void read_prompt_file(prompts *p, const char *path) {
  enum { MOST = 1 << 20 };
  FILE *file = fopen(path, "rb");
  if (!file) die("--prompt: %s: cannot be opened", path);
  unsigned char *bytes = allocate(MOST, 1);
  size_t size = fread(bytes, 1, MOST, file);
  fclose(file);
  if (!size) die("--prompt: %s: empty", path);
  add_prompt(p, (int64_t)size);
  for (size_t i = 0; i < size; i++) p->list[p->count - 1].tokens[i] = bytes[i];
  free(bytes);
}

/* Prompt files if given; the prompts of the model's golden file (real Go source) if it has one; else random ids. */
static prompts make_prompts(const arguments *a, const llama_config *config, checkpoint **out_golden) {
  prompts p = {.count = 0};
  if (a->num_prompts && config->vocab_size != 256) die("--prompt: %s: its vocabulary is not bytes", a->model);
  for (int i = 0; i < a->num_prompts; i++) read_prompt_file(&p, a->prompts[i]);
  if (p.count) return p;
  char name[4096];
  snprintf(name, sizeof name, "%s/golden.safetensors", a->model);
  *out_golden = config->vocab_size == 256 ? checkpoint_open_file(name) : NULL;
  for (int i = 0; *out_golden && i < MAX_LIST; i++) {
    snprintf(name, sizeof name, "tokens.%d", i);
    const checkpoint_tensor *t = checkpoint_find(*out_golden, name);
    if (!t || t->dtype != ADCG_I32 || t->ndim != 1) break;
    if (t->shape[0] <= GOLDEN_CONTINUATION) continue;
    add_prompt(&p, t->shape[0] - GOLDEN_CONTINUATION);
    prompt *last = &p.list[p.count - 1];
    memcpy(last->tokens, t->data, (size_t)last->count * sizeof(int32_t));
    last->golden = (const int32_t *)t->data + last->count;
  }
  uint64_t random = (uint64_t)a->seed + 1;
  for (int i = 0; i < 8 && !(*out_golden && p.count); i++) {
    add_prompt(&p, random_between(&random, 8, 3 * a->budget));
    for (int64_t k = 0; k < p.list[i].count; k++) p.list[i].tokens[k] = (int32_t)random_between(&random, 0, config->vocab_size - 1);
  }
  return p;
}

static request *make_requests(const arguments *a, const prompts *p, int64_t max_len) {
  request *requests = allocate(a->requests, sizeof *requests);
  uint64_t random = (uint64_t)a->seed;
  int64_t arrival = 0;
  for (int64_t i = 0; i < a->requests; i++) {
    const prompt *from = &p->list[i % p->count];
    request *r = &requests[i];
    *r = (request){
        .number = i, .prompt = from->tokens, .prompt_count = from->count, .arrival = arrival, .slot = -1, .started = -1, .finished = -1};
    if (r->prompt_count > max_len - 1) r->prompt_count = max_len - 1;
    /* the first of each prompt writes all it may, the others stop somewhere before */
    int64_t wanted = i < p->count ? a->max_new : random_between(&random, (a->max_new + 3) / 4, a->max_new);
    r->max_new = wanted < max_len - r->prompt_count ? wanted : max_len - r->prompt_count;
    r->written = allocate(r->max_new, sizeof *r->written);
    r->random = (uint64_t)a->seed * 1000003u + (uint64_t)i;
    arrival += random_between(&random, 0, 2 * a->gap);
  }
  return requests;
}

/* ---- The loop -------------------------------------------------------------------------------------------------------------- */

/* Greedy, or drawn from the softmax at a temperature. */
static int32_t sample(request *r, const float *logits, int64_t count, double temperature) {
  int64_t best = 0;
  for (int64_t i = 1; i < count; i++) best = logits[i] > logits[best] ? i : best;
  if (temperature <= 0) return (int32_t)best;
  double total = 0, drawn = random_unit(&r->random);
  for (int64_t i = 0; i < count; i++) total += exp(((double)logits[i] - (double)logits[best]) / temperature);
  drawn *= total;
  for (int64_t i = 0; i < count; i++) {
    drawn -= exp(((double)logits[i] - (double)logits[best]) / temperature);
    if (drawn < 0) return (int32_t)i;
  }
  return (int32_t)best;
}

static bool is_eos(const llama_config *c, int32_t token) {
  for (int i = 0; i < c->num_eos; i++)
    if (c->eos[i] == token) return true;
  return false;
}

static double timed_step(runner *r, const piece *pieces, int64_t count, adcg_step *step) {
  double start = seconds();
  runner_step(r, pieces, count, step);
  return seconds() - start;
}

static int64_t captured_buckets(const runner *r) {
  adcg_stats stats = ADCG_STATS_INIT;
  TRY(adcg_exec_get_stats(r->exec, &stats));
  return stats.captured_buckets;
}

/* Runs a step in both execs, compares their logits, and books it. Who goes first alternates: the second of the two finds the weights
 * in the cache. */
static void run_step(tally *t, runner *r, runner *eager, const piece *pieces, int64_t count, int64_t tokens, adcg_step *step) {
  static int64_t number;
  static adcg_step eager_step = ADCG_STEP_INIT;
  int64_t captured = captured_buckets(r);
  double eager_seconds = 0;
  bool eager_first = number++ % 2;
  if (eager && eager_first) eager_seconds = timed_step(eager, pieces, count, &eager_step);
  double replay_seconds = timed_step(r, pieces, count, step);
  if (eager && !eager_first) eager_seconds = timed_step(eager, pieces, count, &eager_step);
  if (eager && memcmp(r->logits, eager->logits, (size_t)(count * r->model->config.vocab_size) * sizeof(float)) != 0) t->differing++;
  tally_add(t, step, tokens);
  captured = captured_buckets(r) - captured;
  if (captured) { /* this step also captured its size */
    t->captures += captured;
    t->capture_seconds += replay_seconds;
    return;
  }
  t->replay_seconds += replay_seconds;
  t->eager_seconds += eager_seconds;
  t->timed_steps++;
  t->timed_tokens += tokens;
}

static void serve(tally *t, scheduler *s, runner *r, runner *eager, double temperature) {
  const llama_config *config = &r->model->config;
  planned *plan = allocate(s->slots, sizeof *plan);
  piece *pieces = allocate(s->slots, sizeof *pieces);
  int64_t done = 0, total = 0;
  for (int64_t i = 0; i < s->count; i++) total += s->requests[i].prompt_count + s->requests[i].max_new - 1; /* the last is not fed back */
  while (!scheduler_done(s)) {
    int64_t count = scheduler_plan(s, plan), tokens = 0;
    if (!count) continue; /* nobody is here yet */
    for (int64_t i = 0; i < count; i++) {
      pieces[i] = plan[i].piece;
      tokens += pieces[i].count;
    }
    adcg_step step = ADCG_STEP_INIT;
    run_step(t, r, eager, pieces, count, tokens, &step);
    for (int64_t i = 0; i < count; i++) {
      request *owner = plan[i].owner;
      bool inside = owner->cached + pieces[i].count < owner->prompt_count; /* of its prompt: these logits say nothing new */
      int32_t token = inside ? -1 : sample(owner, r->logits + i * config->vocab_size, config->vocab_size, temperature);
      bool stop = !inside && is_eos(config, token);
      if (stop) total -= owner->max_new - owner->written_count - 1 + (owner->written_count == 0);
      scheduler_advance(s, &plan[i], token, stop);
    }
    done += tokens;
    char note[64];
    snprintf(note, sizeof note, "tokens, %d running", (int)s->num_running);
    progress_bar("serve", scheduler_done(s) ? total : done, total, note);
  }
  free(plan);
  free(pieces);
}

static int32_t show_capture(const adcg_progress *p, void *user_data) {
  (void)user_data;
  char note[64];
  snprintf(note, sizeof note, "%s, %d tokens, %d sequences", p->bucket.mode == ADCG_MODE_FULL ? "full" : "piecewise", (int)p->bucket.tokens,
           (int)p->bucket.seqs);
  progress_bar("capture", p->index + 1, p->count, note);
  return 0;
}

/* ---- What was written ---------------------------------------------------------------------------------------------------------- */

/* Prints every request; returns how many of those that follow a golden prompt, greedily, wrote something else. */
static int64_t print_requests(const scheduler *s, const prompts *p, bool bytes, bool greedy) {
  int64_t golden = 0, wrong = 0;
  printf("\nrequests\n");
  for (int64_t i = 0; i < s->count; i++) {
    const request *r = &s->requests[i];
    printf("--- request %d: prompt %d tokens, wrote %d; arrived before step %d, slot %d, steps %d to %d\n", (int)r->number,
           (int)r->prompt_count, (int)r->written_count, (int)r->arrival, (int)r->slot, (int)r->started, (int)r->finished);
    if (bytes) print_tokens(r->prompt, r->prompt_count, bytes);
    if (bytes) fputs("\xC2\xAB", stdout);
    print_tokens(r->written, r->written_count, bytes);
    puts(bytes ? "\xC2\xBB" : "");
    const prompt *from = &p->list[i % p->count];
    if (!greedy || !from->golden || r->prompt_count != from->count) continue;
    golden++;
    int64_t known = r->written_count < GOLDEN_CONTINUATION ? r->written_count : GOLDEN_CONTINUATION;
    wrong += memcmp(r->written, from->golden, (size_t)known * sizeof(int32_t)) != 0;
  }
  if (golden) printf("\n%d of %d requests wrote what golden.safetensors says, byte for byte\n", (int)(golden - wrong), (int)golden);
  return wrong;
}

int main(int argc, char **argv) {
  arguments a = parse(argc, argv);
  llama_config config = llama_config_read(a.model);
  checkpoint *weights = checkpoint_open(a.model), *golden = NULL;
  prompts p = make_prompts(&a, &config, &golden);
  int64_t most = config.max_position_embeddings < 1024 ? config.max_position_embeddings : 1024, max_len = a.max_len ? a.max_len : most;
  if (max_len < 2) die("--max-len: %d, is at least 2", (int)max_len);

  adcg_engine *engine;
  adcg_engine_options engine_options = ADCG_ENGINE_OPTIONS_INIT;
  engine_options.host_threads = (int32_t)a.threads;
  TRY(adcg_engine_create(a.device, &engine_options, &engine));
  adcg_device_info device = ADCG_DEVICE_INFO_INIT;
  TRY(adcg_engine_get_device_info(engine, &device));
  printf("serve: %s, %d layers, hidden %d, on %s\n", a.model, (int)config.num_layers, (int)config.hidden_size, device.description);

  llama *model = llama_build(engine, &config, weights, (llama_sizes){a.budget, a.slots, a.slots, max_len});
  adcg_exec_options options = exec_options(&a), none = options;
  none.mode = ADCG_MODE_NONE;
  adcg_forecast forecast = ADCG_FORECAST_INIT;
  TRY(adcg_graph_forecast(model->graph, &options, &forecast));
  runner *r = runner_create(model, &options), *eager = a.check ? runner_create(model, &none) : NULL;
  if (strcmp(a.capture, "upfront") == 0) TRY(adcg_exec_capture(r->exec, NULL, 0, show_capture, NULL));

  request *requests = make_requests(&a, &p, max_len);
  scheduler *s = scheduler_create(requests, a.requests, a.slots, a.budget);
  static tally t;
  serve(&t, s, r, eager, a.temperature);
  int64_t wrong = print_requests(s, &p, config.vocab_size == 256, a.temperature <= 0);
  tally_print(&t, r, &forecast, a.check);
  if (a.check) {
    int64_t steps = 0;
    for (int k = 0; k < t.num_kinds; k++) steps += t.kinds[k].steps;
    printf("\ncheck: logits of %lld of %lld steps equal eager's bit for bit\n", (long long)(steps - t.differing), (long long)steps);
  }

  scheduler_destroy(s);
  for (int64_t i = 0; i < a.requests; i++) free(requests[i].written);
  free(requests);
  for (int i = 0; i < p.count; i++) free(p.list[i].tokens);
  runner_destroy(eager);
  runner_destroy(r);
  llama_destroy(model);
  adcg_engine_destroy(engine);
  checkpoint_close(golden);
  checkpoint_close(weights);
  return t.differing || wrong ? 1 : 0;
}
