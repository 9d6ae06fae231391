# Double and single-precision work: the logistic map, a fused sum, roots and conversions. For `make bench`. The checksum is
# 4701993548412239513.
#include "guest.inc"

#ifndef ITERATIONS
#define ITERATIONS 5000000
#endif

.section .text.start, "ax"
.globl _start
_start:
  la sp, stack_top
  li t0, 0x6000
  csrs mstatus, t0
  li s2, ITERATIONS
  la t0, constants
  fld fs0, 0(t0)
  fld fs1, 8(t0)
  fld fs2, 16(t0)
  fmv.d.x fs3, x0
  fcvt.s.w fs4, x0
  measure_begin

1: fsub.d ft0, fs1, fs0
  fmul.d ft0, ft0, fs0
  fmul.d fs0, ft0, fs2
  fmadd.d fs3, fs0, fs0, fs3
  fsqrt.d ft1, fs3
  fdiv.d ft2, fs0, ft1
  fadd.d fs3, fs3, ft2
  fcvt.s.d ft3, fs0
  fadd.s fs4, fs4, ft3
  fmul.s ft4, ft3, fs4
  flt.d t1, fs0, ft2
  beqz t1, 2f
  fneg.d ft2, ft2
2: fcvt.l.d t2, ft1, rtz
  fcvt.d.l ft5, t2
  fmax.d fs3, fs3, ft5
  addi s2, s2, -1
  bnez s2, 1b

  fmv.x.d s0, fs3
  fmv.x.w t0, fs4
  xor s0, s0, t0
  measure_end "float-loop"

.section .rodata
.balign 8
constants: .double 0.3, 1.0, 3.9
