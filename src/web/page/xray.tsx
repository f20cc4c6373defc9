import { useEffect, useState } from 'preact/hooks';
import type { XrayAnswer, XrayAnswerLine } from '#web/wire.ts';
import { usePage } from './context.ts';
import { Empty, Loading } from './parts.tsx';

const PARTS = [
  ['sees', 'What it sees', 'Namespaces, mounts and names: the world as it is for this container.'],
  ['mayDo', 'What it may do', 'Its user, its capabilities, the system calls that are let through, who reaches it.'],
  ['mayUse', 'What it may use', 'Its bounds on this machine, as the kernel holds them.'],
] as const;

/** The container as the kernel has it, each line with the wish that made it so. */
export function Xray({ container, run }: { container: string; run: number }) {
  const { connection } = usePage();
  const [xray, setXray] = useState<XrayAnswer>();
  const [failure, setFailure] = useState<string>();
  // Another run has another kernel view.
  useEffect(() => {
    let current = true;
    setFailure(undefined);
    connection.call<XrayAnswer>('GET', `/api/containers/${encodeURIComponent(container)}/xray`).then(
      (answer) => current && setXray(answer),
      (error: Error) => current && setFailure(error.message),
    );
    return () => {
      current = false;
    };
  }, [connection, container, run]);
  if (failure !== undefined) return <Empty title="There is no X-ray of it">{failure}</Empty>;
  if (!xray) return <Loading lines={8} />;
  const { pid } = xray.container;
  return (
    <section aria-label="X-ray" class="xray">
      <p class="muted">
        {pid === 0
          ? 'It does not run: this is what was asked for.'
          : `As the kernel shows it now for process ${pid}. Beside each line stands why it is so. Lines where the kernel differs from the wish are marked, and show both.`}
      </p>
      {PARTS.map(([part, title, words]) => (
        <div key={part} class="card">
          <h2>{title}</h2>
          <p class="muted">{words}</p>
          <dl class="xray-lines">
            {xray[part].map((line, i) => (
              <Line key={`${line.topic} ${line.name ?? ''} ${i}`} line={line} />
            ))}
          </dl>
        </div>
      ))}
    </section>
  );
}

function Line({ line }: { line: XrayAnswerLine }) {
  const differs = line.wished !== undefined;
  return (
    <div class={differs ? 'xray-line differs' : 'xray-line'}>
      <dt>
        {line.topic.replaceAll('.', ' · ')}
        {line.name !== undefined && <bdi class="xray-name">{line.name}</bdi>}
      </dt>
      <dd>
        <span>
          {line.value}
          {differs && <span class="wished">wished: {line.wished}</span>}
        </span>
        <span class="because">because: {line.because}</span>
      </dd>
    </div>
  );
}
