/*
 * distant_fork N STEPS: N children compute so many million steps each, in the memory that they
 * have from their parent, and say where they are and what came out.
 *
 * The kind of program that Kerrighed's DISTANT_FORK is for: nothing in it is about a cluster.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TABLE = 4096, MILLION = 1000000 };

static uint64_t table[TABLE];

static void compute(int k, uint64_t n_steps)
{
	uint64_t x = table[k % TABLE];
	struct utsname u;
	char line[256];
	int len;

	for (uint64_t i = 0; i < n_steps; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		table[x % TABLE] += x;
	}
	for (int i = 0; i < TABLE; i++)
		x += table[i];
	(void)uname(&u);
	len = snprintf(line, sizeof(line), "%d %s %016llx\n", k, u.nodename, (unsigned long long)x);
	_exit(write(STDOUT_FILENO, line, len) == len ? k : 100);
}

int main(int argc, char **argv)
{
	int n = argc > 1 ? atoi(argv[1]) : 1, status, right = 0;
	uint64_t n_steps = argc > 2 ? strtoull(argv[2], NULL, 10) * MILLION : MILLION;
	pid_t children[100];

	for (int i = 0; i < TABLE; i++)
		table[i] = 88172645463325252u + i;
	for (int k = 0; k < n && k < 100; k++) {
		children[k] = fork();
		if (children[k] == 0)
			compute(k, n_steps);
	}
	for (int k = 0; k < n && k < 100; k++)
		right += waitpid(children[k], &status, 0) == children[k] && WIFEXITED(status) &&
			 WEXITSTATUS(status) == k;
	(void)printf("%d of %d\n", right, n);
	return 0;
}
