# Ends by semihosting: SYS_EXIT (0x18) with ADP_Stopped_ApplicationExit (0x20026) and the exit code.
#include "guest.inc"

.section .text.start, "ax"
.globl _start
_start:
  li a0, 0x18
  la a1, parameters
  j 1f
  # The three instructions that mark a semihosting call are uncompressed and lie in one page.
  .balign 16
  .option norvc
1: slli x0, x0, 0x1f
  ebreak
  srai x0, x0, 7
2: wfi
  j 2b

.data
.balign 16
parameters: .dword 0x20026, EXIT_CODE
