//! HQ's rows are put into a store's table, as they are; what the store does not take so is found
//! and named.
//!
//! A store may have rules of its own: unique columns, checks, triggers that change or refuse a row.
//! As a rule all rows are written at once. Where a rule stands against that they are written one by
//! one, and those that are refused are taken out together and put back: then only the end has to
//! keep to the rules. A row that breaks one stays as it was. At the end every row is read back.

use std::collections::{HashMap, HashSet};

use rollcall_capture::IncomingTable;
use rusqlite::{Connection, ErrorCode, Transaction};

use super::spec::{equal_keys, exact_keys, key_text, on_keys, quoted};
use crate::{
    error::{CaptureError, Doing},
    shape::quote,
};

const DOING: &str = "writing rows of HQ's";
/// Rows of which it is said why at most; of others only that they differ.
const SAID_MAX: usize = 100;
/// Rounds in which rows are taken out and put back.
const ROUNDS_MAX: usize = 50;
/// Before the reason for which a row is refused.
pub(super) const REFUSED: &str = "the store refuses it: ";
/// A value is shown so far.
const SHOWN_CHARS: usize = 60;

/// Rows that come into a table, and rows that go.
pub(crate) struct Put<'a> {
    pub(crate) spec: &'a IncomingTable,
    /// The table that has those that come.
    pub(crate) rows: &'a str,
    /// Which of them, called `r`.
    pub(crate) come: String,
    /// The table with the keys of those that go.
    pub(crate) keys: &'a str,
    /// Which of them, called `r`.
    pub(crate) go: String,
}

/// What was done.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) written: usize,
    pub(crate) removed: usize,
    pub(crate) differing: Differing,
}

/// Rows that are not as HQ has them.
#[derive(Debug, Default)]
pub(crate) struct Differing {
    /// Their keys, and why; empty beyond the first.
    pub(crate) named: Vec<(String, String)>,
}

impl Differing {
    pub(super) fn add(&mut self, key: String, why: String) {
        let why = if self.named.len() < SAID_MAX { why } else { String::new() };
        self.named.push((key, why));
    }
}

/// A foreign key of another table's that names rows of HQ's.
pub(super) struct Reference {
    child: String,
    /// The child's columns, and those that they name.
    columns: Vec<(String, String)>,
}

