/* Runs a parsed PTX body: the threads of the grid one after another, every access to memory checked against what is allocated and mapped. */
#include <stdlib.h>
#include <string.h>

#include "program.h"
#include "state.h"

typedef struct machine {
  const fc_payload *payload;
  uint64_t *registers;
  uint32_t special[12];
  CUdeviceptr read_from, read_to, write_from, write_to; /* lately found accessible */
} machine;

static uint64_t mask_of(ptx_type type) { return type.bits >= 64 ? ~(uint64_t)0 : ((uint64_t)1 << type.bits) - 1; }

static int64_t as_signed(uint64_t value, ptx_type type) {
  unsigned shift = 64u - type.bits;
  return (int64_t)(value << shift) >> shift;
}

static double as_float(uint64_t value, ptx_type type) {
  if (type.bits == 64) {
    double d;
    memcpy(&d, &value, sizeof d);
    return d;
  }
  float f;
  uint32_t low = (uint32_t)value;
  memcpy(&f, &low, sizeof f);
  return (double)f;
}

static uint64_t from_float(double d, ptx_type type) {
  uint64_t wide;
  uint32_t narrow;
  float f = (float)d;
  memcpy(&wide, &d, sizeof wide);
  memcpy(&narrow, &f, sizeof narrow);
  return type.bits == 64 ? wide : narrow;
}

static uint64_t value_of(const machine *m, const ptx_operand *operand) {
  switch (operand->kind) {
    case PTX_CONSTANT: return operand->value;
    case PTX_SPECIAL: return m->special[operand->index];
    default: return m->registers[operand->index];
  }
}

static bool may_touch(machine *m, CUdeviceptr address, size_t bytes, bool write) {
  CUdeviceptr from = write ? m->write_from : m->read_from, to = write ? m->write_to : m->read_to;
  if (address >= from && address < to && bytes <= to - address) return true;
  if (!fc_accessible(address, bytes, write)) return false;
  const fc_region *region = fc_region_at(address);
  if (write) {
    m->write_from = region->base;
    m->write_to = region->base + region->size;
  } else {
    m->read_from = region->base;
    m->read_to = region->base + region->size;
  }
  return true;
}

static uint64_t integer(const ptx_instruction *i, uint64_t a, uint64_t b, uint64_t c) {
  bool is_signed = i->type.kind == 's';
  uint64_t mask = mask_of(i->type);
  int64_t x = as_signed(a, i->type), y = as_signed(b, i->type);
  uint64_t u = a & mask, v = b & mask;
  unsigned shift = (unsigned)(b > 64 ? 64 : b);
  switch (i->op) {
    case PTX_ADD: return u + v;
    case PTX_SUB: return u - v;
    case PTX_MUL: return u * v;
    case PTX_MAD: return u * v + c;
    case PTX_MUL_WIDE: return is_signed ? (uint64_t)(x * y) : u * v;
    case PTX_MAD_WIDE: return (is_signed ? (uint64_t)(x * y) : u * v) + c;
    case PTX_DIV: return !v ? mask : is_signed ? (y == -1 ? 0 - (uint64_t)x : (uint64_t)(x / y)) : u / v;
    case PTX_REM: return !v ? u : is_signed ? (y == -1 ? 0 : (uint64_t)(x % y)) : u % v;
    case PTX_MIN: return is_signed ? (uint64_t)(x < y ? x : y) : u < v ? u : v;
    case PTX_MAX: return is_signed ? (uint64_t)(x > y ? x : y) : u > v ? u : v;
    case PTX_AND: return u & v;
    case PTX_OR: return u | v;
    case PTX_XOR: return u ^ v;
    case PTX_NOT: return ~u;
    case PTX_NEG: return 0 - u;
    case PTX_SHL: return shift >= i->type.bits ? 0 : u << shift;
    case PTX_SHR:
      if (shift >= i->type.bits) return is_signed && x < 0 ? ~(uint64_t)0 : 0;
      return is_signed ? (uint64_t)(x >> shift) : u >> shift;
    default: return u; /* mov */
  }
}

static uint64_t floating(const ptx_instruction *i, uint64_t a, uint64_t b, uint64_t c) {
  double x = as_float(a, i->type), y = as_float(b, i->type), z = as_float(c, i->type);
  switch (i->op) {
    case PTX_ADD: return from_float(x + y, i->type);
    case PTX_SUB: return from_float(x - y, i->type);
    case PTX_MUL: return from_float(x * y, i->type);
    case PTX_MAD: return from_float(x * y + z, i->type); /* the product of two floats is exact as a double */
    case PTX_DIV: return from_float(x / y, i->type);
    case PTX_MIN: return from_float(x < y ? x : y, i->type);
    case PTX_MAX: return from_float(x > y ? x : y, i->type);
    case PTX_NEG: return from_float(-x, i->type);
    default: return a;
  }
}

