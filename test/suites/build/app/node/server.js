const { createServer } = require('node:http');
const ms = require('ms');

createServer((_, response) => response.end(`a day has ${ms('1d')} ms\n`)).listen(Number(process.env.PORT));
