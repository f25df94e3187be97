// Vector registers over a call, in objects that use no more than SSE (default) or AVX-512 (-DWIDE).
#include "ring.h"

#ifdef WIDE
#define COUNT 32
#define BYTES 64
#define LOAD(n) "vmovups 64*" #n "(%[in]), %%zmm" #n "\n"
#define STORE(n) "vmovups %%zmm" #n ", 64*" #n "(%[out])\n"
#define HIGH(op) op(16) op(17) op(18) op(19) op(20) op(21) op(22) op(23) op(24) op(25) op(26) op(27) op(28) op(29) op(30) op(31)
#define MASKS_IN "kmovw %[k], %%k1\n kmovw %[k], %%k7\n"
#define MASKS_OUT "kmovw %%k1, %%ecx\n mov %%ecx, %[k1]\n kmovw %%k7, %%ecx\n mov %%ecx, %[k7]\n"
#define SUPPORTED __builtin_cpu_supports("avx512f")
#else
#define COUNT 16
#define BYTES 16
#define LOAD(n) "movups 16*" #n "(%[in]), %%xmm" #n "\n"
#define STORE(n) "movups %%xmm" #n ", 16*" #n "(%[out])\n"
#define HIGH(op)
#define MASKS_IN
#define MASKS_OUT
#define SUPPORTED 1
#endif
#define LOW(op) op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7) op(8) op(9) op(10) op(11) op(12) op(13) op(14) op(15)

static uint8_t in[COUNT][BYTES], out[COUNT][BYTES];

#define OVER(name, instruction)                                                            \
    static __attribute__((noinline)) long name(long nr) {                                  \
        uint32_t k1 = 0xa5a5, k7 = 0xa5a5;                                                 \
        __asm__ volatile(LOW(LOAD) HIGH(LOAD) MASKS_IN instruction "\n" LOW(STORE) HIGH(STORE) MASKS_OUT \
                         : "+a"(nr), [k1] "+m"(k1), [k7] "+m"(k7)                          \
                         : [in] "r"(in), [out] "r"(out), "D"(4l), "S"(0l), [k] "r"(0xa5a5) \
                         : "rcx", "r11", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", \
                           "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"); \
        CHECK(k1 == 0xa5a5 && k7 == 0xa5a5);                                               \
        return nr;                                                                         \
    }
OVER(over_stop, "syscall")
OVER(over_site, "mov $425, %%eax\n syscall")

int main(void) {
    if (!SUPPORTED) return 0;
    for (int i = 0; i < COUNT; i++) for (int j = 0; j < BYTES; j++) in[i][j] = i * BYTES + j * 3 + 1;
    for (int i = 0; i < 100; i++) {
        memset(out, 0, sizeof out);
        CHECK(over_stop(425) == -EFAULT && memcmp(in, out, sizeof in) == 0);
        memset(out, 0, sizeof out);
        CHECK(over_site(0) == -EFAULT && memcmp(in, out, sizeof in) == 0);
    }
    CHECK(round_trip(SITE));
    return 0;
}
