// node-pg (pg), with its cursors and streams: parameters and values as text, prepared where a name is given.
import { once } from 'node:events';
import {
  INCOMPLETE, LONG, MANY, PAGE, PARAMETERS, SALES, SALES_EXPECTED, SAME_NAME, TYPES, assert, check, checkAtHq, refused, require, runAll,
} from './checks.mjs';

const pg = require('pg');
const Cursor = require('pg-cursor');
const QueryStream = require('pg-query-stream');

// A self-signed certificate, so the connection is encrypted and no more.
const settings = { ssl: { rejectUnauthorized: false } };

async function connected(run, more = {}) {
  const client = new pg.Client({ ...settings, ...more });
  await client.connect();
  try {
    return await run(client);
  } finally {
    await client.end();
  }
}

check('select every type', () => connected(async (client) => {
  const [row] = (await client.query(TYPES)).rows;
  assert.deepEqual({ ...row, d: row.d.toDateString() }, {
    s: 7, i: 42, b: '9007199254740993', n: '12345.6789', f: 1.5, r: 1.25, t: 'Grüße ☕, "o\'pie"', d: 'Sat Jan 31 2026',
    z: new Date('2026-01-31T08:00:00.123Z'), o: true, y: Buffer.from([0, 255, 65]), e: null,
  });
  assert.deepEqual((await client.query({ text: SALES, rowMode: 'array' })).rows, SALES_EXPECTED);
}));

check('select in binary', () => connected(async (client) => {
  const { rows } = await client.query({ text: 'SELECT 42::int AS i, true AS o, $1::text AS t', values: ['ü'], binary: true });
  assert.deepEqual(rows, [{ i: 42, o: true, t: 'ü' }]);
}));

for (const [name, condition, value, expected] of PARAMETERS) {
  check(`parameter: ${name}`, () => connected(async (client) => {
    const { rows } = await client.query(`SELECT count(*)::int AS n FROM sales WHERE ${condition}`, [value]);
    assert.deepEqual(rows, [{ n: expected }]);
  }));
}

check('prepared and asked again', () => connected(async (client) => {
  for (const [quantity, expected] of [[7, 2], [2, 2], [8, 0], [null, 0]]) {
    const { rows } = await client.query({ name: 'by quantity', text: 'SELECT count(*)::int AS n FROM sales WHERE qty = $1', values: [quantity] });
    assert.deepEqual(rows, [{ n: expected }]);
  }
}));

check('limit and offset', () => connected(async (client) => {
  assert.deepEqual((await client.query({ text: PAGE, values: [2, 1], rowMode: 'array' })).rows, [['2'], ['3']]);
}));

check('two columns of one name', () => connected(async (client) => {
  assert.deepEqual((await client.query({ text: SAME_NAME, rowMode: 'array' })).rows, [['1', '1', '5']]);
}));

check('several statements', () => connected(async (client) => {
  const answers = await client.query('SELECT 1 AS a; SELECT 2 AS b');
  assert.deepEqual(answers.map((answer) => answer.rows), [[{ a: 1 }], [{ b: 2 }]]);
}));

checkAtHq('note', () => connected(async (client) => {
  const notes = [];
  client.on('notice', (note) => notes.push(note));
  await client.query(INCOMPLETE);
  const last = notes.at(-1);
  assert.ok(last?.severity === 'WARNING' && last.message.includes('tacoma-01'), JSON.stringify(notes));
}));

checkAtHq('strict', () => connected(async (client) => {
  await client.query("SET rollcall.coverage = 'strict'");
  for (const question of [INCOMPLETE, { text: `${INCOMPLETE} WHERE id > $1`, values: [0] }]) {
    assert.ok((await refused(() => client.query(question), 'RC001')).message.includes('tacoma-01'));
    assert.deepEqual((await client.query('SELECT 1 AS a')).rows, [{ a: 1 }]);
  }
}));

