// Ring descriptors as descriptors: close, duplicates, fcntl, mmap, epoll, poll, sweeps, limits.
#include "ring.h"
#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/wait.h>

static void duplicates(enum how how) {
    struct ring r;
    CHECK(ring_open(&r, how, 4, 0) > 2);
    int original = r.fd;
    long copy = call(how, SYS_dup, r.fd, 0, 0, 0, 0, 0);
    CHECK(copy > 2 && copy != original);
    r.fd = copy;
    CHECK(ring_works(&r));
    r.fd = original;
    CHECK(ring_works(&r));
    CHECK(call(how, SYS_close, original, 0, 0, 0, 0, 0) == 0);
    CHECK(call(how, SYS_close, original, 0, 0, 0, 0, 0) == -EBADF);
    r.fd = copy;
    CHECK(ring_works(&r)); // the ring lives as long as one descriptor
    long third = call(how, SYS_fcntl, copy, F_DUPFD_CLOEXEC, 0, 0, 0, 0);
    CHECK(third > 2 && call(how, SYS_fcntl, third, F_GETFD, 0, 0, 0, 0) == FD_CLOEXEC);
    CHECK(call(how, SYS_fcntl, copy, F_DUPFD, -1, 0, 0, 0) == -EINVAL);
    r.fd = third;
    CHECK(ring_works(&r));
    CHECK(call(how, SYS_close, third, 0, 0, 0, 0, 0) == 0);
    r.fd = copy;
    CHECK(ring_close(&r) == 0);
    CHECK(call(how, 426, copy, 0, 0, 0, 0, 0) == -EBADF);
}

// A ring's number taken by another file: the ring is gone, the number is the other file.
static void replaced(void) {
    struct ring r;
    CHECK(ring_open(&r, VARIABLE, 4, 0) > 2);
    int null = open("/dev/null", O_RDWR);
    CHECK(dup2(r.fd, r.fd) == r.fd);
    CHECK(ring_works(&r));
    CHECK(dup2(9999, r.fd) == -1 && errno == EBADF);
    CHECK(ring_works(&r)); // a bad source closes nothing
    CHECK(dup2(null, r.fd) == r.fd);
    CHECK(ring_enter(&r, 0, 0) == -EOPNOTSUPP);
    CHECK(write(r.fd, "x", 1) == 1);
    CHECK(close(r.fd) == 0);
    CHECK(close(null) == 0);
    CHECK(round_trip(LIBC));
}

static int ready(int fd, int epfd) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    struct epoll_event e;
    int by_poll = poll(&p, 1, 0);
    int by_epoll = epoll_wait(epfd, &e, 1, 0);
    struct timespec none = {0};
    int by_ppoll = ppoll(&p, 1, &none, NULL);
    int by_pwait = epoll_pwait(epfd, &e, 1, 0, NULL);
    CHECK(by_poll == by_epoll && by_poll == by_ppoll && by_poll == by_pwait);
    return by_poll;
}

// Readable exactly while there are completions, also after they were taken without a call.
static void readiness(void) {
    struct ring r;
    CHECK(ring_open(&r, VARIABLE, 8, 0) > 2);
    int epfd = epoll_create1(0);
    struct epoll_event e = {.events = EPOLLIN};
    CHECK(epoll_ctl(epfd, EPOLL_CTL_ADD, r.fd, &e) == 0);
    struct cqe cqe;
    for (int i = 0; i < 5; i++) {
        CHECK(ready(r.fd, epfd) == 0);
        ring_push(&r, 0, i);
        ring_push(&r, 0, i);
        CHECK(ring_enter(&r, 2, 0) == 2);
        CHECK(ready(r.fd, epfd) == 1);
        CHECK(ring_pop(&r, &cqe) && ready(r.fd, epfd) == 1);
        CHECK(ring_pop(&r, &cqe) && !ring_pop(&r, &cqe));
        CHECK(ready(r.fd, epfd) == 0);
    }
    CHECK(close(epfd) == 0 && ring_close(&r) == 0);
}

