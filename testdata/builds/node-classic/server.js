const http = require('node:http');
const isNumber = require('is-number');

const port = process.env.PORT || 8080;
const server = http.createServer((request, response) => {
  const asked = request.url.slice(1);
  response.end(`${asked} is ${isNumber(asked) ? 'a' : 'no'} number\n`);
});
server.listen(port, '127.0.0.1', () => console.log(`listening on ${server.address().port}`));
// The first process of a container has no default handlers.
process.on('SIGTERM', () => server.close(() => process.exit(0)));
