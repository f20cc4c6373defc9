/* Mounts. `…At` work on fds alone: the target is opened below the root once, and the mount is moved onto that fd. */
#include "path.h"
#include <dirent.h>
#include <linux/mount.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

enum { FSOPEN_CLOEXEC_ = 1, FSMOUNT_CLOEXEC_ = 1 };
enum { CONFIG_FLAG = 0, CONFIG_STRING = 1, CONFIG_CREATE = 6 };
enum { ATTR_RDONLY = 1, ATTR_NOSUID = 2, ATTR_NODEV = 4, ATTR_NOEXEC = 8, ATTR_NOATIME = 0x10, ATTR_STRICTATIME = 0x20, ATTR_NODIRATIME = 0x80,
	ATTR_NOSYMFOLLOW = 0x200000 };

int op_mount(struct run *run, const union args *a)
{
	const char *type = str(a->mount.type), *data = str(a->mount.data), *source = str(a->mount.source);
	(void)run;
	return negative(mount(*source ? source : NULL, str(a->mount.target), *type ? type : NULL, (unsigned long)a->mount.flags.n, *data ? data : NULL));
}

int op_umount(struct run *run, const union args *a)
{
	(void)run;
	int rc = negative(umount2(str(a->umount.target), (int)a->umount.flags.n));
	return rc == -EINVAL || rc == -ENOENT ? 0 : rc; /* not mounted: what was wanted */
}

/* -- new mounts by fsopen */

/* The file system's own words about what it did not like: lines "e overlay: …". */
static void filesystem_says(struct run *run, int context)
{
	char line[512];
	size_t at = 0;
	ssize_t n;
	while (at < sizeof run->detail - 2 && (n = read(context, line, sizeof line - 1)) > 0) {
		line[n] = 0;
		while (n > 0 && line[n - 1] == '\n') line[--n] = 0;
		at += text(run->detail + at, sizeof run->detail - at, "%s%s", at ? "; " : "", n > 2 ? line + 2 : line);
	}
}

static int set_option(int context, char *option)
{
	char *value = strchr(option, '=');
	if (!value) return negative(syscall(NR_fsconfig, context, CONFIG_FLAG, option, NULL, 0));
	*value = 0;
	int rc = negative(syscall(NR_fsconfig, context, CONFIG_STRING, option, value + 1, 0));
	*value = '=';
	return rc;
}

/* A detached mount, or a negative errno with detail. `context` has its options already. */
static int finish_mount(struct run *run, int context, uint64_t attr)
{
	int fd = negative(syscall(NR_fsconfig, context, CONFIG_CREATE, NULL, NULL, 0));
	if (fd == 0) fd = value_of(syscall(NR_fsmount, context, FSMOUNT_CLOEXEC_, (unsigned)attr));
	if (fd < 0) filesystem_says(run, context);
	close(context);
	return fd;
}

int op_fsMount(struct run *run, const union args *a)
{
	char option[PATH_SIZE * 2];
	int context = value_of(syscall(NR_fsopen, str(a->fsMount.type), FSOPEN_CLOEXEC_));
	if (context < 0) return fail(run, context, "the kernel has no file system %s", str(a->fsMount.type));
	const unsigned char *at = a->fsMount.options.p;
	for (uint64_t i = 0; i < a->fsMount.options.n; i++) {
		const char *s = next_str(&at);
		int rc = strlen(s) < sizeof option ? 0 : -ENAMETOOLONG;
		if (rc == 0) rc = set_option(context, strcpy(option, s));
		if (rc < 0) {
			filesystem_says(run, context);
			if (!run->detail[0]) fail(run, rc, "option %s", s);
			close(context);
			return rc;
		}
	}
	int tree = finish_mount(run, context, a->fsMount.attr.n);
	if (tree < 0) return tree;
	int rc = negative(syscall(NR_move_mount, tree, "", AT_FDCWD, str(a->fsMount.target), FROM_EMPTY | 0x10 /* T_SYMLINKS */));
	close(tree);
	return rc;
}

