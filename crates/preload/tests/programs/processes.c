// Children and what they execute: everything below the program is caught as well.
#include "ring.h"
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>

extern char **environ;
static char *self;

static void expect(pid_t pid, int code) {
    int status = -1;
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != code) dprintf(2, "child: status %#x\n", status);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == code);
}

// Rings made before and after a fork, on both sides.
static void forks(void) {
    CHECK(round_trip(VARIABLE));
    for (int i = 0; i < 5; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            CHECK(round_trip(VARIABLE) && round_trip(SITE) && round_trip(LIBC));
            pid_t inner = fork();
            if (inner == 0) {
                CHECK(round_trip(VARIABLE));
                exit(3);
            }
            expect(inner, 3);
            _exit(4);
        }
        CHECK(round_trip(VARIABLE));
        expect(pid, 4);
    }
}

// A child that inherits its parent's used ring and leaves it alone.
static void idle_child(void) {
    struct ring r;
    CHECK(ring_open(&r, LIBC, 4, 0) >= 0 && ring_works(&r));
    pid_t pid = fork();
    if (pid == 0) exit(5);
    expect(pid, 5);
}

// Where no file may grow beyond a page, a ring cannot be made, and nobody is killed for it.
static void small_files(void) {
    struct rlimit page = {4096, 4096};
    CHECK(round_trip(LIBC));
    CHECK(setrlimit(RLIMIT_FSIZE, &page) == 0);
    struct ring r;
    CHECK(ring_open(&r, LIBC, 4, 0) == -ENOMEM);
}

static int run_exec(const char *kind) {
    char *argv[] = {self, "trip", NULL}, *nothing[] = {NULL}, *odd[] = {"LD_PRELOAD=", "A=b", NULL};
    if (!strcmp(kind, "execle")) execle(self, self, "trip", (char *)NULL, nothing);
    else if (!strcmp(kind, "execle-null")) execle(self, self, "trip", (char *)NULL, (char **)NULL);
    else if (!strcmp(kind, "execve")) execve(self, argv, odd);
    else if (!strcmp(kind, "execveat")) syscall(SYS_execveat, AT_FDCWD, self, argv, nothing, 0);
    else if (!strcmp(kind, "syscall")) syscall(SYS_execve, self, argv, nothing);
    else if (!strcmp(kind, "fexecve")) fexecve(open(self, O_RDONLY | O_CLOEXEC), argv, nothing);
    else if (!strcmp(kind, "execvpe")) execvpe(self, argv, nothing);
    else {
        clearenv();
        if (!strcmp(kind, "execl")) execl(self, self, "trip", "a", "b", "c", "d", "e", "f", "g", (char *)NULL);
        else if (!strcmp(kind, "execlp")) execlp(self, self, "trip", "a", "b", (char *)NULL);
        else if (!strcmp(kind, "execv")) execv(self, argv);
        else if (!strcmp(kind, "execvp")) execvp(self, argv);
    }
    return 9;
}

// An environment without us, by every function that executes a program.
static void cleared(void) {
    static const char *kinds[] = {"execle", "execle-null", "execve", "execveat", "syscall", "fexecve", "execvpe", "execl", "execlp", "execv", "execvp"};
    for (unsigned i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        pid_t pid = fork();
        if (pid == 0) _exit(run_exec(kinds[i]));
        expect(pid, 42);
    }
    for (int i = 0; i < 3; i++) {
        char *argv[] = {self, "trip", NULL}, *nothing[] = {NULL};
        pid_t pid = vfork();
        if (pid == 0) {
            execve(self, argv, nothing);
            _exit(9);
        }
        expect(pid, 42);
    }
    CHECK(round_trip(VARIABLE));
}

