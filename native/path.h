/* Paths below a root that somebody else filled: an image, another container. */
#pragma once
#include "run.h"

/* O_PATH fd of `path`, resolved as if `root` were /: links and .. stay inside. `flags` adds O_DIRECTORY and so on. */
int open_in(int root, const char *path, int flags);
/* As open_in, and makes what is missing: directories on the way, at the end what `create` says (CREATE_* and TARGET_*; `like` is
 * an fd whose type CREATE_LIKE_SOURCE takes). A link that dangles is followed, and what it names made inside the root. */
int make_in(struct run *run, int root, const char *path, uint64_t create, mode_t mode, int like);
/* The directory that holds the last name of `path`, made if missing; the name itself in `name`. The fd stays with `run`, where
 * the next step finds it that makes something in the same place, until forget_parent: before any step that may mount there. */
int parent_in(struct run *run, int root, const char *path, mode_t mode, char name[256]);
void forget_parent(struct run *run);
/* -EPERM when the fd lies inside procfs below its root. */
int outside_proc(struct run *run, int fd, const char *path);
bool on_filesystem(int fd, unsigned long magic);
/* CVE-2025-52881: a container that shares a mount may have put something else where /proc/sys or /proc/self/attr was. A file below
 * /proc by its fd, which is proc's own: no bind of another proc file lies over it (RESOLVE_NO_XDEV). */
int open_proc(const char *path, int flags);
/* An fd for the root slot of an operation. */
int root_fd(struct run *run, struct arg slot);

#define PROC_MAGIC 0x9fa0
#define DEVPTS_MAGIC 0x1cd1