static uint64_t attr_of_flags(uint64_t ms)
{
	static const struct { uint64_t ms, attr; } SAME[] = {
		{ MS_RDONLY, ATTR_RDONLY }, { MS_NOSUID, ATTR_NOSUID }, { MS_NODEV, ATTR_NODEV }, { MS_NOEXEC, ATTR_NOEXEC },
		{ MS_NOATIME, ATTR_NOATIME }, { MS_STRICTATIME, ATTR_STRICTATIME }, { MS_NODIRATIME, ATTR_NODIRATIME }, { 256, ATTR_NOSYMFOLLOW },
	};
	uint64_t attr = 0;
	for (size_t i = 0; i < LENGTH(SAME); i++)
		if (ms & SAME[i].ms) attr |= SAME[i].attr;
	return attr;
}

/* -- mounts below a root */

/* Mounts over the directory in `target` without naming it: mount(2) takes ".", which nobody can swap. The working directory is "/"
 * afterwards: plans name all by absolute paths, and one has to be left for the mount to be seen. */
static int mount_over(int target, const char *source, const char *type, uint64_t flags, const char *data)
{
	int rc = negative(fchdir(target));
	if (rc == 0) rc = negative(mount(*source ? source : NULL, ".", type, (unsigned long)flags, *data ? data : NULL));
	(void)!chdir("/");
	return rc;
}

int op_mountAt(struct run *run, const union args *a)
{
	int root = root_fd(run, a->mountAt.root);
	if (root < 0) return root;
	int target = make_in(run, root, str(a->mountAt.target), a->mountAt.create.n, 0755, -1);
	if (target < 0) return target;
	int rc = mount_over(target, str(a->mountAt.source), str(a->mountAt.type), a->mountAt.flags.n, str(a->mountAt.data));
	close(target);
	return rc;
}

static int set_attr(struct run *run, int fd, bool recursive, uint64_t set, uint64_t clear, uint64_t propagation, uint64_t userns)
{
	struct mount_attr_ attr = { .set = set, .clear = clear, .propagation = propagation & ~(uint64_t)MS_REC };
	if (userns != NO_SLOT) {
		int ns = slot_fd(run, userns);
		if (ns < 0) return ns;
		attr.set |= MOUNT_ATTR_IDMAP_;
		attr.userns = (uint64_t)ns;
	}
	if (!attr.set && !attr.clear && !attr.propagation) return 0;
	return mount_setattr_(fd, "", AT_EMPTY_PATH | (recursive ? AT_RECURSIVE_ : 0), &attr);
}

/* Attributes and propagation each with their own reach; idmap goes with the attributes. */
static int set_attrs(struct run *run, int fd, bool recursive, uint64_t set, uint64_t clear, uint64_t propagation, uint64_t userns)
{
	int rc = set_attr(run, fd, recursive, set, clear, 0, userns);
	if (rc < 0) return fail(run, rc, userns == NO_SLOT ? "setting attributes" : "setting attributes and id map: does this file system know id-mapped mounts?");
	return propagation ? set_attr(run, fd, propagation & MS_REC, 0, 0, propagation, NO_SLOT) : 0;
}

int op_openTree(struct run *run, const union args *a)
{
	int tree = open_tree_(AT_FDCWD, str(a->openTree.path), OPEN_TREE_CLONE_ | O_CLOEXEC | (a->openTree.recursive.n ? AT_RECURSIVE_ : 0));
	if (tree < 0) return tree;
	int rc = set_attrs(run, tree, a->openTree.attrRecursive.n, a->openTree.set.n, a->openTree.clear.n, 0, a->openTree.userns.n);
	if (rc < 0) {
		close(tree);
		return rc;
	}
	return set_slot(run, a->openTree.into.n, tree);
}

