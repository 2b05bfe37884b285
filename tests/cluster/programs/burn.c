/* burn MS WORD: use so much processor time, then print WORD and the node. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/utsname.h>
#include <time.h>

int main(int argc, char **argv)
{
	double ms = argc > 1 ? atof(argv[1]) : 0;
	struct utsname u;
	struct timespec t;

	do {
		for (volatile int i = 0; i < 100000; i++)
			;
		(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	} while ((double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6 < ms);
	(void)uname(&u);
	printf("%s %s\n", argc > 2 ? argv[2] : "", u.nodename);
	return 0;
}
