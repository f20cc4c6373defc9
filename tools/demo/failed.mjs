/**
 * What `make demo` says when it fails: at which step, what was said there, who did not answer, and what to do. Pure: what the machine
 * is set up with comes in.
 */

/** What fails on other machines than ours; the first row whose words stand in the message. */
const REASONS = [
  {
    words: /^npm error|^npm ERR/m,
    what: 'npm did not get its packages.',
    asked: ({ npmRegistry }) => [npmRegistry],
    todo: 'see that `npm ping` works; npm asks elsewhere, or through a proxy, by `npm config set registry` and `npm config set proxy`',
  },
  {
    words:
      /Failed to fetch|Temporary failure resolving|Could not (connect|resolve)|Connection (timed out|failed)|E: Unable to|no Debian package source/,
    what: 'A Debian package mirror did not answer.',
    asked: ({ mirrors }) => mirrors,
    todo: 'see that `apt-get update` works; the mirrors are those of /etc/apt/sources.list and sources.list.d, a proxy is that of /etc/apt/apt.conf.d',
  },
  {
    words: /EADDRINUSE|in use|listens on/,
    what: 'A port that the demo needs is taken.',
    asked: () => ['8080, 8081, 8443 and 8444 of 127.0.0.1'],
    todo: 'see who has it with `ss -ltnp`, and end that for the time of the demo',
  },
];

/**
 * `message`: what was said. `step`: the name it has on the screen. `log`: of the daemon, if it got that far. `left`: what runs now.
 * `host`: { mirrors, npmRegistry } as this machine is set up.
 */
export function explain({ message, step, host, left, log }) {
  const reason = REASONS.find(({ words }) => words.test(message));
  const where = placesIn(message);
  const lines = [
    `make demo failed at: ${step}`,
    '',
    message.trim(),
    '',
    ...(reason
      ? [
          reason.what,
          `  asked   ${(where.length > 0 ? where : reason.asked(host)).join(', ') || 'nobody that is known here'}`,
        ]
      : ['The reason stands above.']),
    `  to do   ${reason ? `${reason.todo}; then run it again` : `the daemon's log is ${log}; run it again when the reason is gone`}`,
    `  left    ${left}`,
  ];
  return `${lines.join('\n')}\n`;
}

/** `http://mirror/debian/dists/…` → `http://mirror`: who was asked, once each. */
function placesIn(message) {
  const found = message.matchAll(/(?:Failed to fetch|Err:\d+|request to) (https?:\/\/[^/\s]+)/g);
  return [...new Set([...found].map(([, place]) => place))];
}
