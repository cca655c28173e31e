/*
 * pause is the first process of every pod: it holds the pod's namespaces open,
 * reaps the children it inherits when the pod shares its process namespace,
 * and exits on SIGTERM or SIGINT. It uses system calls only (no libc), so that
 * the file, and the memory it costs every pod, stays at a few kilobytes.
 *
 * Invariant: as process 1 it never exits by itself and never leaves a zombie.
 */

#include <linux/signal.h>
#include <linux/wait.h>
#include <asm/unistd.h>

#if defined(__x86_64__)
static long call(long number, long a, long b, long c, long d)
{
	long result;
	register long r10 __asm__("r10") = d;
	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10)
			 : "rcx", "r11", "memory");
	return result;
}
__asm__(".globl _start\n_start: xor %rbp,%rbp\n and $-16,%rsp\n call pause_main\n hlt\n");
#elif defined(__aarch64__)
static long call(long number, long a, long b, long c, long d)
{
	register long x8 __asm__("x8") = number;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	__asm__ volatile("svc #0"
			 : "+r"(x0)
			 : "r"(x8), "r"(x1), "r"(x2), "r"(x3)
			 : "memory");
	return x0;
}
__asm__(".globl _start\n_start: bl pause_main\n");
#else
#error "pause knows the system calls of amd64 and arm64 only"
#endif

/* The kernel's own view of a signal set: 64 signals, one bit each. */
#define BIT(sig) (1UL << ((sig) - 1))
#define SET_SIZE 8

__attribute__((noreturn, used)) void pause_main(void)
{
	unsigned long set = BIT(SIGCHLD) | BIT(SIGTERM) | BIT(SIGINT);

	/*
	 * Blocked signals stay pending until rt_sigtimedwait takes them: no
	 * handler, no race between looking and sleeping. Process 1 of a
	 * namespace gets no default action for signals, so waiting for them is
	 * also the only way to see SIGTERM at all.
	 */
	call(__NR_rt_sigprocmask, SIG_BLOCK, (long)&set, 0, SET_SIZE);
	for (;;) {
		long sig = call(__NR_rt_sigtimedwait, (long)&set, 0, 0, SET_SIZE);
		if (sig == SIGTERM || sig == SIGINT)
			call(__NR_exit_group, 0, 0, 0, 0);
		/* One SIGCHLD may stand for many children. */
		while (call(__NR_wait4, -1, 0, WNOHANG, 0) > 0)
			;
	}
}