int op_bindAt(struct run *run, const union args *a)
{
	int root = root_fd(run, a->bindAt.root), tree, target, rc;
	if (root < 0) return root;
	bool given = a->bindAt.from.n != NO_SLOT;
	if (given) tree = slot_fd(run, a->bindAt.from.n);
	else tree = open_tree_(AT_FDCWD, str(a->bindAt.source), OPEN_TREE_CLONE_ | O_CLOEXEC | (a->bindAt.recursive.n ? AT_RECURSIVE_ : 0));
	if (tree < 0) return given ? tree : fail(run, tree, "source %s", str(a->bindAt.source));
	target = make_in(run, root, str(a->bindAt.target), a->bindAt.create.n, 0755, tree);
	rc = target < 0 ? target : 0;
	/* Attributes come before the mount is in place: it is never there without its read-only. */
	if (rc == 0) rc = set_attrs(run, tree, a->bindAt.attrRecursive.n, a->bindAt.set.n, a->bindAt.clear.n, 0, a->bindAt.userns.n);
	if (rc == 0) rc = move_mount_(tree, target);
	/* Propagation comes after: a mount takes its parent's peer group when it is attached. */
	if (rc == 0 && a->bindAt.propagation.n) rc = set_attrs(run, tree, false, 0, 0, a->bindAt.propagation.n, NO_SLOT);
	if (target >= 0) close(target);
	if (!given) close(tree);
	else {
		close(tree);
		run->slots[a->bindAt.from.n] = -1;
	}
	return rc;
}

static int change_mount(struct run *run, int fd, uint64_t recursive, uint64_t set, uint64_t clear, uint64_t propagation)
{
	if (fd < 0) return fd;
	int rc = set_attrs(run, fd, recursive, set, clear, propagation, NO_SLOT);
	close(fd);
	return rc;
}

int op_mountAttr(struct run *run, const union args *a)
{
	int fd = value_of(open(str(a->mountAttr.path), O_PATH | O_CLOEXEC));
	uint64_t propagation = a->mountAttr.propagation.n | (a->mountAttr.propagation.n && a->mountAttr.recursive.n ? MS_REC : 0);
	return change_mount(run, fd, a->mountAttr.recursive.n, a->mountAttr.set.n, a->mountAttr.clear.n, propagation);
}

int op_attrAt(struct run *run, const union args *a)
{
	int root = root_fd(run, a->attrAt.root);
	if (root < 0) return root;
	uint64_t propagation = a->attrAt.propagation.n | (a->attrAt.propagation.n && a->attrAt.recursive.n ? MS_REC : 0);
	return change_mount(run, open_in(root, str(a->attrAt.path), 0), a->attrAt.recursive.n, a->attrAt.set.n, a->attrAt.clear.n, propagation);
}

/* -- the root */

int op_pivotRoot(struct run *run, const union args *a)
{
	/* Old over new on the same point (pivot_root(2), "."): no directory for the old root is needed in the image. */
	int old = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC), rc = 0;
	if (old < 0 || chdir(str(a->pivotRoot.root)) < 0) rc = fail(run, -errno, "entering the root");
	else if (syscall(SYS_pivot_root, ".", ".") < 0) rc = -errno;
	else if (fchdir(old) < 0) rc = -errno;
	/* Slave first: if a mount below the old root were shared, the host's would go with it. */
	else if (mount(NULL, ".", NULL, MS_SLAVE | MS_REC, NULL) < 0) rc = fail(run, -errno, "old root as slave");
	else if (umount2(".", MNT_DETACH) < 0) rc = fail(run, -errno, "unmounting the old root");
	else if (chdir("/") < 0) rc = -errno;
	if (old >= 0) close(old);
	return rc;
}

int op_moveRoot(struct run *run, const union args *a)
{
	/* For a host root on initramfs, where pivot_root is EINVAL. What is mounted there stays reachable by nobody: chroot hides it and
	 * proc and sysfs of the host, which chroot(2) alone would leave in /proc/PID/root's reach, are unmounted by runtime/'s plan. */
	if (chdir(str(a->moveRoot.root)) < 0) return fail(run, -errno, "entering the root");
	if (mount(".", "/", NULL, MS_MOVE, NULL) < 0) return -errno;
	if (chroot(".") < 0) return fail(run, -errno, "chroot");
	return negative(chdir("/"));
}

