const isNumber = require('is-number');

console.log(`port ${process.env.PORT}, arguments ${process.argv.slice(2).filter(isNumber).join(' ')}`);
