/* A parsed PTX body: what program.c makes and interpret.c runs. */
#ifndef ADCG_TESTS_FAKECUDA_PROGRAM_H_
#define ADCG_TESTS_FAKECUDA_PROGRAM_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* .u32, .s64, .f32, .b8 ... or .pred */
typedef struct ptx_type {
  char kind; /* u s b f p; 0: none */
  uint8_t bits;
} ptx_type;

typedef enum ptx_op {
  PTX_LD_PARAM,
  PTX_LD,
  PTX_ST,
  PTX_MOV, /* and cvta: addresses are generic */
  PTX_ADD,
  PTX_SUB,
  PTX_MUL,
  PTX_MUL_WIDE,
  PTX_MAD,
  PTX_MAD_WIDE,
  PTX_DIV,
  PTX_REM,
  PTX_MIN,
  PTX_MAX,
  PTX_AND,
  PTX_OR,
  PTX_XOR,
  PTX_NOT,
  PTX_NEG,
  PTX_SHL,
  PTX_SHR,
  PTX_SETP,
  PTX_SELP,
  PTX_CVT,
  PTX_BRA,
  PTX_RET,
} ptx_op;

typedef enum ptx_compare { PTX_EQ, PTX_NE, PTX_LT, PTX_LE, PTX_GT, PTX_GE } ptx_compare;

typedef enum ptx_operand_kind { PTX_REGISTER, PTX_CONSTANT, PTX_SPECIAL, PTX_ADDRESS } ptx_operand_kind;

typedef struct ptx_operand {
  ptx_operand_kind kind;
  uint32_t index;  /* register; of a special one: 3 * (tid ntid ctaid nctaid) + (x y z) */
  uint64_t value;  /* constant; offset from the register of an address, or from the parameters' start */
  bool parameters; /* the address is an offset into the parameters */
} ptx_operand;

typedef struct ptx_instruction {
  ptx_op op;
  ptx_type type, from; /* from: cvt's source type */
  ptx_compare compare;
  int32_t guard; /* predicate register, -1 for none */
  bool negated;
  ptx_operand to, a, b, c;
  uint32_t target;
} ptx_instruction;

typedef struct fc_program {
  ptx_instruction *code;
  size_t length, capacity;
  uint32_t num_registers;
} fc_program;

#endif
