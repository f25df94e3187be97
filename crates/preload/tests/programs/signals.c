// Signals: the program's own SIGSYS, blocked masks, handlers that use rings, small stacks.
#include "ring.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>

static volatile sig_atomic_t hits, last_code, last_errno;
static void count(int sig) { (void)sig; hits++; }
static void count_info(int sig, siginfo_t *info, void *context) {
    (void)sig; (void)context;
    hits++;
    last_code = info->si_code;
    last_errno = info->si_errno;
}

// What a child process does; returns its wait status.
static int in_child(void (*work)(void)) {
    pid_t pid = fork();
    if (pid == 0) {
        work();
        _exit(0);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    return status;
}

static void raise_sigsys(void) { raise(SIGSYS); }
static void ignore_and_raise(void) { signal(SIGSYS, SIG_IGN); raise(SIGSYS); }

// The program has its own SIGSYS action and reads it back; rings go on working.
static void own_action(void) {
    struct sigaction now, act = {.sa_sigaction = count_info, .sa_flags = SA_SIGINFO};
    CHECK(sigaction(SIGSYS, NULL, &now) == 0 && now.sa_handler == SIG_DFL);
    CHECK(sigaction(SIGSYS, &act, &now) == 0 && now.sa_handler == SIG_DFL);
    CHECK(round_trip(VARIABLE));
    CHECK(hits == 0);
    CHECK(raise(SIGSYS) == 0 && hits == 1);
    CHECK(sigaction(SIGSYS, NULL, &now) == 0 && now.sa_sigaction == count_info && (now.sa_flags & SA_SIGINFO));
    CHECK(signal(SIGSYS, count) == (sighandler_t)count_info);
    CHECK(raise(SIGSYS) == 0 && hits == 2);
    CHECK(round_trip(VARIABLE));
    CHECK(signal(SIGSYS, SIG_DFL) == count);
    int status = in_child(raise_sigsys);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
    status = in_child(ignore_and_raise);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(round_trip(VARIABLE));
}

// By raw calls too: the kernel's structure, with and without asking for the old action.
static void raw_action(void) {
    struct { void *handler; unsigned long flags; void *restorer; unsigned long mask; } act = {count, 0, 0, 0}, old = {0};
    CHECK(raw(SYS_rt_sigaction, SIGSYS, (long)&act, (long)&old, 8, 0, 0) == 0);
    CHECK(old.handler == SIG_DFL);
    CHECK(raw(SYS_rt_sigaction, SIGSYS, (long)&act, (long)&old, 8, 0, 0) == 0 && old.handler == count);
    CHECK(raw(SYS_rt_sigaction, SIGSYS, (long)&act, 0, 8, 0, 0) == 0);
    CHECK(round_trip(VARIABLE));
}

// SIGSYS blocked, as far as the program can tell; calls go on working.
static void blocked(void) {
    sigset_t all, now;
    sigfillset(&all);
    CHECK(sigprocmask(SIG_SETMASK, &all, NULL) == 0);
    CHECK(round_trip(VARIABLE) && round_trip(SITE) && round_trip(LIBC));
    CHECK(sigprocmask(SIG_BLOCK, NULL, &now) == 0 && sigismember(&now, SIGSYS) == 1 && sigismember(&now, SIGUSR1) == 1);
    CHECK(pthread_sigmask(SIG_UNBLOCK, &all, &now) == 0 && sigismember(&now, SIGSYS) == 1);
    CHECK(sigprocmask(SIG_BLOCK, NULL, &now) == 0 && sigismember(&now, SIGSYS) == 0);
    CHECK(round_trip(VARIABLE));
    uint64_t mask = ~0ull, old = 0;
    CHECK(syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, &old, 8) == 0 && !(old >> (SIGSYS - 1) & 1));
    CHECK(round_trip(VARIABLE));
    CHECK(syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &old, 8) == 0);
}

static struct ring in_handler;
static void ring_handler(int sig) {
    (void)sig;
    int saved = errno;
    CHECK(ring_works(&in_handler));
    CHECK(round_trip(VARIABLE) && round_trip(SITE));
    hits++;
    errno = saved;
}

// Handlers that use rings: with every signal masked in them, on an alternate stack, during ppoll.
static void handlers(void) {
    CHECK(ring_open(&in_handler, VARIABLE, 4, 0) > 2);
    stack_t alt = {.ss_sp = malloc(16384), .ss_size = 16384};
    CHECK(sigaltstack(&alt, NULL) == 0);
    struct sigaction act = {.sa_handler = ring_handler, .sa_flags = SA_ONSTACK};
    sigfillset(&act.sa_mask);
    CHECK(sigaction(SIGUSR1, &act, NULL) == 0);
    for (int i = 1; i <= 3; i++) CHECK(raise(SIGUSR1) == 0 && hits == i);
    sigset_t all;
    sigfillset(&all);
    sigdelset(&all, SIGUSR1);
    sigset_t usr1;
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    CHECK(sigprocmask(SIG_BLOCK, &usr1, NULL) == 0);
    kill(getpid(), SIGUSR1);
    CHECK(ppoll(NULL, 0, NULL, &all) == -1 && errno == EINTR && hits == 4);
    kill(getpid(), SIGUSR1);
    CHECK(sigsuspend(&all) == -1 && errno == EINTR && hits == 5);
}

