/* Sets the clock of the processes that load it (LD_PRELOAD), and of no other: the time of day is
 * ahead of the machine's by the nanoseconds in the file FAULTS_CLOCK, 8 bytes, at any moment. Time
 * that only passes (CLOCK_MONOTONIC) is left alone.
 *
 * Who waits for a time of day hands it to the kernel, which does not know of this: it is told the
 * machine's. What waits already does not see that the clock is set. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL

static const int64_t nothing = 0;
static volatile const int64_t *ahead = &nothing;
static int (*real_clock)(clockid_t, struct timespec *);
static int (*real_wait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
static long (*real_syscall)(long, ...);

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("MESH_FAULTS_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    real_clock = dlsym(RTLD_NEXT, "clock_gettime");
    real_wait = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    real_syscall = dlsym(RTLD_NEXT, "syscall");
    if (file >= 0) {
        void *found = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
        if (found != MAP_FAILED) ahead = found;
        close(file);
    }
}

static struct timespec moved(const struct timespec *from, int64_t by) {
    int64_t all = from->tv_sec * SECOND + from->tv_nsec + by;
    struct timespec to = {0, 0};
    if (all > 0) {
        to.tv_sec = all / SECOND;
        to.tv_nsec = all % SECOND;
    }
    return to;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    if (!real_clock) start();
    int done = real_clock(clock, now);
    if (!done && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        *now = moved(now, *ahead);
    return done;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec exact;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME_COARSE, &exact);
    if (now) *now = exact.tv_sec;
    return exact.tv_sec;
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until) {
    int monotonic = condition->__data.__wrefs & 2; /* glibc: pthread_cond_common.c */
    struct timespec there = moved(until, monotonic ? 0 : -*ahead);
    return real_wait(condition, mutex, &there);
}

long syscall(long number, ...) {
    va_list all;
    long a[6];
    struct timespec there;
    va_start(all, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(all, long);
    va_end(all);
    if (!real_syscall) start();
    if (number == SYS_futex && (a[1] & FUTEX_CLOCK_REALTIME) && a[3]) {
        there = moved((const struct timespec *)a[3], -*ahead);
        a[3] = (long)&there;
    }
    return real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
