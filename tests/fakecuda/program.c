/* Parses the body of a PTX entry. The subset is scalar code over registers, parameters and global memory: what hand-written probes use.
 * Whatever lies outside (shared memory, barriers, vectors, calls, half precision, textures) makes the body one that cannot be run. */
#include "program.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "state.h"

enum { MAX_NAMES = 512, MAX_LABELS = 128, MAX_TEXT = 256 };

typedef struct parser {
  const fc_function *function;
  fc_program *program;
  char names[MAX_NAMES][24];
  struct {
    char name[48];
    size_t at;
  } labels[MAX_LABELS];
  size_t num_labels;
  char targets[MAX_LABELS][48]; /* of branches, by position in `branches` */
  size_t branches[MAX_LABELS], num_branches;
  const char *param_names[MAX_PARAMS];
} parser;

static bool name_char(char c) { return isalnum((unsigned char)c) || c == '_' || c == '$' || c == '%' || c == '.'; }

static bool fail(const parser *p, const char *statement) {
  fc_say("%s: \"%.100s\": not in the part of PTX that runs here", p->function->name, statement);
  return false;
}

static bool type_of(const char *text, ptx_type *type) {
  static const ptx_type none;
  *type = none;
  if (strcmp(text, "pred") == 0) {
    type->kind = 'p';
    type->bits = 1;
    return true;
  }
  if (!text[0] || !strchr("usbf", text[0])) return false;
  int bits = atoi(text + 1);
  if (bits != 8 && bits != 16 && bits != 32 && bits != 64) return false;
  if (text[0] == 'f' && bits < 32) return false;
  type->kind = text[0];
  type->bits = (uint8_t)bits;
  return true;
}

static bool register_of(parser *p, const char *name, uint32_t *index) {
  if (name[0] != '%' || strlen(name) >= sizeof p->names[0]) return false;
  for (uint32_t i = 0; i < p->program->num_registers; i++) {
    if (strcmp(p->names[i], name) == 0) {
      *index = i;
      return true;
    }
  }
  if (p->program->num_registers == MAX_NAMES) return false;
  memcpy(p->names[p->program->num_registers], name, strlen(name) + 1);
  *index = p->program->num_registers++;
  return true;
}

static bool special_of(const char *name, uint32_t *index) {
  static const char *const specials[] = {"%tid.", "%ntid.", "%ctaid.", "%nctaid."};
  for (uint32_t i = 0; i < 4; i++) {
    size_t n = strlen(specials[i]);
    if (strncmp(name, specials[i], n) != 0 || name[n] < 'x' || name[n] > 'z' || name[n + 1]) continue;
    *index = 3 * i + (uint32_t)(name[n] - 'x');
    return true;
  }
  return false;
}

static bool constant_of(const char *text, uint64_t *value) {
  char *end;
  if (text[0] == '0' && (text[1] == 'f' || text[1] == 'F' || text[1] == 'd' || text[1] == 'D')) {
    *value = strtoull(text + 2, &end, 16); /* the float's bits */
    return !*end && end > text + 2;
  }
  *value = text[0] == '-' ? (uint64_t)strtoll(text, &end, 0) : strtoull(text, &end, 0);
  if (*end == 'U') end++;
  return !*end && end > text;
}

/* "[%r0+8]" or "[a]" */
static bool address_of(parser *p, char *text, ptx_operand *out) {
  char *close = strchr(text, ']'), *plus = strpbrk(text + 1, "+-");
  if (!close || close[1]) return false;
  *close = 0;
  out->kind = PTX_ADDRESS;
  out->value = 0;
  if (plus) {
    char sign = *plus;
    *plus = 0;
    if (!constant_of(plus + 1, &out->value)) return false;
    if (sign == '-') out->value = 0 - out->value;
  }
  if (text[1] == '%') return register_of(p, text + 1, &out->index);
  for (size_t i = 0; i < p->function->num_params; i++) {
    if (!p->param_names[i] || strcmp(p->param_names[i], text + 1) != 0) continue;
    out->parameters = true;
    out->value += p->function->offsets[i];
    return true;
  }
  return false;
}

static bool operand_of(parser *p, char *text, ptx_operand *out) {
  memset(out, 0, sizeof *out);
  if (text[0] == '[') return address_of(p, text, out);
  out->kind = PTX_SPECIAL;
  if (special_of(text, &out->index)) return true;
  out->kind = PTX_REGISTER;
  if (register_of(p, text, &out->index)) return true;
  out->kind = PTX_CONSTANT;
  return constant_of(text, &out->value);
}

