// contract: echo
// language: JavaScript (Node)
// packages: nodejs
// start: node {file} {host} {port}
'use strict';
const net = require('net');

const [host, port] = process.argv.slice(2);

// allowHalfOpen: after the client's FIN the socket stays open for what is still owed, and pipe() ends it then.
const server = net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
  socket.on('error', () => {}); // RST, mostly; the socket is closed by then
  socket.pipe(socket); // reads no more while the client does not take what it is owed
});

server.on('error', (error) => {
  console.error(error.message);
  if (!server.listening) process.exit(1);
});
server.listen({ host, port: Number(port), backlog: 1024 });
