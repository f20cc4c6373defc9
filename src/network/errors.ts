import { defineError } from '#base/errors.ts';

export const NetworkNotFound = defineError('NETWORK_NOT_FOUND', (d: { network: string }) => ({
  message: `network ${d.network} not found`,
}));

export const NetworkExists = defineError('NETWORK_EXISTS', (d: { name: string; id: string }) => ({
  message: `network with name ${d.name} already exists`,
  hint: `it is ${d.id.slice(0, 12)}; remove it first, or use another name`,
}));

export const NetworkInUse = defineError('NETWORK_IN_USE', (d: { name: string; holders: readonly string[] }) => ({
  message: `network ${d.name} has active endpoints: ${d.holders.join(', ')}`,
  hint: 'disconnect or remove those containers first',
}));

export const NetworkIsPredefined = defineError('NETWORK_IS_PREDEFINED', (d: { name: string }) => ({
  message: `${d.name} is a pre-defined network and cannot be created or removed`,
}));

export const BadNetworkOption = defineError(
  'BAD_NETWORK_OPTION',
  (d: { option: string; value: string; rule: string }) => ({
    message: `${d.option} ${JSON.stringify(d.value)} ${d.rule}`,
  }),
);

export const SubnetOverlaps = defineError(
  'SUBNET_OVERLAPS',
  (d: { subnet: string; other: string; holder: string }) => ({
    message: `subnet ${d.subnet} overlaps ${d.other} of ${d.holder}`,
    hint: 'choose another subnet, or leave it out and get a free one',
  }),
);

export const NoFreeSubnet = defineError('NO_FREE_SUBNET', (d: { pools: readonly string[] }) => ({
  message: `all of ${d.pools.join(', ')} is in use by networks or host routes`,
  hint: 'name a subnet with --subnet, or remove networks nobody uses',
}));

export const NoFreeAddress = defineError('NO_FREE_ADDRESS', (d: { network: string; range: string }) => ({
  message: `network ${d.network} has no free address in ${d.range}`,
}));

export const AddressTaken = defineError('ADDRESS_TAKEN', (d: { address: string; network: string; holder: string }) => ({
  message: `address ${d.address} of network ${d.network} is taken by ${d.holder}`,
}));

export const EndpointExists = defineError('ENDPOINT_EXISTS', (d: { container: string; network: string }) => ({
  message: `container ${d.container} is already connected to network ${d.network}`,
}));

export const EndpointNotFound = defineError('ENDPOINT_NOT_FOUND', (d: { container: string; network: string }) => ({
  message: `container ${d.container} is not connected to network ${d.network}`,
}));

export const PortTaken = defineError(
  'PORT_TAKEN',
  (d: { ip: string; port: number; protocol: string; holder: string | undefined }) => ({
    message: `bind for ${d.ip}:${d.port}/${d.protocol} failed: port is already allocated${d.holder ? ` by ${d.holder}` : ''}`,
    hint: d.holder
      ? 'choose another host port, or stop that container'
      : 'another program of this host listens there: ss -lnp',
  }),
);

export const EdgeGone = defineError('EDGE_GONE', () => ({
  message: 'the edge process ended while it was asked',
  hint: 'see R/edge.log; the daemon starts another one',
}));

export const EdgeNotStarted = defineError('EDGE_NOT_STARTED', (d: { socket: string; log: string }) => ({
  message: `no edge process answers at ${d.socket}`,
  hint: `its last words are in ${d.log}`,
}));
