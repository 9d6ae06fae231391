# A long mix of integer work: additions, exclusive ors, shifts, multiplications, loads, stores and branches that go
# both ways, in a few cache lines. For `make bench`. The checksum is
# 17057735925976223362.
#include "guest.inc"

#ifndef ITERATIONS
#define ITERATIONS 10000000
#endif

.section .text.start, "ax"
.globl _start
_start:
  la sp, stack_top
  la s1, table
  li s2, ITERATIONS
  li s0, 0
  li s3, 0x9e3779b97f4a7c15
  li s4, 1
  measure_begin

1: add s0, s0, s4
  xor s4, s4, s3
  slli t0, s4, 13
  xor s4, s4, t0
  srli t0, s4, 7
  xor s4, s4, t0
  slli t0, s4, 17
  xor s4, s4, t0
  andi t1, s4, 0x1f8
  add t1, t1, s1
  ld t2, 0(t1)
  add t2, t2, s0
  sd t2, 0(t1)
  andi t0, s4, 1
  beqz t0, 2f
  sub s0, s0, t2
  srai t2, t2, 3
  addw t3, t2, s4
  add s0, s0, t3
  j 3f
2: xor s0, s0, t2
  sltu t3, s0, s4
  add s0, s0, t3
3: lw t3, 4(s1)
  lbu t4, 9(s1)
  add s0, s0, t3
  sh t4, 18(s1)
  call mix
  addi s2, s2, -1
  bnez s2, 1b

  measure_end "integer-loop"

mix:
  addi sp, sp, -16
  sd ra, 8(sp)
  mul t0, s0, s3
  srli t0, t0, 32
  xor s0, s0, t0
  ld ra, 8(sp)
  addi sp, sp, 16
  ret

.bss
.balign 64
table: .space 1024
