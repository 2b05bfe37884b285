#pragma once
/*
 * System calls for a program without a C library: ssi-shadow is set-uid, and what
 * a C library does before main() with an environment that a user chose is code
 * that need not run.  Results are the kernel's: -errno.
 */
#if defined(__x86_64__)
static inline long sys6(long nr, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
	long ret;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
}

#define SHADOW_START                                                                 \
	__asm__(".globl _start\n_start:\n xor %ebp, %ebp\n and $-16, %rsp\n"         \
		" call shadow_main\n hlt\n")

#elif defined(__aarch64__)
static inline long sys6(long nr, long a, long b, long c, long d, long e, long f)
{
	register long x8 __asm__("x8") = nr, x0 __asm__("x0") = a, x1 __asm__("x1") = b,
		      x2 __asm__("x2") = c, x3 __asm__("x3") = d, x4 __asm__("x4") = e,
		      x5 __asm__("x5") = f;

	__asm__ volatile("svc 0"
			 : "+r"(x0)
			 : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
			 : "memory");
	return x0;
}

#define SHADOW_START                                                                 \
	__asm__(".globl _start\n_start:\n mov x29, xzr\n bl shadow_main\n brk 0\n")
#else
#error "ssi-shadow: no system calls for this machine"
#endif

#define SYS_N(nr_, a_, b_, c_, d_, e_, f_, ...)                                      \
	sys6((nr_), (long)(a_), (long)(b_), (long)(c_), (long)(d_), (long)(e_), (long)(f_))
/* sys(SYS_close, fd): missing arguments are 0. */
#define sys(...) SYS_N(__VA_ARGS__, 0, 0, 0, 0, 0, 0, 0)

/* The compiler may call these by itself. */
void *memset(void *p, int c, unsigned long n);
void *memcpy(void *restrict to, const void *restrict from, unsigned long n);
int memcmp(const void *a, const void *b, unsigned long n);

void *memset(void *p, int c, unsigned long n)
{
	volatile char *q = p;

	while (n--)
		*q++ = c;
	return p;
}

void *memcpy(void *restrict to, const void *restrict from, unsigned long n)
{
	volatile char *q = to;
	const char *s = from;

	while (n--)
		*q++ = *s++;
	return to;
}

int memcmp(const void *a, const void *b, unsigned long n)
{
	const volatile unsigned char *p = a, *q = b;

	for (; n; n--, p++, q++)
		if (*p != *q)
			return *p - *q;
	return 0;
}
