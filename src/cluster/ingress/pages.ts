/** What a client sees when there is no answer to pass on: what failed, in one sentence, and for whom to look at what. */
export interface Page {
  status: 400 | 404 | 502 | 503 | 504;
  /** Stable, for scripts: also in the header `x-estiba-error`. */
  code: 'NO_HOST' | 'NO_ROUTE' | 'NO_ENDPOINTS' | 'BACKEND_REFUSED' | 'BACKEND_BROKE' | 'BACKEND_SILENT';
  says: string;
}

const TITLES: Record<Page['status'], string> = {
  400: 'Bad Request',
  404: 'Not Found',
  502: 'Bad Gateway',
  503: 'Service Unavailable',
  504: 'Gateway Timeout',
};

export function renderPage(page: Page, accept: string | undefined): { headers: Record<string, string>; body: string } {
  const html = (accept ?? '').includes('text/html');
  const title = `${page.status} ${TITLES[page.status]}`;
  const body = html
    ? `<!doctype html><meta charset="utf-8"><title>${title}</title><h1>${title}</h1><p>${escape(page.says)}</p><p><small>${page.code} · estiba ingress</small></p>\n`
    : `${title}: ${page.says} (${page.code})\n`;
  return {
    body,
    headers: {
      'content-type': html ? 'text/html; charset=utf-8' : 'text/plain; charset=utf-8',
      'content-length': String(Buffer.byteLength(body)),
      'cache-control': 'no-store',
      'x-estiba-error': page.code,
      ...(page.status === 503 ? { 'retry-after': '1' } : {}),
    },
  };
}

function escape(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
