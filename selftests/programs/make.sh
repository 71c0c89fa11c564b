# SPDX-License-Identifier: GPL-2.0
# Builds a program by several compilers at a time, which says what they made.

numbers=$(seq 0 11)
for n in $numbers; do
	cat >"f$n.c" <<-END
	#include <stdlib.h>
	#include <string.h>
	int f$n(void) { return $n * abs(-3) + (int)strlen("$n"); }
	END
done
{
	echo '#include <stdio.h>'
	for n in $numbers; do echo "int f$n(void);"; done
	echo 'int main(void) {'
	for n in $numbers; do echo "printf(\"%d\\n\", f$n());"; done
	echo 'return 0; }'
} >main.c
cat >Makefile <<END
all: program
	./program
program: main.o $(for n in $numbers; do printf 'f%s.o ' "$n"; done)
	tcc -o \$@ \$^
%.o: %.c
	tcc -c -o \$@ \$<
	touch works
END
exec make -j4 --jobserver-style=pipe -s
