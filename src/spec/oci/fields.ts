import { array, fail, integer, object, optional, type Shape, text } from '#base/shape.ts';

// Shapes that several parts of the configuration share (schema/defs.json).

const UINT32_MAX = 0xffff_ffff;
/** The kernel takes 340 extents a map (Linux 4.15); more is a mistake whatever the kernel. */
const ID_MAP_MAX = 340;

export const uint32 = (): Shape<number> => integer({ min: 0, max: UINT32_MAX });
export const uint16 = (): Shape<number> => integer({ min: 0, max: 0xffff });
export const int32 = (): Shape<number> => integer({ min: -0x8000_0000, max: 0x7fff_ffff });
export const texts = (): Shape<string[]> => array(text());

/** `KEY=VALUE`; the kernel takes anything, but an entry without `=` or name is a mistake somewhere above. */
export const environment = (): Shape<string[]> => array(text({ nonEmpty: true }));

export function absolutePath(): Shape<string> {
  const path = text({ nonEmpty: true });
  return (value, at) => {
    const parsed = path(value, at);
    return parsed.startsWith('/') ? parsed : fail(at, value, 'must be an absolute path');
  };
}

export interface IdMapping {
  containerID: number;
  hostID: number;
  size: number;
}

const IdMapping = object({ containerID: uint32(), hostID: uint32(), size: integer({ min: 1, max: UINT32_MAX }) });

/** Ranges of ids; two that overlap on either side are what the kernel refuses with a bare EINVAL. */
export function idMappings(): Shape<IdMapping[]> {
  const list = array(IdMapping, { max: ID_MAP_MAX });
  return (value, path) => {
    const mappings = list(value, path);
    mappings.forEach((mapping, i) => {
      for (const side of ['containerID', 'hostID'] as const) {
        if (mapping[side] + mapping.size > UINT32_MAX + 1)
          fail(`${path}[${i}]`, mapping, `maps ids beyond ${UINT32_MAX}`);
        const other = mappings.findIndex((m, j) => j < i && overlap(m[side], m.size, mapping[side], mapping.size));
        if (other >= 0) fail(`${path}[${i}].${side}`, mapping[side], `overlaps with ${path}[${other}]`);
      }
    });
    return mappings;
  };
}

function overlap(a: number, aSize: number, b: number, bSize: number): boolean {
  return a < b + bSize && b < a + aSize;
}

/** `0-3,7` as cpuset(7) takes it, spaces allowed. */
export function idList(): Shape<string> {
  return (value, path) => {
    const parsed = text()(value, path);
    for (const part of parsed.split(',').map((p) => p.trim())) {
      if (part === '') continue;
      const range = /^(\d+)(?:\s*-\s*(\d+))?$/.exec(part);
      if (!range) return fail(path, value, 'is not a list like 0-3,7');
      if (range[2] !== undefined && Number(range[2]) < Number(range[1]))
        return fail(path, value, `has the range ${part}, which ends before it begins`);
    }
    return parsed;
  };
}

export const optionalTexts = () => optional(texts());
