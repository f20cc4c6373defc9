/* A file system in a file. */
#include "run.h"
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/mount.h>

enum { LOOP_CONFIGURE_ = 0x4C0A, MOST_TRIES = 64 }; /* since Linux 5.8: file, flags and all in one call */
struct configure { uint32_t fd, block_size; struct loop_info64 info; uint64_t reserved[8]; };

/* A device on the file, which the kernel frees when its last user is gone (AUTOCLEAR): nothing to sweep after a crash. */
static int take_device(struct run *run, int file, char path[32])
{
	int control = value_of(open("/dev/loop-control", O_RDWR | O_CLOEXEC));
	if (control < 0) return fail(run, control, "/dev/loop-control");
	int device = -EBUSY;
	/* EBUSY: somebody took the free one between the two calls. */
	for (int i = 0; i < MOST_TRIES && device == -EBUSY; i++) {
		int n = value_of(ioctl(control, LOOP_CTL_GET_FREE));
		if (n < 0) {
			device = fail(run, n, "no free loop device");
			break;
		}
		text(path, 32, "/dev/loop%d", n);
		device = value_of(open(path, O_RDWR | O_CLOEXEC));
		if (device < 0) continue;
		struct configure c = { .fd = (uint32_t)file, .info.lo_flags = LO_FLAGS_AUTOCLEAR };
		int rc = negative(ioctl(device, LOOP_CONFIGURE_, &c));
		if (rc == 0) break;
		close(device);
		device = rc;
	}
	close(control);
	return device;
}

int op_mountLoop(struct run *run, const union args *a)
{
	char path[32] = "";
	const char *file = str(a->mountLoop.file), *data = str(a->mountLoop.data);
	int fd = value_of(open(file, O_RDWR | O_CLOEXEC | O_NOFOLLOW));
	if (fd < 0) return fail(run, fd, "%s", file);
	int device = take_device(run, fd, path);
	close(fd);
	if (device < 0) return device;
	int rc = negative(mount(path, str(a->mountLoop.target), str(a->mountLoop.type), (unsigned long)a->mountLoop.flags.n, *data ? data : NULL));
	close(device);
	return rc < 0 && !run->detail[0] ? fail(run, rc, "%s on %s", file, path) : rc;
}
