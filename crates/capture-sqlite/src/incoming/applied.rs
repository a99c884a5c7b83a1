//! What is applied of HQ's tables, noted in the store's own database with the rows.

use ring::digest;
use rollcall_capture::{AppliedTable, IncomingTable};
use rollcall_types::Seq;
use rusqlite::{Connection, OptionalExtension, Transaction, types::ValueRef};

use super::{
    put::Differing,
    seq,
    spec::{decode_spec, encode_spec},
    write::Rows,
};
use crate::error::{CaptureError, Doing};

const APPLIED: &str = "CREATE TABLE IF NOT EXISTS main._rollcall_applied (
    name TEXT PRIMARY KEY, version INTEGER NOT NULL, audience INTEGER NOT NULL, digest INTEGER NOT NULL,
    made INTEGER NOT NULL, spec TEXT NOT NULL, edits INTEGER NOT NULL, at TEXT NOT NULL,
    published_at INTEGER NOT NULL DEFAULT 0, dangling INTEGER NOT NULL DEFAULT 0, found INTEGER)";
/// Rows that are not as HQ sent them, beside [`APPLIED`].
pub(super) const DIFFERING: &str = "CREATE TABLE IF NOT EXISTS main._rollcall_differing (
    name TEXT NOT NULL, key TEXT NOT NULL, why TEXT NOT NULL, PRIMARY KEY (name, key))";
/// Rows that are told of at most.
const TOLD_MAX: i64 = 3;

/// One row of `_rollcall_applied`.
pub(super) struct Applied {
    pub(super) table: AppliedTable,
    pub(super) digest: u64,
    /// The digest of what the store's people made of it, if they did and that was compared with
    /// HQ's rows.
    pub(super) found: Option<u64>,
    /// Whether the table was made here, and so may be given further columns.
    pub(super) made: bool,
    pub(super) spec: IncomingTable,
}

pub(super) fn has_applied(conn: &Connection) -> Result<bool, CaptureError> {
    conn.query_row("SELECT count(*) > 0 FROM main.sqlite_master WHERE name = '_rollcall_applied'", [], |row| row.get(0))
        .doing("looking for HQ's tables")
}

/// Whether HQ fills this table, in any case of letters.
pub(crate) fn is_filled_by_hq(conn: &Connection, table: &str) -> Result<bool, CaptureError> {
    if !has_applied(conn)? {
        return Ok(false);
    }
    let known = "SELECT count(*) > 0 FROM main._rollcall_applied WHERE lower(name) = lower(?1)";
    conn.query_row(known, [table], |row| row.get(0)).doing("looking for HQ's tables")
}

pub(super) fn applied(conn: &Connection, table: &str) -> Result<Option<Applied>, CaptureError> {
    if !has_applied(conn)? {
        return Ok(None);
    }
    let found = conn
        .query_row(
            "SELECT version, audience, digest, made, spec, edits, published_at, dangling, found
             FROM main._rollcall_applied WHERE name = ?1",
            [table],
            |row| {
                let table = AppliedTable {
                    version: seq(row.get(0)?),
                    audience: row.get::<_, i64>(1)? as u64,
                    edits: row.get::<_, i64>(5)?.unsigned_abs(),
                    mends: false,
                    shared: false,
                    published_at: row.get(6)?,
                    dangling: row.get::<_, i64>(7)?.unsigned_abs(),
                    ..AppliedTable::default()
                };
                let digests = (row.get::<_, i64>(2)? as u64, row.get::<_, Option<i64>>(8)?.map(|found| found as u64));
                Ok((table, digests, row.get::<_, bool>(3)?, row.get::<_, String>(4)?))
            },
        )
        .optional()
        .doing("reading what is applied of one of HQ's tables")?;
    let Some((table, (digest, found), made, spec)) = found else { return Ok(None) };
    let spec = decode_spec(&spec)?;
    let (differing, differences) = differing(conn, &spec.name)?;
    let table = AppliedTable { mends: spec.mends, shared: spec.shared, differing, differences, ..table };
    Ok(Some(Applied { table, digest, found, made, spec }))
}

