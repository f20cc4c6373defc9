import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { type NetHand, spawnNetHand } from '#kernel/netlink/hand.ts';
import { ownedDirectory } from './owned.ts';

/**
 * What a server's socket may hold: twice the kernel's default, as the relay's own. In that one 200 datagrams of a byte just do not fit
 * while they are read (each counts as a KiB, and what was read counts on until a quarter is free): the server would lose some.
 */
const SERVER_BYTES = 212_992;

/**
 * Network namespaces for tests, with the helper beside them: nothing touches the host's own network. `run` runs a command
 * in a namespace as `ip netns exec` would, without the file system games of it.
 */
export class NetWorld {
  readonly dir: string;
  readonly hand: NetHand;
  readonly #binary: string;
  readonly #made: string[] = [];
  readonly #hands: NetHand[] = [];
  readonly #children: ChildProcess[] = [];
  #sctpAsked = 0;

  constructor(name: string) {
    this.dir = ownedDirectory(`estiba-${name}-`);
    const native = new URL('../../native/net', import.meta.url).pathname;
    execFileSync('make', ['-s', '-C', native]);
    this.#binary = join(native, '../build/estiba-net');
    this.hand = spawnNetHand(this.#binary);
  }

  async netns(name: string): Promise<string> {
    const path = join(this.dir, name);
    await this.hand.makeNetns(path);
    this.#made.push(path);
    this.run(path, 'ip', 'link', 'set', 'lo', 'up');
    return path;
  }

  /** A helper that is at home in a namespace, as a daemon on another machine would have. */
  handIn(netns: string): NetHand {
    const hand = spawnNetHand(this.#binary, () => undefined, ['nsenter', `--net=${netns}`]);
    this.#hands.push(hand);
    return hand;
  }

  /** A machine on the LAN: `lan` and `host` get 192.0.2.1 and .2 (and fd00::1, ::2) on a pair of links named eth0. */
  async lan(): Promise<{ lan: string; host: string }> {
    const [lan, host] = [await this.netns('lan'), await this.netns('host')];
    this.run(host, 'ip', 'link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', lan);
    for (const [ns, n] of [
      [lan, 1],
      [host, 2],
    ] as const) {
      this.run(ns, 'ip', 'link', 'set', 'eth0', 'up');
      this.run(ns, 'ip', 'addr', 'add', `192.0.2.${n}/24`, 'dev', 'eth0');
      this.run(ns, 'ip', 'addr', 'add', `fd00::${n}/64`, 'dev', 'eth0', 'nodad');
    }
    this.run(host, 'ip', 'route', 'add', 'default', 'via', '192.0.2.1');
    this.run(host, 'ip', '-6', 'route', 'add', 'default', 'via', 'fd00::1');
    return { lan, host };
  }

  /** A server in a namespace that tells each client the address it sees: TCP and UDP on `port`, both families. */
  async serve(netns: string, port: number, says = ''): Promise<void> {
    const script = `
      const tell = (a) => '${says}' + a.replace(/^::ffff:/, '');
      require('net').createServer((s) => s.on('error', () => 0).end(tell(s.remoteAddress))).listen(${port}, '::', () => {
        const u = require('dgram').createSocket('udp6');
        u.on('message', (m, r) => u.send(tell(r.address), r.port, r.address)).bind(${port}, () => {
          u.setRecvBufferSize(${SERVER_BYTES});
          console.log('up');
        });
      });`;
    const child = spawn('nsenter', [`--net=${netns}`, process.execPath, '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    this.#children.push(child);
    await once(child.stdout, 'data');
  }

  /** What a server says to a client in `netns`, or `refused`, or `timeout`. */
  async ask(netns: string, ip: string, port: number, protocol: 'tcp' | 'udp' = 'tcp'): Promise<string> {
    const script =
      protocol === 'tcp'
        ? `exec 3<>/dev/tcp/${ip}/${port} && cat <&3`
        : `exec 3<>/dev/udp/${ip}/${port} && echo hi >&3 && timeout 0.4 cat <&3 || true`;
    try {
      const { stdout } = await promisify(execFile)('nsenter', [`--net=${netns}`, 'timeout', '3', 'bash', '-c', script]);
      return stdout === '' ? 'refused' : stdout;
    } catch (error) {
      return (error as { code?: number }).code === 124 ? 'timeout' : 'refused';
    }
  }

  /**
   * Sends an SCTP INIT from `netns`, has whatever arrives in `server` answered by an INIT ACK, and says what each side saw. Raw
   * packets, by perl (essential in Debian): neither needs SCTP in the kernel. The kernel refuses a wrong checksum as invalid.
   */
  async sctp(netns: string, way: { from: string; to: string; port: number }, server: string): Promise<string> {
    const answering = spawn('nsenter', [`--net=${server}`, 'perl', '-e', SCTP_SERVER], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await once(answering.stdout, 'data'); // it listens
    let heard = '';
    answering.stdout.on('data', (text: Buffer) => (heard += String(text)));
    // A port of its own each time: the kernel remembers the way of the one before.
    const source = String(20_000 + this.#sctpAsked++);
    const got = await this.runAside(netns, 'perl', '-e', SCTP_CLIENT, way.from, source, way.to, String(way.port));
    answering.kill(); // it has answered, or waits for what does not come
    if (answering.exitCode === null && answering.signalCode === null) await once(answering, 'close');
    return heard === '' ? 'nothing arrived' : `${heard}, ${got === '' ? 'nobody' : got} answered`;
  }

  run(netns: string, command: string, ...args: string[]): string {
    return execFileSync('nsenter', [`--net=${netns}`, command, ...args], {
      encoding: 'utf8',
      timeout: 20_000,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
  }

  /** The same without holding up what this process itself serves. */
  async runAside(netns: string, command: string, ...args: string[]): Promise<string> {
    const { stdout } = await promisify(execFile)('nsenter', [`--net=${netns}`, command, ...args], { timeout: 20_000 });
    return stdout;
  }

  /** How many servers have not ended. */
  serving(): number {
    return this.#children.filter((child) => child.exitCode === null && child.signalCode === null).length;
  }

  /** A process in a namespace keeps it, and its links, alive. */
  stopServers(): void {
    for (const child of this.#children.splice(0)) child.kill('SIGKILL');
  }

  async close(): Promise<void> {
    this.stopServers();
    for (const hand of this.#hands) hand.close();
    const left = readdirSync(this.dir, { recursive: true, encoding: 'utf8' }).map((name) => join(this.dir, name));
    for (const path of [...this.#made, ...left.filter((name) => name.includes('-netns/'))])
      await this.hand.dropNetns(path);
    this.hand.close();
    rmSync(this.dir, { recursive: true });
  }
}

/** RFC 9260, 3.1 (common header), 3.3.2 (INIT), 3.3.3 (INIT ACK) and appendix A (CRC32c). Tags 1 and 2. */
const SCTP = `
use strict; use Socket;
sub crc { my $c = 0xffffffff; for (unpack 'C*', shift) { $c ^= $_; $c = $c & 1 ? ($c >> 1) ^ 0x82f63b78 : $c >> 1 for 1 .. 8 } $c ^ 0xffffffff }
sub packet { my ($from, $to, $tag, $chunk) = @_;
  my ($head, $body) = (pack('nnN', $from, $to, $tag), pack('CCnNNnnN', @$chunk));
  $head . pack('V', crc($head . pack('N', 0) . $body)) . $body }
sub one { my ($socket, $ms) = @_; my $bits = ''; vec($bits, fileno($socket), 1) = 1;
  return unless select($bits, undef, undef, $ms / 1000);
  my $peer = recv($socket, my $data, 2048, 0);
  (inet_ntoa((sockaddr_in($peer))[1]), unpack('nnNVC', substr $data, 4 * (ord($data) & 15)), $peer) }
socket(my $s, PF_INET, SOCK_RAW, 132) or die "socket: $!"; $| = 1;
`;
const SCTP_SERVER = `${SCTP}
print "up\n";
my ($who, $from, $to, $tag, $sum, $type, $peer) = one($s, 10000) or exit;
print "$who asked port $to";
send($s, packet($to, $from, 1, [2, 0, 20, 2, 65536, 1, 1, 1]), 0, pack_sockaddr_in(0, (sockaddr_in($peer))[1]));
`;
const SCTP_CLIENT = `${SCTP}
my ($from, $own, $to, $port) = @ARGV;
bind($s, pack_sockaddr_in(0, inet_aton($from))) or die "bind: $!";
send($s, packet($own, $port, 0, [1, 0, 20, 1, 65536, 1, 1, 1]), 0, pack_sockaddr_in(0, inet_aton($to)));
my ($who, $source) = one($s, 1000) or exit;
print "$who port $source";
`;