int op_chroot(struct run *run, const union args *a)
{
	if (chdir(str(a->chroot.root)) < 0) return fail(run, -errno, "entering the root");
	if (chroot(".") < 0) return -errno;
	return negative(chdir("/"));
}

int op_checkProc(struct run *run, const union args *a)
{
	int fd = value_of(open(str(a->checkProc.path), O_PATH | O_NOFOLLOW | O_CLOEXEC));
	if (fd < 0) return fd;
	bool proc = on_filesystem(fd, PROC_MAGIC);
	close(fd);
	return proc ? 0 : fail(run, -EPERM, "it is not on procfs");
}

/* -- masked and read-only paths */

static bool is_null(int fd)
{
	struct stat st;
	return fd >= 0 && fstat(fd, &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3);
}

/* A tree with the real /dev/null: 1:3 by its number, whatever the image put there (CVE-2025-31133). The container's own when it
 * is one, as under runc: the host's would show the host's devtmpfs, and its size, in the container's mountinfo. */
static int null_tree(struct run *run, int root)
{
	int fd = open_in(root, "dev/null", O_NOFOLLOW);
	if (!is_null(fd)) {
		if (fd >= 0) close(fd);
		fd = value_of(open("/dev/null", O_PATH | O_NOFOLLOW | O_CLOEXEC));
	}
	if (fd < 0) return fail(run, fd, "/dev/null");
	if (!is_null(fd)) {
		close(fd);
		return fail(run, -EPERM, "/dev/null is not the null device");
	}
	int tree = open_tree_(fd, "", AT_EMPTY_PATH | OPEN_TREE_CLONE_ | O_CLOEXEC);
	close(fd);
	return tree;
}

/* One empty read-only tmpfs serves every masked directory: a bind of it costs a third of a new one. */
static int empty_tree(struct run *run, const char *label)
{
	static int first = -1; /* init's alone: a host never masks */
	int tree = first >= 0 && !*label ? open_tree_(first, "", AT_EMPTY_PATH | OPEN_TREE_CLONE_ | O_CLOEXEC) : -1;
	if (tree >= 0) return tree;
	int context = value_of(syscall(NR_fsopen, "tmpfs", FSOPEN_CLOEXEC_));
	if (context < 0) return context;
	char options[2][16] = { "source=tmpfs", "ro" };
	int rc = set_option(context, options[0]);
	if (rc == 0) rc = set_option(context, options[1]);
	if (rc == 0 && *label) rc = negative(syscall(NR_fsconfig, context, CONFIG_STRING, "context", label, 0));
	if (rc < 0) {
		close(context);
		return rc;
	}
	tree = finish_mount(run, context, ATTR_RDONLY);
	if (tree >= 0 && !*label) first = fcntl(tree, F_DUPFD_CLOEXEC, 3);
	return tree;
}

int op_maskAt(struct run *run, const union args *a)
{
	int root = root_fd(run, a->maskAt.root);
	if (root < 0) return root;
	int target = open_in(root, str(a->maskAt.path), 0);
	if (target < 0) return target == -ENOENT || target == -ENOTDIR ? 0 : target;
	struct stat st;
	int rc = negative(fstat(target, &st)), tree = -1;
	if (rc == 0) rc = tree = S_ISDIR(st.st_mode) ? empty_tree(run, str(a->maskAt.label)) : null_tree(run, root);
	if (rc >= 0) rc = move_mount_(tree, target);
	if (tree >= 0) close(tree);
	close(target);
	return rc;
}

int op_readonlyAt(struct run *run, const union args *a)
{
	int root = root_fd(run, a->readonlyAt.root);
	if (root < 0) return root;
	int target = open_in(root, str(a->readonlyAt.path), 0);
	if (target < 0) return target == -ENOENT || target == -ENOTDIR ? 0 : target;
	int tree = open_tree_(target, "", AT_EMPTY_PATH | AT_RECURSIVE_ | OPEN_TREE_CLONE_ | O_CLOEXEC);
	int rc = tree < 0 ? tree : set_attr(run, tree, true, ATTR_RDONLY, 0, 0, NO_SLOT);
	if (rc == 0) rc = move_mount_(tree, target);
	if (tree >= 0) close(tree);
	close(target);
	return rc;
}

