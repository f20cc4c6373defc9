import { describeChain, isCode } from '#base/errors.ts';
import { fail } from '#base/shape.ts';
import { integer } from '#engine/api/docker/query.ts';
import { joinStreams, parseDetachKeys } from '#engine/api/docker/streams.ts';
import { empty, json } from '#engine/api/reply.ts';
import type { Handlers } from '#engine/api/server.ts';
import { compareVersions } from '#engine/api/version.ts';
import type { ExecSpec, Execs } from '#engine/core/exec.ts';
import type { Attached } from '#engine/core/parts.ts';
import { checkBody } from '#spec/docker/body.ts';
import { frameHeader, MULTIPLEXED_STREAM, RAW_STREAM, STDOUT } from '#spec/docker/frames.ts';

/** Exec: made, then started, as the Docker API has it. */
export function execHandlers(execs: Execs): Handlers {
  return {
    ContainerExec: async (request) => {
      const body = checkBody('ContainerExec', await request.json());
      const argv = body.Cmd ?? [];
      if (argv.length === 0 || argv[0] === '') fail('$.Cmd', body.Cmd, 'names no program: No exec command specified');
      if (body.DetachKeys) parseDetachKeys(body.DetachKeys);
      const [rows = 0, columns = 0] = body.ConsoleSize ?? [];
      const spec: ExecSpec = {
        argv,
        env: body.Env ?? [],
        ...(body.WorkingDir ? { cwd: body.WorkingDir } : {}),
        ...(body.User ? { user: body.User } : {}),
        tty: body.Tty ?? false,
        ...(rows > 0 && columns > 0 ? { consoleSize: { rows, columns } } : {}),
        privileged: body.Privileged ?? false,
        attach: {
          stdin: body.AttachStdin ?? false,
          stdout: body.AttachStdout ?? false,
          stderr: body.AttachStderr ?? false,
        },
        ...(body.DetachKeys ? { detachKeys: body.DetachKeys } : {}),
      };
      return json({ Id: execs.create(request.params['id'] ?? '', spec).id }, 201);
    },

    ExecStart: async (request) => {
      const body = checkBody('ExecStart', await request.json());
      const { id, spec } = execs.find(request.params['id'] ?? '');
      if (body.Detach) {
        await execs.start(id, ({ streams }) => {
          streams.stdout.resume();
          streams.stderr.resume();
          streams.stdin.end();
        });
        return empty(200);
      }
      execs.check(id);
      const [rows = 0, columns = 0] = body.ConsoleSize ?? [];
      // Whether output comes in frames is said by this request, whether there is a terminal by the one that made the exec.
      const raw = body.Tty ?? false;
      const wish = { ...spec.attach, tty: raw, closeStdin: true, detachKeys: spec.detachKeys ?? '' };
      let program: Attached | undefined;
      const started = execs.start(id, ({ streams }) => {
        program = streams;
      });
      started.catch(() => undefined); // told below
      await new Promise((done) => setImmediate(done)); // the container's side works while the head is written
      return {
        kind: 'hijack',
        type: raw || compareVersions(request.version, '1.42') < 0 ? RAW_STREAM : MULTIPLEXED_STREAM,
        // After the head is out: clients (docker-py) lose what comes in one packet with it.
        run: async (connection, signal) => {
          try {
            await started;
            if (rows > 0 && columns > 0) await execs.resize(id, rows, columns);
          } catch (error) {
            // As Docker does: why it cannot run is what the program would have said; its exit code is 126 or 127.
            const said = isCode(error, 'RUNTIME_FAILED') ? '' : 'OCI runtime exec failed: exec failed: '; // another one says so itself
            const advice = isCode(error, 'SHIM_TOO_OLD') && error.hint ? `: ${error.hint}` : '';
            const text = Buffer.from(`${said}${describeChain(error)}${advice}\r\n`);
            if (!raw) connection.output.write(frameHeader(STDOUT, text.length));
            connection.output.write(text);
            return;
          }
          if (program && (await joinStreams(connection, program, wish, signal)) === 'ended') await execs.ended(id);
        },
      };
    },

    ExecResize: async ({ params, query }) => {
      await execs.resize(params['id'] ?? '', integer(query, 'h') ?? 0, integer(query, 'w') ?? 0);
      return empty(200);
    },

    ExecInspect: async ({ params }) => {
      const record = await execs.look(params['id'] ?? '');
      const { spec } = record;
      return json({
        ID: record.id,
        Running: record.running,
        ExitCode: record.exitCode ?? null,
        ProcessConfig: {
          tty: spec.tty,
          entrypoint: spec.argv[0],
          arguments: spec.argv.slice(1),
          privileged: spec.privileged,
          ...(spec.user ? { user: spec.user } : {}),
        },
        OpenStdin: spec.attach.stdin,
        OpenStderr: spec.attach.stderr,
        OpenStdout: spec.attach.stdout,
        CanRemove: record.exitCode !== undefined,
        ContainerID: record.containerId,
        DetachKeys: spec.detachKeys ?? '',
        Pid: record.pid,
      });
    },
  };
}