static bool op_of(const char *name, ptx_op *op) {
  static const struct {
    const char *name;
    ptx_op op;
  } ops[] = {{"ld", PTX_LD},     {"st", PTX_ST},   {"mov", PTX_MOV},   {"cvta", PTX_MOV}, {"add", PTX_ADD}, {"sub", PTX_SUB},
             {"mul", PTX_MUL},   {"mad", PTX_MAD}, {"fma", PTX_MAD},   {"div", PTX_DIV},  {"rem", PTX_REM}, {"min", PTX_MIN},
             {"max", PTX_MAX},   {"and", PTX_AND}, {"or", PTX_OR},     {"xor", PTX_XOR},  {"not", PTX_NOT}, {"neg", PTX_NEG},
             {"shl", PTX_SHL},   {"shr", PTX_SHR}, {"setp", PTX_SETP}, {"cvt", PTX_CVT},  {"bra", PTX_BRA}, {"ret", PTX_RET},
             {"selp", PTX_SELP}, {"exit", PTX_RET}};
  for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
    if (strcmp(ops[i].name, name) == 0) {
      *op = ops[i].op;
      return true;
    }
  }
  return false;
}

/* ".global.u32", ".lt.s32", ".rn.f32": what matters of them. */
static bool modifiers(char *text, ptx_instruction *out) {
  static const char *const compares[] = {"eq", "ne", "lt", "le", "gt", "ge"};
  static const char *const ignored[] = {"global", "to",       "lo",      "rn",   "rz",   "rni",    "rzi",
                                        "uni",    "volatile", "relaxed", "weak", "full", "approx", "nc"};
  for (char *at = strtok(text, "."); at; at = strtok(NULL, ".")) {
    ptx_type type;
    bool known = false;
    if (type_of(at, &type)) {
      out->from = type; /* the last one; the first is the type itself */
      if (!out->type.kind) out->type = type;
      continue;
    }
    for (size_t i = 0; i < sizeof compares / sizeof *compares; i++) {
      if (strcmp(at, compares[i]) == 0) {
        out->compare = (ptx_compare)i;
        known = true;
      }
    }
    for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++) known |= strcmp(at, ignored[i]) == 0;
    if (strcmp(at, "param") == 0 && out->op == PTX_LD)
      out->op = PTX_LD_PARAM;
    else if (strcmp(at, "wide") == 0)
      out->op = out->op == PTX_MUL ? PTX_MUL_WIDE : PTX_MAD_WIDE;
    else if (!known)
      return false;
  }
  return true;
}

static bool emit(parser *p, ptx_instruction instruction) {
  fc_program *program = p->program;
  if (program->length == program->capacity) {
    size_t larger = program->capacity ? 2 * program->capacity : 32;
    ptx_instruction *grown = realloc(program->code, larger * sizeof *grown);
    if (!grown) return false;
    program->code = grown;
    program->capacity = larger;
  }
  program->code[program->length++] = instruction;
  return true;
}

static bool branch(parser *p, const char *target) {
  if (p->num_branches == MAX_LABELS || strlen(target) >= sizeof p->targets[0]) return false;
  memcpy(p->targets[p->num_branches], target, strlen(target) + 1);
  p->branches[p->num_branches++] = p->program->length;
  return true;
}

/* How many operands an operation has, its result included. */
static int arity(ptx_op op) {
  switch (op) {
    case PTX_RET: return 0;
    case PTX_BRA: return 1;
    case PTX_MAD:
    case PTX_MAD_WIDE:
    case PTX_SELP: return 4;
    case PTX_LD_PARAM:
    case PTX_LD:
    case PTX_ST:
    case PTX_MOV:
    case PTX_NOT:
    case PTX_NEG:
    case PTX_CVT: return 2;
    default: return 3;
  }
}

static bool operands(parser *p, char *text, ptx_instruction *out) {
  ptx_operand *slots[4] = {&out->to, &out->a, &out->b, &out->c};
  int count = 0;
  for (char *at = strtok(text, ","); at; at = strtok(NULL, ",")) {
    char *end = at + strlen(at);
    while (isspace((unsigned char)*at)) at++;
    while (end > at && isspace((unsigned char)end[-1])) *--end = 0;
    if (!*at) continue;
    if (count == 4) return false;
    if (out->op == PTX_BRA ? !branch(p, at) : !operand_of(p, at, slots[count])) return false;
    count++;
  }
  if (count != arity(out->op)) return false;
  bool stored = out->op == PTX_ST || out->op == PTX_BRA || out->op == PTX_RET;
  if (!stored && out->to.kind != PTX_REGISTER) return false;
  if (out->op == PTX_ST ? out->to.kind != PTX_ADDRESS || out->to.parameters : false) return false;
  if (out->op == PTX_LD_PARAM && !(out->a.kind == PTX_ADDRESS && out->a.parameters)) return false;
  if (out->op == PTX_LD && !(out->a.kind == PTX_ADDRESS && !out->a.parameters)) return false;
  return out->type.kind || out->op == PTX_BRA || out->op == PTX_RET;
}

