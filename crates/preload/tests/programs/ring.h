// A ring without any library: the three calls, mmap and close as inline assembly, as liburing makes them.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CHECK(cond)                                                                       \
    do {                                                                                  \
        if (!(cond)) {                                                                    \
            dprintf(2, "%s:%d: %s (errno %d)\n", __FILE__, __LINE__, #cond, errno);       \
            _exit(1);                                                                     \
        }                                                                                 \
    } while (0)

#define ENTER_GETEVENTS 1u

struct params {
    uint32_t sq_entries, cq_entries, flags, thread_cpu, thread_idle, features, wq_fd, resv[3];
    struct { uint32_t head, tail, mask, entries, flags, dropped, array, resv; uint64_t user_addr; } sq;
    struct { uint32_t head, tail, mask, entries, overflow, cqes, flags, resv; uint64_t user_addr; } cq;
};
struct sqe { uint8_t opcode, flags; uint16_t ioprio; int32_t fd; uint64_t off, addr; uint32_t len, op_flags; uint64_t user_data, pad[3]; };
struct cqe { uint64_t user_data; int32_t res; uint32_t flags; };

// Any call, its number from a variable: no site that could be rewritten.
static inline long raw(long nr, long a, long b, long c, long d, long e, long f) {
    long ret;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall" : "=a"(ret) : "0"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
    return ret;
}

// The same with the number right before the instruction: a site that can be rewritten.
#define ADJACENT(name, number)                                                            \
    static __attribute__((noinline)) long name(long a, long b, long c, long d, long e, long f) { \
        long ret;                                                                         \
        register long r10 __asm__("r10") = d;                                             \
        register long r8 __asm__("r8") = e;                                               \
        register long r9 __asm__("r9") = f;                                               \
        __asm__ volatile("mov $" #number ", %%eax\n\tsyscall" : "=&a"(ret) : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory"); \
        return ret;                                                                       \
    }
ADJACENT(adjacent_setup, 425)
ADJACENT(adjacent_enter, 426)

enum how { VARIABLE, SITE, LIBC };

static long call(enum how how, long nr, long a, long b, long c, long d, long e, long f) {
    if (how == SITE && nr == 425) return adjacent_setup(a, b, c, d, e, f);
    if (how == SITE && nr == 426) return adjacent_enter(a, b, c, d, e, f);
    if (how != LIBC) return raw(nr, a, b, c, d, e, f);
    long ret = syscall(nr, a, b, c, d, e, f);
    return ret == -1 ? -errno : ret;
}

struct ring {
    enum how how;
    int fd;
    char *rings;
    struct sqe *sqes;
    struct params p;
    size_t rings_len;
};

#define WORD(r, off) ((volatile uint32_t *)((r)->rings + (off)))

static long ring_open(struct ring *r, enum how how, unsigned entries, unsigned flags) {
    memset(r, 0, sizeof *r);
    r->how = how;
    r->p.flags = flags;
    long fd = call(how, 425, entries, (long)&r->p, 0, 0, 0, 0);
    if (fd < 0) return fd;
    r->fd = fd;
    size_t sq = r->p.sq.array + r->p.sq_entries * 4, cq = r->p.cq.cqes + r->p.cq_entries * 16;
    r->rings_len = sq > cq ? sq : cq;
    long at = how == LIBC ? (long)mmap(NULL, r->rings_len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0)
                          : raw(SYS_mmap, 0, r->rings_len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    CHECK(at > 0 || at < -4095);
    r->rings = (char *)at;
    at = how == LIBC ? (long)mmap64(NULL, r->p.sq_entries * 64, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0x10000000)
                     : raw(SYS_mmap, 0, r->p.sq_entries * 64, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0x10000000);
    CHECK(at > 0 || at < -4095);
    r->sqes = (struct sqe *)at;
    return fd;
}

static void ring_push(struct ring *r, int opcode, uint64_t user_data) {
    uint32_t tail = *WORD(r, r->p.sq.tail), slot = tail & *WORD(r, r->p.sq.mask);
    memset(&r->sqes[slot], 0, 64);
    r->sqes[slot].opcode = opcode;
    r->sqes[slot].fd = -1;
    r->sqes[slot].user_data = user_data;
    WORD(r, r->p.sq.array)[slot] = slot;
    __atomic_store_n(WORD(r, r->p.sq.tail), tail + 1, __ATOMIC_RELEASE);
}

static long ring_enter(struct ring *r, unsigned submit, unsigned wait) {
    return call(r->how, 426, r->fd, submit, wait, wait ? ENTER_GETEVENTS : 0, 0, 0);
}

static int ring_pop(struct ring *r, struct cqe *out) {
    uint32_t head = *WORD(r, r->p.cq.head);
    if (head == __atomic_load_n(WORD(r, r->p.cq.tail), __ATOMIC_ACQUIRE)) return 0;
    *out = ((struct cqe *)(r->rings + r->p.cq.cqes))[head & *WORD(r, r->p.cq.mask)];
    __atomic_store_n(WORD(r, r->p.cq.head), head + 1, __ATOMIC_RELEASE);
    return 1;
}

// One request there and back: the ring works.
static int ring_works(struct ring *r) {
    static uint64_t next = 1000;
    uint64_t mark = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED);
    struct cqe cqe = {0};
    ring_push(r, 0, mark);
    long ret = ring_enter(r, 1, 1);
    if (ret != 1) {
        dprintf(2, "enter: %ld\n", ret);
        return 0;
    }
    return ring_pop(r, &cqe) && cqe.user_data == mark && cqe.res == 0;
}

static int ring_close(struct ring *r) {
    munmap(r->rings, r->rings_len);
    munmap(r->sqes, r->p.sq_entries * 64);
    long ret = r->how == LIBC ? (close(r->fd) < 0 ? -errno : 0) : raw(SYS_close, r->fd, 0, 0, 0, 0, 0);
    return ret;
}

// A ring made, used and closed.
static int round_trip(enum how how) {
    struct ring r;
    long fd = ring_open(&r, how, 4, 0);
    if (fd < 0) {
        dprintf(2, "setup: %ld\n", fd);
        return 0;
    }
    return ring_works(&r) && ring_close(&r) == 0;
}
