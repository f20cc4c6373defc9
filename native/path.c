#include "path.h"
#include <sys/vfs.h>

/* CVE-2021-30465: between a check of a path and its use another container that shares a volume may swap a directory for a
 * link. So nothing here is used by path twice: each step opens below `root` with RESOLVE_IN_ROOT and goes on from the fd. */

enum { MOST_LINKS = 40 };

int root_fd(struct run *run, struct arg slot) { return slot.n == NO_SLOT ? fail(run, -EBADF, "no root is given") : slot_fd(run, slot.n); }

int open_in(int root, const char *path, int flags)
{
	int fd;
	/* EAGAIN: a rename or mount elsewhere in the system raced with "..". */
	for (int i = 0; i < 64; i++)
		if ((fd = open2(root, path, (uint64_t)(O_PATH | flags), RESOLVE_IN_ROOT_ | RESOLVE_NO_MAGICLINKS_)) != -EAGAIN) break;
	return fd;
}

bool on_filesystem(int fd, unsigned long magic)
{
	struct statfs fs;
	return fstatfs(fd, &fs) == 0 && (unsigned long)fs.f_type == magic;
}

int outside_proc(struct run *run, int fd, const char *path)
{
	struct stat st;
	/* The root of procfs itself has inode 1 (PROC_ROOT_INO): a mount may be put over it whole. */
	if (!on_filesystem(fd, PROC_MAGIC) || (fstat(fd, &st) == 0 && st.st_ino == 1)) return 0;
	return fail(run, -EPERM, "%s lies inside proc", path);
}

/* Where the walk stands: the path so far, free of links, and what is still to go. */
struct walk { char done[PATH_SIZE], todo[PATH_SIZE]; int links; };

/* Takes the next name off `todo`; false at the end. */
static bool next_name(struct walk *w, char name[256], int *rc)
{
	char *p = w->todo;
	while (*p == '/') p++;
	size_t n = strcspn(p, "/");
	*rc = n > 255 ? -ENAMETOOLONG : 0;
	if (!n || *rc) return false;
	memcpy(name, p, n);
	name[n] = 0;
	memmove(w->todo, p + n, strlen(p + n) + 1);
	return true;
}

static bool is_last(const struct walk *w) { return w->todo[strspn(w->todo, "/")] == 0; }

static int append(char *path, const char *name)
{
	size_t n = strlen(path);
	if (n + strlen(name) + 2 > PATH_SIZE) return -ENAMETOOLONG;
	path[n] = '/';
	strcpy(path + n + 1, name);
	return 0;
}

static void drop_last(char *path)
{
	char *slash = strrchr(path, '/');
	if (slash) *slash = 0;
}

static int open_done(int root, const struct walk *w) { return open2(root, *w->done ? w->done + 1 : ".", O_PATH | O_DIRECTORY, RESOLVE_IN_ROOT_ | RESOLVE_NO_SYMLINKS_); }

/* Puts a link's target in front of what is to go. */
static int follow(struct walk *w, int dir, const char *name)
{
	char target[PATH_SIZE];
	ssize_t n = readlinkat(dir, name, target, sizeof target);
	if (n < 0) return -errno;
	if (++w->links > MOST_LINKS) return -ELOOP;
	if ((size_t)n + strlen(w->todo) + 2 > sizeof target) return -ENAMETOOLONG;
	target[n] = 0;
	if (target[0] == '/') w->done[0] = 0;
	strcat(target, "/");
	strcat(target, w->todo + strspn(w->todo, "/"));
	strcpy(w->todo, target);
	return 0;
}

static int make_one(int dir, const char *name, uint64_t kind, mode_t mode, int like)
{
	struct stat st = { .st_mode = S_IFDIR };
	if (kind == CREATE_LIKE_SOURCE && fstat(like, &st) < 0) return -errno;
	bool directory = kind == CREATE_DIRECTORY || (kind == CREATE_LIKE_SOURCE && S_ISDIR(st.st_mode));
	if (directory) return negative(mkdirat(dir, name, mode));
	int fd = openat(dir, name, O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_RDONLY, 0644);
	if (fd < 0) return -errno;
	close(fd);
	return 0;
}

