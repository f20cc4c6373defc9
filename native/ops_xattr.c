/* Extended attributes, which Node.js can neither read nor write. */
#include "run.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/xattr.h>

int op_setXattr(struct run *run, const union args *a)
{
	(void)run;
	const struct arg *value = &a->setXattr.value;
	return negative(lsetxattr(str(a->setXattr.path), str(a->setXattr.name), value->p, value->n, 0));
}

/* -- dumpXattrs: every file below a directory that has attributes, as records of
 *      u32 bytes of path, path, u32 count, then count times: u32 bytes of name, name, u32 bytes of value, value
 * little endian, paths relative to the directory, '' itself. The tree belongs to a container that may be running: each directory
 * is opened by one name without following links, and its members are asked for from within it. */

enum { LIST_SIZE = 65536, VALUE_SIZE = 65536, DEEPEST = 1000 };

struct dump {
	struct run *run;
	FILE *out;
	char *list, *value;
	char path[PATH_SIZE];
};

static void put_u32(FILE *out, size_t n)
{
	unsigned char b[4] = { (unsigned char)n, (unsigned char)(n >> 8), (unsigned char)(n >> 16), (unsigned char)(n >> 24) };
	fwrite(b, 1, sizeof b, out);
}

static void put_text(FILE *out, const char *text)
{
	put_u32(out, strlen(text));
	fputs(text, out);
}

/* `name` is a member of the working directory. Attributes that go away meanwhile are left out. */
static int dump_one(struct dump *d, const char *name)
{
	ssize_t size = llistxattr(name, d->list, LIST_SIZE);
	if (size < 0) return errno == ENOENT || errno == EOPNOTSUPP ? 0 : -errno;
	if (size == 0) return 0;
	uint32_t count = 0;
	for (const char *n = d->list; n < d->list + size; n += strlen(n) + 1)
		if (lgetxattr(name, n, NULL, 0) >= 0) count++;
	put_text(d->out, d->path);
	put_u32(d->out, count);
	for (const char *n = d->list; count > 0 && n < d->list + size; n += strlen(n) + 1) {
		ssize_t length = lgetxattr(name, n, d->value, VALUE_SIZE);
		if (length < 0 && errno == ENODATA) length = 0; /* it was there a moment ago, and it has been counted */
		if (length < 0) return fail(d->run, -errno, "%s of %s", n, d->path);
		put_text(d->out, n);
		put_u32(d->out, (size_t)length);
		fwrite(d->value, 1, (size_t)length, d->out);
		count--;
	}
	return count > 0 ? fail(d->run, -EAGAIN, "attributes of %s changed meanwhile", d->path) : 0;
}

/* Takes the fd over. */
static int dump_below(struct dump *d, int fd, dev_t device, int depth)
{
	struct stat st;
	if (depth > DEEPEST || fchdir(fd) < 0) {
		int error = depth > DEEPEST ? -ELOOP : -errno;
		close(fd);
		return error;
	}
	DIR *list = fdopendir(fd);
	if (!list) {
		close(fd);
		return -ENOMEM;
	}
	int rc = dump_one(d, ".");
	size_t length = strlen(d->path);
	for (struct dirent *e; rc == 0 && (e = readdir(list));) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
		if (length + strlen(e->d_name) + 2 > PATH_SIZE) {
			rc = -ENAMETOOLONG;
			break;
		}
		snprintf(d->path + length, PATH_SIZE - length, "%s%s", length ? "/" : "", e->d_name);
		if (fstatat(dirfd(list), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0) rc = errno == ENOENT ? 0 : -errno;
		else if (!S_ISDIR(st.st_mode)) rc = dump_one(d, e->d_name);
		else if (st.st_dev == device) {
			int below = openat(dirfd(list), e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
			/* Gone, or something else by now: what it was, nobody will find in the tree either. */
			bool changed = below < 0 && (errno == ENOENT || errno == ELOOP || errno == ENOTDIR);
			rc = changed ? 0 : below < 0 ? -errno : dump_below(d, below, device, depth + 1);
			if (rc == 0 && fchdir(dirfd(list)) < 0) rc = -errno;
		}
		d->path[length] = 0;
	}
	closedir(list);
	return rc;
}

int op_dumpXattrs(struct run *run, const union args *a)
{
	struct dump d = { .run = run, .list = malloc(LIST_SIZE), .value = malloc(VALUE_SIZE) };
	struct stat st;
	int here = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	int top = open(str(a->dumpXattrs.path), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	int rc = top < 0 || fstat(top, &st) < 0 ? -errno : 0;
	if (rc == 0 && !(d.list && d.value)) rc = -ENOMEM;
	if (rc == 0 && !(d.out = fopen(str(a->dumpXattrs.to), "we"))) rc = fail(run, -errno, "%s", str(a->dumpXattrs.to));
	if (rc == 0) rc = dump_below(&d, top, st.st_dev, 0);
	else if (top >= 0) close(top);
	if (d.out && fclose(d.out) != 0 && rc == 0) rc = -errno;
	if (here >= 0) {
		if (fchdir(here) < 0 && rc == 0) rc = -errno;
		close(here);
	}
	free(d.list);
	free(d.value);
	return rc;
}
