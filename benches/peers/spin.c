/* Computes for MICROSECONDS of CPU time, from the start of main: spin MICROSECONDS. */
#include <stdlib.h>
#include <time.h>

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return 1e6 * (double)time.tv_sec + 1e-3 * (double)time.tv_nsec;
}

int main(int count, char **words) {
    double end = now() + (count > 1 ? atof(words[1]) : 0);
    while (now() < end) {
    }
    return 0;
}