static bool compare(const ptx_instruction *i, uint64_t a, uint64_t b) {
  int order; /* -1, 0, 1; 2: not ordered */
  if (i->type.kind == 'f') {
    double x = as_float(a, i->type), y = as_float(b, i->type);
    order = x < y ? -1 : x > y ? 1 : x == y ? 0 : 2;
  } else if (i->type.kind == 's') {
    int64_t x = as_signed(a, i->type), y = as_signed(b, i->type);
    order = (x > y) - (x < y);
  } else {
    uint64_t x = a & mask_of(i->type), y = b & mask_of(i->type);
    order = (x > y) - (x < y);
  }
  switch (i->compare) {
    case PTX_EQ: return order == 0;
    case PTX_NE: return order == -1 || order == 1;
    case PTX_LT: return order == -1;
    case PTX_LE: return order == -1 || order == 0;
    case PTX_GT: return order == 1;
    default: return order == 1 || order == 0;
  }
}

static uint64_t convert(const ptx_instruction *i, uint64_t a) {
  if (i->from.kind == 'f') {
    double d = as_float(a, i->from);
    if (i->type.kind == 'f') return from_float(d, i->type);
    return i->type.kind == 's' ? (uint64_t)(int64_t)d : (uint64_t)d;
  }
  if (i->type.kind == 'f') return from_float(i->from.kind == 's' ? (double)as_signed(a, i->from) : (double)(a & mask_of(i->from)), i->type);
  return i->from.kind == 's' ? (uint64_t)as_signed(a, i->from) : a & mask_of(i->from);
}

/* Loads and stores; false when the address may not be touched. */
static bool access_memory(machine *m, const ptx_instruction *i) {
  bool store = i->op == PTX_ST;
  const ptx_operand *where = store ? &i->to : &i->a;
  CUdeviceptr address = m->registers[where->index] + where->value;
  size_t bytes = i->type.bits / 8u;
  if (address % bytes || !may_touch(m, address, bytes, store)) return false;
  void *memory = (void *)(uintptr_t)address;
  uint64_t value = 0;
  if (store) {
    value = value_of(m, &i->a);
    memcpy(memory, &value, bytes);
  } else {
    memcpy(&value, memory, bytes);
    m->registers[i->to.index] = i->type.kind == 's' ? (uint64_t)as_signed(value, i->type) : value;
  }
  return true;
}

static void compute(machine *m, const ptx_instruction *i) {
  uint64_t a = value_of(m, &i->a), b = value_of(m, &i->b), c = value_of(m, &i->c), result;
  switch (i->op) {
    case PTX_LD_PARAM:
      result = 0;
      if (i->a.value + i->type.bits / 8u <= m->payload->k.function->packed_bytes)
        memcpy(&result, m->payload->k.packed + i->a.value, i->type.bits / 8u);
      break;
    case PTX_SETP: result = compare(i, a, b); break;
    case PTX_SELP: result = c & 1 ? a : b; break;
    case PTX_CVT: result = convert(i, a) & mask_of(i->type); break;
    default:
      result = i->type.kind == 'f' ? floating(i, a, b, c) : integer(i, a, b, c);
      if (i->op != PTX_MUL_WIDE && i->op != PTX_MAD_WIDE) result &= mask_of(i->type);
  }
  m->registers[i->to.index] = result;
}

static bool run_thread(machine *m, const fc_program *program, uint64_t *instructions) {
  memset(m->registers, 0, (program->num_registers + 1) * sizeof *m->registers);
  for (size_t at = 0; at < program->length;) {
    const ptx_instruction *i = &program->code[at++];
    ++*instructions;
    if (i->guard >= 0 && (m->registers[i->guard] & 1) == (uint64_t)i->negated) continue;
    if (i->op == PTX_RET) return true;
    if (i->op == PTX_BRA)
      at = i->target;
    else if (i->op != PTX_LD && i->op != PTX_ST)
      compute(m, i);
    else if (!access_memory(m, i))
      return false;
  }
  return true;
}

bool fc_program_run(const fc_program *program, const fc_payload *payload, uint64_t *instructions) {
  const uint32_t *grid = payload->k.grid, *block = payload->k.block;
  machine m = {.payload = payload, .registers = malloc((program->num_registers + 1) * sizeof(uint64_t))};
  bool ok = m.registers != NULL;
  for (int k = 0; k < 3; k++) {
    m.special[3 + k] = block[k];
    m.special[9 + k] = grid[k];
  }
  uint64_t blocks = (uint64_t)grid[0] * grid[1] * grid[2], threads = (uint64_t)block[0] * block[1] * block[2];
  for (uint64_t b = 0; b < blocks && ok; b++) {
    m.special[6] = (uint32_t)(b % grid[0]);
    m.special[7] = (uint32_t)(b / grid[0] % grid[1]);
    m.special[8] = (uint32_t)(b / grid[0] / grid[1]);
    for (uint64_t t = 0; t < threads && ok; t++) {
      m.special[0] = (uint32_t)(t % block[0]);
      m.special[1] = (uint32_t)(t / block[0] % block[1]);
      m.special[2] = (uint32_t)(t / block[0] / block[1]);
      ok = run_thread(&m, program, instructions);
    }
  }
  free(m.registers);
  return ok;
}
