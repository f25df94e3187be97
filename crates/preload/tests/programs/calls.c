// The three calls by every road, and that nothing but the result register changes.
#include "ring.h"
#include <dlfcn.h>

static void roads(void) {
    for (int i = 0; i < 3; i++) {
        CHECK(round_trip(VARIABLE));
        CHECK(round_trip(SITE));
        CHECK(round_trip(LIBC));
    }
    struct ring r;
    CHECK(ring_open(&r, SITE, 8, 0) > 2);
    for (int i = 0; i < 10000; i++) CHECK(ring_works(&r));
    CHECK(ring_close(&r) == 0);
    CHECK(raw(426, r.fd, 0, 0, 0, 0, 0) == -EBADF);
}

// Bad arguments come back as from the kernel, and errno is untouched by raw calls.
static void errors(void) {
    struct params p = {0};
    errno = 77;
    CHECK(raw(425, 4, 0, 0, 0, 0, 0) == -EFAULT);
    CHECK(adjacent_setup(4, 0, 0, 0, 0, 0) == -EFAULT);
    CHECK(raw(425, 0, (long)&p, 0, 0, 0, 0) == -EINVAL);
    CHECK(raw(426, -1, 0, 0, 0, 0, 0) == -EBADF);
    CHECK(raw(427, 99999, 0, 0, 0, 0, 0) == -EBADF);
    CHECK(errno == 77);
    CHECK(syscall(425, 4, NULL) == -1 && errno == EFAULT);
    CHECK(syscall(426, -1, 0, 0, 0, NULL, 0) == -1 && errno == EBADF);
}

// Everything a system call preserves: general registers, vector registers, the carry flag, the red zone.
static uint8_t vin[16][32], vout[16][32];
static uint64_t regs[16];

// Stores everything right behind the instruction, before the compiler can touch it.
#define PROBE(instruction)                                                                 \
    "lea vin(%%rip), %%rbx\n"                                                              \
    "vmovups 0x000(%%rbx), %%ymm0\n vmovups 0x020(%%rbx), %%ymm1\n vmovups 0x040(%%rbx), %%ymm2\n vmovups 0x060(%%rbx), %%ymm3\n" \
    "vmovups 0x080(%%rbx), %%ymm4\n vmovups 0x0a0(%%rbx), %%ymm5\n vmovups 0x0c0(%%rbx), %%ymm6\n vmovups 0x0e0(%%rbx), %%ymm7\n" \
    "vmovups 0x100(%%rbx), %%ymm8\n vmovups 0x120(%%rbx), %%ymm9\n vmovups 0x140(%%rbx), %%ymm10\n vmovups 0x160(%%rbx), %%ymm11\n" \
    "vmovups 0x180(%%rbx), %%ymm12\n vmovups 0x1a0(%%rbx), %%ymm13\n vmovups 0x1c0(%%rbx), %%ymm14\n vmovups 0x1e0(%%rbx), %%ymm15\n" \
    "movq $0x1234, -8(%%rsp)\n movq $0x5678, -128(%%rsp)\n"                                \
    "mov $4, %%edi\n xor %%esi, %%esi\n mov $3, %%edx\n mov $10, %%r10d\n mov $8, %%r8d\n mov $9, %%r9d\n" \
    "mov $0xbb, %%ebx\n mov $0x12, %%r12d\n mov $0x13, %%r13d\n mov $0x14, %%r14d\n mov $0x15, %%r15d\n" \
    "mov %%rbp, 112+regs(%%rip)\n mov %%rsp, 120+regs(%%rip)\n"                            \
    "stc\n" instruction "\n"                                                               \
    "setc regs(%%rip)\n"                                                                   \
    "sub %%rbp, 112+regs(%%rip)\n sub %%rsp, 120+regs(%%rip)\n"                            \
    "mov %%rdi, 8+regs(%%rip)\n mov %%rsi, 16+regs(%%rip)\n mov %%rdx, 24+regs(%%rip)\n mov %%r10, 32+regs(%%rip)\n" \
    "mov %%r8, 40+regs(%%rip)\n mov %%r9, 48+regs(%%rip)\n mov %%rbx, 56+regs(%%rip)\n mov %%r12, 64+regs(%%rip)\n" \
    "mov %%r13, 72+regs(%%rip)\n mov %%r14, 80+regs(%%rip)\n mov %%r15, 88+regs(%%rip)\n"  \
    "mov -8(%%rsp), %%rcx\n mov %%rcx, 96+regs(%%rip)\n mov -128(%%rsp), %%rcx\n mov %%rcx, 104+regs(%%rip)\n" \
    "lea vout(%%rip), %%rbx\n"                                                             \
    "vmovups %%ymm0, 0x000(%%rbx)\n vmovups %%ymm1, 0x020(%%rbx)\n vmovups %%ymm2, 0x040(%%rbx)\n vmovups %%ymm3, 0x060(%%rbx)\n" \
    "vmovups %%ymm4, 0x080(%%rbx)\n vmovups %%ymm5, 0x0a0(%%rbx)\n vmovups %%ymm6, 0x0c0(%%rbx)\n vmovups %%ymm7, 0x0e0(%%rbx)\n" \
    "vmovups %%ymm8, 0x100(%%rbx)\n vmovups %%ymm9, 0x120(%%rbx)\n vmovups %%ymm10, 0x140(%%rbx)\n vmovups %%ymm11, 0x160(%%rbx)\n" \
    "vmovups %%ymm12, 0x180(%%rbx)\n vmovups %%ymm13, 0x1a0(%%rbx)\n vmovups %%ymm14, 0x1c0(%%rbx)\n vmovups %%ymm15, 0x1e0(%%rbx)\n"