impl Put<'_> {
    fn table(&self) -> String {
        format!("main.{}", quote(&self.spec.name))
    }

    /// Does it within a transaction.
    pub(crate) fn execute(&self, transaction: &Transaction<'_>) -> Result<Done, CaptureError> {
        let (mut done, mut refused) = (Done::default(), HashMap::new());
        let go = self.may_go(transaction)?;
        done.removed = self.remove(transaction, &go, &mut refused)?;
        let write = Write::new(self, transaction)?;
        done.written = match at_once(transaction, &write.all())? {
            Some(written) => written,
            None => self.write_each(transaction, &write, &mut refused)?,
        };
        self.read_back(transaction, &refused, &mut done.differing)?;
        Ok(done)
    }

    /// Which rows go: where references are to be kept whole, none that a store's row names.
    fn may_go(&self, conn: &Connection) -> Result<String, CaptureError> {
        if !self.spec.keeps_referenced {
            return Ok(self.go.clone());
        }
        let named = references(conn, &self.spec.name)?.iter().map(|of| self.is_named(of)).collect::<Vec<_>>();
        Ok(named.iter().fold(format!("({})", self.go), |go, named| format!("{go} AND NOT {named}")))
    }

    /// A condition: a row of the child's names the row of this table with the key of `r`.
    fn is_named(&self, of: &Reference) -> String {
        let same = of.columns.iter().map(|(own, named)| format!("c.{} = p.{}", quote(own), quote(named)));
        format!(
            "EXISTS (SELECT 1 FROM {} p JOIN main.{} c ON {} WHERE {})",
            self.table(),
            quote(&of.child),
            same.collect::<Vec<_>>().join(" AND "),
            equal_keys("p", "r", self.spec)
        )
    }

    fn remove(
        &self,
        transaction: &Transaction<'_>,
        go: &str,
        refused: &mut HashMap<String, String>,
    ) -> Result<usize, CaptureError> {
        // Another collation of the store's would take a row for one that it is not.
        let own = exact_keys(self.spec);
        let delete = |which: &str| {
            let (table, keys) = (self.table(), quoted(&self.spec.key).join(","));
            format!("DELETE FROM {table} WHERE ({own}) IN (SELECT {keys} FROM {} r WHERE {which})", self.keys)
        };
        if let Some(removed) = at_once(transaction, &[delete(go)])? {
            return Ok(removed);
        }
        let mut removed = 0;
        for (place, key) in self.places(transaction, self.keys, go)? {
            match attempt(transaction, &[delete(&format!("r._rowid_ = {place}"))])? {
                Ok(count) => removed += count,
                Err(why) => drop(refused.insert(key, why)),
            }
        }
        Ok(removed)
    }

    /// Writes row by row, again as long as that helps; then those that are refused by each other.
    fn write_each(
        &self,
        transaction: &Transaction<'_>,
        write: &Write<'_>,
        refused: &mut HashMap<String, String>,
    ) -> Result<usize, CaptureError> {
        let mut left = self.places(transaction, self.rows, &self.come)?;
        let (mut written, mut before) = (0, usize::MAX);
        while left.len() < before && !left.is_empty() {
            before = left.len();
            let mut still = Vec::new();
            for (place, key) in left {
                match attempt(transaction, &write.one(place))? {
                    Ok(count) => {
                        written += count;
                        refused.remove(&key);
                    }
                    Err(why) => {
                        refused.insert(key.clone(), why);
                        still.push((place, key));
                    }
                }
            }
            left = still;
        }
        // Each round leaves out those that are refused by others than each other.
        for _ in 0..ROUNDS_MAX {
            if left.is_empty() {
                break;
            }
            transaction.execute_batch("SAVEPOINT rollcall_out").doing(DOING)?;
            let stuck = self.exchange(transaction, write, &left)?;
            if stuck.is_empty() {
                transaction.execute_batch("RELEASE rollcall_out").doing(DOING)?;
                written += left.len();
                left.iter().for_each(|(_, key)| drop(refused.remove(key)));
                break;
            }
            transaction.execute_batch("ROLLBACK TO rollcall_out; RELEASE rollcall_out").doing(DOING)?;
            left.retain(|(place, _)| !stuck.contains(place));
        }
        Ok(written)
    }

    /// Takes rows out and puts them back as HQ has them, with what the store keeps beside that.
    /// Gives those with which it did not work.
    fn exchange(
        &self,
        transaction: &Transaction<'_>,
        write: &Write<'_>,
        rows: &[(i64, String)],
    ) -> Result<HashSet<i64>, CaptureError> {
        let places = rows.iter().map(|(place, _)| place.to_string()).collect::<Vec<_>>().join(",");
        write.keep_old(transaction, &format!("r._rowid_ IN ({places})"))?;
        let mut stuck = HashSet::new();
        let mut old = HashSet::new();
        for (place, _) in rows {
            let has = format!("SELECT EXISTS (SELECT 1 FROM temp._rollcall_old WHERE _rollcall_r = {place})");
            if !transaction.query_row(&has, [], |row| row.get(0)).doing(DOING)? {
                continue;
            }
            old.insert(*place);
            // A store may not let a row go.
            if !attempt(transaction, &[write.take_out(*place)])?.is_ok_and(|count| count == 1) {
                stuck.insert(*place);
            }
        }
        for (place, _) in rows.iter().filter(|(place, _)| !stuck.contains(place)).collect::<Vec<_>>() {
            let put = if old.contains(place) { vec![write.put_back(*place)] } else { write.one(*place) };
            if !attempt(transaction, &put)?.is_ok_and(|count| count == 1) {
                stuck.insert(*place);
            }
        }
        transaction.execute_batch("DROP TABLE temp._rollcall_old").doing(DOING)?;
        Ok(stuck)
    }

    /// The rows of a table that a condition holds for: their numbers, and their keys as SQL writes
    /// them.
    fn places(&self, conn: &Connection, table: &str, condition: &str) -> Result<Vec<(i64, String)>, CaptureError> {
        let sql = format!(
            "SELECT r._rowid_, {} FROM {table} r WHERE {condition} ORDER BY r._rowid_",
            key_text(self.spec, "r.")
        );
        let mut statement = conn.prepare(&sql).doing(DOING)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).doing(DOING)?;
        rows.collect::<Result<_, _>>().doing(DOING)
    }

    /// Compares every row with what HQ sent, by what was said of those that are refused.
    pub(super) fn read_back(
        &self,
        conn: &Connection,
        refused: &HashMap<String, String>,
        differing: &mut Differing,
    ) -> Result<(), CaptureError> {
        let keys = quoted(&self.spec.key);
        let (table, same_key) = (self.table(), on_keys(&keys));
        let first_key = keys.first().map_or("", String::as_str);
        let shown = |value: String| format!("substr(quote({value}), 1, {SHOWN_CHARS})");
        let compared = self.spec.columns.iter().filter(|(name, _)| !self.spec.rewritten.contains(name));
        let compared = compared.map(|(name, _)| {
            let (label, name) = (name.replace('\'', "''"), quote(name));
            let (sent, has) = (shown(format!("r.{name}")), shown(format!("t.{name}")));
            format!(
                "WHEN t.{name} COLLATE BINARY IS NOT r.{name} THEN '{label}: HQ sent ' || {sent} || ', the store has ' || {has}"
            )
        });
        let came = format!(
            "SELECT {}, CASE WHEN t.{first_key} IS NULL THEN 'it is not there' {} END AS why
             FROM {} r LEFT JOIN {table} t ON {same_key} WHERE {}",
            key_text(self.spec, "r."),
            compared.collect::<Vec<_>>().join(" "),
            self.rows,
            self.come
        );
        let went = format!(
            "SELECT {}, 'HQ has no such row, and it is there' AS why FROM {} r JOIN {table} t ON {} WHERE {}",
            key_text(self.spec, "r."),
            self.keys,
            equal_keys("t", "r", self.spec),
            self.go
        );
        for sql in [came, went] {
            let sql = format!("SELECT * FROM ({sql}) WHERE why IS NOT NULL");
            let mut statement = conn.prepare(&sql).doing(DOING)?;
            let mut rows = statement.query([]).doing(DOING)?;
            while let Some(row) = rows.next().doing(DOING)? {
                let (key, why): (String, String) = (row.get(0).doing(DOING)?, row.get(1).doing(DOING)?);
                let why = refused.get(&key).map_or(why, |refused| format!("{REFUSED}{refused}"));
                differing.add(key, why);
            }
        }
        Ok(())
    }
}