// Edge-triggered, as mio has it: each new batch is an edge, whether or not the last one was taken.
static void edges(void) {
    struct ring r;
    CHECK(ring_open(&r, VARIABLE, 8, 0) > 2);
    int epfd = epoll_create1(0);
    struct epoll_event e, edge = {.events = EPOLLIN | EPOLLET};
    struct cqe cqe;
    CHECK(epoll_ctl(epfd, EPOLL_CTL_ADD, r.fd, &edge) == 0);
    for (int i = 0; i < 5; i++) {
        ring_push(&r, 0, i);
        CHECK(ring_enter(&r, 1, 0) == 1);
        CHECK(epoll_wait(epfd, &e, 1, 1000) == 1);
        CHECK(epoll_wait(epfd, &e, 1, 0) == 0);
        if (i != 2) CHECK(ring_pop(&r, &cqe));
    }
    CHECK(close(epfd) == 0 && ring_close(&r) == 0);
}

static int limit(void) {
    struct rlimit l;
    CHECK(getrlimit(RLIMIT_NOFILE, &l) == 0);
    return l.rlim_max < 100000 ? (int)l.rlim_max : 100000;
}

static void sweep_by(const char *kind, int keep) {
    if (!strcmp(kind, "close")) {
        for (int fd = 3, end = limit(); fd < end; fd++) if (fd != keep) close(fd);
    } else if (!strcmp(kind, "raw-close")) {
        for (int fd = 3, end = limit(); fd < end; fd++) if (fd != keep) raw(SYS_close, fd, 0, 0, 0, 0, 0);
    } else if (!strcmp(kind, "range")) {
        if (keep > 3) CHECK(close_range(3, keep - 1, 0) == 0);
        CHECK(close_range(keep + 1, ~0u, 0) == 0);
    } else if (!strcmp(kind, "raw-range")) {
        if (keep > 3) CHECK(raw(SYS_close_range, 3, keep - 1, 0, 0, 0, 0) == 0);
        CHECK(raw(SYS_close_range, keep + 1, ~0u, 0, 0, 0, 0) == 0);
    } else if (!strcmp(kind, "unshare")) {
        if (keep > 3) CHECK(close_range(3, keep - 1, 2) == 0);
        CHECK(close_range(keep + 1, ~0u, 2) == 0);
    } else if (!strcmp(kind, "from")) {
        closefrom(3);
    } else {
        DIR *dir = opendir("/proc/self/fd");
        for (struct dirent *d; (d = readdir(dir));) {
            int fd = atoi(d->d_name);
            if (fd > 2 && fd != dirfd(dir) && fd != keep) close(fd);
        }
        closedir(dir);
    }
}

// Programs close everything they did not open. A ring spared lives on, a ring swept is gone, later rings work.
static void sweeps(void) {
    static const char *kinds[] = {"close", "raw-close", "range", "raw-range", "unshare", "from", "proc"};
    for (unsigned i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct ring kept, swept;
        int low = open("/dev/null", O_RDONLY);
        CHECK(ring_open(&kept, VARIABLE, 4, 0) > 2 && ring_open(&swept, VARIABLE, 4, 0) > 2);
        int spares = strcmp(kinds[i], "from") != 0;
        sweep_by(kinds[i], spares ? kept.fd : 2);
        CHECK(fcntl(low, F_GETFD) == -1 && errno == EBADF);
        CHECK(ring_enter(&swept, 0, 0) == -EBADF);
        if (spares) CHECK(ring_works(&kept) && ring_close(&kept) == 0);
        CHECK(round_trip(VARIABLE));
        CHECK(round_trip(LIBC));
    }
}

// Close-on-exec for a range closes nothing now.
static void range_cloexec(void) {
    struct ring r;
    CHECK(ring_open(&r, VARIABLE, 4, 0) > 2);
    CHECK(close_range(3, ~0u, 4) == 0);
    CHECK(ring_works(&r));
    CHECK(close_range(9, 3, 0) == -1 && errno == EINVAL);
    CHECK(close_range(3, ~0u, 64) == -1 && errno == EINVAL);
    CHECK(ring_works(&r) && ring_close(&r) == 0);
}

