/* Preloaded into a daemon: fsync waits while the file that STALLED_DISK names exists. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static void wait_for_disk(void) {
    const char *file = getenv("STALLED_DISK");
    while (file && access(file, F_OK) == 0) {
        usleep(10000);
    }
}

int fsync(int fd) {
    wait_for_disk();
    return syscall(SYS_fsync, fd);
}

int fdatasync(int fd) {
    wait_for_disk();
    return syscall(SYS_fdatasync, fd);
}