// posix_spawn's child resets handlers with all signals blocked, then executes; with everything it can do.
static void spawned(void) {
    char *argv[] = {self, "trip", NULL}, *nothing[] = {NULL};
    struct ring r;
    CHECK(ring_open(&r, VARIABLE, 4, 0) > 2);
    posix_spawn_file_actions_t actions;
    CHECK(posix_spawn_file_actions_init(&actions) == 0);
    CHECK(posix_spawn_file_actions_adddup2(&actions, 2, 50) == 0);
    CHECK(posix_spawn_file_actions_addclose(&actions, r.fd) == 0);
    CHECK(posix_spawn_file_actions_addclosefrom_np(&actions, 60) == 0);
    posix_spawnattr_t attr;
    sigset_t all;
    sigfillset(&all);
    CHECK(posix_spawnattr_init(&attr) == 0 && posix_spawnattr_setsigmask(&attr, &all) == 0 && posix_spawnattr_setsigdefault(&attr, &all) == 0);
    CHECK(posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF) == 0);
    for (int i = 0; i < 3; i++) {
        pid_t pid;
        CHECK(posix_spawn(&pid, self, NULL, NULL, argv, environ) == 0);
        expect(pid, 42);
        CHECK(posix_spawn(&pid, self, &actions, &attr, argv, nothing) == 0);
        expect(pid, 42);
        CHECK(posix_spawnp(&pid, self, &actions, NULL, argv, NULL) == 0);
        expect(pid, 42);
        CHECK(ring_works(&r));
    }
    pid_t pid;
    CHECK(posix_spawn(&pid, "/nonexistent", NULL, NULL, argv, environ) == ENOENT);
    CHECK(ring_works(&r) && ring_close(&r) == 0);
}

// A shell between, with the environment cleared.
static void shells(void) {
    char command[4096];
    clearenv();
    snprintf(command, sizeof command, "%s trip; exit $?", self);
    int status = system(command);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 42);
    clearenv();
    FILE *f = popen(command, "r");
    CHECK(f);
    status = pclose(f);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 42);
    CHECK(round_trip(VARIABLE));
}

static void *trips(void *arg) {
    for (int i = 0; i < 50; i++) CHECK(round_trip(SITE) && round_trip(VARIABLE));
    return arg;
}

// Threads that use rings while another one forks and executes.
static void threads_and_children(void) {
    pthread_t t[4];
    for (int i = 0; i < 4; i++) CHECK(pthread_create(&t[i], NULL, trips, NULL) == 0);
    char *argv[] = {self, "trip", NULL};
    for (int i = 0; i < 10; i++) {
        pid_t pid;
        CHECK(posix_spawn(&pid, self, NULL, NULL, argv, environ) == 0);
        expect(pid, 42);
        pid = fork();
        if (pid == 0) _exit(round_trip(VARIABLE) ? 42 : 1);
        expect(pid, 42);
    }
    for (int i = 0; i < 4; i++) CHECK(pthread_join(t[i], NULL) == 0);
}

// A ring is closed on exec: its number is free in the next program.
static void closed_on_exec(void) {
    struct ring r;
    CHECK(ring_open(&r, VARIABLE, 4, 0) > 2);
    char number[16];
    snprintf(number, sizeof number, "%d", r.fd);
    pid_t pid = fork();
    if (pid == 0) {
        execl(self, self, "gone", number, (char *)NULL);
        _exit(9);
    }
    expect(pid, 0);
    CHECK(ring_works(&r) && ring_close(&r) == 0);
}

// Requests that will not complete: a poll and a read of a pipe in which nothing arrives.
static void leave_in_flight(void) {
    static struct ring r;
    static char buf[16];
    int p[2];
    CHECK(pipe(p) == 0 && ring_open(&r, SITE, 8, 0) > 2);
    for (int i = 0; i < 4; i++) {
        ring_push(&r, i % 2 ? 6 /* POLL_ADD */ : 22 /* READ */, i);
        struct sqe *sqe = &r.sqes[(*WORD(&r, r.p.sq.tail) - 1) & *WORD(&r, r.p.sq.mask)];
        sqe->fd = p[0];
        if (i % 2) sqe->op_flags = 1; // POLLIN
        else { sqe->addr = (uint64_t)buf; sqe->len = sizeof buf; sqe->off = -1; sqe->flags = i ? 16 : 0; /* ASYNC */ }
    }
    CHECK(ring_enter(&r, 4, 0) == 4);
}

static void *exit_thread(void *arg) {
    exit(*(int *)arg);
}

