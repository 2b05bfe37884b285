/*
 * holder KIND [PATH]: hold something that ties a process to its node, say "holding",
 * then "N" for each line N of standard input.  KIND: nothing, flock, fcntl, io_uring,
 * traced, filter, device, file, tcp, fifo.
 */
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/io_uring.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int check(int r, const char *what)
{
	if (r < 0) {
		perror(what);
		exit(1);
	}
	return r;
}

/* The parent traces its child, which goes on as this program. */
static void be_traced(void)
{
	pid_t child = check(fork(), "fork");
	int status;

	if (child == 0) {
		check(ptrace(PTRACE_TRACEME, 0, 0, 0), "ptrace");
		raise(SIGSTOP);
		return;
	}
	waitpid(child, &status, 0);
	printf("traced %d\n", child);
	fflush(stdout);
	for (;;) {
		if (WIFEXITED(status) || WIFSIGNALED(status))
			exit(0);
		ptrace(PTRACE_CONT, child, 0, 0);
		check(waitpid(child, &status, 0), "waitpid");
	}
}

/* Of seccomp, which allows everything. */
static void be_filtered(void)
{
	static struct sock_filter code[] = { { BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW } };
	const struct sock_fprog program = { 1, code };

	check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl");
	check((int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program), "seccomp");
}

static void hold(const char *kind, const char *path)
{
	int fd;

	if (strcmp(kind, "flock") == 0) {
		fd = check(open(path, O_RDWR | O_CREAT, 0666), path);
		check(flock(fd, LOCK_EX), "flock");
	} else if (strcmp(kind, "fcntl") == 0) {
		struct flock l = {.l_type = F_WRLCK, .l_len = 1};

		fd = check(open(path, O_RDWR | O_CREAT, 0666), path);
		check(fcntl(fd, F_SETLK, &l), "fcntl");
	} else if (strcmp(kind, "io_uring") == 0) {
		struct io_uring_params p = {0};

		check((int)syscall(SYS_io_uring_setup, 4, &p), "io_uring");
	} else if (strcmp(kind, "traced") == 0) {
		be_traced();
	} else if (strcmp(kind, "filter") == 0) {
		be_filtered();
	} else if (strcmp(kind, "device") == 0 || strcmp(kind, "file") == 0) {
		check(open(path, O_RDWR), path);
	} else if (strcmp(kind, "tcp") == 0) {
		fd = check(socket(AF_INET, SOCK_STREAM, 0), "socket");
		check(listen(fd, 1), "listen");
	} else if (strcmp(kind, "nothing") != 0) {
		exit(2);
	}
}

int main(int argc, char **argv)
{
	char line[256];

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc < 2)
		return 2;
	hold(argv[1], argc > 2 ? argv[2] : "/");
	puts("holding");
	while (fgets(line, sizeof(line), stdin))
		fputs(line, stdout);
	return 42;
}