/* -- tmpfs that begins with what is there */

enum { COPY_DEEPEST = 64 };
static int copy_tree(struct run *run, int from, int to, int depth);

static void copy_owner(int dir, const char *name, const struct stat *st)
{
	(void)!fchownat(dir, name, st->st_uid, st->st_gid, AT_SYMLINK_NOFOLLOW);
	if (!S_ISLNK(st->st_mode)) fchmodat(dir, name, st->st_mode & 07777, 0);
	struct timespec times[2] = { st->st_atim, st->st_mtim };
	utimensat(dir, name, times, AT_SYMLINK_NOFOLLOW);
}

static int copy_data(int from, int to)
{
	char buffer[8192];
	ssize_t n;
	while ((n = read(from, buffer, sizeof buffer)) > 0) {
		int rc = write_all(to, buffer, (size_t)n);
		if (rc < 0) return rc;
	}
	return n < 0 ? -errno : 0;
}

static int copy_one(struct run *run, int from, int to, const char *name, int depth)
{
	struct stat st;
	char target[PATH_SIZE];
	int rc = 0, in = -1, out = -1;
	if (fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) < 0) return -errno;
	if (S_ISDIR(st.st_mode)) {
		if (mkdirat(to, name, 0700) < 0) return -errno;
		in = openat(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		out = openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		rc = in < 0 || out < 0 ? -errno : copy_tree(run, in, out, depth + 1);
	} else if (S_ISREG(st.st_mode)) {
		in = openat(from, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
		out = openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		rc = in < 0 || out < 0 ? -errno : copy_data(in, out);
	} else if (S_ISLNK(st.st_mode)) {
		ssize_t n = readlinkat(from, name, target, sizeof target - 1);
		if (n >= 0) target[n] = 0;
		rc = n < 0 ? -errno : negative(symlinkat(target, to, name));
	} else {
		rc = negative(mknodat(to, name, st.st_mode, st.st_rdev));
	}
	if (in >= 0) close(in);
	if (out >= 0) close(out);
	if (rc == 0) copy_owner(to, name, &st);
	return rc < 0 ? fail(run, rc, "copying %s", name) : 0;
}

static int copy_tree(struct run *run, int from, int to, int depth)
{
	int own = depth > COPY_DEEPEST ? -1 : fcntl(from, F_DUPFD_CLOEXEC, 3);
	DIR *list = own < 0 ? NULL : fdopendir(own);
	if (!list) return depth > COPY_DEEPEST ? -ELOOP : -errno;
	int rc = 0;
	for (struct dirent *e; rc == 0 && (e = readdir(list));)
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..")) rc = copy_one(run, from, to, e->d_name, depth);
	closedir(list);
	return rc;
}

int op_copyUpAt(struct run *run, const union args *a)
{
	int root = root_fd(run, a->copyUpAt.root), rc = 0;
	if (root < 0) return root;
	int target = make_in(run, root, str(a->copyUpAt.target), CREATE_DIRECTORY, 0755, -1);
	if (target < 0) return target;
	int context = value_of(syscall(NR_fsopen, "tmpfs", FSOPEN_CLOEXEC_));
	int from = openat(target, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), tree = -1;
	struct stat st;
	char options[PATH_SIZE];
	bool mode_given = false;
	if (context < 0 || from < 0 || fstat(from, &st) < 0) rc = -errno;
	else if (a->copyUpAt.data.n >= sizeof options) rc = -ENAMETOOLONG;
	char source[] = "source=tmpfs";
	if (rc == 0) rc = set_option(context, source);
	if (rc == 0) {
		strcpy(options, str(a->copyUpAt.data));
		for (char *at = options, *next; rc == 0 && at && *at; at = next) {
			next = strchr(at, ',');
			if (next) *next++ = 0;
			mode_given |= starts(at, "mode=");
			if (*at) rc = set_option(context, at);
			if (rc < 0) fail(run, rc, "option %s", at);
		}
	}
	if (rc == 0) {
		uint64_t attr = attr_of_flags(a->copyUpAt.flags.n);
		tree = rc = finish_mount(run, context, attr & ~(uint64_t)ATTR_RDONLY);
		context = -1;
		if (rc >= 0) rc = copy_tree(run, from, tree, 0);
		if (rc == 0 && !mode_given) copy_owner(tree, ".", &st);
		if (rc == 0 && (attr & ATTR_RDONLY)) rc = set_attr(run, tree, false, ATTR_RDONLY, 0, 0, NO_SLOT);
		if (rc == 0) rc = move_mount_(tree, target);
	}
	int fds[] = { context, from, tree, target };
	for (size_t i = 0; i < LENGTH(fds); i++)
		if (fds[i] >= 0) close(fds[i]);
	return rc;
}

/* -- devices, links and directories below a root */

static int bind_device(struct run *run, int root, const char *path, uint64_t device)
{
	struct stat st;
	int source = value_of(open(path, O_PATH | O_CLOEXEC));
	if (source < 0) return fail(run, source, "the host's %s", path);
	int rc = 0, tree = -1, target = -1;
	if (fstat(source, &st) < 0 || st.st_rdev != device) rc = fail(run, -ENODEV, "the host's %s is another device", path);
	if (rc == 0) rc = target = make_in(run, root, path, CREATE_FILE, 0755, -1);
	if (rc >= 0) rc = tree = open_tree_(source, "", AT_EMPTY_PATH | OPEN_TREE_CLONE_ | O_CLOEXEC);
	if (rc >= 0) rc = move_mount_(tree, target);
	close(source);
	if (tree >= 0) close(tree);
	if (target >= 0) close(target);
	return rc;
}

int op_deviceAt(struct run *run, const union args *a)
{
	int root = root_fd(run, a->deviceAt.root);
	const char *path = str(a->deviceAt.path);
	mode_t mode = (mode_t)a->deviceAt.mode.n;
	char name[256];
	if (root < 0) return root;
	if (a->deviceAt.bind.n) return bind_device(run, root, path, a->deviceAt.device.n);
	int dir = parent_in(run, root, path, 0755, name);
	if (dir < 0) return dir;
	int rc = outside_proc(run, dir, path);
	struct stat st;
	if (rc == 0 && mknodat(dir, name, mode, (dev_t)a->deviceAt.device.n) < 0) {
		rc = -errno;
		/* Already there is fine when it is this very device: an image or a bind of the host's /dev may hold it. */
		if (rc == -EEXIST && fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && (st.st_mode & S_IFMT) == (mode & S_IFMT) && (S_ISFIFO(mode) || st.st_rdev == a->deviceAt.device.n)) rc = 0;
		else if (rc == -EEXIST) fail(run, rc, "something else is there");
		return rc;
	}
	if (rc == 0 && fchownat(dir, name, (uid_t)a->deviceAt.uid.n, (gid_t)a->deviceAt.gid.n, AT_SYMLINK_NOFOLLOW) < 0) rc = fail(run, -errno, "chown");
	/* After chown, which clears bits, and because the umask took its own. */
	return rc == 0 ? negative(fchmodat(dir, name, mode & 07777, 0)) : rc;
}

int op_symlinkAt(struct run *run, const union args *a)
{
	int root = root_fd(run, a->symlinkAt.root);
	char name[256];
	if (root < 0) return root;
	int dir = parent_in(run, root, str(a->symlinkAt.path), 0755, name);
	if (dir < 0) return dir;
	int rc = negative(symlinkat(str(a->symlinkAt.target), dir, name));
	return rc == -EEXIST ? 0 : rc; /* the image's own wins, as with runc */
}

int op_mkdirAt(struct run *run, const union args *a)
{
	int root = root_fd(run, a->mkdirAt.root);
	if (root < 0) return root;
	int fd = make_in(run, root, str(a->mkdirAt.path), CREATE_DIRECTORY | TARGET_MAY_BE_PROC, (mode_t)a->mkdirAt.mode.n, -1);
	if (fd < 0) return fd;
	close(fd);
	return 0;
}
