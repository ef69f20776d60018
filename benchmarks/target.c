/* A program that takes SIGHUP: it writes when each one arrived, in nanoseconds of CLOCK_MONOTONIC, as 8 bytes to standard output. */

#include <signal.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

static void stamp(int number) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t when = number == 0 ? 0 : (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    if (write(STDOUT_FILENO, &when, sizeof when) != sizeof when)
        _exit(1);
}

int main(void) {
    struct sigaction action = {.sa_handler = stamp, .sa_flags = SA_RESTART};
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* a killed run leaves nothing behind */
    sigaction(SIGHUP, &action, NULL);
    stamp(0); /* ready */
    for (;;)
        pause();
}
