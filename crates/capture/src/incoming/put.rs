//! HQ's rows are put into a store's table, as they are; what the store does not take so is found and named.
//!
//! A store may have rules of its own: unique columns, checks, triggers that change or refuse a row. As a rule all rows
//! are written at once. Where a rule stands against that, those that are written are taken out first and put
//! back one by one: then only the end has to keep to the rules, and a row that breaks one is left out by itself. At the
//! end every row is read back.

use std::collections::{HashMap, HashSet};

use rusqlite::{Connection, ErrorCode, Transaction};

use super::spec::{IncomingTable, equal_keys, on_keys, quoted, upsert};
use crate::{
    error::{CaptureError, Doing},
    shape::quote,
};

const DOING: &str = "writing rows of HQ's";
/// Rows that are named at most.
const NAMED_MAX: usize = 100;
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
    /// How many.
    pub(crate) count: usize,
    /// The first of them: its key, and why.
    pub(crate) named: Vec<(String, String)>,
}

impl Differing {
    fn add(&mut self, key: String, why: String) {
        self.count += 1;
        if self.named.len() < NAMED_MAX {
            self.named.push((key, why));
        }
    }
}

/// A foreign key of another table's that names rows of HQ's.
struct Reference {
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
        done.written = match at_once(transaction, &upsert(self.spec, &self.table(), &self.source(), &self.come))? {
            Some(written) => written,
            None => self.write_each(transaction, &mut refused)?,
        };
        self.read_back(transaction, &refused, &mut done.differing)?;
        Ok(done)
    }

    fn source(&self) -> String {
        format!("{} r", self.rows)
    }

    /// The key of `row`, as SQL writes it.
    fn key_of(&self, row: &str) -> String {
        let keys = quoted(&self.spec.key);
        keys.iter().map(|key| format!("quote({row}.{key})")).collect::<Vec<_>>().join(" || ', ' || ")
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
        let keys = quoted(&self.spec.key);
        // Another collation of the store's would take a row for one that it is not.
        let own = keys.iter().map(|key| format!("{key} COLLATE BINARY")).collect::<Vec<_>>().join(",");
        let select = format!("SELECT {} FROM {} r WHERE {go}", keys.join(","), self.keys);
        let delete = format!("DELETE FROM {} WHERE ({own}) IN ({select})", self.table());
        if let Some(removed) = at_once(transaction, &delete)? {
            return Ok(removed);
        }
        let mut removed = 0;
        for (place, key) in self.places(transaction, self.keys, go)? {
            let one = format!("{delete} AND ({own}) IN ({select} AND r.rowid = {place})");
            match one_by_one(transaction, &one)? {
                Ok(count) => removed += count,
                Err(why) => drop(refused.insert(key, why)),
            }
        }
        Ok(removed)
    }

    /// Takes out the rows that are to be written, and puts each back as HQ has it, or as it was if it is refused.
    fn write_each(
        &self,
        transaction: &Transaction<'_>,
        refused: &mut HashMap<String, String>,
    ) -> Result<usize, CaptureError> {
        let table = self.table();
        let (keys, come) = (quoted(&self.spec.key), &self.come);
        let hqs = quoted(self.spec.columns.iter().map(|(name, _)| name));
        let all = writable_columns(transaction, &self.spec.name)?;
        let is_hqs = |name: &&String| self.spec.columns.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
        let others = quoted(all.iter().filter(|name| !is_hqs(name)));
        let all = quoted(&all);
        let of = |row: &str, names: &[String]| names.iter().map(|name| format!("{row}.{name}")).collect::<Vec<_>>();
        transaction
            .execute_batch(&format!(
                "DROP TABLE IF EXISTS temp._rollcall_old;
                 CREATE TEMP TABLE _rollcall_old AS SELECT r.rowid AS _rollcall_r, {} FROM {} r JOIN {table} t ON {} WHERE {come};",
                of("t", &all).join(","),
                self.rows,
                equal_keys("t", "r", self.spec)
            ))
            .doing(DOING)?;
        let places = self.places(transaction, self.rows, come)?;
        let own = keys.iter().map(|key| format!("{key} COLLATE BINARY")).collect::<Vec<_>>().join(",");
        let had = |place: i64| format!("FROM temp._rollcall_old o WHERE o._rollcall_r = {place}");
        let (mut out, mut rows) = (HashSet::new(), Vec::new());
        for (place, key) in places {
            let delete = format!("DELETE FROM {table} WHERE ({own}) IN (SELECT {} {})", keys.join(","), had(place));
            // A store may not let a row go, and yet let it be changed.
            if one_by_one(transaction, &delete)?.is_ok_and(|count| count > 0) {
                out.insert(place);
            }
            rows.push((place, key));
        }
        let mut written = 0;
        for (place, key) in rows {
            let had = had(place);
            let is_old: bool =
                transaction.query_row(&format!("SELECT EXISTS (SELECT 1 {had})"), [], |row| row.get(0)).doing(DOING)?;
            let write = match (is_old, out.contains(&place)) {
                (true, true) => format!(
                    "INSERT OR ABORT INTO {table} ({}) SELECT {} FROM {} r, temp._rollcall_old o
                     WHERE r.rowid = {place} AND o._rollcall_r = {place}",
                    hqs.iter().chain(&others).cloned().collect::<Vec<_>>().join(","),
                    of("r", &hqs).into_iter().chain(of("o", &others)).collect::<Vec<_>>().join(","),
                    self.rows
                ),
                _ => upsert(self.spec, &table, &self.source(), &format!("r.rowid = {place}")),
            };
            match one_by_one(transaction, &write)? {
                Ok(count) => written += count,
                Err(why) => {
                    refused.insert(key, why);
                    if out.contains(&place) {
                        let back = format!("INSERT OR ABORT INTO {table} ({0}) SELECT {0} {had}", all.join(","));
                        // Its place may be another row's by now; that it is not there is found below.
                        let _ = one_by_one(transaction, &back)?;
                    }
                }
            }
        }
        transaction.execute_batch("DROP TABLE temp._rollcall_old").doing(DOING)?;
        Ok(written)
    }

    /// The rows of a table that a condition holds for: their numbers, and their keys as SQL writes them.
    fn places(&self, conn: &Connection, table: &str, condition: &str) -> Result<Vec<(i64, String)>, CaptureError> {
        let sql = format!("SELECT r.rowid, {} FROM {table} r WHERE {condition} ORDER BY r.rowid", self.key_of("r"));
        let mut statement = conn.prepare(&sql).doing(DOING)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).doing(DOING)?;
        rows.collect::<Result<_, _>>().doing(DOING)
    }

    /// Compares every row with what HQ sent.
    fn read_back(
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
            self.key_of("r"),
            compared.collect::<Vec<_>>().join(" "),
            self.rows,
            self.come
        );
        let went = format!(
            "SELECT {}, 'HQ took it away, and it is there' AS why FROM {} r JOIN {table} t ON {} WHERE {}",
            self.key_of("r"),
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
                let why = refused.get(&key).map_or(why, |refused| format!("the store refuses it: {refused}"));
                differing.add(key, why);
            }
        }
        Ok(())
    }
}

