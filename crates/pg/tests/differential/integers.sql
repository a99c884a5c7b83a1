-- Whole numbers: arithmetic, overflow, bits.
SELECT 7 / 2
SELECT -7 / 2
SELECT 7 / -2
SELECT -7 / -2
SELECT 7 % 2
SELECT -7 % 2
SELECT 7 % -2
SELECT -7 % -2
SELECT mod(7, 2)
SELECT mod(-7, 2)
SELECT mod(7, -2)
SELECT 1 / 0
SELECT 1 % 0
SELECT 1::bigint / 0
SELECT mod(1, 0)
SELECT 2147483647 + 1
SELECT 2147483647::bigint + 1
SELECT -2147483648 - 1
SELECT 9223372036854775807 + 1
SELECT -9223372036854775807 - 2
SELECT 9223372036854775807 * 2
SELECT 3037000500 * 3037000500
SELECT 65536 * 65536
SELECT 65536::bigint * 65536
SELECT -(-2147483648)
SELECT -(-9223372036854775808)
SELECT abs(-2147483648)
SELECT abs((-2147483648)::int)
SELECT abs((-9223372036854775808)::bigint)
SELECT (-2147483648)::int / -1
SELECT (-9223372036854775808)::bigint / -1
SELECT (-9223372036854775808)::bigint % -1
SELECT 32767::smallint + 1::smallint
SELECT 32767::smallint + 1
SELECT 300::smallint * 300::smallint
SELECT i + 1 FROM kinds ORDER BY id
SELECT i - 1 FROM kinds WHERE id <> 3 ORDER BY id
SELECT i - 1 FROM kinds ORDER BY id
SELECT b + 1 FROM kinds WHERE id <> 2 ORDER BY id
SELECT b + 1 FROM kinds ORDER BY id
SELECT b - 1 FROM kinds ORDER BY id
SELECT -b FROM kinds ORDER BY id
SELECT abs(b) FROM kinds ORDER BY id
SELECT b * 2 FROM kinds ORDER BY id
SELECT i * i FROM kinds ORDER BY id
SELECT i * 2::bigint FROM kinds ORDER BY id
SELECT i::bigint * i FROM kinds ORDER BY id
SELECT b / i FROM kinds WHERE i <> 0 ORDER BY id
SELECT b / i FROM kinds ORDER BY id
SELECT b % 7 FROM kinds ORDER BY id
SELECT i / 2, i % 3 FROM kinds ORDER BY id
SELECT 100 / i FROM kinds WHERE i > 0 ORDER BY id
SELECT 5 & 3
SELECT 5 | 3
SELECT 5 # 3
SELECT ~5
SELECT 1 << 4
SELECT 256 >> 4
SELECT -1 >> 1
SELECT 1 << 31
SELECT 1 << 32
SELECT 1::bigint << 62
SELECT 1::bigint << 63
SELECT 2 ^ 10
SELECT 2 ^ 0.5
SELECT 2 ^ -1
SELECT (-8) ^ (1.0/3)
SELECT 2 ^ 3 ^ 2
SELECT -2 ^ 2
SELECT 10 ^ 20
SELECT 0 ^ 0
SELECT |/ 25
[float] SELECT ||/ 27
SELECT @ -5
SELECT 5 !
SELECT factorial(5)
SELECT gcd(12, 18)
SELECT lcm(4, 6)
SELECT div(7, 2)
SELECT div(-7, 2)
SELECT div(7.5, 2)
SELECT sign(-5)
SELECT sign(0)
SELECT sign(3.2)
SELECT power(2, 10)
SELECT power(2, 0.5)
SELECT power(2::bigint, 3)
SELECT sqrt(16)
SELECT sqrt(2)
[float] SELECT cbrt(27)
SELECT sqrt(-1)
SELECT round(5)
SELECT ceil(5)
SELECT floor(5)
SELECT trunc(5)
SELECT round(15, -1)
SELECT round(25, -1)
SELECT round(-15, -1)
SELECT round(i, -1) FROM kinds ORDER BY id
SELECT greatest(1, 2, 3)
SELECT least(1, 2, 3)
SELECT greatest(1, 2.5)
SELECT least(1, 2.5)
SELECT greatest(1, NULL)
SELECT least(NULL, NULL)
SELECT 1 + 2 * 3 - 4 / 2
SELECT (1 + 2) * 3
SELECT - - 1
SELECT + 1
SELECT 1 + NULL
SELECT NULL * 2
SELECT 1 <> 2
SELECT 1 != 2
SELECT 1 < 2
SELECT 2 >= 2
SELECT 5 / 2.0
SELECT 5 / 2::float8
SELECT 5::numeric / 2
SELECT 1 = 1.0
SELECT 1 = 1.0::float8
SELECT 10 % 3.5
SELECT 1 BETWEEN 0 AND 2
SELECT 1 NOT BETWEEN 0 AND 2
SELECT 1 BETWEEN SYMMETRIC 2 AND 0
SELECT to_hex(255)
SELECT to_hex(-1)
SELECT to_hex(9223372036854775807)
SELECT width_bucket(5.35, 0.024, 10.06, 5)
SELECT width_bucket(5, 0, 10, 5)
SELECT bit_and(i), bit_or(i) FROM kinds WHERE i > 0
SELECT random() BETWEEN 0 AND 1
[scale] SELECT sum(qty), avg(qty), min(qty), max(qty), count(qty) FROM sales
SELECT qty / 2 AS half, count(*) FROM sales GROUP BY qty / 2 ORDER BY half
SELECT sum(qty) / count(*) FROM sales
SELECT sum(qty) / 3, sum(qty) % 3 FROM sales
SELECT qty * 1.1 FROM sales ORDER BY id
SELECT qty * 0.1 * 3 FROM sales ORDER BY id
SELECT qty + id FROM sales ORDER BY id
SELECT 2147483647 + i FROM kinds WHERE id = 4
SELECT i + 2147483647::bigint FROM kinds WHERE id = 4
SELECT 'x' + 1
SELECT '5' + 1
SELECT '5' * '2'
SELECT 1 + '2.5'
SELECT 1 + true
SELECT 1 || 2
SELECT 1 AND 2
SELECT 1 = true
