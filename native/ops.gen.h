/* Written by tools/gen-native.mjs from src/kernel/plan/ops.ts. Do not edit.
 * Signature letters: s str, S strs, u u32, U u64, V u32s, b bytes, f slot. */
#define CHDIR_IF_NOT_YET 0x4u
#define CHDIR_INSIDE 0x1u
#define CHDIR_OR_LATER 0x2u
#define CREATE_DIRECTORY 0x1u
#define CREATE_FILE 0x2u
#define CREATE_LIKE_SOURCE 0x3u
#define CREATE_NOTHING 0x0u
#define MKDIR_MAY_EXIST 0x2u
#define MKDIR_PARENTS 0x1u
#define NO_SLOT 0xffffffffu
#define SLOTS 0x40u
#define TARGET_MAY_BE_PROC 0x200u
#define TARGET_NO_LINKS 0x100u
#define MAX_OP_CODE 112
#define MAX_OP_ARGS 11

/* X(name, code, signature) */
#define FOR_EACH_OP(X) \
	X(mkdir, 1, "suu") \
	X(rmdir, 2, "s") \
	X(unlink, 3, "s") \
	X(symlink, 4, "ss") \
	X(mknod, 5, "suU") \
	X(chown, 6, "suu") \
	X(chmod, 7, "su") \
	X(write, 8, "sbuu") \
	X(open, 9, "fsuu") \
	X(close, 10, "f") \
	X(removeTree, 11, "s") \
	X(removeCgroup, 12, "s") \
	X(killCgroup, 13, "su") \
	X(renameFile, 14, "ss") \
	X(setXattr, 15, "ssb") \
	X(dumpXattrs, 16, "ss") \
	X(setTime, 17, "sUu") \
	X(fork, 20, "") \
	X(clone, 21, "Ufu") \
	X(setns, 22, "fsu") \
	X(unshare, 23, "u") \
	X(writeProc, 24, "sb") \
	X(idMapTool, 25, "sS") \
	X(joinCgroup, 26, "sf") \
	X(setsid, 27, "") \
	X(hostname, 28, "s") \
	X(domainname, 29, "s") \
	X(prctl, 30, "uU") \
	X(setgroups, 31, "V") \
	X(setgid, 32, "u") \
	X(setuid, 33, "u") \
	X(capset, 34, "UUU") \
	X(capBounding, 35, "U") \
	X(capAmbient, 36, "U") \
	X(seccomp, 37, "busbV") \
	X(rlimit, 38, "uUU") \
	X(personality, 39, "U") \
	X(scheduler, 40, "b") \
	X(ioPriority, 41, "u") \
	X(affinity, 42, "b") \
	X(memoryPolicy, 43, "ub") \
	X(umask, 44, "u") \
	X(chdir, 45, "su") \
	X(keyring, 46, "s") \
	X(landlock, 47, "bSV") \
	X(closeFds, 48, "u") \
	X(exec, 49, "sSS") \
	X(waitInit, 50, "u") \
	X(lookup, 51, "sS") \
	X(kill, 52, "uUu") \
	X(waitGone, 53, "uUu") \
	X(userns, 54, "fbb") \
	X(ownStdio, 55, "u") \
	X(openProcess, 56, "fuU") \
	X(enterProcess, 57, "fuu") \
	X(cloneInto, 58, "fuuUf") \
	X(mount, 60, "sssUs") \
	X(umount, 61, "su") \
	X(mountAt, 62, "fsssUsu") \
	X(bindAt, 63, "fsfsuuUUuUf") \
	X(mountAttr, 64, "suUUU") \
	X(attrAt, 65, "fsuUUU") \
	X(pivotRoot, 66, "s") \
	X(moveRoot, 67, "s") \
	X(chroot, 68, "s") \
	X(maskAt, 69, "fss") \
	X(readonlyAt, 70, "fs") \
	X(copyUpAt, 71, "fssU") \
	X(deviceAt, 72, "fsuUuuu") \
	X(symlinkAt, 73, "fss") \
	X(mkdirAt, 74, "fsu") \
	X(checkProc, 75, "s") \
	X(openTree, 76, "fsuUUuf") \
	X(fsMount, 77, "ssSU") \
	X(mountLoop, 78, "sssUs") \
	X(console, 80, "suuu") \
	X(netlink, 90, "ubV") \
	X(deviceFilter, 91, "sb") \
	X(hook, 100, "sSSubV") \
	X(program, 101, "sSSus") \
	X(writePid, 110, "su") \
	X(ready, 111, "") \
	X(awaitStart, 112, "sf")

