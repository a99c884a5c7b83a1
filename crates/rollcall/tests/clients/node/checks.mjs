// What the scripts of node's clients share: checks that are counted, and the questions asked of every client.
// `AGAINST=postgresql` leaves out what only HQ has (coverage).
import { createRequire } from 'node:module';
import assert from 'node:assert/strict';

export { assert };
// The libraries are installed outside of the checkout; only `require` looks there (NODE_PATH).
export const require = createRequire(import.meta.url);
export const atHq = (process.env.AGAINST ?? 'hq') === 'hq';

export const TYPES = `SELECT 7::smallint AS s, 42::int AS i, 9007199254740993::bigint AS b, 12345.6789::numeric(12,4) AS n,
  1.5::float8 AS f, 1.25::real AS r, 'Grüße ☕, "o''pie"'::text AS t, DATE '2026-01-31' AS d,
  TIMESTAMPTZ '2026-01-31 10:00:00.123+02' AS z, true AS o, '\\x00ff41'::bytea AS y, NULL::text AS e`;
export const SALES = `SELECT id, item, qty, price, rebate, paid, sold_at, receipt FROM sales WHERE _site = 'salem-01' ORDER BY id`;
export const SALES_EXPECTED = [
  ['1', 'tea', '5', '2.50', 0.25, true, new Date('2026-01-10T18:00:00Z'), Buffer.from([0, 255, 65])],
  ['2', 'o\'pie, "warm"', '7', '12.99', null, false, new Date('2026-02-10T18:00:00Z'), null],
  ['3', 'Grüße ☕', '2', '1000.01', -1.5, null, new Date('2026-02-12T07:30:00Z'), Buffer.from([])],
  ['4', null, null, null, 0, true, new Date('2026-02-12T16:15:30.123Z'), Buffer.from([0xab])],
];
// What each condition with one parameter finds in the rows of both sites.
export const PARAMETERS = [
  ['int', 'qty = $1', 7, 2],
  ['bigint', 'qty = $1', 7n, 2],
  ['decimal as text', 'price = $1', '2.50', 2],
  ['float', 'rebate = $1', 0.25, 2],
  ['float against decimal', 'price > $1', 12.5, 4],
  ['text', 'item = $1', 'o\'pie, "warm"', 2],
  ['date as text', 'day = $1', '2026-02-10', 2],
  ['timestamptz', 'sold_at >= $1', new Date('2026-02-11T00:00:00Z'), 4],
  ['boolean', 'paid = $1', true, 4],
  ['bytea', 'receipt = $1', Buffer.from([0, 255, 65]), 2],
  ['null, equal', 'qty = $1', null, 0],
  ['null, not distinct', 'qty IS NOT DISTINCT FROM $1', null, 2],
  ['text array', '_site = ANY($1)', ['salem-01', 'elsewhere'], 4],
  ['stated text array', '_site = any($1::text[])', ['salem-01', 'elsewhere'], 4],
  ['int array', 'id = ANY($1)', [1, 3], 4],
  ['array with quotes and null', 'item = ANY($1)', ['tea', null, 'o\'pie, "warm"'], 4],
  ['not in an array', 'id <> ALL($1)', [1, 2], 4],
];
export const PAGE = 'SELECT id FROM sales ORDER BY _site, id LIMIT $1 OFFSET $2';
export const SAME_NAME = `SELECT id, id, qty AS id FROM sales WHERE id = 1 AND _site = 'salem-01'`;
export const INCOMPLETE = 'SELECT count(*)::int AS n FROM sales';
export const MANY = 'SELECT v::int AS v FROM generate_series(1, 10000) AS g(v)';
export const LONG = `SELECT count(*) FROM generate_series(1, 1000000) AS a(v), generate_series(1, 1000000) AS b(v)
  WHERE (a.v + b.v) % 7 = 3`;
export const COPY = `COPY (SELECT id, item, price, day, paid FROM sales WHERE _site = 'salem-01' ORDER BY id) TO STDOUT`;
export const COPY_CSV = 'id,item,price,day,paid\n1,tea,2.50,2026-01-10,t\n2,"o\'pie, ""warm""",12.99,2026-02-10,f\n'
  + '3,Grüße ☕,1000.01,,\n4,,,2026-02-12,t\n';

const checks = [];
export const check = (name, run) => checks.push([name, run]);
export const checkAtHq = (name, run) => { if (atHq) check(name, run); };

export async function refused(run, code) {
  try {
    await run();
  } catch (error) {
    assert.equal(error.code, code, `${error.code}: ${error.message}`);
    return error;
  }
  throw new Error('no error');
}

export async function runAll() {
  const wanted = process.argv.slice(2);
  let failed = 0;
  for (const [name, run] of checks) {
    if (wanted.length && !wanted.some((word) => name.includes(word))) continue;
    let timer;
    const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error('took more than a minute')), 60000); });
    try {
      await Promise.race([run(), late]);
      console.log(`ok ${name}`);
    } catch (error) {
      failed += 1;
      console.log(`FAIL ${name}: ${error.code ?? ''} ${String(error.message).replace(/\s+/g, ' ').slice(0, 500)}`);
    }
    clearTimeout(timer);
  }
  process.exit(failed || !checks.length ? 1 : 0);
}
