// Ends from a signal handler that interrupted whatever the program was doing with its rings.
#include "ring.h"
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>
#include <sys/wait.h>

#define STATUS 7

static void (*end)(int);

static void on_alarm(int signal) {
    end(STATUS);
}

static void *churn(void *arg) {
    struct ring lasting;
    CHECK(ring_open(&lasting, VARIABLE, 8, 0) > 2);
    for (;;) {
        CHECK(round_trip(VARIABLE));
        for (int i = 0; i < 20; i++) CHECK(ring_works(&lasting));
        free(malloc(100 + (size_t)arg));
    }
    return NULL;
}

static void child(int number, int threads) {
    struct itimerval at = {.it_value = {.tv_usec = 200 + number * 37 % 3000}};
    CHECK(signal(SIGALRM, on_alarm) != SIG_ERR);
    for (int i = 1; i < threads; i++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, churn, NULL) == 0);
    }
    CHECK(round_trip(VARIABLE));
    CHECK(setitimer(ITIMER_REAL, &at, NULL) == 0);
    churn(NULL);
}

// Every child ends, with its status; ten seconds are for ever.
static void ends(int children, int threads) {
    for (int i = 0; i < children; i++) {
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) child(i, threads);
        int status = 0;
        pid_t done = 0;
        for (int waited_ms = 0; done == 0 && waited_ms < 10000; waited_ms++) {
            done = waitpid(pid, &status, WNOHANG);
            if (done == 0) usleep(1000);
        }
        if (done == 0) kill(pid, SIGKILL);
        CHECK(done == pid && WIFEXITED(status));
        CHECK(WEXITSTATUS(status) == STATUS);
    }
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    end = strcmp(argv[1], "exit") == 0 ? exit : _exit;
    CHECK(round_trip(VARIABLE));
    ends(150, 1);
    ends(50, 3);
    return 0;
}
