import type { Condition } from '#kernel/seccomp/rules.ts';

// i386 had one call for all of sockets and one for System V IPC, with the real one as first argument (man 2 socketcall,
// man 2 ipc). The direct calls came in Linux 4.3 and 5.1, and C libraries use either: a rule for one means both.
const SOCKETCALL =
  `socket bind connect listen accept getsockname getpeername socketpair send recv sendto recvfrom shutdown
  setsockopt getsockopt sendmsg recvmsg accept4 recvmmsg sendmmsg`.split(/\s+/);
const IPC: Readonly<Record<string, number>> = {
  semop: 1,
  semget: 2,
  semctl: 3,
  semtimedop: 4,
  msgsnd: 11,
  msgrcv: 12,
  msgget: 13,
  msgctl: 14,
  shmat: 21,
  shmdt: 22,
  shmget: 23,
  shmctl: 24,
};

/**
 * The rule for `name` said through its multiplexer. A condition on the first argument gives way to the choice of the call:
 * the real arguments of socketcall stand behind a pointer, which no filter can follow. libseccomp does the same, so a
 * profile that must not let 32-bit programs open some kind of socket has to leave out SCMP_ARCH_X86.
 */
export function muxedCalls(
  name: string,
  conditions: readonly Condition[],
): { through: 'socketcall' | 'ipc'; conditions: Condition[] } | undefined {
  const socket = SOCKETCALL.indexOf(name) + 1;
  const ipc = Object.hasOwn(IPC, name) ? IPC[name] : undefined;
  const number = socket || ipc;
  if (!number) return undefined;
  const choice: Condition = { index: 0, op: 'SCMP_CMP_EQ', value: BigInt(number), mask: 0xffff_ffffn };
  return {
    through: socket ? 'socketcall' : 'ipc',
    conditions: [choice, ...conditions.filter((condition) => condition.index !== 0)],
  };
}
