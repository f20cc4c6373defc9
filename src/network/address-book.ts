import { formatIp, type Ip, parseIp } from '#kernel/netlink/ip.ts';
import { AddressTaken, BadNetworkOption } from '#network/errors.ts';
import { chooseAddress, isHost } from '#network/ipam.ts';
import type { Endpoint, Network, Subnet } from '#network/model.ts';

/** Which addresses of which network are in use, by whom. In memory; the sandboxes' records are its truth. */
export class AddressBook {
  readonly #used = new Map<string, Map<bigint, string>>();
  readonly #last = new Map<string, Ip>();

  /** One address of each family the network has: the one asked for, or a free one. */
  reserve(
    network: Network,
    holder: string,
    wish: { ipv4?: string; ipv6?: string },
  ): { ipv4: Ip | undefined; ipv6: Ip | undefined } {
    const got: { ipv4: Ip | undefined; ipv6: Ip | undefined } = { ipv4: undefined, ipv6: undefined };
    for (const family of [4, 6] as const) {
      const asked = family === 4 ? wish.ipv4 : wish.ipv6;
      const subnet = network.subnets.find((s) => s.subnet.ip.family === family);
      if (!subnet) {
        if (asked)
          throw new BadNetworkOption({
            option: `IPv${family} address`,
            value: asked,
            rule: `network ${network.name} has no IPv${family} subnet`,
          });
        continue;
      }
      const used = this.#of(network.id, family);
      const ip = asked
        ? this.#check(network, subnet, asked)
        : chooseAddress(subnet, used, this.#last.get(`${network.id} ${family}`), network.name);
      if (!asked) this.#last.set(`${network.id} ${family}`, ip);
      used.set(ip.value, holder);
      if (family === 4) got.ipv4 = ip;
      else got.ipv6 = ip;
    }
    return got;
  }

  restore(endpoint: Endpoint): void {
    for (const ip of ipsOf(endpoint)) this.#of(endpoint.network, ip.family).set(ip.value, endpoint.sandbox);
  }

  release(endpoint: Endpoint): void {
    for (const ip of ipsOf(endpoint)) {
      const used = this.#of(endpoint.network, ip.family);
      if (used.get(ip.value) === endpoint.sandbox) used.delete(ip.value);
    }
  }

  #check(network: Network, subnet: Subnet, asked: string): Ip {
    const ip = parseIp(asked);
    if (!isHost(subnet.subnet, ip))
      throw new BadNetworkOption({
        option: 'address',
        value: asked,
        rule: `is no host address of network ${network.name}`,
      });
    const reserved = ip.value === subnet.gateway.value ? 'the gateway' : undefined;
    const holder = reserved ?? this.#of(network.id, ip.family).get(ip.value);
    if (holder) throw new AddressTaken({ address: formatIp(ip), network: network.name, holder });
    return ip;
  }

  #of(network: string, family: 4 | 6): Map<bigint, string> {
    const key = `${network} ${family}`;
    const used = this.#used.get(key) ?? new Map<bigint, string>();
    this.#used.set(key, used);
    return used;
  }
}

function ipsOf(endpoint: Endpoint): Ip[] {
  return [endpoint.ipv4, endpoint.ipv6].flatMap((text) => (text === undefined ? [] : [parseIp(text)]));
}
