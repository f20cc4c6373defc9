import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import type { EstibaError } from '#base/errors.ts';
import { PageMissing } from '#web/errors.ts';

/** The page as `tools/build.mjs` has made it: one html, one script, one style sheet. */
export interface PageFiles {
  index(nonce: string): string;
  asset(path: string, acceptEncoding: string): { body: Buffer; encoding?: 'gzip' };
}

/** Files of a folder, read when they are first asked for. */
export function pageFiles(folder: string): PageFiles {
  const read = remembered((name) => {
    const path = join(folder, name);
    try {
      return readFileSync(path);
    } catch (cause) {
      throw new PageMissing({ path }, { cause });
    }
  });
  const zipped = remembered((name) => gzipSync(read(name)));
  return {
    index: (nonce) => read('index.html').toString('utf8').replaceAll('NONCE', nonce),
    asset: (path, acceptEncoding) => {
      const name = path.slice(1);
      return /\bgzip\b/.test(acceptEncoding) ? { body: zipped(name), encoding: 'gzip' } : { body: read(name) };
    },
  };
}

function remembered(make: (name: string) => Buffer): (name: string) => Buffer {
  const known = new Map<string, Buffer>();
  return (name) => {
    const made = known.get(name) ?? make(name);
    known.set(name, made);
    return made;
  };
}

/** Goes on by itself; a fragment is never sent to a server and stands in no log. */
export function enteredPage(key: string): string {
  const url = `/#key=${key}`;
  return simplePage(
    'Estiba',
    `<meta http-equiv="refresh" content="0; url=${url}">`,
    `<p><a href="${url}">Go on</a></p>`,
  );
}

export function refusedPage({ message, hint = '' }: EstibaError): string {
  const text = (words: string): string => escapeHtml(words).replace(/`([^`]+)`/g, '<code>$1</code>');
  const sentence = `${message.charAt(0).toUpperCase()}${message.slice(1)}.`;
  return simplePage('Estiba: log in', '', `<h1>Estiba</h1><p>${text(sentence)}</p><p>${text(hint)}.</p>`);
}

function simplePage(title: string, head: string, body: string): string {
  return `<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark"><title>${title}</title>${head}</head><body>${body}</body></html>\n`;
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
}
