# Prints a line on the UART, waiting for room before each byte.
#include "guest.inc"

.section .text.start, "ax"
.globl _start
_start:
  print "Hello from a RISC-V guest.\n"
  finish 0
