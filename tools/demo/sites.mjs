import { readFile } from 'node:fs/promises';
import http from 'node:http';
import https from 'node:https';
import { Failed, RUN_ROOT, TREE } from './place.mjs';

/**
 * The two sites as a visitor and an editor see them, over their own HTTP interfaces. `*.localhost` is 127.0.0.1 here (RFC 6761),
 * whatever the machine's resolver thinks of it; the wiki's certificate is checked against the cluster's own authority.
 */
const TIMEOUT_MS = 20_000;

export const wordpress = {
  title: 'WordPress + MariaDB',
  url: 'http://wordpress.localhost:8081',
  user: 'admin',
  passwordFile: `${TREE}/examples/wordpress/secrets/admin_password`,
  loginPath: '/wp-login.php',

  async login() {
    expectText(await get(this.url + this.loginPath), 'name="log"');
  },

  /** Makes a post by XML-RPC; answers the path at which it is read. */
  async write(title, text) {
    const password = await secret(this.passwordFile);
    const content = { post_title: title, post_content: text, post_status: 'publish' };
    const members = Object.entries(content).map(
      ([k, v]) => `<member><name>${k}</name><value>${xml(v)}</value></member>`,
    );
    const params = ['<int>1</int>', xml(this.user), xml(password), `<struct>${members.join('')}</struct>`];
    const body = `<?xml version="1.0"?><methodCall><methodName>wp.newPost</methodName><params>${params
      .map((value) => `<param><value>${value}</value></param>`)
      .join('')}</params></methodCall>`;
    const answer = await send(`${this.url}/xmlrpc.php`, {
      method: 'POST',
      body,
      headers: { 'Content-Type': 'text/xml' },
    });
    const id = /<string>(\d+)<\/string>/.exec(answer.text)?.[1];
    if (id === undefined || answer.text.includes('<fault>'))
      throw new Failed(`wp.newPost: ${answer.text.slice(0, 300)}`);
    return `/?p=${id}`;
  },
};

export const mediawiki = {
  title: 'MediaWiki + PostgreSQL',
  url: 'https://wiki.localhost:8443',
  user: 'Admin',
  passwordFile: `${TREE}/examples/mediawiki/manifests/secrets/admin-password`,
  loginPath: '/index.php/Special:UserLogin',

  async login() {
    expectText(await get(this.url + this.loginPath), 'wpLoginToken');
  },

  /** Logs in and edits a page by api.php; answers the path at which it is read. */
  async write(title, text) {
    const cookies = new Map();
    const api = async (fields) => {
      const body = new URLSearchParams({ format: 'json', ...fields }).toString();
      const headers = {
        'Content-Type': 'application/x-www-form-urlencoded',
        Cookie: [...cookies].map(([k, v]) => `${k}=${v}`).join('; '),
      };
      const answer = await send(`${this.url}/api.php`, { method: 'POST', body, headers });
      for (const line of answer.headers['set-cookie'] ?? []) {
        const [, name, value] = /^([^=]+)=([^;]*)/.exec(line) ?? [];
        if (name !== undefined) cookies.set(name, value);
      }
      return JSON.parse(answer.text);
    };
    const token = async (type) => (await api({ action: 'query', meta: 'tokens', type })).query.tokens[`${type}token`];
    const lgpassword = await secret(this.passwordFile);
    const login = await api({ action: 'login', lgname: this.user, lgpassword, lgtoken: await token('login') });
    if (login.login?.result !== 'Success') throw new Failed(`login: ${JSON.stringify(login).slice(0, 300)}`);
    const edit = await api({ action: 'edit', title, text, token: await token('csrf') });
    if (edit.edit?.result !== 'Success') throw new Failed(`edit: ${JSON.stringify(edit).slice(0, 300)}`);
    return `/index.php/${encodeURIComponent(title.replaceAll(' ', '_'))}`;
  },
};

/** Reads a page as a visitor; fails unless it shows the text. */
export async function readBack(site, { path, text }) {
  expectText(await get(site.url + path), text);
}

/** One GET, redirects followed. */
export async function get(url, redirects = 5) {
  const answer = await send(url, {});
  const { location } = answer.headers;
  if (answer.status >= 300 && answer.status < 400 && location !== undefined && redirects > 0)
    return get(new URL(location, url).href, redirects - 1);
  return { ...answer, url };
}

async function send(url, { method = 'GET', body, headers = {} }) {
  const secure = url.startsWith('https:');
  const options = {
    method,
    headers: { ...headers, ...(body === undefined ? {} : { 'Content-Length': Buffer.byteLength(body) }) },
    timeout: TIMEOUT_MS,
    agent: false,
    lookup: (_, { all }, done) =>
      all ? done(null, [{ address: '127.0.0.1', family: 4 }]) : done(null, '127.0.0.1', 4),
    ...(secure ? { ca: await readFile(`${RUN_ROOT}/ingress-ca.crt`) } : {}),
  };
  return new Promise((done, failed) => {
    const request = (secure ? https : http).request(url, options, (response) => {
      const parts = [];
      response.on('data', (part) => parts.push(part));
      response.on('error', failed);
      response.on('end', () =>
        done({ status: response.statusCode, headers: response.headers, text: Buffer.concat(parts).toString('utf8') }),
      );
    });
    request.on('timeout', () => request.destroy(new Failed(`${url}: no answer in ${TIMEOUT_MS / 1000} s`)));
    request.on('error', (error) => failed(new Failed(`${url}: ${error.message}`)));
    request.end(body);
  });
}

function expectText({ status, text, url }, wanted) {
  if (status !== 200) throw new Failed(`${url} answers ${status}`);
  if (!text.includes(wanted)) throw new Failed(`${url} does not show '${wanted}'`);
}

async function secret(path) {
  return (await readFile(path, 'utf8')).trim();
}

function xml(text) {
  return `<string>${text.replace(/[&<>]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;' })[c])}</string>`;
}
