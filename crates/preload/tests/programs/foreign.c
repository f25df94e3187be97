// Says what its loader was asked to load, and whether it gets a ring.
#include "ring.h"

int main(void) {
    const char *list = getenv("LD_PRELOAD");
    printf("preload: %s\n", list ? list : "none");
    struct ring ring;
    long fd = ring_open(&ring, VARIABLE, 4, 0);
    printf("%s\n", fd == -ENOSYS ? "no ring" : "a ring, or another errno");
    return 0;
}
