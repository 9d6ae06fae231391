# Ends by the test finisher: 0x5555 for success, or 0x3333 with the exit code above it.
#include "guest.inc"

.section .text.start, "ax"
.globl _start
_start:
  finish EXIT_CODE
