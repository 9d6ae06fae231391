# Ends by the SBI's System Reset extension: shutdown, for no reason (exit code 0) or for a system failure (any other).
# Begins in M-mode or in S-mode, and makes the call from S-mode.
#include "guest.inc"

.section .text.start, "ax"
.globl _start
_start:
  # In S-mode, mtvec is an illegal instruction and goes to stvec.
  la t0, supervisor
  csrw stvec, t0
  csrw mtvec, t0
  li t1, -1
  csrw pmpaddr0, t1
  li t1, 0x1f
  csrw pmpcfg0, t1
  csrw mepc, t0
  li t1, 0x1800
  csrc mstatus, t1
  li t1, 0x0800
  csrs mstatus, t1
  mret

.balign 4
supervisor:
  li a7, 0x53525354
  li a6, 0
  li a0, 0
  .if EXIT_CODE
  li a1, 1
  .else
  li a1, 0
  .endif
  ecall
1: wfi
  j 1b
