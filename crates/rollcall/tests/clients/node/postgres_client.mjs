// postgres.js: describes each statement first, sends each parameter as the type that the server names, nests transactions.
import {
  COPY, COPY_CSV, INCOMPLETE, LONG, MANY, PAGE, PARAMETERS, SALES, SALES_EXPECTED, SAME_NAME, TYPES, assert, check, checkAtHq, refused, require,
  runAll,
} from './checks.mjs';

const postgres = require('postgres');

async function connected(run, more = {}) {
  const sql = postgres({ ssl: { rejectUnauthorized: false }, max: 1, onnotice: () => {}, ...more });
  try {
    return await run(sql);
  } finally {
    await sql.end({ timeout: 1 });
  }
}

check('select every type', () => connected(async (sql) => {
  const [row] = await sql.unsafe(TYPES);
  assert.deepEqual({ ...row, d: row.d.toISOString().slice(0, 10) }, {
    s: 7, i: 42, b: '9007199254740993', n: '12345.6789', f: 1.5, r: 1.25, t: 'Grüße ☕, "o\'pie"', d: '2026-01-31',
    z: new Date('2026-01-31T08:00:00.123Z'), o: true, y: Buffer.from([0, 255, 65]), e: null,
  });
  assert.deepEqual([...await sql.unsafe(SALES).values()], SALES_EXPECTED);
}));

for (const [name, condition, value, expected] of PARAMETERS) {
  check(`parameter: ${name}`, () => connected(async (sql) => {
    const rows = await sql.unsafe(`SELECT count(*)::int AS n FROM sales WHERE ${condition}`, [value], { prepare: true });
    assert.deepEqual([...rows], [{ n: expected }]);
  }));
}

check('fragments', () => connected(async (sql) => {
  const site = 'salem-01';
  const rows = await sql`SELECT ${sql('id', 'item')} FROM sales WHERE _site = ${site} AND id IN ${sql([1, 2])} ORDER BY id`;
  assert.deepEqual([...rows], [{ id: '1', item: 'tea' }, { id: '2', item: 'o\'pie, "warm"' }]);
}));

check('limit and offset', () => connected(async (sql) => {
  assert.deepEqual([...await sql.unsafe(PAGE, [2, 1]).values()], [['2'], ['3']]);
}));

check('two columns of one name', () => connected(async (sql) => {
  assert.deepEqual([...await sql.unsafe(SAME_NAME).values()], [['1', '1', '5']]);
}));

checkAtHq('note', async () => {
  const notes = [];
  await connected((sql) => sql.unsafe(INCOMPLETE), { onnotice: (note) => notes.push(note) });
  const last = notes.at(-1);
  assert.ok(last?.severity === 'WARNING' && last.message.includes('tacoma-01'), JSON.stringify(notes));
});

checkAtHq('strict', () => connected(async (sql) => {
  await sql`SET rollcall.coverage = 'strict'`;
  assert.ok((await refused(() => sql.unsafe(INCOMPLETE), 'RC001')).message.includes('tacoma-01'));
  assert.deepEqual([...await sql`SELECT 1 AS a`], [{ a: 1 }]);
}));

checkAtHq('strict as a setting of the connection', () => connected(async (sql) => {
  await refused(() => sql.unsafe(INCOMPLETE), 'RC001');
}, { connection: { 'rollcall.coverage': 'strict' } }));

check('pool reset', () => connected(async (sql) => {
  for (const reset of ['DISCARD ALL', 'RESET ALL']) {
    const reserved = await sql.reserve();
    await reserved`SET rollcall.coverage = 'strict'`;
    await reserved`SET statement_timeout = 54321`;
    await reserved.unsafe(reset);
    reserved.release();
    assert.deepEqual([...await sql.unsafe('SHOW statement_timeout')], [{ statement_timeout: '0' }]);
    assert.deepEqual([...await sql.unsafe(INCOMPLETE)], [{ n: 8 }]);
  }
}));

check('nested transactions', () => connected((sql) => sql.begin(async (outer) => {
  await outer`SELECT 1`;
  await refused(() => outer.savepoint((inner) => inner`SELECT * FROM nosuch`), '42P01');
  await outer.savepoint('named', async (inner) => {
    assert.deepEqual([...await inner.unsafe(INCOMPLETE)], [{ n: 8 }]);
  });
})));

check('read only transaction', () => connected((sql) => sql.begin('ISOLATION LEVEL REPEATABLE READ READ ONLY', async (inner) => {
  assert.deepEqual([...await inner.unsafe(INCOMPLETE)], [{ n: 8 }]);
})));

check('cursor', () => connected(async (sql) => {
  let sum = 0;
  await sql.unsafe(MANY).cursor(700, (rows) => { sum += rows.reduce((all, row) => all + row.v, 0); });
  assert.equal(sum, 50005000);
  let seen = 0;
  for await (const rows of sql.unsafe(MANY).cursor(100)) {
    seen += rows.length;
    if (seen >= 300) break;
  }
  assert.deepEqual([...await sql`SELECT 1 AS a`], [{ a: 1 }]);
}));

check('copy', () => connected(async (sql) => {
  const stream = await sql.unsafe(`${COPY} WITH (FORMAT csv, HEADER)`).readable();
  const parts = [];
  for await (const part of stream) parts.push(part);
  assert.equal(Buffer.concat(parts).toString(), COPY_CSV);
}));

check('describe', () => connected(async (sql) => {
  const described = await sql.unsafe('SELECT id, price FROM sales WHERE qty = $1 AND item = $2', [1, 'x']).describe();
  // int8 and text; int8 and numeric.
  assert.deepEqual([...described.types], [20, 25]);
  assert.deepEqual(described.columns.map((column) => column.type), [20, 1700]);
}));

check('cancel', () => connected(async (sql) => {
  const started = Date.now();
  const question = sql.unsafe(LONG);
  // It can be cancelled once only, and a busy machine may not have begun with it after a second.
  setTimeout(() => question.cancel(), 3000);
  await refused(() => question, '57014');
  assert.ok(Date.now() - started < 20000);
  assert.deepEqual([...await sql`SELECT 1 AS a`], [{ a: 1 }]);
}));

check('statement_timeout', () => connected(async (sql) => {
  await refused(() => sql.unsafe(LONG), '57014');
  assert.deepEqual([...await sql`SELECT 1 AS a`], [{ a: 1 }]);
}, { connection: { statement_timeout: 2000 } }));

check('set_config', () => connected(async (sql) => {
  assert.deepEqual([...await sql`SELECT set_config('application_name', ${'till'}, false) AS was`], [{ was: 'till' }]);
  assert.deepEqual([...await sql`SELECT current_setting('application_name') AS now`], [{ now: 'till' }]);
}));

await runAll();