#define CLOBBERS "rcx", "r11", "rdi", "rsi", "rdx", "r8", "r9", "r10", "rbx", "r12", "r13", "r14", "r15", "memory", "cc", \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"

static void check_preserved(void) {
    static const uint64_t expected[14] = {1, 4, 0, 3, 10, 8, 9, 0xbb, 0x12, 0x13, 0x14, 0x15, 0x1234, 0x5678};
    for (int i = 0; i < 14; i++) {
        if (regs[i] != expected[i]) dprintf(2, "register %d is %#lx\n", i, regs[i]);
        CHECK(regs[i] == expected[i]);
    }
    CHECK(regs[14] == 0 && regs[15] == 0);
    CHECK(memcmp(vin, vout, sizeof vin) == 0);
    memset(vout, 0, sizeof vout);
    memset(regs, 0, sizeof regs);
}

static __attribute__((noinline)) long preserved_variable(long nr) {
    __asm__ volatile(PROBE("syscall") : "+a"(nr) : : CLOBBERS);
    return nr;
}
static __attribute__((noinline)) long preserved_site(void) {
    long ret;
    __asm__ volatile(PROBE("mov $425, %%eax\n syscall") : "=a"(ret) : : CLOBBERS);
    return ret;
}
// The compiler may put moves between the number and the instruction.
static __attribute__((noinline)) long preserved_spread(void) {
    long ret;
    __asm__ volatile(PROBE("mov $425, %%eax\n mov $7, %%r8d\n lea 1(%%r8), %%r8\n syscall") : "=a"(ret) : : CLOBBERS);
    return ret;
}

static void preserves(void) {
    if (!__builtin_cpu_supports("avx")) return;
    for (int i = 0; i < 16; i++) for (int j = 0; j < 32; j++) vin[i][j] = i * 32 + j + 1;
    for (int i = 0; i < 100; i++) {
        CHECK(preserved_variable(425) == -EFAULT);
        check_preserved();
        CHECK(preserved_site() == -EFAULT);
        check_preserved();
        CHECK(preserved_spread() == -EFAULT);
        check_preserved();
    }
}

static int holds(const void *code, size_t len, const char *bytes, size_t n) {
    return memmem(code, len, bytes, n) != NULL;
}

// Sites in the executable are rewritten before main; the instruction behind stays in place.
static void rewritten(void) {
    const char *site = (const char *)adjacent_setup;
    CHECK(!holds(site, 96, "\xb8\xa9\x01\x00\x00\x0f\x05", 7));
    CHECK(holds(site, 96, "\x0f\x05", 2));
    CHECK(round_trip(SITE));
}

// Code that is loaded later is caught at once and rewritten at its first stop.
static void loaded_later(const char *library) {
    void *lib = dlopen(library, RTLD_NOW);
    CHECK(lib);
    long (*setup)(unsigned, struct params *) = (long (*)(unsigned, struct params *))dlsym(lib, "late_setup");
    const void *(*code)(void) = (const void *(*)(void))dlsym(lib, "late_code");
    CHECK(setup && code);
    CHECK(holds(code(), 64, "\xb8\xa9\x01\x00\x00", 5));
    struct params p = {0};
    long fd = setup(4, &p);
    CHECK(fd > 2);
    CHECK(!holds(code(), 64, "\xb8\xa9\x01\x00\x00", 5));
    struct params again = {0};
    long second = setup(4, &again);
    CHECK(second > 2 && second != fd);
    CHECK(close(fd) == 0 && close(second) == 0);
    // Something is done, so that the count of operations is not zero.
    CHECK(round_trip(VARIABLE));
}

// vfork and plain calls by number work as from the C library.
static void by_number(void) {
    CHECK(syscall(SYS_getpid) == getpid());
    CHECK(syscall(SYS_close, 12345) == -1 && errno == EBADF);
    int fd = syscall(SYS_openat, AT_FDCWD, "/dev/null", O_RDONLY, 0);
    CHECK(fd > 2);
    int copy = syscall(SYS_dup, fd);
    CHECK(copy > fd && syscall(SYS_close, copy) == 0 && syscall(SYS_close, fd) == 0);
    void *map = (void *)syscall(SYS_mmap, NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(map != MAP_FAILED && munmap(map, 4096) == 0);
    CHECK(round_trip(LIBC));
}

// As many rings as there are descriptors for: each works, the next is EMFILE, and a closed one makes room.
static void until_full(void) {
    static struct ring rings[4096];
    int n = 0;
    long ret = 0;
    while (n < 4096 && (ret = ring_open(&rings[n], SITE, 4, 0)) >= 0) {
        CHECK(ring_works(&rings[n]));
        n++;
    }
    CHECK(ret == -EMFILE && n > 0);
    for (int i = 0; i < n; i++) CHECK(ring_works(&rings[i]));
    CHECK(ring_close(&rings[0]) == 0 && ring_open(&rings[0], SITE, 4, 0) >= 0 && ring_works(&rings[0]));
    printf("%d\n", n);
}

int main(int argc, char **argv) {
    CHECK(argc >= 2);
    if (!strcmp(argv[1], "roads")) roads();
    else if (!strcmp(argv[1], "errors")) { errors(); CHECK(round_trip(LIBC)); }
    else if (!strcmp(argv[1], "preserves")) { preserves(); CHECK(round_trip(LIBC)); }
    else if (!strcmp(argv[1], "rewritten")) rewritten();
    else if (!strcmp(argv[1], "loaded-later")) loaded_later(argv[2]);
    else if (!strcmp(argv[1], "until-full")) until_full();
    else if (!strcmp(argv[1], "by-number")) by_number();
    else return 2;
    return 0;
}
