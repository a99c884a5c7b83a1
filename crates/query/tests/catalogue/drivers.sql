-- What further drivers ask: psycopg 3, psycopg 2, postgres.js, pgx, tokio-postgres, lib/pq, postgres_fdw.

-- @ psycopg 3: a type by its name
-- $ texts int4
SELECT typname AS name, oid, typarray AS array_oid, oid::regtype::text AS regtype, typdelim AS delimiter
FROM pg_type t
WHERE t.oid = to_regtype($1)
ORDER BY t.oid
;

-- @ psycopg 2: hstore
SELECT t.oid, typarray
FROM pg_type t JOIN pg_namespace ns ON typnamespace = ns.oid
WHERE typname = 'hstore'
;

-- @ postgres.js: array types
select b.oid, b.typarray
from pg_catalog.pg_type a
left join pg_catalog.pg_type b on b.oid = a.typelem
where a.typcategory = 'A'
group by b.oid, b.typarray
order by b.oid
;

-- @ pgx: a type by its name
-- $ texts int4
select t.typname, t.oid, t.typtype::text, t.typbasetype, t.typelem, r.rngsubtype
from pg_type t left join pg_range r on r.rngtypid = t.oid
where t.typname = $1
;

-- @ tokio-postgres: a type by its number
-- $ oids 16
SELECT t.typname, t.typtype, t.typelem, r.rngsubtype, t.typbasetype, n.nspname, t.typrelid
FROM pg_catalog.pg_type t
LEFT OUTER JOIN pg_catalog.pg_range r ON r.rngtypid = t.oid
INNER JOIN pg_catalog.pg_namespace n ON t.typnamespace = n.oid
WHERE t.oid = ANY($1)
;

-- @ tokio-postgres: labels of an enumeration
-- $ oid 16
SELECT enumlabel
FROM pg_catalog.pg_enum
WHERE enumtypid = $1
ORDER BY enumsortorder
;

-- @ tokio-postgres: fields of a composite type
-- $ oid 16
SELECT attname, atttypid
FROM pg_catalog.pg_attribute
WHERE attrelid = $1
AND NOT attisdropped
AND attnum > 0
ORDER BY attnum
;

-- @ DuckDB's postgres extension: tables and columns
SELECT pg_namespace.oid AS namespace_id, relname, relpages, attname, pg_type.typname type_name, atttypmod type_modifier,
  pg_attribute.attndims ndim, attnum, pg_attribute.attnotnull AS notnull, NULL constraint_id, NULL constraint_type,
  NULL constraint_key
FROM pg_class
JOIN pg_namespace ON relnamespace = pg_namespace.oid
JOIN pg_attribute ON pg_class.oid = pg_attribute.attrelid
JOIN pg_type ON atttypid = pg_type.oid
WHERE attnum > 0 AND relkind IN ('r', 'v', 'm', 'f', 'p')
UNION ALL
SELECT pg_namespace.oid AS namespace_id, relname, NULL relpages, NULL attname, NULL type_name, NULL type_modifier,
  NULL ndim, NULL attnum, NULL AS notnull, pg_constraint.oid AS constraint_id, contype AS constraint_type,
  conkey AS constraint_key
FROM pg_class
JOIN pg_namespace ON relnamespace = pg_namespace.oid
JOIN pg_constraint ON (pg_class.oid = pg_constraint.conrelid)
WHERE relkind IN ('r', 'v', 'm', 'f', 'p') AND contype IN ('p', 'u')
ORDER BY namespace_id, relname, attnum, constraint_id
;

-- @ ADBC's driver for PostgreSQL: types
SELECT oid, typname, typreceive, typbasetype, typrelid, typarray FROM pg_catalog.pg_type
WHERE (typreceive != 0 OR typsend != 0) AND typtype != 'r' AND typreceive::TEXT != 'array_recv'
;

-- @ ADBC's driver for PostgreSQL: columns of a table
SELECT attname, atttypid
FROM pg_catalog.pg_class AS cls
INNER JOIN pg_catalog.pg_attribute AS attr ON cls.oid = attr.attrelid
INNER JOIN pg_catalog.pg_type AS typ ON attr.atttypid = typ.oid
WHERE attr.attnum >= 0 AND cls.oid = 'sales'::regclass::oid
ORDER BY attr.attnum
;

-- @ Rails: columns of a table
SELECT a.attname, format_type(a.atttypid, a.atttypmod), pg_get_expr(d.adbin, d.adrelid), a.attnotnull, a.atttypid,
  a.atttypmod, c.collname, col_description(a.attrelid, a.attnum) AS comment, attidentity AS identity,
  attgenerated as attgenerated
FROM pg_attribute a
LEFT JOIN pg_attrdef d ON a.attrelid = d.adrelid AND a.attnum = d.adnum
LEFT JOIN pg_type t ON a.atttypid = t.oid
LEFT JOIN pg_collation c ON a.attcollation = c.oid AND a.attcollation <> t.typcollation
WHERE a.attrelid = '"sales"'::regclass AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
;

-- @ Rails: the primary key
SELECT a.attname
FROM (
  SELECT indrelid, indkey, generate_subscripts(indkey, 1) idx
  FROM pg_index
  WHERE indrelid = '"sales"'::regclass AND indisprimary
) i
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[i.idx]
ORDER BY i.idx
;
