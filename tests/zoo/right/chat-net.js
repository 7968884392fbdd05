// contract: chat
// language: JavaScript (Node)
// packages: nodejs
// start: node {file} {host} {port}
'use strict';
const net = require('net');

const MAX_LINE = 64 * 1024;
const MAX_PENDING = 4 * 1024 * 1024; // kept for a client that does not read
const PATIENCE = 3000; // ms for a leaver to take what it is owed and to close

const CR = 13, LF = 10;
const room = new Set();

function say(lines) {
  if (lines.length === 0) return;
  const block = Buffer.concat(lines.flatMap((line) => [line, Buffer.from('\n')]));
  for (const socket of room) {
    socket.write(block); // never waits: Node keeps what the kernel does not take
    if (socket.writableLength > MAX_PENDING) {
      room.delete(socket);
      socket.destroy();
    }
  }
}

function withoutReturn(line) {
  return line[line.length - 1] === CR ? line.subarray(0, -1) : line;
}

function welcome(socket) {
  let rest = Buffer.alloc(0);
  room.add(socket);
  socket.setNoDelay(true);

  function leave(parting) {
    room.delete(socket);
    if (parting) socket.write(parting);
    socket.end(); // FIN, after what is owed; until its own FIN we read on, and ignore it
    rest = null;
    const timer = setTimeout(() => socket.destroy(), PATIENCE);
    socket.on('close', () => clearTimeout(timer));
  }

  socket.on('data', (chunk) => {
    if (!room.has(socket)) return;
    const lines = [];
    let start = 0;
    const data = rest.length ? Buffer.concat([rest, chunk]) : chunk;
    for (let end; (end = data.indexOf(LF, Math.max(start, rest.length))) >= 0; start = end + 1) {
      const line = withoutReturn(data.subarray(start, end));
      if (line.length > MAX_LINE) {
        say(lines);
        return leave('error: line too long\n');
      }
      if (line.equals(Buffer.from('quit'))) {
        say(lines);
        return leave();
      }
      if (line.length) lines.push(line);
    }
    rest = Buffer.from(data.subarray(start));
    say(lines);
    if (rest.length > MAX_LINE + 1) leave('error: line too long\n');
  });

  socket.on('end', () => {
    if (!room.has(socket)) return;
    const last = withoutReturn(rest); // a last line needs no newline
    if (last.length) say([last]);
    leave();
  });

  socket.on('error', () => {}); // RST, mostly; 'close' follows
  socket.on('close', () => room.delete(socket));
}

const [host, port] = process.argv.slice(2);
// Without allowHalfOpen Node would say FIN as soon as the client does.
const server = net.createServer({ allowHalfOpen: true }, welcome);
server.on('error', (error) => {
  console.error(error.message);
  if (!server.listening) process.exit(1);
});
server.listen({ host, port: Number(port), backlog: 512 });
