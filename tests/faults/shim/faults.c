/* Faults injected below the C library: kill -9 at the Nth call, a journal from which a power loss is made, disk errors,
 * a slow disk and a false clock. Preloaded into the recorder's own processes by the campaign; the recorder knows nothing of it.
 *
 * Environment (set by tests/faults/shim.py):
 *   FAULTS_PREFIX   absolute folders, ':' between them; only calls on paths below them count
 *   FAULTS_KILL     "<op mask>:<prefix mask>:<N>:<where>:<ending>": at the Nth such call on a path with that ending,
 *                   die before (0), after (1) or in the middle (2, writes only) of it
 *   FAULTS_CRASH    file that gets one line when it dies
 *   FAULTS_JOURNAL  file that gets a record of every change (see powerloss.py); FAULTS_GRAVE keeps unlinked files.
 *                   Syncs are then only recorded, not made: what they promise is kept by the roll back.
 *   FAULTS_CONTROL  file with struct control, shared by all processes and changed while they run
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum op { WRITE = 1, TRUNCATE, SYNC, DIRSYNC, CREATE, LINK, UNLINK, RENAME, MKDIR, CRASH, OPEN };

struct control {
    int64_t clock_offset_ns;
    int64_t clock_slew_ppb;
    int64_t clock_slew_since; /* CLOCK_MONOTONIC ns */
    int32_t fail_errno;       /* 0: nothing fails */
    uint32_t fail_ops;        /* bit 1 << op */
    uint32_t fail_prefixes;   /* bit 1 << position in FAULTS_PREFIX */
    uint32_t fail_short;      /* 1: a failing write first writes half */
    int64_t fail_skip;        /* so many matching calls go well first */
    int64_t fail_count;       /* so many fail; negative: all */
    int64_t failed;           /* how many did */
    int64_t slow_ns;          /* 0: nothing is slow */
    uint32_t slow_ops;        /* as for failing */
    uint32_t slow_prefixes;
    int64_t slow_skip;
    int64_t slow_count;       /* so many take that much longer */
    int64_t slowed;           /* how many did */
};

struct record {
    uint32_t size;
    uint32_t op;
    uint64_t inode;
    int64_t offset;
    int64_t length;
    int64_t old_size;
    int64_t old_length;
    uint32_t path_length;
    uint32_t flag;
};

#define MAX_FD 65536
#define MAX_PREFIX 8

static char *prefixes[MAX_PREFIX];
static int prefix_count;
static unsigned kill_ops, kill_prefixes, kill_where;
static long kill_at;
static const char *kill_ending = "";
static const char *crash_path, *journal_path, *grave_path;
static int journal_fd = -1;
static volatile struct control *control;
static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static struct { uint64_t inode; signed char prefix; char is_folder; } files[MAX_FD];

#define REAL(type, name, ...) static type (*real_##name)(__VA_ARGS__)
REAL(int, open, const char *, int, ...);
REAL(int, openat, int, const char *, int, ...);
REAL(ssize_t, write, int, const void *, size_t);
REAL(ssize_t, pwrite, int, const void *, size_t, off_t);
REAL(ssize_t, writev, int, const struct iovec *, int);
REAL(int, ftruncate, int, off_t);
REAL(int, fsync, int);
REAL(int, fdatasync, int);
REAL(int, rename, const char *, const char *);
REAL(int, link, const char *, const char *);
REAL(int, unlink, const char *);
REAL(int, mkdir, const char *, mode_t);
REAL(int, clock_gettime, clockid_t, struct timespec *);

static void load(void) {
    if (real_clock_gettime) return;
#define FIND(name) *(void **)&real_##name = dlsym(RTLD_NEXT, #name)
    FIND(open); FIND(openat); FIND(write); FIND(pwrite); FIND(writev); FIND(ftruncate); FIND(fsync); FIND(fdatasync);
    FIND(rename); FIND(link); FIND(unlink); FIND(mkdir); FIND(clock_gettime);
}

