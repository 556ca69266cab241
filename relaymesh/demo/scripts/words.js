// Statistics of the text on stdin as one JSON object; relaymesh/demo/words.py says what they mean.
'use strict';

const chunks = [];
process.stdin.on('data', (chunk) => chunks.push(chunk));
process.stdin.on('end', () => {
  // One character per byte, so that every tool counts the same.
  const text = Buffer.concat(chunks).toString('latin1');
  const lines = (text.match(/\n/g) || []).length + (text !== '' && !text.endsWith('\n') ? 1 : 0);
  const words = (text.match(/[^ \t\n\r\f\v]+/g) || []).length;

  const lower = text.replace(/[A-Z]/g, (letter) => letter.toLowerCase());
  const count = new Map();
  for (const word of lower.match(/[a-z\x80-\xff]+/g) || []) count.set(word, (count.get(word) || 0) + 1);

  let often = '';
  let times = 0;
  for (const word of [...count.keys()].sort()) {
    if (word.length >= 5 && word.length <= 40 && count.get(word) > times) {
      often = word;
      times = count.get(word);
    }
  }
  const attempt = Number(process.env.RELAYMESH_ATTEMPT || 1);
  const found = { tool: 'node', lines, words, distinct: count.size, often, times, attempt };
  process.stdout.write(Buffer.from(JSON.stringify(found) + '\n', 'latin1'));
});
