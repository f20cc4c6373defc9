import type { Files } from '#kernel/files.ts';
import { type Family, formatIp } from '#kernel/netlink/ip.ts';

/** A socket that takes what comes: TCP in LISTEN, UDP bound and not connected. */
export interface Listener {
  protocol: 'tcp' | 'udp';
  /** `0.0.0.0`, `::1` … */
  address: string;
  port: number;
  uid: number;
}

const TCP_LISTEN = '0A';
const UDP_UNCONNECTED = '07';

/** Of the network namespace that the process is in (proc_pid_net(5)). */
export function readListeners(pid: number | 'self', files: Files): Listener[] {
  return (['tcp', 'udp'] as const).flatMap((protocol) =>
    ['', '6'].flatMap((version) => parseSockets(files.read(`/proc/${pid}/net/${protocol}${version}`) ?? '', protocol)),
  );
}

export function parseSockets(text: string, protocol: Listener['protocol']): Listener[] {
  return text
    .split('\n')
    .slice(1)
    .flatMap((line) => {
      const [, local = '', , state, , , , uid] = line.trim().split(/\s+/);
      if (state !== (protocol === 'tcp' ? TCP_LISTEN : UDP_UNCONNECTED)) return [];
      const [address = '', port = ''] = local.split(':');
      return [{ protocol, address: addressOf(address), port: Number.parseInt(port, 16), uid: Number(uid) }];
    });
}

/** 32-bit words, each in the byte order of the machine: little-endian on all we run on. */
function addressOf(hex: string): string {
  const bytes = (hex.match(/.{8}/g) ?? []).flatMap((word) => [...Buffer.from(word, 'hex')].reverse());
  const family: Family = bytes.length === 4 ? 4 : 6;
  return formatIp({ family, value: BigInt(`0x${Buffer.from(bytes).toString('hex') || '0'}`) });
}