/// The statements that write rows of HQ's.
///
/// None has a conflict clause where the store's table has none: it would take the place of those in
/// the store's triggers (lang_createtrigger.html), and `INSERT OR REPLACE` there would fail.
struct Write<'a> {
    put: &'a Put<'a>,
    /// `OR ABORT`, where the table would else replace or ignore rows by itself.
    or: &'static str,
    hqs: Vec<String>,
    /// The store's own columns beside HQ's.
    others: Vec<String>,
}

impl<'a> Write<'a> {
    fn new(put: &'a Put<'a>, conn: &Connection) -> Result<Self, CaptureError> {
        let name = &put.spec.name;
        let sql = "SELECT coalesce(max(sql LIKE '%ON CONFLICT%'), 0) FROM main.sqlite_master WHERE type = 'table' AND lower(name) = lower(?1)";
        let has_clauses: bool = conn.query_row(sql, [name], |row| row.get(0)).doing(DOING)?;
        let is_hqs = |name: &&String| put.spec.columns.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
        let all = writable_columns(conn, name)?;
        Ok(Self {
            put,
            or: if has_clauses { "OR ABORT" } else { "" },
            hqs: quoted(put.spec.columns.iter().map(|(name, _)| name)),
            others: quoted(all.iter().filter(|name| !is_hqs(name))),
        })
    }

