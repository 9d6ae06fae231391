# Loads and stores at random places of 64 MiB, each depending on the one before. For `make bench`. The checksum is
# 13607396022875758637.
#include "guest.inc"

#ifndef ITERATIONS
#define ITERATIONS 5000000
#endif

.equ AREA, 0x81000000
.equ AREA_MASK, 0x3fffff8

.section .text.start, "ax"
.globl _start
_start:
  la sp, stack_top
  li s1, AREA
  li s2, ITERATIONS
  li s3, AREA_MASK
  li s4, 6364136223846793005
  li s0, 1
  measure_begin

1: mul s0, s0, s4
  addi s0, s0, 1
  srli t0, s0, 29
  and t0, t0, s3
  add t0, t0, s1
  ld t1, 0(t0)
  add s0, s0, t1
  sd s0, 0(t0)
  addi s2, s2, -1
  bnez s2, 1b

  measure_end "memory-loop"
