# Ends by HTIF, as the RISC-V tests do: an odd number stored to the symbol tohost, with the exit code above the lowest bit.
#include "guest.inc"

.section .text.start, "ax"
.globl _start
_start:
  li t0, (EXIT_CODE << 1) | 1
  la t1, tohost
1: sd t0, 0(t1)
  j 1b

.section .tohost, "aw"
.globl tohost
.balign 64
.type tohost, @object
.size tohost, 8
tohost: .dword 0
.globl fromhost
.balign 64
.type fromhost, @object
.size fromhost, 8
fromhost: .dword 0
