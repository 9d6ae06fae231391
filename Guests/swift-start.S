# What an Embedded Swift program needs around it: a stack, floating point, and the few functions that the compiler and the
# standard library call. The heap only grows: a guest program is short-lived.
#include "guest.inc"

.section .text.start, "ax"
.globl _start
_start:
  la sp, stack_top
  li t0, 0x6000
  csrs mstatus, t0
  call guest_main
  finish 0

.text
.globl memset
memset:
  mv t0, a0
  add a2, a2, a0
1: beq t0, a2, 2f
  sb a1, 0(t0)
  addi t0, t0, 1
  j 1b
2: ret

.globl memmove
memmove:
  bltu a0, a1, memcpy
  add t0, a0, a2
  add a1, a1, a2
1: beq t0, a0, 2f
  addi t0, t0, -1
  addi a1, a1, -1
  lbu t1, 0(a1)
  sb t1, 0(t0)
  j 1b
2: ret

.globl memcpy
memcpy:
  mv t0, a0
  add a2, a2, a0
1: beq t0, a2, 2f
  lbu t1, 0(a1)
  sb t1, 0(t0)
  addi t0, t0, 1
  addi a1, a1, 1
  j 1b
2: ret

# int posix_memalign(void **result, size_t alignment, size_t size)
.globl posix_memalign
posix_memalign:
  la t0, heap
  ld t1, 0(t0)
  add t1, t1, a1
  addi t1, t1, -1
  neg a1, a1
  and t1, t1, a1
  sd t1, 0(a0)
  add t1, t1, a2
  sd t1, 0(t0)
  li a0, 0
  ret

.globl free
free: ret

# _Noreturn void guest_trap(void), and what a failed check of the Swift program reaches: the machine ends with 1.
.globl abort
abort:
  finish 1

.data
.balign 8
heap: .dword heap_start
