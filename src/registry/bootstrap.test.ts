import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { busyboxArchive, isDynamic, planBootstrap, sourceLines } from '#registry/bootstrap.ts';
import { parseReference } from '#spec/image/reference.ts';

describe('what can be made without a registry', () => {
  const plan = (text: string) => planBootstrap(parseReference(text), 'bookworm');
  it.each([
    ['debian', 'bookworm'],
    ['debian:stable-slim', 'bookworm'],
    ['debian:11-slim', 'bullseye'],
    ['debian:12.5', 'bookworm'],
    ['debian:trixie-20250101-slim', 'trixie'],
  ])('%s is %s', (name, suite) => expect(plan(name)).toMatchObject({ make: 'debian', suite }));

  it.each([
    'debian:experimental',
    'debian:7',
    'ubuntu',
    'team/debian',
    'reg.corp/debian',
    `busybox@sha256:${'a'.repeat(64)}`,
  ])('%s is not', (name) => expect(plan(name)).toBeUndefined());

  it('any busybox is the host’s', () => expect(plan('busybox:1.36')).toMatchObject({ make: 'busybox' }));
});

it('package sources are those of the host, for the suite that is wanted', () => {
  const targets =
    'http://m.corp/debian bookworm main\nhttp://m.corp/debian bookworm-updates main\nhttp://other/x trixie main\nfile:/x bookworm main\n';
  expect(sourceLines(targets, 'bookworm', 'trixie')).toEqual([
    'deb http://m.corp/debian trixie main',
    'deb http://m.corp/debian trixie-updates main',
  ]);
  expect(sourceLines(targets, 'bookworm', 'sid')).toEqual(['deb http://m.corp/debian sid main']);
  expect(sourceLines(targets, undefined, 'trixie')).toEqual([]);
});

it('the busybox archive is one that tar reads, with a link for each applet', () => {
  const archive = Buffer.concat([...busyboxArchive(Buffer.from('program'), ['sh', 'cat'])]);
  const listing = execFileSync('tar', ['-tvf', '-'], { input: archive, encoding: 'utf8' });
  expect(listing).toMatch(/hrwxr-xr-x .* bin\/sh link to bin\/busybox/);
  expect(listing).toMatch(/drwxrwxrwt .* tmp\//);
});

it('a program that needs a loader is told from one that does not', () => {
  expect(isDynamic(readFileSync(process.execPath))).toBe(true);
  if (existsSync('/bin/busybox')) expect(isDynamic(readFileSync('/bin/busybox'))).toBe(false);
  expect(isDynamic(Buffer.from('#!/bin/sh'))).toBe(false);
});
