# Makes ./project: a middle-sized C program of thirty files, with a header of their own, and a Makefile.
mkdir project && cd project || exit 1
for ((file = 0; file < 30; file++)); do
  echo "int part$file(int value);" >>parts.h
  {
    echo '#include <stdio.h>'
    echo '#include <stdlib.h>'
    echo '#include <string.h>'
    echo '#include "parts.h"'
    for ((number = 0; number < 20; number++)); do
      echo "static int step$number(int value) { char text[64]; int rest = value % ($number + 3);"
      echo "  snprintf(text, sizeof text, \"%d %d\", value, rest); return (int)strlen(text) * rest + atoi(text); }"
    done
    echo "int part$file(int value) {"
    for ((number = 0; number < 20; number++)); do echo "  value += step$number(value);"; done
    echo "  return value; }"
  } >part$file.c
done
{
  echo '#include "parts.h"'
  echo 'int main(void) { int value = 1;'
  for ((file = 0; file < 30; file++)); do echo "  value ^= part$file(value);"; done
  echo '  return value & 1; }'
} >main.c
printf 'CFLAGS = -O1\nprogram: $(patsubst %%.c,%%.o,$(wildcard *.c))\n\tgcc -o $@ $^\n%%.o: %%.c parts.h\n\tgcc $(CFLAGS) -c $<\n' >Makefile