    /// Changes the rows that are there, then adds the others: of those that a condition holds for.
    fn statements(&self, which: &str) -> Vec<String> {
        let (table, rows, or, spec) = (self.put.table(), self.put.rows, self.or, self.put.spec);
        let same = equal_keys("t", "r", spec);
        let others = spec.columns.iter().filter(|(name, _)| !spec.key.contains(name));
        let changes: Vec<String> = others.map(|(name, _)| format!("{0} = r.{0}", quote(name))).collect();
        let columns = self.hqs.join(",");
        let change =
            format!("UPDATE {or} {table} AS t SET {} FROM {rows} r WHERE {same} AND {which}", changes.join(","));
        let add = format!(
            "INSERT {or} INTO {table} ({columns}) SELECT {} FROM {rows} r WHERE {which} AND NOT EXISTS (SELECT 1 FROM {table} t WHERE {same})",
            of("r", &self.hqs)
        );
        if changes.is_empty() { vec![add] } else { vec![change, add] }
    }

    fn all(&self) -> Vec<String> {
        self.statements(&self.put.come)
    }

    fn one(&self, place: i64) -> Vec<String> {
        self.statements(&format!("r._rowid_ = {place}"))
    }

    /// Keeps what the store has in the place of rows of HQ's.
    fn keep_old(&self, conn: &Connection, which: &str) -> Result<(), CaptureError> {
        let all: Vec<String> = self.hqs.iter().chain(&self.others).cloned().collect();
        let (rows, table, same) = (self.put.rows, self.put.table(), equal_keys("t", "r", self.put.spec));
        conn.execute_batch(&format!(
            "DROP TABLE IF EXISTS temp._rollcall_old;
             CREATE TEMP TABLE _rollcall_old (_rollcall_r INTEGER PRIMARY KEY, {0});
             INSERT INTO temp._rollcall_old (_rollcall_r, {0}) SELECT r._rowid_, {1} FROM {rows} r JOIN {table} t ON {same} WHERE {which};",
            all.join(","),
            of("t", &all)
        ))
        .doing(DOING)
    }

    fn take_out(&self, place: i64) -> String {
        let (own, keys) = (exact_keys(self.put.spec), quoted(&self.put.spec.key).join(","));
        let kept = format!("SELECT {keys} FROM temp._rollcall_old WHERE _rollcall_r = {place}");
        format!("DELETE FROM {} WHERE ({own}) IN ({kept})", self.put.table())
    }

    fn put_back(&self, place: i64) -> String {
        let columns = self.hqs.iter().chain(&self.others).cloned().collect::<Vec<_>>().join(",");
        let own = if self.others.is_empty() { String::new() } else { format!(", {}", of("o", &self.others)) };
        format!(
            "INSERT {} INTO {} ({columns}) SELECT {}{own} FROM {} r, temp._rollcall_old o
             WHERE r._rowid_ = {place} AND o._rollcall_r = {place}",
            self.or,
            self.put.table(),
            of("r", &self.hqs),
            self.put.rows
        )
    }
}

/// Columns of a row.
fn of(row: &str, names: &[String]) -> String {
    names.iter().map(|name| format!("{row}.{name}")).collect::<Vec<_>>().join(",")
}

