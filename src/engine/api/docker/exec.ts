import { fail } from '#base/shape.ts';
import { integer } from '#engine/api/docker/query.ts';
import { joinStreams, parseDetachKeys } from '#engine/api/docker/streams.ts';
import { empty, json } from '#engine/api/reply.ts';
import type { Handlers } from '#engine/api/server.ts';
import { compareVersions } from '#engine/api/version.ts';
import type { ExecSpec, Execs } from '#engine/core/exec.ts';
import type { Attached } from '#engine/core/parts.ts';
import { checkBody } from '#spec/docker/body.ts';
import { MULTIPLEXED_STREAM, RAW_STREAM } from '#spec/docker/frames.ts';

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
      // Started before the answer's head is out, so that a program that cannot run is an error and not an empty stream.
      let program: Attached | undefined;
      await execs.start(id, ({ streams }) => {
        program = streams;
      });
      const [rows = 0, columns = 0] = body.ConsoleSize ?? [];
      if (rows > 0 && columns > 0) await execs.resize(id, rows, columns);
      const wish = { ...spec.attach, tty: spec.tty, detachKeys: spec.detachKeys ?? '' };
      return {
        kind: 'hijack',
        type: spec.tty || compareVersions(request.version, '1.42') < 0 ? RAW_STREAM : MULTIPLEXED_STREAM,
        run: async (connection, signal) => {
          if (program) await joinStreams(connection, program, wish, signal);
        },
      };
    },

    ExecResize: async ({ params, query }) => {
      await execs.resize(params['id'] ?? '', integer(query, 'h') ?? 0, integer(query, 'w') ?? 0);
      return empty(200);
    },

    ExecInspect: ({ params }) => {
      const record = execs.find(params['id'] ?? '');
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