checkAtHq('strict by options', () => connected(async (client) => {
  await refused(() => client.query(INCOMPLETE), 'RC001');
}, { options: '-c rollcall.coverage=strict' }));

check('pool reset', async () => {
  // The pool gives connections back as they are; what resets them is a statement at their release.
  const pool = new pg.Pool({ ...settings, max: 1 });
  for (const reset of ['DISCARD ALL', 'RESET ALL']) {
    const client = await pool.connect();
    await client.query("SET rollcall.coverage = 'strict'");
    await client.query('SET statement_timeout = 54321');
    await client.query(reset);
    client.release();
    assert.deepEqual((await pool.query('SHOW statement_timeout')).rows, [{ statement_timeout: '0' }]);
    assert.deepEqual((await pool.query(INCOMPLETE)).rows, [{ n: 8 }]);
  }
  await pool.end();
});

check('savepoint', () => connected(async (client) => {
  await client.query('BEGIN');
  await client.query('SAVEPOINT a');
  await refused(() => client.query('SELECT * FROM nosuch'), '42P01');
  await refused(() => client.query('SELECT 1'), '25P02');
  await client.query('ROLLBACK TO SAVEPOINT a');
  assert.deepEqual((await client.query(INCOMPLETE)).rows, [{ n: 8 }]);
  await client.query('RELEASE SAVEPOINT a');
  await client.query('COMMIT');
}));

check('cursor', () => connected(async (client) => {
  const cursor = client.query(new Cursor(`${MANY} WHERE v > $1`, [0]));
  let sum = 0;
  for (let rows = await cursor.read(700); rows.length; rows = await cursor.read(700)) sum += rows.reduce((all, row) => all + row.v, 0);
  assert.equal(sum, 50005000);
  await cursor.close();
}));

check('cursor closed early', () => connected(async (client) => {
  const cursor = client.query(new Cursor(MANY));
  assert.equal((await cursor.read(10)).length, 10);
  await cursor.close();
  assert.deepEqual((await client.query('SELECT 1 AS a')).rows, [{ a: 1 }]);
}));

check('stream', () => connected(async (client) => {
  let sum = 0;
  for await (const row of client.query(new QueryStream(MANY, [], { batchSize: 500 }))) sum += row.v;
  assert.equal(sum, 50005000);
}));

check('declare, fetch, close', () => connected(async (client) => {
  await client.query('BEGIN');
  await client.query("DECLARE c CURSOR FOR SELECT id::int AS id FROM sales WHERE _site = 'salem-01' ORDER BY id");
  assert.deepEqual((await client.query('FETCH 2 FROM c')).rows, [{ id: 1 }, { id: 2 }]);
  assert.equal((await client.query('FETCH ALL FROM c')).rowCount, 2);
  await client.query('CLOSE c');
  await client.query('COMMIT');
}));

check('cancel', () => connected(async (client) => {
  const started = Date.now();
  const cancelled = new Promise((resolve) => { setTimeout(resolve, 1000); })
    .then(() => connected((other) => other.query('SELECT pg_cancel_backend($1)', [client.processID])));
  await Promise.all([cancelled, refused(() => client.query(LONG), '57014')]);
  assert.ok(Date.now() - started < 20000);
  assert.deepEqual((await client.query('SELECT 1 AS a')).rows, [{ a: 1 }]);
}));

check('statement_timeout', () => connected(async (client) => {
  await refused(() => client.query(LONG), '57014');
  assert.deepEqual((await client.query('SELECT 1 AS a')).rows, [{ a: 1 }]);
}, { statement_timeout: 2000 }));

check('set_config', () => connected(async (client) => {
  const { rows } = await client.query('SELECT set_config($1, $2, false) AS was', ['application_name', 'till']);
  assert.deepEqual(rows, [{ was: 'till' }]);
  assert.deepEqual((await client.query('SHOW application_name')).rows, [{ application_name: 'till' }]);
}));

await runAll();
