import { describeChain } from '#base/errors.ts';
import type { Diagnosis, Finding } from '#kernel/doctor.ts';
import { findNetHand, type NetKernel, spawnNetHand } from '#kernel/netlink/hand.ts';
import type { Ruleset } from '#kernel/nft/ruleset.ts';
import { compileHostGate, type FirewallNote } from '#network/firewall.ts';
import { readRuleset } from '#network/gate-keeper.ts';
import { CHAIN } from '#network/ruleset.ts';
import { forwardNotes } from '#network/transit.ts';

const LINE = { area: 'network', what: 'host firewall' } as const;

/** With a line, or one a rule, about what of the host's firewall keeps published ports closed or stops containers. Root alone can look. */
export async function withFirewall(diagnosis: Diagnosis): Promise<Diagnosis> {
  if (process.getuid?.() !== 0) return diagnosis;
  const findings = await lookAtFirewall();
  const at = diagnosis.findings.findLastIndex(({ area }) => area === LINE.area) + 1;
  return { ...diagnosis, findings: diagnosis.findings.toSpliced(at, 0, ...findings) };
}

async function lookAtFirewall(): Promise<Finding[]> {
  try {
    const kernel = spawnNetHand(findNetHand());
    try {
      return await firewallFindings(kernel);
    } finally {
      kernel.close();
    }
  } catch (error) {
    const fix = 'build the native programs (make build), and run this with CAP_NET_ADMIN';
    return [{ ...LINE, verdict: 'degraded', found: `cannot be read: ${describeChain(error)}`, fix }];
  }
}

/** Whichever daemons run here. Reads only. */
export async function firewallFindings(kernel: NetKernel): Promise<Finding[]> {
  const notes = firewallNotes(await readRuleset(kernel));
  const findings = notes.map(
    ({ where, says, fix }): Finding => ({ ...LINE, verdict: 'degraded', found: `${where}: ${says}`, fix }),
  );
  if (findings.length > 0) return findings;
  return [{ ...LINE, verdict: 'good', found: 'stops no container, and each of its input rules is understood' }];
}

/** Pure. Without a daemon, as for the default bridge that one of the default name would make. */
function firewallNotes(ruleset: Ruleset): FirewallNote[] {
  const running = ruleset.chains.filter(({ name }) => name === CHAIN.host).map(({ table }) => table);
  const daemons = running.length > 0 ? running : ['estiba'];
  const found = daemons.flatMap((daemon) => [
    ...compileHostGate(daemon, ruleset, { chains: [], sets: [] }).notes,
    ...forwardNotes(daemon, ruleset, bridgesOf(daemon, ruleset)),
  ]);
  return [...new Map(found.map((note) => [note.where + note.fix, note])).values()];
}

function bridgesOf(daemon: string, { sets }: Ruleset): string[] {
  const own = sets.find(({ table, name }) => table === daemon && name === 'bridges')?.elements ?? [];
  return own.length === 0 ? [`${daemon}0`] : own.map(({ key }) => Buffer.from(key).toString().replace(/\0+$/, ''));
}