static bool statement(parser *p, char *text) {
  char whole[MAX_TEXT];
  strcpy(whole, text); /* of the same size */
  ptx_instruction out = {.guard = -1};
  while (isspace((unsigned char)*text)) text++;
  if (!*text || strncmp(text, ".reg", 4) == 0) return true;
  if (*text == '@') {
    text++;
    out.negated = *text == '!';
    if (out.negated) text++;
    size_t n = strcspn(text, " \t\r\n");
    if (!text[n]) return fail(p, whole);
    text[n] = 0;
    uint32_t index;
    if (!register_of(p, text, &index)) return fail(p, whole);
    out.guard = (int32_t)index;
    text += n + 1;
    while (isspace((unsigned char)*text)) text++;
  }
  size_t n = strcspn(text, ". \t\r\n");
  char opcode[16] = "";
  if (n >= sizeof opcode) return fail(p, whole);
  memcpy(opcode, text, n);
  char *modifier = text + n, *rest = modifier + strcspn(modifier, " \t\r\n");
  if (*rest) *rest++ = 0;
  if (!op_of(opcode, &out.op) || !modifiers(modifier, &out) || !operands(p, rest, &out)) return fail(p, whole);
  return emit(p, out);
}

/* The names of the entry's parameters stand before its body. */
static bool find_param_names(parser *p, const char *body, char *storage, size_t size) {
  const char *at = body;
  size_t used = 0, count = 0;
  while (at[-1] != '(') { /* back to the list's beginning */
    at--;
    if (strncmp(at, ".entry", 6) == 0) return true; /* no parameters */
  }
  for (; *at != ')' && *at != '{'; at++) {
    const char *name = at;
    while (name_char(*at)) at++;
    bool last = *at == ',' || *at == ')' || *at == '[' || (isspace((unsigned char)*at) && strchr(",)[", at[strspn(at, " \t\r\n")]));
    if (at > name && last && *name != '.') {
      size_t n = (size_t)(at - name);
      if (count == MAX_PARAMS || used + n + 1 > size) return false;
      memcpy(storage + used, name, n);
      storage[used + n] = 0;
      p->param_names[count++] = storage + used;
      used += n + 1;
      while (*at != ',' && *at != ')' && *at != '{') at++; /* past "[20]" */
    }
    if (*at == ')' || *at == '{') break;
  }
  return count == p->function->num_params;
}

static bool statements(parser *p, const char *at, const char *end) {
  while (at < end) {
    char text[MAX_TEXT];
    while (at < end && isspace((unsigned char)*at)) at++;
    const char *name = at;
    while (at < end && name_char(*at) && *at != '.') at++;
    if (at > name && at < end && *at == ':') {
      size_t n = (size_t)(at - name);
      if (p->num_labels == MAX_LABELS || n >= sizeof p->labels[0].name) return false;
      memcpy(p->labels[p->num_labels].name, name, n);
      p->labels[p->num_labels].name[n] = 0;
      p->labels[p->num_labels++].at = p->program->length;
      at++;
      continue;
    }
    const char *stop = memchr(name, ';', (size_t)(end - name));
    if (!stop) return name == end || !*name || strspn(name, " \t\r\n") >= (size_t)(end - name);
    if ((size_t)(stop - name) >= sizeof text) return fail(p, "a long statement");
    memcpy(text, name, (size_t)(stop - name));
    text[stop - name] = 0;
    if (!statement(p, text)) return false;
    at = stop + 1;
  }
  return true;
}

static bool resolve(parser *p) {
  for (size_t i = 0; i < p->num_branches; i++) {
    size_t k = 0;
    while (k < p->num_labels && strcmp(p->labels[k].name, p->targets[i]) != 0) k++;
    if (k == p->num_labels) return fail(p, p->targets[i]);
    p->program->code[p->branches[i]].target = (uint32_t)p->labels[k].at;
  }
  return true;
}

void fc_program_drop(fc_program *program) {
  if (!program) return;
  free(program->code);
  free(program);
}

fc_program *fc_program_parse(const fc_function *function, const char *text, const char *end) {
  parser *p = calloc(1, sizeof *p);
  fc_program *program = calloc(1, sizeof *program);
  size_t room = (size_t)64 * MAX_PARAMS;
  char *names = malloc(room);
  bool ok = p && program && names;
  if (ok) {
    p->function = function;
    p->program = program;
    ok = find_param_names(p, text, names, room) && statements(p, text, end) && resolve(p);
  }
  free(p);
  free(names);
  if (ok) return program;
  fc_program_drop(program);
  return NULL;
}