/* Sets the kill point; also called in a freshly forked process. */
void faults_arm(const char *text) {
    int used = 0;
    kill_at = 0;
    if (text && sscanf(text, "%u:%u:%ld:%u:%n", &kill_ops, &kill_prefixes, &kill_at, &kill_where, &used) == 4 && used)
        kill_ending = strdup(text + used);
}

__attribute__((constructor)) static void start(void) {
    load();
    const char *text = getenv("FAULTS_PREFIX");
    if (text && *text) {
        char *copy = strdup(text), *save = NULL;
        for (char *p = strtok_r(copy, ":", &save); p && prefix_count < MAX_PREFIX; p = strtok_r(NULL, ":", &save))
            prefixes[prefix_count++] = p;
    }
    crash_path = getenv("FAULTS_CRASH");
    journal_path = getenv("FAULTS_JOURNAL");
    grave_path = getenv("FAULTS_GRAVE");
    faults_arm(getenv("FAULTS_KILL"));
    if (journal_path) {
        journal_fd = real_open(journal_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
        if (journal_fd < 0) abort();
    }
    if ((text = getenv("FAULTS_CONTROL")) && *text) {
        int fd = real_open(text, O_RDWR | O_CLOEXEC);
        if (fd < 0 && errno == EMFILE) return; /* a process that may open nothing: it ends as it would without us */
        if (fd < 0) abort();
        void *at = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (at == MAP_FAILED) abort();
        control = at;
        close(fd);
    }
}

static int prefix_of(const char *path) {
    for (int i = 0; i < prefix_count; i++) {
        size_t n = strlen(prefixes[i]);
        if (!strncmp(path, prefixes[i], n) && (path[n] == '/' || !path[n])) return i;
    }
    return -1;
}

static int ends_with(const char *path, const char *end) {
    size_t n = strlen(path), m = strlen(end);
    return n >= m && !strcmp(path + n - m, end);
}

/* SQLite's shared memory is rebuilt at every start, sockets are no data. */
static int is_exempt(const char *path) { return ends_with(path, "-shm") || ends_with(path, ".sock"); }

static int path_of_fd(int fd, char *path) {
    char link_name[64];
    snprintf(link_name, sizeof link_name, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link_name, path, PATH_MAX - 1);
    if (n <= 0) return 0;
    path[n] = 0;
    return 1;
}

static void absolute(int folder, const char *name, char *path) {
    if (name[0] == '/') {
        snprintf(path, PATH_MAX, "%s", name);
        return;
    }
    char at[PATH_MAX];
    if (folder == AT_FDCWD) {
        if (!getcwd(at, sizeof at)) at[0] = 0;
    } else if (!path_of_fd(folder, at)) {
        at[0] = 0;
    }
    if (snprintf(path, PATH_MAX, "%s/%s", at, name) >= PATH_MAX) path[0] = 0;
}

/* Reads through the same descriptor where it can: closing another one of the file would drop the locks that SQLite
 * holds on it in this process. */
static ssize_t read_old(int fd, const char *path, void *old, size_t length, off_t offset) {
    ssize_t had = pread(fd, old, length, offset);
    if (had >= 0 || errno != EBADF) return had;
    int reading = real_open(path, O_RDONLY | O_CLOEXEC);
    had = reading >= 0 ? pread(reading, old, length, offset) : -1;
    if (reading >= 0) close(reading);
    return had;
}

static void record(enum op op, uint64_t inode, const char *path, int64_t offset, const void *data, int64_t length,
                   int64_t old_size, const void *old, int64_t old_length, unsigned flag) {
    if (journal_fd < 0) return;
    struct record head = {0, op, inode, offset, length, old_size, old_length, (uint32_t)strlen(path), flag};
    size_t kept = data ? (size_t)length : 0;
    head.size = (uint32_t)(sizeof head + head.path_length + old_length + kept);
    struct iovec parts[4] = {{&head, sizeof head}, {(void *)path, head.path_length}, {(void *)old, old_length},
                             {(void *)data, kept}};
    ssize_t done = real_writev(journal_fd, parts, 4);
    if (done != (ssize_t)head.size) abort();
}

static void die(enum op op, const char *path) {
    /* The time first: what a witness read before it was read before the record below, however long that takes. */
    struct timespec now;
    real_clock_gettime(CLOCK_MONOTONIC, &now);
    record(CRASH, 0, path, 0, NULL, 0, 0, NULL, 0, op);
    if (crash_path) {
        int fd = real_open(crash_path, O_WRONLY | O_APPEND | O_CREAT, 0600);
        char line[PATH_MAX + 100];
        int n = snprintf(line, sizeof line, "%d %d %u %lld %s\n", getpid(), op, kill_where,
                         (long long)now.tv_sec * 1000000000LL + now.tv_nsec, path);
        if (fd >= 0 && real_write(fd, line, n) != n) abort();
    }
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* Whether this call is the one to die at; counts it. The caller holds the guard. */
static int is_last(enum op op, int prefix, const char *path) {
    if (!kill_at || !(kill_ops & (1u << op)) || !(kill_prefixes & (1u << prefix))) return 0;
    if (*kill_ending && !ends_with(path, kill_ending)) return 0;
    return --kill_at == 0;
}

static int fails(enum op op, int prefix) {
    volatile struct control *c = control;
    if (!c || !c->fail_errno || !(c->fail_ops & (1u << op)) || !(c->fail_prefixes & (1u << prefix))) return 0;
    if (c->fail_skip > 0) { c->fail_skip--; return 0; }
    if (!c->fail_count) return 0;
    if (c->fail_count > 0) c->fail_count--;
    c->failed++;
    return 1;
}

/* A disk that takes its time. Before the guard: what other threads do with the disk meanwhile goes on. */
static void dawdle(enum op op, int prefix) {
    volatile struct control *c = control;
    int64_t length = c ? c->slow_ns : 0;
    if (length <= 0 || !(c->slow_ops & (1u << op)) || !(c->slow_prefixes & (1u << prefix))) return;
    if (__atomic_fetch_sub(&c->slow_skip, 1, __ATOMIC_SEQ_CST) > 0) return;
    if (__atomic_fetch_sub(&c->slow_count, 1, __ATOMIC_SEQ_CST) <= 0) return;
    __atomic_fetch_add(&c->slowed, 1, __ATOMIC_SEQ_CST);
    struct timespec left = {length / 1000000000LL, length % 1000000000LL};
    while (nanosleep(&left, &left) && errno == EINTR) continue;
}

static int ours(int fd, struct stat *st, char *path) {
    if (fd < 0 || fd >= MAX_FD || files[fd].prefix <= 0 || fstat(fd, st)) return -1;
    if ((uint64_t)st->st_ino != files[fd].inode) return -1;
    if (!S_ISREG(st->st_mode) && !S_ISDIR(st->st_mode)) return -1;
    if (!path_of_fd(fd, path)) return -1;
    return files[fd].prefix - 1;
}

/* ---- files */

static int opened(int folder, const char *name, int flags, mode_t mode) {
    load();
    char path[PATH_MAX];
    int prefix = -1, is_new = 0, result;
    struct stat st;
    if (prefix_count) {
        absolute(folder, name, path);
        prefix = prefix_of(path);
    }
    if (prefix < 0 || is_exempt(path)) {
        result = real_openat(folder, name, flags, mode);
        if (result >= 0 && result < MAX_FD) files[result].prefix = 0;
        return result;
    }
    if (flags & O_CREAT) dawdle(CREATE, prefix);
    pthread_mutex_lock(&guard);
    is_new = (flags & O_CREAT) && fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW);
    int writes = (flags & O_ACCMODE) != O_RDONLY;
    if ((is_new && fails(CREATE, prefix)) || (writes && fails(OPEN, prefix))) {
        pthread_mutex_unlock(&guard);
        errno = control->fail_errno;
        return -1;
    }
    int last = is_new && is_last(CREATE, prefix, path);
    if (last && !kill_where) die(CREATE, path);
    if ((flags & O_TRUNC) && !is_new && writes && !stat(path, &st) && st.st_size && journal_fd >= 0) {
        char *old = malloc(st.st_size);
        int fd = real_open(path, O_RDONLY | O_CLOEXEC);
        ssize_t n = fd >= 0 ? pread(fd, old, st.st_size, 0) : -1;
        if (fd >= 0) close(fd);
        if (n == st.st_size) record(TRUNCATE, st.st_ino, path, 0, NULL, 0, st.st_size, old, n, 0);
        free(old);
    }
    result = real_openat(folder, name, flags, mode);
    if (result >= 0 && result < MAX_FD) {
        if (!fstat(result, &st)) {
            files[result].inode = st.st_ino;
            files[result].is_folder = S_ISDIR(st.st_mode);
            files[result].prefix = (signed char)(prefix + 1);
        }
        if (is_new) record(CREATE, st.st_ino, path, 0, NULL, 0, 0, NULL, 0, 0);
    }
    if (last) die(CREATE, path);
    pthread_mutex_unlock(&guard);
    return result;
}

#define MODE(last) mode_t mode = 0; if (flags & (O_CREAT | O_TMPFILE)) { va_list a; va_start(a, last); \
    mode = va_arg(a, mode_t); va_end(a); }
