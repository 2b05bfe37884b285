#pragma once
/* What a system call looks like in the registers of this architecture. */
#ifndef __x86_64__
#error "the injection door knows x86-64 only"
#endif

#include <stdbool.h>
#include <stdint.h>
#include <sys/user.h>

typedef struct user_regs_struct inject_regs;

static const uint8_t inject_syscall_insn[] = { 0x0f, 0x05 };

/* A 64-bit program, which our numbers and structs fit. */
static inline bool inject_regs_usable(const inject_regs *r)
{
	return r->cs == 0x33;
}

/* About to execute the instruction at @insn: call @nr.  orig_rax -1: nothing to restart. */
static inline void inject_regs_call(inject_regs *r, uint64_t insn, long nr,
				    const long args[static 6])
{
	r->rip = insn;
	r->rax = (unsigned long)nr;
	r->orig_rax = (unsigned long)-1;
	r->rdi = (unsigned long)args[0];
	r->rsi = (unsigned long)args[1];
	r->rdx = (unsigned long)args[2];
	r->r10 = (unsigned long)args[3];
	r->r8 = (unsigned long)args[4];
	r->r9 = (unsigned long)args[5];
}

static inline long inject_regs_result(const inject_regs *r)
{
	return (long)r->rax;
}

/* ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND, ERESTART_RESTARTBLOCK of the kernel. */
static inline bool inject_result_restarts(long result)
{
	return result == -512 || result == -513 || result == -514 || result == -516;
}

static inline bool inject_regs_in_syscall(const inject_regs *r)
{
	return (long)r->orig_rax >= 0;
}

/* The call that it is in, and its arguments. */
static inline long inject_regs_number(const inject_regs *r)
{
	return (long)r->orig_rax;
}

static inline void inject_regs_args(const inject_regs *r, long ret[static 6])
{
	ret[0] = (long)r->rdi;
	ret[1] = (long)r->rsi;
	ret[2] = (long)r->rdx;
	ret[3] = (long)r->r10;
	ret[4] = (long)r->r8;
	ret[5] = (long)r->r9;
}

static inline uint64_t inject_regs_ip(const inject_regs *r)
{
	return r->rip;
}

static inline void inject_regs_set_ip(inject_regs *r, uint64_t ip)
{
	r->rip = ip;
}
