import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ApiServer, ESTIBA, startEstiba } from '../../test/suites/room/engine.ts';
import { Room, waitFor } from '../../test/suites/room/room.ts';

const REGISTRY = '127.0.0.1:5000';
/** Debian's docker-registry. */
const PEER = '127.0.0.1:5001';
const INDEX = 'application/vnd.oci.image.index.v1+json';

/** Images of several platforms, and repositories of several tags, by the docker CLI and ours. */
describe('many platforms, many tags', () => {
  let room: Room;
  let server: ApiServer;
  const sh = (line: string): string => server.ok(line);
  const api = (path: string): unknown =>
    JSON.parse(sh(`curl -sS --unix-socket ${server.socket} http://x/v1.51${path}`));
  const tags = (name: string): string[] =>
    sh(`docker images --format '{{.Tag}}' ${name}`).split('\n').filter(Boolean).sort();
  const MULTI = `${REGISTRY}/multi/app:1`;

  beforeAll(async () => {
    room = await Room.open('platforms');
    const serves = ['--only', 'engine,registry', '--registry', REGISTRY];
    server = await startEstiba(room, `plf${process.pid % 100_000}`, ...serves);
    const storage = `filesystem: {rootdirectory: ${room.dir}/peer}`;
    writeFileSync(
      join(room.dir, 'peer.yml'),
      `version: 0.1\nlog: {level: warn}\nstorage: {${storage}}\nhttp: {addr: '${PEER}'}\n`,
    );
    room.start('peer', 'docker-registry', ['serve', 'peer.yml']);
    await waitFor(() => server.sh(`busybox wget -qO- http://${PEER}/v2/`).code === 0, 10_000, 'docker-registry');
    const entries = ['amd64', 'arm64'].map((architecture) => {
      sh(
        `mkdir ${architecture}; echo ${architecture} > ${architecture}/arch; tar -C ${architecture} -cf ${architecture}.tar .`,
      );
      sh(`docker import --platform linux/${architecture} ${architecture}.tar ${REGISTRY}/multi/app:${architecture}`);
      const [digest = '', size = ''] = sh(
        `curl -sSI -H 'Accept: application/vnd.oci.image.manifest.v1+json' http://${REGISTRY}/v2/multi/app/manifests/${architecture} | tr -d '\\r' | awk '/ocker-[Cc]ontent-[Dd]igest/{d=$2} tolower($1)=="content-length:"{l=$2} END{print d, l}'`,
      ).split(' ');
      const mediaType = 'application/vnd.oci.image.manifest.v1+json';
      return { mediaType, digest, size: Number(size), platform: { os: 'linux', architecture } };
    });
    const attestation = {
      ...entries[0],
      digest: `sha256:${'a'.repeat(64)}`,
      platform: { os: 'unknown', architecture: 'unknown' },
    };
    const annotations = {
      'vnd.docker.reference.type': 'attestation-manifest',
      'vnd.docker.reference.digest': entries[0]?.digest,
    };
    const index = { schemaVersion: 2, mediaType: INDEX, manifests: [...entries, { ...attestation, annotations }] };
    writeFileSync(join(room.dir, 'index.json'), JSON.stringify(index));
    // An attestation that is elsewhere: our registry wants what an index names, so the node loads it as a layout.
    sh(
      `mkdir -p layout/blobs/sha256; docker save -o both.tar ${REGISTRY}/multi/app:amd64 ${REGISTRY}/multi/app:arm64; tar -C layout -xf both.tar`,
    );
    sh(
      'd=$(sha256sum index.json | cut -d" " -f1); cp index.json layout/blobs/sha256/$d; rm -f layout/manifest.json; echo $d > digest',
    );
    const digest = sh('cat digest');
    const top = {
      schemaVersion: 2,
      manifests: [
        {
          mediaType: INDEX,
          digest: `sha256:${digest}`,
          size: JSON.stringify(index).length,
          annotations: { 'io.containerd.image.name': MULTI },
        },
      ],
    };
    writeFileSync(join(room.dir, 'layout/index.json'), JSON.stringify(top));
    sh('tar -C layout -cf layout.tar . && docker load -q -i layout.tar');
  });
  afterAll(() => room.end());

  it('docker pull -a and push -a mean every tag of the repository', () => {
    for (const tag of ['1', '2', 'three']) sh(`docker tag busybox ${PEER}/many/tags:${tag}`);
    sh(`docker push -q -a ${PEER}/many/tags`);
    expect(JSON.parse(sh(`busybox wget -qO- http://${PEER}/v2/many/tags/tags/list`)).tags.sort()).toEqual([
      '1',
      '2',
      'three',
    ]);
    // As dockerd: what was pushed is known by its digest from then on, and another repository there need not get the bytes again.
    const digest = sh(`skopeo inspect --tls-verify=false --format '{{.Digest}}' docker://${PEER}/many/tags:1`);
    expect(sh(`docker image inspect --format '{{json .RepoDigests}}' busybox`)).toContain(
      `${PEER}/many/tags@${digest}`,
    );
    sh(`docker tag busybox ${PEER}/other/name:1`);
    expect(sh(`docker push ${PEER}/other/name:1`)).toContain('Mounted from many/tags');
    sh(`docker rmi ${PEER}/other/name:1 ${PEER}/many/tags:1 ${PEER}/many/tags:2 ${PEER}/many/tags:three`);
    sh(`docker pull -q -a ${PEER}/many/tags`);
    expect(tags(`${PEER}/many/tags`)).toEqual(['1', '2', 'three']);
    sh(`docker rmi ${PEER}/many/tags:1; docker pull -q ${PEER}/many/tags:1; docker rmi ${PEER}/many/tags:1`);
    sh(`${ESTIBA} pull -q -a ${PEER}/many/tags; ${ESTIBA} push -q -a ${PEER}/many/tags`);
    expect(tags(`${PEER}/many/tags`)).toEqual(['1', '2', 'three']);
    expect(server.sh(`docker push -q -a ${PEER}/no/such`).err).toContain('No such image');
    expect(server.sh(`docker pull -q -a ${PEER}/no/such`).err).toMatch(/does not exist|not found/);
  });

  it('inspect and images tell of every manifest and what of it is here (API 1.48)', () => {
    const { Manifests } = api(`/images/${MULTI}/json?manifests=1`) as { Manifests: Record<string, unknown>[] };
    const image = (architecture: string): object => ({
      Kind: 'image',
      Available: true,
      ImageData: {
        Platform: { os: 'linux', architecture },
        Containers: [],
        Size: { Unpacked: architecture.length + 1 },
      },
    });
    expect(Manifests).toMatchObject([
      image('amd64'),
      { ...image('arm64'), ImageData: { Platform: { os: 'linux', architecture: 'arm64' } } },
      {
        Kind: 'attestation',
        Available: false,
        Size: { Content: 0, Total: 0 },
        AttestationData: { For: Manifests[0]?.['ID'] },
      },
    ]);
    const list = api('/images/json?manifests=1') as { RepoTags: string[]; Manifests: object[] }[];
    expect(list.find(({ RepoTags }) => RepoTags.includes(MULTI))?.Manifests).toEqual(Manifests);
    expect(api(`/images/${MULTI}/json`)).not.toHaveProperty('Manifests');
    expect(sh('docker image ls --tree 2>/dev/null || docker images')).toContain('multi/app');
  });

  it('a platform of an image is inspected, told, saved, pushed and loaded alone', () => {
    const id = (name: string): string => sh(`docker image inspect --format '{{.Id}}' ${name}`);
    const arm = id(`${REGISTRY}/multi/app:arm64`);
    expect(sh(`${ESTIBA} image inspect --platform linux/arm64 --format '{{.Id}} {{.Architecture}}' ${MULTI}`)).toBe(
      `${arm} arm64`,
    );
    expect(id(MULTI)).toBe(id(`${REGISTRY}/multi/app:amd64`));
    expect(sh(`${ESTIBA} history -q --no-trunc --platform linux/arm64 ${MULTI}`)).toBe(arm);
    sh(`${ESTIBA} save --platform linux/arm64 -o arm.tar ${MULTI}`);
    expect(sh('tar -xOf arm.tar manifest.json')).toContain(arm.slice(7));
    sh(`docker tag ${MULTI} ${PEER}/multi/app:1`);
    // The attestation is not here, so the whole index cannot be sent: that is said, with what can be done.
    expect(server.sh(`docker push -q ${PEER}/multi/app:1`).err).toContain('or push the image of one platform');
    sh(`${ESTIBA} push -q --platform linux/arm64 ${PEER}/multi/app:1`);
    const pushed = sh(`skopeo inspect --tls-verify=false --override-arch arm64 --config docker://${PEER}/multi/app:1`);
    expect(JSON.parse(pushed)).toMatchObject({ architecture: 'arm64' });
    sh(`docker rmi ${PEER}/multi/app:1; ${ESTIBA} load -q --platform linux/arm64 -i layout.tar`);
    expect(id(MULTI)).toBe(arm);
    sh('docker load -q -i layout.tar');
  });

  it('an OCI layout goes into a directory and comes back from one, for umoci and skopeo too', () => {
    sh(`mkdir made; ${ESTIBA} save --platform linux/arm64 -o made ${MULTI}`);
    expect(sh("skopeo inspect --override-arch arm64 --format '{{.Architecture}}' oci:made:1")).toBe('arm64');
    sh(
      'umoci init --layout theirs && umoci new --image theirs:1 && umoci config --image theirs:1 --config.label by=umoci',
    );
    expect(sh(`${ESTIBA} load -i theirs`)).toMatch(/Loaded image ID: sha256:/);
    const { code, err } = server.sh(`${ESTIBA} load -i amd64`);
    expect([code, err]).toEqual([1, expect.stringContaining('the archive is no image')]);
    for (const verb of ['load -i', 'import'])
      expect(server.sh(`${ESTIBA} ${verb} nowhere`).err).toContain("no such file or directory, open 'nowhere'");
  });

  it('what no platform is, or is not here, is said; and no image goes for one of its platforms', () => {
    expect(server.sh(`${ESTIBA} image inspect --platform linux/s390x ${MULTI}`).err).toContain(
      'nothing for linux/s390x',
    );
    expect(server.sh(`${ESTIBA} save --platform linux/s390x -o x.tar ${MULTI}`).code).not.toBe(0);
    const removed = sh(
      `curl -sS -X DELETE --unix-socket ${server.socket} 'http://x/v1.51/images/${MULTI}?platforms=%5B%22%7B%7D%22%5D'`,
    );
    expect(removed).toContain('removing single platforms of an image is not supported');
    expect(sh(`docker images -q ${MULTI}`)).not.toBe('');
  });
});