// A child of vfork has its own descriptors but its parent's memory: what it closes, the parent keeps.
static void vfork_sweep(void) {
    struct ring r;
    CHECK(ring_open(&r, VARIABLE, 4, 0) > 2);
    pid_t pid = vfork();
    if (pid == 0) {
        close(r.fd);
        close_range(3, ~0u, 0);
        _exit(fcntl(r.fd, F_GETFD) == -1 ? 5 : 6);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 5);
    CHECK(ring_works(&r) && ring_close(&r) == 0);
}

static int count_open(void) {
    int seen = 0;
    for (int fd = 3, end = limit(); fd < end; fd++) {
        if (fcntl(fd, F_GETFD) != -1) seen++;
        else CHECK(errno == EBADF);
    }
    return seen;
}

// What the library opens for itself answers EBADF: a ring is one descriptor.
static void hidden(void) {
    struct ring r;
    int before = count_open();
    CHECK(ring_open(&r, VARIABLE, 4, 0) > 2);
    CHECK(count_open() == before + 1);
    for (int fd = 3, end = limit(); fd < end; fd++) {
        if (fcntl(fd, F_GETFD) != -1) continue;
        CHECK(dup(fd) == -1 && errno == EBADF);
        CHECK(raw(SYS_dup2, fd, 2, 0, 0, 0, 0) == -EBADF);
        CHECK(mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED && errno == EBADF);
    }
    CHECK(ring_works(&r) && ring_close(&r) == 0);
    CHECK(count_open() == before);
}

static int send_fd(int sock, int fd, int by_number) {
    char byte = 'x', control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec iov = {&byte, 1};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    *c = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(c), &fd, sizeof fd);
    return by_number ? syscall(SYS_sendmsg, sock, &m, 0) : sendmsg(sock, &m, 0);
}