/// Other tables' foreign keys that name rows of a table, but for HQ's own.
pub(super) fn references(conn: &Connection, table: &str) -> Result<Vec<Reference>, CaptureError> {
    let sql = "SELECT m.name, f.id, f.\"from\", coalesce(f.\"to\", (SELECT p.name FROM pragma_table_info(?1) p WHERE p.pk = f.seq + 1))
        FROM main.sqlite_master m, pragma_foreign_key_list(m.name) f
        WHERE m.type = 'table' AND lower(f.\"table\") = lower(?1) AND lower(m.name) <> lower(?1)
        ORDER BY m.name, f.id, f.seq";
    let mut statement = conn.prepare(sql).doing(DOING)?;
    let rows =
        statement.query_map([table], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).doing(DOING)?;
    let rows: Vec<(String, i64, String, Option<String>)> = rows.collect::<Result<_, _>>().doing(DOING)?;
    // While foreign keys are off, one may name a column that is not there.
    let has: Vec<String> = writable_columns(conn, table)?.iter().map(|name| name.to_lowercase()).collect();
    let is_there = |named: &Option<String>| named.as_ref().is_some_and(|named| has.contains(&named.to_lowercase()));
    let broken: Vec<(String, i64)> =
        rows.iter().filter(|row| !is_there(&row.3)).map(|row| (row.0.clone(), row.1)).collect();
    let mut all: Vec<((String, i64), Reference)> = Vec::new();
    for (child, id, own, named) in rows {
        let Some(named) = named.filter(|_| !broken.contains(&(child.clone(), id))) else { continue };
        match all.last_mut().filter(|(known, _)| *known == (child.clone(), id)) {
            Some((_, reference)) => reference.columns.push((own, named)),
            None => {
                let reference = Reference { child: child.clone(), columns: vec![(own, named)] };
                all.push(((child, id), reference));
            }
        }
    }
    let applied: Vec<String> = match super::applied::has_applied(conn)? {
        true => {
            let mut names = conn.prepare("SELECT lower(name) FROM main._rollcall_applied").doing(DOING)?;
            let rows = names.query_map([], |row| row.get(0)).doing(DOING)?;
            rows.collect::<Result<_, _>>().doing(DOING)?
        }
        false => Vec::new(),
    };
    let of_store = all.into_iter().map(|(_, reference)| reference);
    Ok(of_store.filter(|reference| !applied.contains(&reference.child.to_lowercase())).collect())
}

/// Rows of the store's that name rows of a table which are not there; reads the tables that name
/// any.
pub(crate) fn dangling(conn: &Connection, table: &str) -> Result<u64, CaptureError> {
    let mut count = 0;
    for Reference { child, columns } in references(conn, table)? {
        let same = columns.iter().map(|(own, named)| format!("c.{} = p.{}", quote(own), quote(named)));
        let is_said = columns.iter().map(|(own, _)| format!("c.{} IS NOT NULL", quote(own)));
        let sql = format!(
            "SELECT count(*) FROM main.{} c WHERE {} AND NOT EXISTS (SELECT 1 FROM main.{} p WHERE {})",
            quote(&child),
            is_said.collect::<Vec<_>>().join(" AND "),
            quote(table),
            same.collect::<Vec<_>>().join(" AND ")
        );
        let found: i64 = conn.query_row(&sql, [], |row| row.get(0)).doing("counting references of the store's")?;
        count += found.unsigned_abs();
    }
    Ok(count)
}

/// Columns whose values can be written.
fn writable_columns(conn: &Connection, table: &str) -> Result<Vec<String>, CaptureError> {
    let mut names = conn.prepare("SELECT name FROM pragma_table_xinfo(?1) WHERE hidden = 0").doing(DOING)?;
    let rows = names.query_map([table], |row| row.get(0)).doing(DOING)?;
    rows.collect::<Result<_, _>>().doing(DOING)
}

/// Executes statements, or none of them where a rule of the store's stands against a part.
fn at_once(transaction: &Transaction<'_>, statements: &[String]) -> Result<Option<usize>, CaptureError> {
    Ok(attempt(transaction, statements)?.ok())
}

/// Executes statements; what the store's rule says against them otherwise.
fn attempt(transaction: &Transaction<'_>, statements: &[String]) -> Result<Result<usize, String>, CaptureError> {
    transaction.execute_batch("SAVEPOINT rollcall_put").doing(DOING)?;
    let mut count = 0;
    for sql in statements {
        match transaction.execute(sql, []) {
            Ok(more) => count += more,
            // A trigger may end the whole transaction; then there is nothing to go on with.
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation)
                    && !transaction.is_autocommit() =>
            {
                transaction.execute_batch("ROLLBACK TO rollcall_put; RELEASE rollcall_put").doing(DOING)?;
                return Ok(Err(error.to_string()));
            }
            Err(error) => return Err(error).doing(DOING),
        }
    }
    transaction.execute_batch("RELEASE rollcall_put").doing(DOING)?;
    Ok(Ok(count))
}