int open(const char *name, int flags, ...) { MODE(flags) return opened(AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE(flags) return opened(AT_FDCWD, name, flags, mode); }
int openat(int folder, const char *name, int flags, ...) { MODE(flags) return opened(folder, name, flags, mode); }
int openat64(int folder, const char *name, int flags, ...) { MODE(flags) return opened(folder, name, flags, mode); }
int creat(const char *name, mode_t mode) { return opened(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *name, mode_t mode) { return opened(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode); }

static ssize_t put(int fd, const void *data, size_t length, off_t offset, int at_offset) {
    load();
    struct stat st;
    char path[PATH_MAX];
    int prefix = prefix_count ? ours(fd, &st, path) : -1;
    if (prefix < 0 || !length || !S_ISREG(st.st_mode))
        return at_offset ? real_pwrite(fd, data, length, offset) : real_write(fd, data, length);
    dawdle(WRITE, prefix);
    pthread_mutex_lock(&guard);
    if (fails(WRITE, prefix)) {
        ssize_t half = -1;
        if (control->fail_short && length > 1) {
            control->fail_short = 0;
            half = at_offset ? real_pwrite(fd, data, length / 2, offset) : real_write(fd, data, length / 2);
        }
        pthread_mutex_unlock(&guard);
        if (half < 0) errno = control->fail_errno;
        return half;
    }
    int last = is_last(WRITE, prefix, path);
    if (last && !kill_where) die(WRITE, path);
    size_t wanted = last && kill_where == 2 ? length / 2 : length;
    if (!at_offset) offset = (fcntl(fd, F_GETFL) & O_APPEND) ? st.st_size : lseek(fd, 0, SEEK_CUR);
    if (journal_fd >= 0) {
        fstat(fd, &st);
        char *old = NULL;
        ssize_t had = 0;
        if (offset < st.st_size) {
            size_t n = st.st_size - offset < (off_t)wanted ? (size_t)(st.st_size - offset) : wanted;
            old = malloc(n);
            had = read_old(fd, path, old, n, offset);
            if (had != (ssize_t)n) abort();
        }
        record(WRITE, st.st_ino, path, offset, data, wanted, st.st_size, old, had, 0);
        free(old);
    }
    ssize_t result = at_offset ? real_pwrite(fd, data, wanted, offset) : real_write(fd, data, wanted);
    if (last) die(WRITE, path);
    pthread_mutex_unlock(&guard);
    return result;
}

ssize_t write(int fd, const void *data, size_t length) { return put(fd, data, length, 0, 0); }
ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) { return put(fd, data, length, offset, 1); }
ssize_t pwrite64(int fd, const void *data, size_t length, off_t offset) { return put(fd, data, length, offset, 1); }
ssize_t writev(int fd, const struct iovec *parts, int count) {
    load();
    struct stat st;
    char path[PATH_MAX];
    if (!prefix_count || ours(fd, &st, path) < 0 || !S_ISREG(st.st_mode)) return real_writev(fd, parts, count);
    ssize_t total = 0;
    for (int i = 0; i < count; i++) {
        ssize_t done = put(fd, parts[i].iov_base, parts[i].iov_len, 0, 0);
        if (done < 0) return total ? total : done;
        total += done;
        if ((size_t)done < parts[i].iov_len) break;
    }
    return total;
}

int ftruncate(int fd, off_t size) {
    load();
    struct stat st;
    char path[PATH_MAX];
    int prefix = prefix_count ? ours(fd, &st, path) : -1;
    if (prefix < 0) return real_ftruncate(fd, size);
    pthread_mutex_lock(&guard);
    if (fails(TRUNCATE, prefix)) {
        pthread_mutex_unlock(&guard);
        errno = control->fail_errno;
        return -1;
    }
    int last = is_last(TRUNCATE, prefix, path);
    if (last && !kill_where) die(TRUNCATE, path);
    fstat(fd, &st);
    if (journal_fd >= 0 && size != st.st_size) {
        char *old = NULL;
        ssize_t had = 0;
        if (size < st.st_size) {
            old = malloc(st.st_size - size);
            had = read_old(fd, path, old, st.st_size - size, size);
            if (had != st.st_size - size) abort();
        }
        record(TRUNCATE, st.st_ino, path, size, NULL, 0, st.st_size, old, had, 0);
        free(old);
    }
    int result = real_ftruncate(fd, size);
    if (last) die(TRUNCATE, path);
    pthread_mutex_unlock(&guard);
    return result;
}
int ftruncate64(int fd, off_t size) { return ftruncate(fd, size); }

static int synced(int fd, int (*real)(int)) {
    struct stat st;
    char path[PATH_MAX];
    int prefix = prefix_count ? ours(fd, &st, path) : -1;
    if (prefix < 0) return real(fd);
    enum op op = S_ISDIR(st.st_mode) ? DIRSYNC : SYNC;
    dawdle(op, prefix);
    pthread_mutex_lock(&guard);
    if (fails(op, prefix)) {
        pthread_mutex_unlock(&guard);
        errno = control->fail_errno;
        return -1;
    }
    int last = is_last(op, prefix, path);
    if (last && !kill_where) die(op, path);
    int result = journal_fd >= 0 ? 0 : real(fd);
    if (!result) record(op, st.st_ino, path, 0, NULL, 0, 0, NULL, 0, 0);
    if (last) die(op, path);
    pthread_mutex_unlock(&guard);
    return result;
}
int fsync(int fd) { load(); return synced(fd, real_fsync); }
int fdatasync(int fd) { load(); return synced(fd, real_fdatasync); }

/* ---- names */

static void bury(const char *path, const struct stat *st) {
    char grave[PATH_MAX];
    if (!grave_path || !S_ISREG(st->st_mode)) return;
    snprintf(grave, sizeof grave, "%s/%llu", grave_path, (unsigned long long)st->st_ino);
    if (real_link(path, grave) && errno != EEXIST) abort();
}

static int named(enum op op, const char *from, const char *to, mode_t mode) {
    const char *path = op == RENAME || op == LINK ? to : from;
    int prefix = prefix_of(path);
    struct stat st = {0};
    dawdle(op, prefix);
    pthread_mutex_lock(&guard);
    if (fails(op, prefix)) {
        pthread_mutex_unlock(&guard);
        errno = control->fail_errno;
        return -1;
    }
    int last = is_last(op, prefix, path);
    if (last && !kill_where) die(op, path);
    int there = !lstat(from, &st);
    if (op == UNLINK && there) bury(from, &st);
    struct stat over;
    if (op == RENAME && !lstat(to, &over)) bury(to, &over);
    int result = op == RENAME ? real_rename(from, to)
                 : op == LINK ? real_link(from, to)
                 : op == MKDIR ? real_mkdir(from, mode) : real_unlink(from);
    if (!result) {
        if (op == MKDIR) lstat(from, &st);
        if (op == RENAME) {
            record(UNLINK, st.st_ino, from, 0, NULL, 0, 0, NULL, 0, 1);
            record(LINK, st.st_ino, to, 0, NULL, 0, 0, NULL, 0, 1);
        } else {
            record(op, st.st_ino, path, 0, NULL, 0, 0, NULL, 0, 0);
        }
    }
    if (last) die(op, path);
    pthread_mutex_unlock(&guard);
    return result;
}

static int counts(const char *path) { return prefix_count && prefix_of(path) >= 0 && !is_exempt(path); }

int unlinkat(int folder, const char *name, int flags) {
    static int (*real)(int, const char *, int);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "unlinkat");
    char path[PATH_MAX];
    absolute(folder, name, path);
    load();
    return flags || !counts(path) ? real(folder, name, flags) : named(UNLINK, path, NULL, 0);
}
int unlink(const char *name) {
    char path[PATH_MAX];
    load();
    absolute(AT_FDCWD, name, path);
    return counts(path) ? named(UNLINK, path, NULL, 0) : real_unlink(name);
}
int rename(const char *from, const char *to) {
    char a[PATH_MAX], b[PATH_MAX];
    load();
    absolute(AT_FDCWD, from, a);
    absolute(AT_FDCWD, to, b);
    return counts(a) && counts(b) ? named(RENAME, a, b, 0) : real_rename(from, to);
}
int link(const char *from, const char *to) {
    char a[PATH_MAX], b[PATH_MAX];
    load();
    absolute(AT_FDCWD, from, a);
    absolute(AT_FDCWD, to, b);
    return counts(b) ? named(LINK, a, b, 0) : real_link(from, to);
}
int linkat(int at, const char *from, int to_at, const char *to, int flags) {
    static int (*real)(int, const char *, int, const char *, int);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "linkat");
    char a[PATH_MAX], b[PATH_MAX];
    load();
    absolute(at, from, a);
    if (flags & AT_SYMLINK_FOLLOW) {
        char link[PATH_MAX];
        ssize_t length = readlink(a, link, sizeof link - 1);
        if (length > 0 && link[0] == '/') snprintf(a, PATH_MAX, "%.*s", (int)length, link);
    }
    absolute(to_at, to, b);
    return flags & ~AT_SYMLINK_FOLLOW || !counts(b) ? real(at, from, to_at, to, flags) : named(LINK, a, b, 0);
}
int mkdir(const char *name, mode_t mode) {
    char path[PATH_MAX];
    load();
    absolute(AT_FDCWD, name, path);
    return counts(path) ? named(MKDIR, path, NULL, mode) : real_mkdir(name, mode);
}

/* ---- the clock */

int clock_gettime(clockid_t id, struct timespec *at) {
    load();
    int result = real_clock_gettime(id, at);
    volatile struct control *c = control;
    if (result || !c || id != CLOCK_REALTIME || (!c->clock_offset_ns && !c->clock_slew_ppb)) return result;
    int64_t now = (int64_t)at->tv_sec * 1000000000LL + at->tv_nsec + c->clock_offset_ns;
    if (c->clock_slew_ppb) {
        struct timespec mono;
        real_clock_gettime(CLOCK_MONOTONIC, &mono);
        int64_t since = (int64_t)mono.tv_sec * 1000000000LL + mono.tv_nsec - c->clock_slew_since;
        now += (int64_t)((__int128)since * c->clock_slew_ppb / 1000000000LL);
    }
    at->tv_sec = now / 1000000000LL;
    at->tv_nsec = now % 1000000000LL;
    return 0;
}
int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    (void)zone;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
