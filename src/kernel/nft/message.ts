import {
  attr,
  bytes,
  type Message,
  NLM_F_ACK,
  NLM_F_APPEND,
  NLM_F_CREATE,
  NLM_F_DUMP,
  nested,
  str,
  u32be,
  u64be,
} from '#kernel/netlink/wire.ts';
import { dataValue, dataVerdict, type Expression, encodeExpression, type Verdict } from '#kernel/nft/expression.ts';

/**
 * nfnetlink messages for nftables. A batch is a transaction: all of it takes effect, or nothing does.
 *
 *   BATCH_BEGIN │ message … each acknowledged │ BATCH_END
 */
const NFNL_SUBSYS_NFTABLES = 10;
const NFNL_MSG_BATCH_BEGIN = 16;
const NFNL_MSG_BATCH_END = 17;

export const NFPROTO = { INET: 1, IPV4: 2, ARP: 3, NETDEV: 5, BRIDGE: 7, IPV6: 10 } as const;

export const MSG = {
  NEWTABLE: 0,
  GETTABLE: 1,
  DELTABLE: 2,
  NEWCHAIN: 3,
  GETCHAIN: 4,
  DELCHAIN: 5,
  NEWRULE: 6,
  GETRULE: 7,
  DELRULE: 8,
  NEWSET: 9,
  GETSET: 10,
  DELSET: 11,
  NEWSETELEM: 12,
  GETSETELEM: 13,
  DELSETELEM: 14,
  NEWGEN: 15,
  GETGEN: 16,
} as const;

export const HOOK = { prerouting: 0, input: 1, forward: 2, output: 3, postrouting: 4 } as const;
export type Hook = keyof typeof HOOK;

export interface TableRef {
  family: number;
  table: string;
}

export const SET_FLAG = {
  ANONYMOUS: 1,
  CONSTANT: 2,
  INTERVAL: 4,
  MAP: 8,
  TIMEOUT: 16,

  CONCAT: 0x80,
} as const;
export const ELEMENT_INTERVAL_END = 1;

/** nft's own numbers for what a key holds: only its printing needs them. A concatenation packs six bits a field. */
export const DATATYPE = {
  verdict: 0xffff_ff00,
  ipv4: 7,
  ipv6: 8,
  inetProto: 12,
  inetService: 13,
  mark: 19,
  ifname: 41,
} as const;

export function concatType(...types: number[]): number {
  return types.reduce((sum, type) => (sum << 6) | type, 0);
}

/** Wraps the messages into one transaction. */
export function batch(messages: readonly Message[]): Message[] {
  const edge = (type: number): Message => ({ type, flags: 0, body: [nfgen(0, NFNL_SUBSYS_NFTABLES)] });
  return [edge(NFNL_MSG_BATCH_BEGIN), ...messages, edge(NFNL_MSG_BATCH_END)];
}

export function addTable(ref: TableRef): Message {
  return make(MSG.NEWTABLE, ref.family, NLM_F_CREATE, [str(1, ref.table)]);
}

export function deleteTable(ref: TableRef): Message {
  return make(MSG.DELTABLE, ref.family, 0, [str(1, ref.table)]);
}

export interface BaseChain {
  type: 'filter' | 'nat' | 'route';
  hook: Hook;
  priority: number;
  policy: 'accept' | 'drop';
}

export function addChain(ref: TableRef, name: string, base?: BaseChain): Message {
  return make(MSG.NEWCHAIN, ref.family, NLM_F_CREATE, [
    str(1, ref.table),
    str(3, name),
    ...(base
      ? [
          nested(4, [u32be(1, HOOK[base.hook]), u32be(2, base.priority)]),
          u32be(5, base.policy === 'accept' ? 1 : 0),
          str(7, base.type),
        ]
      : []),
  ]);
}

export function deleteChain(ref: TableRef, name: string): Message {
  return make(MSG.DELCHAIN, ref.family, 0, [str(1, ref.table), str(3, name)]);
}

export function addRule(ref: TableRef, chain: string, expressions: readonly Expression[], comment?: string): Message {
  return make(MSG.NEWRULE, ref.family, NLM_F_CREATE | NLM_F_APPEND, [
    str(1, ref.table),
    str(2, chain),
    nested(4, expressions.map(encodeExpression)),
    ...(comment === undefined ? [] : [attr(7, userComment(comment))]),
  ]);
}

/** Without a handle: all rules of the chain. */
export function deleteRules(ref: TableRef, chain: string, handle?: bigint): Message {
  return make(MSG.DELRULE, ref.family, 0, [
    str(1, ref.table),
    str(2, chain),
    ...(handle === undefined ? [] : [u64be(3, handle)]),
  ]);
}

export interface SetSpec {
  name: string;
  keyType: number;
  keyBytes: number;
  /** Bytes of each field, when the key is a concatenation: interval sets of concatenations need it. */
  fields?: readonly number[];
  /** A map: what a key leads to. `'verdict'` makes a verdict map. */
  data?: { type: number; bytes: number } | 'verdict';
  interval?: boolean;
  /** Made for one rule of the same batch and gone with it; the rule names it by `id`. */
  anonymous?: boolean;
  /** Any number not used twice in a batch. */
  id: number;
}