// A ring cannot be sent over a socket; other descriptors can.
static void sent(void) {
    struct ring r;
    int pair[2];
    CHECK(ring_open(&r, VARIABLE, 4, 0) > 2 && socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    for (int by_number = 0; by_number < 2; by_number++) {
        CHECK(send_fd(pair[0], r.fd, by_number) == -1 && errno == EINVAL);
        CHECK(send_fd(pair[0], 2, by_number) == 1);
        CHECK(send_fd(pair[0], 99999, by_number) == -1 && errno == EBADF);
    }
    CHECK(ring_works(&r) && ring_close(&r) == 0);
}

// A read that waits holds its file, although the number is closed by a call of the program's own and taken
// by another pipe, whose data is not for it.
static void closed_silently(void) {
    struct ring r;
    CHECK(ring_open(&r, VARIABLE, 4, 0) > 2);
    for (int i = 0; i < 3; i++) {
        int old[2], new[2];
        char first[8] = "", second[8] = "";
        struct cqe cqe;
        CHECK(pipe(old) == 0);
        ring_push(&r, 22, 1); // READ
        struct sqe *sqe = &r.sqes[(*WORD(&r, r.p.sq.tail) - 1) & *WORD(&r, r.p.sq.mask)];
        sqe->fd = old[0], sqe->addr = (uint64_t)first, sqe->len = sizeof first;
        CHECK(ring_enter(&r, 1, 0) == 1 && !ring_pop(&r, &cqe));
        CHECK(raw(SYS_close, old[0], 0, 0, 0, 0, 0) == 0);
        CHECK(pipe(new) == 0 && new[0] == old[0]);
        CHECK(write(old[1], "old", 3) == 3); // its reader is there
        CHECK(write(new[1], "new", 3) == 3);
        CHECK(ring_enter(&r, 0, 1) == 0 && ring_pop(&r, &cqe));
        CHECK(cqe.res == 3 && !memcmp(first, "old", 3));
        CHECK(read(new[0], second, sizeof second) == 3 && !memcmp(second, "new", 3));
        CHECK(close(old[1]) == 0 && close(new[0]) == 0 && close(new[1]) == 0);
    }
    CHECK(ring_close(&r) == 0);
}

// Few descriptors allowed: rings still work, the program's own limit still holds.
static void small_limit(void) {
    struct rlimit l = {64, 64};
    CHECK(setrlimit(RLIMIT_NOFILE, &l) == 0);
    CHECK(round_trip(VARIABLE));
    CHECK(getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_max == 64);
    struct ring r[8];
    for (int i = 0; i < 8; i++) CHECK(ring_open(&r[i], LIBC, 4, 0) > 2);
    for (int i = 0; i < 8; i++) CHECK(ring_works(&r[i]) && ring_close(&r[i]) == 0);
}

// The soft limit is the program's: asked for in any way, kept by open(2), and handed on to children.
static void own_limit(void) {
    struct rlimit l;
    struct ring r[4];
    CHECK(getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_max > 200);
    for (int soft = 100; soft <= 200; soft += 100) {
        l.rlim_cur = soft;
        CHECK(setrlimit(RLIMIT_NOFILE, &l) == 0);
        for (int i = 0; i < 4; i++) CHECK(ring_open(&r[i], i % 2 ? LIBC : VARIABLE, 4, 0) > 2 && ring_works(&r[i]));
        struct rlimit now, raw_now;
        CHECK(getrlimit(RLIMIT_NOFILE, &now) == 0 && now.rlim_cur == soft && now.rlim_max == l.rlim_max);
        CHECK(prlimit(0, RLIMIT_NOFILE, NULL, &now) == 0 && now.rlim_cur == soft);
        CHECK(raw(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, (long)&raw_now, 0, 0) == 0 && raw_now.rlim_cur == soft);
        CHECK(sysconf(_SC_OPEN_MAX) == soft && getdtablesize() == soft);
        char command[64];
        snprintf(command, sizeof command, "[ \"$(ulimit -Sn)\" = %d ]", soft);
        CHECK(system(command) == 0);
        int last = -1, fd;
        while ((fd = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0) last = fd;
        CHECK(errno == EMFILE && last == soft - 1);
        CHECK(fcntl(0, F_DUPFD, soft) == -1 && errno == EINVAL);
        for (int i = 3; i < soft; i++) {
            int ring = 0;
            for (int j = 0; j < 4; j++) ring |= r[j].fd == i;
            if (!ring) close(i);
        }
        for (int i = 0; i < 4; i++) CHECK(ring_works(&r[i]) && ring_close(&r[i]) == 0);
    }
}

// Ring memory holds no code.
static void executable(void) {
    struct ring r;
    CHECK(ring_open(&r, VARIABLE, 4, 0) > 2);
    static const long areas[] = {0, 0x8000000, 0x10000000};
    for (int i = 0; i < 3; i++)
        for (int flags = MAP_SHARED; flags <= MAP_PRIVATE; flags++) {
            void *at = mmap(NULL, 4096, PROT_READ | PROT_EXEC, flags, r.fd, areas[i]);
            CHECK(at == MAP_FAILED && errno == EPERM);
        }
    CHECK(ring_works(&r) && ring_close(&r) == 0);
}

int main(int argc, char **argv) {
    CHECK(argc >= 2);
    if (!strcmp(argv[1], "duplicates")) { duplicates(VARIABLE); duplicates(LIBC); }
    else if (!strcmp(argv[1], "replaced")) replaced();
    else if (!strcmp(argv[1], "readiness")) readiness();
    else if (!strcmp(argv[1], "edges")) edges();
    else if (!strcmp(argv[1], "sweeps")) sweeps();
    else if (!strcmp(argv[1], "range-cloexec")) range_cloexec();
    else if (!strcmp(argv[1], "vfork-sweep")) vfork_sweep();
    else if (!strcmp(argv[1], "hidden")) hidden();
    else if (!strcmp(argv[1], "sent")) sent();
    else if (!strcmp(argv[1], "closed-silently")) { signal(SIGPIPE, SIG_IGN); closed_silently(); }
    else if (!strcmp(argv[1], "small-limit")) small_limit();
    else if (!strcmp(argv[1], "own-limit")) own_limit();
    else if (!strcmp(argv[1], "executable")) executable();
    else return 2;
    return 0;
}