static void alarm_in(long us) {
    struct itimerval t = {.it_value = {.tv_usec = us}};
    CHECK(setitimer(ITIMER_REAL, &t, NULL) == 0);
}

// A handler that runs while io_uring_enter waits: -EINTR, and the ring goes on.
static void interrupted(void) {
    struct ring r;
    enum how hows[] = {VARIABLE, SITE, LIBC};
    struct sigaction act = {.sa_handler = ring_handler, .sa_flags = SA_RESTART};
    CHECK(ring_open(&in_handler, VARIABLE, 4, 0) > 2);
    CHECK(sigaction(SIGALRM, &act, NULL) == 0);
    for (int i = 0; i < 3; i++) {
        CHECK(ring_open(&r, hows[i], 4, 0) > 2);
        hits = 0;
        alarm_in(50000);
        CHECK(ring_enter(&r, 0, 1) == -EINTR && hits == 1);
        CHECK(ring_works(&r) && ring_close(&r) == 0);
    }
}

static sigjmp_buf back;
static void jump(int sig) { (void)sig; siglongjmp(back, 1); }

// A handler that never returns into the wait.
static void jumped(void) {
    struct ring r;
    struct sigaction act = {.sa_handler = jump};
    CHECK(sigaction(SIGALRM, &act, NULL) == 0);
    enum how hows[] = {VARIABLE, SITE, LIBC};
    for (int i = 0; i < 3; i++) {
        CHECK(ring_open(&r, hows[i], 4, 0) > 2);
        if (sigsetjmp(back, 1) == 0) {
            alarm_in(50000);
            ring_enter(&r, 0, 1);
            CHECK(!"reached");
        }
        CHECK(round_trip(VARIABLE) && round_trip(SITE) && round_trip(LIBC));
    }
}

static void *use_rings(void *arg) {
    for (int i = 0; i < 20; i++) CHECK(round_trip(VARIABLE) && round_trip(SITE) && round_trip(LIBC));
    return arg;
}

// The smallest stack that a thread may have.
static void small_stacks(void) {
    pthread_attr_t attr;
    CHECK(pthread_attr_init(&attr) == 0 && pthread_attr_setstacksize(&attr, PTHREAD_STACK_MIN) == 0);
    for (int round = 0; round < 20; round++) {
        pthread_t t[4];
        for (int i = 0; i < 4; i++) CHECK(pthread_create(&t[i], &attr, use_rings, NULL) == 0);
        for (int i = 0; i < 4; i++) CHECK(pthread_join(t[i], NULL) == 0);
    }
}

static long address_space_pages(void) {
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    CHECK(f && fscanf(f, "%ld", &pages) == 1);
    fclose(f);
    return pages;
}

static void *one_trip(void *arg) {
    CHECK(round_trip(VARIABLE));
    return arg;
}

// What a thread was given is taken back when it ends.
static void thread_churn(void) {
    pthread_t t;
    for (int i = 0; i < 20; i++) CHECK(pthread_create(&t, NULL, one_trip, NULL) == 0 && pthread_join(t, NULL) == 0);
    long before = address_space_pages();
    for (int i = 0; i < 200; i++) CHECK(pthread_create(&t, NULL, one_trip, NULL) == 0 && pthread_join(t, NULL) == 0);
    CHECK(address_space_pages() - before < 1024);
}

// The program's own sandbox stops a call of its choice for its own handler.
static void own_sandbox(void) {
    struct sigaction act = {.sa_sigaction = count_info, .sa_flags = SA_SIGINFO};
    CHECK(sigaction(SIGSYS, &act, NULL) == 0);
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP | 7),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog prog = {4, code};
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) == 0);
    raw(SYS_getppid, 0, 0, 0, 0, 0, 0);
    CHECK(hits == 1 && last_code == 1 /* SYS_SECCOMP */ && last_errno == 7);
    CHECK(round_trip(VARIABLE) && round_trip(SITE) && round_trip(LIBC));
    CHECK(hits == 1);
}

int main(int argc, char **argv) {
    CHECK(argc >= 2);
    if (!strcmp(argv[1], "own-action")) own_action();
    else if (!strcmp(argv[1], "raw-action")) raw_action();
    else if (!strcmp(argv[1], "blocked")) blocked();
    else if (!strcmp(argv[1], "handlers")) handlers();
    else if (!strcmp(argv[1], "interrupted")) interrupted();
    else if (!strcmp(argv[1], "jumped")) jumped();
    else if (!strcmp(argv[1], "small-stacks")) small_stacks();
    else if (!strcmp(argv[1], "thread-churn")) thread_churn();
    else if (!strcmp(argv[1], "own-sandbox")) own_sandbox();
    else return 2;
    return 0;
}