export function addSet(ref: TableRef, set: SetSpec): Message {
  const flags =
    (set.data ? SET_FLAG.MAP : 0) |
    (set.interval ? SET_FLAG.INTERVAL : 0) |
    (set.fields && set.interval ? SET_FLAG.CONCAT : 0) |
    (set.anonymous ? SET_FLAG.ANONYMOUS | SET_FLAG.CONSTANT : 0);
  return make(MSG.NEWSET, ref.family, NLM_F_CREATE, [
    str(1, ref.table),
    str(2, set.name),
    u32be(3, flags),
    u32be(4, set.keyType),
    u32be(5, set.keyBytes),
    ...(set.data === 'verdict' ? [u32be(6, DATATYPE.verdict), u32be(7, 16)] : []),
    ...(set.data && set.data !== 'verdict' ? [u32be(6, set.data.type), u32be(7, set.data.bytes)] : []),
    ...(set.fields && set.interval
      ? [
          nested(9, [
            nested(
              2,
              set.fields.map((length) => nested(1, [u32be(1, length)])),
            ),
          ]),
        ]
      : []),
    u32be(10, set.id),
    // libnftnl's user data 0: the key is in the host's byte order. Only nft's printing needs it.
    ...(set.keyType === DATATYPE.ifname || set.keyType === DATATYPE.mark
      ? [attr(13, Uint8Array.of(0, 4, 1, 0, 0, 0))]
      : []),
  ]);
}

export function deleteSet(ref: TableRef, name: string): Message {
  return make(MSG.DELSET, ref.family, 0, [str(1, ref.table), str(2, name)]);
}

export interface Element {
  key: Uint8Array;
  /** Last key of the range, in sets of concatenated intervals. */
  keyEnd?: Uint8Array;
  data?: Uint8Array;
  verdict?: Verdict;
  /** Marks the first key behind an interval, in interval sets of a single field. */
  intervalEnd?: boolean;
  comment?: string;
}

/** Fails with EEXIST when a key is there already with other data. */
export function addElements(ref: TableRef, set: string, elements: readonly Element[], setId?: number): Message {
  return elementsMessage(MSG.NEWSETELEM, NLM_F_CREATE, ref, set, elements, setId);
}

/** Fails with ENOENT when a key is not there. */
export function deleteElements(ref: TableRef, set: string, elements: readonly Element[]): Message {
  return elementsMessage(MSG.DELSETELEM, 0, ref, set, elements);
}

/** Without elements: all of the set. */
export function flushSet(ref: TableRef, set: string): Message {
  return make(MSG.DELSETELEM, ref.family, 0, [str(1, ref.table), str(2, set)]);
}

export const dumpTables = (): Message => dump(MSG.GETTABLE, 0, []);
export const dumpChains = (): Message => dump(MSG.GETCHAIN, 0, []);
export const dumpRules = (): Message => dump(MSG.GETRULE, 0, []);
export const dumpSets = (): Message => dump(MSG.GETSET, 0, []);
export const dumpElements = (ref: TableRef, set: string): Message =>
  dump(MSG.GETSETELEM, ref.family, [str(1, ref.table), str(2, set)]);
/** The ruleset's generation: a number that grows with each transaction. */
export const getGeneration = (): Message => ({ ...dump(MSG.GETGEN, 0, []), flags: 0 });

export function messageType(of: number): number {
  return (NFNL_SUBSYS_NFTABLES << 8) | of;
}

export function nfgen(family: number, resource = 0): Uint8Array {
  return bytes(4, (v) => {
    v.setUint8(0, family);
    v.setUint16(2, resource); // big endian
  });
}

function elementsMessage(
  type: number,
  flags: number,
  ref: TableRef,
  set: string,
  elements: readonly Element[],
  setId?: number,
): Message {
  return make(type, ref.family, flags, [
    str(1, ref.table),
    str(2, set),
    nested(
      3,
      elements.map((element) =>
        nested(1, [
          ...(element.intervalEnd ? [u32be(3, ELEMENT_INTERVAL_END)] : []),
          dataValue(1, element.key),
          ...(element.keyEnd ? [dataValue(10, element.keyEnd)] : []),
          ...(element.data ? [dataValue(2, element.data)] : []),
          ...(element.verdict ? [dataVerdict(2, element.verdict)] : []),
          ...(element.comment === undefined ? [] : [attr(6, userComment(element.comment))]),
        ]),
      ),
    ),
    ...(setId === undefined ? [] : [u32be(4, setId)]),
  ]);
}

function make(type: number, family: number, flags: number, attrs: Uint8Array[]): Message {
  return { type: messageType(type), flags: NLM_F_ACK | flags, body: [nfgen(family), ...attrs] };
}

function dump(type: number, family: number, attrs: Uint8Array[]): Message {
  return { type: messageType(type), flags: NLM_F_DUMP, body: [nfgen(family), ...attrs] };
}

/** libnftnl's user data: type 0 is a comment, with its NUL, at most 128 bytes. */
function userComment(comment: string): Uint8Array {
  const value = new TextEncoder().encode(`${comment.slice(0, 126)}\0`);
  const out = new Uint8Array(2 + value.length);
  out.set([0, value.length]);
  out.set(value, 2);
  return out;
}