union args {
	struct arg all[MAX_OP_ARGS];
	struct { struct arg path, mode, flags; } mkdir;
	struct { struct arg path; } rmdir;
	struct { struct arg path; } unlink;
	struct { struct arg target, path; } symlink;
	struct { struct arg path, mode, device; } mknod;
	struct { struct arg path, uid, gid; } chown;
	struct { struct arg path, mode; } chmod;
	struct { struct arg path, data, flags, mode; } write;
	struct { struct arg into, path, flags, mode; } open;
	struct { struct arg slot; } close;
	struct { struct arg path; } removeTree;
	struct { struct arg path; } removeCgroup;
	struct { struct arg path, signal; } killCgroup;
	struct { struct arg from, to; } renameFile;
	struct { struct arg path, name, value; } setXattr;
	struct { struct arg path, to; } dumpXattrs;
	struct { struct arg path, seconds, nanoseconds; } setTime;
	struct { struct arg flags, cgroup, sibling; } clone;
	struct { struct arg slot, path, type; } setns;
	struct { struct arg flags; } unshare;
	struct { struct arg file, data; } writeProc;
	struct { struct arg tool, map; } idMapTool;
	struct { struct arg path, slot; } joinCgroup;
	struct { struct arg name; } hostname;
	struct { struct arg name; } domainname;
	struct { struct arg option, value; } prctl;
	struct { struct arg gids; } setgroups;
	struct { struct arg gid; } setgid;
	struct { struct arg uid; } setuid;
	struct { struct arg effective, permitted, inheritable; } capset;
	struct { struct arg keep; } capBounding;
	struct { struct arg set; } capAmbient;
	struct { struct arg filter, flags, listener, state, pidAt; } seccomp;
	struct { struct arg resource, soft, hard; } rlimit;
	struct { struct arg value; } personality;
	struct { struct arg attr; } scheduler;
	struct { struct arg value; } ioPriority;
	struct { struct arg mask; } affinity;
	struct { struct arg mode, nodes; } memoryPolicy;
	struct { struct arg mask; } umask;
	struct { struct arg path, inside; } chdir;
	struct { struct arg name; } keyring;
	struct { struct arg attr, paths, access; } landlock;
	struct { struct arg from; } closeFds;
	struct { struct arg path, argv, env; } exec;
	struct { struct arg timeoutMs; } waitInit;
	struct { struct arg path, env; } lookup;
	struct { struct arg pid, startTime, signal; } kill;
	struct { struct arg pid, startTime, timeoutMs; } waitGone;
	struct { struct arg into, uidMap, gidMap; } userns;
	struct { struct arg uid; } ownStdio;
	struct { struct arg into, pid, startTime; } openProcess;
	struct { struct arg slot, pid, types; } enterProcess;
	struct { struct arg slot, pid, types, flags, cgroup; } cloneInto;
	struct { struct arg source, target, type, flags, data; } mount;
	struct { struct arg target, flags; } umount;
	struct { struct arg root, source, target, type, flags, data, create; } mountAt;
	struct { struct arg root, source, from, target, recursive, create, set, clear, attrRecursive, propagation, userns; } bindAt;
	struct { struct arg path, recursive, set, clear, propagation; } mountAttr;
	struct { struct arg root, path, recursive, set, clear, propagation; } attrAt;
	struct { struct arg root; } pivotRoot;
	struct { struct arg root; } moveRoot;
	struct { struct arg root; } chroot;
	struct { struct arg root, path, label; } maskAt;
	struct { struct arg root, path; } readonlyAt;
	struct { struct arg root, target, data, flags; } copyUpAt;
	struct { struct arg root, path, mode, device, uid, gid, bind; } deviceAt;
	struct { struct arg root, target, path; } symlinkAt;
	struct { struct arg root, path, mode; } mkdirAt;
	struct { struct arg path; } checkProc;
	struct { struct arg into, path, recursive, set, clear, attrRecursive, userns; } openTree;
	struct { struct arg target, type, options, attr; } fsMount;
	struct { struct arg file, target, type, flags, data; } mountLoop;
	struct { struct arg socket, rows, cols, bind; } console;
	struct { struct arg protocol, messages, pidAt; } netlink;
	struct { struct arg cgroup, program; } deviceFilter;
	struct { struct arg path, argv, env, timeoutMs, state, pidAt; } hook;
	struct { struct arg path, argv, env, timeoutMs, pidFile; } program;
	struct { struct arg path, withStart; } writePid;
	struct { struct arg fifo, slot; } awaitStart;
};