/* Walks name by name. With `last`, stops before the last name and puts it there; the fd is then its directory. */
static int walk_in(struct run *run, int root, const char *path, uint64_t kind, mode_t mode, int like, bool links, char *last)
{
	struct walk w = { .links = 0 };
	char name[256];
	int rc = 0;
	if (strlen(path) >= sizeof w.todo) return -ENAMETOOLONG;
	strcpy(w.todo, path);
	while (next_name(&w, name, &rc)) {
		if (!strcmp(name, ".")) continue;
		if (!strcmp(name, "..")) {
			drop_last(w.done);
			continue;
		}
		int dir = open_done(root, &w);
		if (dir < 0) return fail(run, dir, "%s", *w.done ? w.done : "/");
		struct stat st;
		if (last && is_last(&w)) {
			strcpy(last, name);
			return dir;
		}
		for (int attempt = 0;; attempt++) {
			rc = negative(fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW));
			if (rc != -ENOENT || attempt) break;
			rc = make_one(dir, name, is_last(&w) ? kind : CREATE_DIRECTORY, mode, like);
			if (rc < 0 && rc != -EEXIST) break;
		}
		if (rc == 0 && S_ISLNK(st.st_mode)) rc = links ? follow(&w, dir, name) : -ELOOP;
		else if (rc == 0) rc = append(w.done, name);
		if (rc == 0 && is_last(&w) && !S_ISLNK(st.st_mode)) {
			close(dir);
			return open2(root, w.done + 1, O_PATH, RESOLVE_IN_ROOT_ | RESOLVE_NO_SYMLINKS_);
		}
		close(dir);
		if (rc < 0) return fail(run, rc, "%s/%s", w.done, name);
	}
	if (rc < 0) return rc;
	return last ? -EINVAL : open_done(root, &w);
}

/* The directory of the last name, which goes into `name`: by one call, when all of it is there. */
static int open_parent(int root, const char *path, uint64_t resolve, char name[256])
{
	char parent[PATH_SIZE];
	size_t length = strlen(path);
	if (length >= sizeof parent) return -ENAMETOOLONG;
	memcpy(parent, path, length + 1);
	while (length && parent[length - 1] == '/') parent[--length] = 0;
	char *slash = strrchr(parent, '/'), *last = slash ? slash + 1 : parent;
	if (!*last || !strcmp(last, ".") || !strcmp(last, "..") || strlen(last) > 255) return -EINVAL;
	strcpy(name, last);
	*last = 0;
	return open2(root, *parent ? parent : ".", O_PATH | O_DIRECTORY, resolve);
}

/* Most often only the last name is missing. Its fd, or an error at which the walk has to find out more. */
static int make_last(int root, const char *path, uint64_t resolve, uint64_t kind, mode_t mode, int like)
{
	char name[256];
	struct stat st;
	int dir = open_parent(root, path, resolve, name);
	if (dir < 0) return dir;
	int fd = make_one(dir, name, kind, mode, like);
	if (fd == 0) fd = value_of(openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC));
	close(dir);
	if (fd < 0 || (fstat(fd, &st) == 0 && !S_ISLNK(st.st_mode))) return fd;
	close(fd);
	return -ELOOP;
}

int make_in(struct run *run, int root, const char *path, uint64_t create, mode_t mode, int like)
{
	bool links = !(create & TARGET_NO_LINKS);
	uint64_t kind = create & 0xff;
	uint64_t resolve = RESOLVE_IN_ROOT_ | (links ? RESOLVE_NO_MAGICLINKS_ : RESOLVE_NO_SYMLINKS_);
	int fd = open2(root, path, O_PATH, resolve);
	if (fd == -ENOENT && kind != CREATE_NOTHING) {
		fd = make_last(root, path, resolve, kind, mode, like);
		if (fd < 0) fd = -ENOENT;
	}
	if (fd == -ELOOP && !links) return fail(run, fd, "%s is reached through a link", path);
	if ((fd == -ENOENT || fd == -EAGAIN) && kind != CREATE_NOTHING) fd = walk_in(run, root, path, kind, mode, like, links, NULL);
	if (fd < 0) return fd;
	int rc = create & TARGET_MAY_BE_PROC ? 0 : outside_proc(run, fd, path);
	if (rc < 0) {
		close(fd);
		return rc;
	}
	return fd;
}

int parent_in(struct run *run, int root, const char *path, mode_t mode, char name[256])
{
	const char *slash = strrchr(path, '/'), *last = slash ? slash + 1 : "";
	size_t length = slash ? (size_t)(slash - path) : 0;
	bool plain = *last && strcmp(last, ".") && strcmp(last, "..") && strlen(last) < 256 && length < sizeof run->parent_path;
	bool same = run->parent >= 0 && run->parent_root == root && strlen(run->parent_path) == length && starts(path, run->parent_path);
	if (plain && same) {
		strcpy(name, last);
		return run->parent;
	}
	int dir = open_parent(root, path, RESOLVE_IN_ROOT_ | RESOLVE_NO_MAGICLINKS_, name);
	if (dir < 0) dir = walk_in(run, root, path, CREATE_DIRECTORY, mode, -1, true, name);
	if (dir < 0) return dir;
	forget_parent(run);
	run->parent = dir;
	run->parent_root = plain ? root : -1; /* of another form: kept for this one alone */
	memcpy(run->parent_path, path, plain ? length : 0);
	run->parent_path[plain ? length : 0] = 0;
	return dir;
}

void forget_parent(struct run *run)
{
	if (run->parent >= 0) close(run->parent);
	run->parent = -1;
}