/// Other tables' foreign keys that name rows of a table, but for HQ's own.
fn references(conn: &Connection, table: &str) -> Result<Vec<Reference>, CaptureError> {
    let sql = "SELECT m.name, f.id, f.\"from\", coalesce(f.\"to\", (SELECT p.name FROM pragma_table_info(?1) p WHERE p.pk = f.seq + 1))
        FROM main.sqlite_master m, pragma_foreign_key_list(m.name) f
        WHERE m.type = 'table' AND lower(f.\"table\") = lower(?1) AND lower(m.name) <> lower(?1)
        ORDER BY m.name, f.id, f.seq";
    let mut statement = conn.prepare(sql).doing(DOING)?;
    let rows =
        statement.query_map([table], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).doing(DOING)?;
    let rows: Vec<(String, i64, String, Option<String>)> = rows.collect::<Result<_, _>>().doing(DOING)?;
    let mut all: Vec<((String, i64), Reference)> = Vec::new();
    for (child, id, own, named) in rows {
        let Some(named) = named else { continue };
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

/// Rows of the store's that name rows of a table which are not there; reads the tables that name any.
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

/// Executes a statement, or none of it where a rule of the store's stands against a part.
fn at_once(transaction: &Transaction<'_>, sql: &str) -> Result<Option<usize>, CaptureError> {
    Ok(one_by_one(transaction, sql)?.ok())
}

/// Executes a statement; what the store's rule says against it otherwise.
fn one_by_one(transaction: &Transaction<'_>, sql: &str) -> Result<Result<usize, String>, CaptureError> {
    transaction.execute_batch("SAVEPOINT rollcall_put").doing(DOING)?;
    match transaction.execute(sql, []) {
        Ok(count) => {
            transaction.execute_batch("RELEASE rollcall_put").doing(DOING)?;
            Ok(Ok(count))
        }
        // A trigger may end the whole transaction; then there is nothing to go on with.
        Err(error)
            if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) && !transaction.is_autocommit() =>
        {
            transaction.execute_batch("ROLLBACK TO rollcall_put; RELEASE rollcall_put").doing(DOING)?;
            Ok(Err(error.to_string()))
        }
        Err(error) => Err(error).doing(DOING),
    }
}
