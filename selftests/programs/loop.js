// SPDX-License-Identifier: GPL-2.0

// The event loop of Node, with its pool of threads.

const crypto = require('crypto');
const fs = require('fs');

const hash = (text) => new Promise((resolve, reject) => {
  crypto.pbkdf2(text, 'salt', 2000, 16, 'sha256', (error, key) => {
    if (error) reject(error);
    else resolve(key.toString('hex'));
  });
});
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

(async () => {
  for (let step = 0; step < 60; step++) {
    const all = await Promise.all([0, 1, 2, 3].map((n) => hash(`${step} ${n}`)));
    fs.writeSync(1, `${step} ${all.join(' ')}\n`);
    if (step === 5) fs.writeFileSync('works', '');
    await pause(20);
  }
})();