/// How many rows are not as HQ sent them, and the first ones in words.
fn differing(conn: &Connection, table: &str) -> Result<(u64, String), CaptureError> {
    let doing = "reading which rows differ from HQ's";
    let count = "SELECT count(*) FROM main._rollcall_differing WHERE name = ?1";
    let count: i64 = conn.query_row(count, [table], |row| row.get(0)).doing(doing)?;
    if count == 0 {
        return Ok((0, String::new()));
    }
    let sql = "SELECT key || ': ' || why FROM main._rollcall_differing WHERE name = ?1 ORDER BY why = '', key LIMIT ?2";
    let mut statement = conn.prepare(sql).doing(doing)?;
    let named = statement.query_map((table, TOLD_MAX), |row| row.get(0)).doing(doing)?;
    let named: Vec<String> = named.collect::<Result<_, _>>().doing(doing)?;
    let more = if count > TOLD_MAX { "; …" } else { "" };
    let rows = if count == 1 { "row is" } else { "rows are" };
    Ok((count.unsigned_abs(), format!("{count} {rows} not as HQ has them: {}{more}", named.join("; "))))
}

/// Notes which rows differ, in the place of what was noted of those with the `touched` keys (a
/// question for them), or of all if none are given.
pub(crate) fn note_differing(
    transaction: &Transaction<'_>,
    table: &str,
    touched: Option<&str>,
    differing: &Differing,
) -> Result<(), CaptureError> {
    let doing = "noting which rows differ from HQ's";
    transaction.execute_batch(DIFFERING).doing(doing)?;
    match touched {
        Some(keys) => {
            let sql = format!("DELETE FROM main._rollcall_differing WHERE name = ?1 AND key IN ({keys})");
            transaction.execute(&sql, [table]).doing(doing)?;
        }
        None => forget_differing(transaction, table)?,
    }
    let mut note = transaction
        .prepare("INSERT OR REPLACE INTO main._rollcall_differing (name, key, why) VALUES (?1, ?2, ?3)")
        .doing(doing)?;
    for (key, why) in &differing.named {
        note.execute((table, key, why)).doing(doing)?;
    }
    Ok(())
}

pub(super) fn forget_differing(conn: &Connection, table: &str) -> Result<(), CaptureError> {
    conn.execute("DELETE FROM main._rollcall_differing WHERE name = ?1", [table])
        .doing("forgetting which rows differ from HQ's")?;
    Ok(())
}

pub(super) fn note_applied(
    transaction: &Transaction<'_>,
    rows: &Rows<'_>,
    version: Seq,
    digest: u64,
    made: bool,
    edits: u64,
) -> Result<(), CaptureError> {
    let doing = "noting the version applied";
    let Rows { spec, published_at, .. } = rows;
    transaction.execute_batch(APPLIED).doing(doing)?;
    transaction
        .execute(
            "INSERT OR REPLACE INTO main._rollcall_applied
                 (name, version, audience, digest, made, spec, edits, at, published_at, dangling)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), ?8,
                 coalesce((SELECT dangling FROM main._rollcall_applied WHERE name = ?1), 0))",
            (
                &spec.name,
                version.0 as i64,
                spec.audience as i64,
                digest as i64,
                made,
                encode_spec(spec)?,
                edits as i64,
                published_at,
            ),
        )
        .doing(doing)?;
    Ok(())
}

/// The sum of the rows' digests: the same for the same rows, whatever their order.
pub(super) fn digest_of(conn: &Connection, select: &str) -> Result<u64, CaptureError> {
    let doing = "digesting rows";
    let mut statement = conn.prepare(select).doing(doing)?;
    let count = statement.column_count();
    let mut rows = statement.query([]).doing(doing)?;
    let (mut sum, mut bytes) = (0_u64, Vec::new());
    while let Some(row) = rows.next().doing(doing)? {
        bytes.clear();
        for index in 0..count {
            // Nulls at the end of a row say nothing, so that a column more is no change.
            let (kind, value): (u8, &[u8]) = match row.get_ref(index).doing(doing)? {
                ValueRef::Null => continue,
                ValueRef::Integer(number) => (1, &number.to_le_bytes()),
                ValueRef::Real(number) => (2, &number.to_bits().to_le_bytes()),
                ValueRef::Text(text) => (3, text),
                ValueRef::Blob(blob) => (4, blob),
            };
            bytes.extend_from_slice(&(index as u32).to_le_bytes());
            bytes.push(kind);
            bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
            bytes.extend_from_slice(value);
        }
        let digest = digest::digest(&digest::SHA256, &bytes);
        let mut low = [0; 8];
        low.copy_from_slice(&digest.as_ref()[..8]);
        sum = sum.wrapping_add(u64::from_le_bytes(low));
    }
    Ok(sum)
}