// Every way to end with requests in flight ends at once, with the status that was asked for.
static void ends(void) {
    for (int way = 0; way < 6; way++) {
        pid_t pid = fork();
        if (pid == 0) {
            leave_in_flight();
            int code = 20 + way;
            char *argv[] = {self, "trip", NULL};
            pthread_t t;
            switch (way) {
            case 0: exit(code);
            case 1: _exit(code);
            case 2: raw(SYS_exit_group, code, 0, 0, 0, 0, 0); break;
            case 3: pthread_create(&t, NULL, exit_thread, &code); pause(); break;
            case 4: execv(self, argv); break;
            case 5: kill(getpid(), SIGKILL); break;
            }
        }
        int status;
        CHECK(waitpid(pid, &status, 0) == pid);
        if (way == 5) CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        else CHECK(WIFEXITED(status) && WEXITSTATUS(status) == (way == 4 ? 42 : 20 + way));
    }
    CHECK(round_trip(VARIABLE));
}

// A static program: refused, not killed; everything else works for it, its own children included.
static void static_child(char *program) {
    char *argv[] = {program, "refused", self, NULL}, *nothing[] = {NULL};
    char *slash = strrchr(program, '/');
    for (int road = 0; road < 6; road++) {
        pid_t pid = fork();
        if (pid == 0) {
            int file = open(program, O_RDONLY | O_CLOEXEC);
            *slash = 0;
            int dir = open(program, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
            *slash = '/';
            CHECK(file >= 0 && dir >= 0);
            switch (road) {
            case 0: execv(program, argv); break;
            case 1: fexecve(file, argv, nothing); break;
            case 2: execveat(dir, slash + 1, argv, nothing, 0); break;
            case 3: execveat(AT_FDCWD, program, argv, nothing, 0); break;
            case 4: execveat(file, "", argv, nothing, AT_EMPTY_PATH); break;
            case 5: { // a file without a name
                int copy = memfd_create("copy", MFD_CLOEXEC);
                char buf[4096];
                for (ssize_t n; (n = read(file, buf, sizeof buf)) > 0;) CHECK(write(copy, buf, n) == n);
                fexecve(copy, argv, nothing);
            }
            }
            _exit(9);
        }
        expect(pid, 0);
    }
    CHECK(round_trip(VARIABLE));
}

// The program that `static_child` runs, linked statically.
static void refused(char *dynamic) {
    struct params p = {0};
    for (int i = 0; i < 3; i++) {
        long ret = raw(425, 4, (long)&p, 0, 0, 0, 0);
        CHECK(ret == -ENOSYS || ret == -EPERM);
        CHECK(adjacent_setup(4, (long)&p, 0, 0, 0, 0) == ret);
    }
    CHECK(raw(SYS_close, 19000, 0, 0, 0, 0, 0) == -EBADF);
    CHECK(raw(SYS_close_range, 3, ~0u, 0, 0, 0, 0) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        execl(dynamic, dynamic, "trip", (char *)NULL);
        _exit(9);
    }
    expect(pid, 42);
}

int main(int argc, char **argv) {
    CHECK(argc >= 2);
    self = argv[0];
    if (!strcmp(argv[1], "trip")) return round_trip(VARIABLE) && round_trip(SITE) && round_trip(LIBC) ? 42 : 1;
    else if (!strcmp(argv[1], "forks")) forks();
    else if (!strcmp(argv[1], "idle-child")) idle_child();
    else if (!strcmp(argv[1], "small-files")) small_files();
    else if (!strcmp(argv[1], "cleared")) cleared();
    else if (!strcmp(argv[1], "spawned")) spawned();
    else if (!strcmp(argv[1], "shells")) shells();
    else if (!strcmp(argv[1], "threads-and-children")) threads_and_children();
    else if (!strcmp(argv[1], "closed-on-exec")) closed_on_exec();
    else if (!strcmp(argv[1], "ends")) ends();
    else if (!strcmp(argv[1], "gone")) return fcntl(atoi(argv[2]), F_GETFD) == -1 && errno == EBADF ? 0 : 1;
    else if (!strcmp(argv[1], "static-child")) static_child(argv[2]);
    else if (!strcmp(argv[1], "refused")) refused(argv[2]);
    else return 2;
    return 0;
}
