//! What the store's people changed and HQ leaves so is found and named; what the store is to have
//! no more goes.

use std::collections::HashMap;

use rollcall_capture::IncomingTable;
use rusqlite::{Connection, TransactionBehavior};

use super::{
    SqliteIncoming,
    applied::{Applied, applied, forget_differing, note_differing},
    put::{self, Differing, Put, REFUSED},
    spec::has_null_key,
    standing::GONE,
    write::Rows,
};

use crate::{
    error::{CaptureError, Doing},
    shape::{Shape, quote},
    shared,
};

impl SqliteIncoming {
    /// Compares a table with what is staged of it, which is whole and of the version that is
    /// applied: rows that differ are named, and counted where they did not before. Nothing is put
    /// right.
    pub fn compare(&mut self, table: &str) -> Result<(), CaptureError> {
        let doing = "comparing one of HQ's tables";
        let (number, spec) = self.staging(table)?;
        let Some(known) = applied(&self.conn, table)? else { return self.clear(table) };
        let (now, differing) = match self.digest_now(&known.spec)? {
            Some(now) => (now, self.differing_from(&spec, &format!("incoming.r{number}"), known.table.published_at)?),
            None => {
                let why = "the table is not there, or lacks a column".to_owned();
                (GONE, Differing { named: vec![("all of it".to_owned(), why)] })
            }
        };
        let transaction = self.conn.transaction_with_behavior(TransactionBehavior::Immediate).doing(doing)?;
        let mut more = 0;
        {
            let is_new = "SELECT count(*) = 0 FROM main._rollcall_differing WHERE name = ?1 AND key = ?2";
            let mut is_new = transaction.prepare(is_new).doing(doing)?;
            for (key, _) in &differing.named {
                more += u64::from(is_new.query_row((table, key), |row| row.get::<_, bool>(0)).doing(doing)?);
            }
        }
        note_differing(&transaction, table, None, &differing)?;
        let found = (now != known.digest).then_some(now as i64);
        let note = "UPDATE main._rollcall_applied SET found = ?2, edits = edits + ?3 WHERE name = ?1";
        transaction.execute(note, (table, found, more as i64)).doing(doing)?;
        transaction.commit().doing(doing)?;
        self.checkpoint("main");
        self.clear(table)
    }

    /// The rows of a table that are not as HQ has them.
    fn differing_from(&self, spec: &IncomingTable, rows: &str, published_at: i64) -> Result<Differing, CaptureError> {
        let doing = "comparing one of HQ's tables";
        let mut refused = HashMap::new();
        let said = "SELECT key, substr(why, ?2) FROM main._rollcall_differing WHERE name = ?1 AND why LIKE ?3 || '%'";
        let mut statement = self.conn.prepare(said).doing(doing)?;
        let behind = REFUSED.len() as i64 + 1;
        let known = statement.query_map((&spec.name, behind, REFUSED), |row| Ok((row.get(0)?, row.get(1)?)));
        for row in known.doing(doing)? {
            let (key, why): (String, String) = row.doing(doing)?;
            refused.insert(key, why);
        }
        self.find_differing(&Rows { source: rows.to_owned(), spec, published_at }, &[])?;
        let all = "true".to_owned();
        let put = Put { spec, rows: "temp._rollcall_up", come: all.clone(), keys: "temp._rollcall_gone", go: all };
        let mut differing = Differing::default();
        put.read_back(&self.conn, &refused, &mut differing)?;
        let nulls = format!("SELECT EXISTS (SELECT 1 FROM temp._rollcall_gone WHERE {})", has_null_key(spec));
        if self.conn.query_row(&nulls, [], |row| row.get(0)).doing(doing)? {
            differing.add("NULL".to_owned(), "HQ has no such row, and it is there".to_owned());
        }
        self.conn.execute_batch("DROP TABLE temp._rollcall_up; DROP TABLE temp._rollcall_gone").doing(doing)?;
        Ok(differing)
    }

    /// The store is to have a table no more, and none of its rows is left there: a table that was
    /// made for HQ's rows goes, unless something of the store's own stands on it. From then on it
    /// is the store's; true if it was HQ's until now.
    pub fn leave(&mut self, table: &str) -> Result<bool, CaptureError> {
        let doing = "leaving one of HQ's tables to the store";
        let Some(known) = applied(&self.conn, table)? else { return Ok(false) };
        // What people changed in a shared table is HQ's to decide on, however late.
        if known.spec.shared || known.table.differing > 0 || shared::has_edits_table(&self.conn, table)? {
            return Ok(false);
        }
        // Else HQ could have the store's later rows of that name.
        self.conn.execute("DELETE FROM incoming.adopted WHERE name = ?1", [table]).doing(doing)?;
        // From here on the store's programs write nothing more.
        let transaction = self.conn.transaction_with_behavior(TransactionBehavior::Immediate).doing(doing)?;
        let shape = match Shape::read(&transaction, table) {
            Ok(shape) => Some(shape),
            Err(CaptureError::NoSuchTable { .. }) => None,
            Err(error) => return Err(error),
        };
        if let Some(shape) = shape {
            let has_rows = format!("SELECT EXISTS (SELECT 1 FROM main.{})", quote(table));
            if transaction.query_row(&has_rows, [], |row| row.get(0)).doing(doing)? {
                return Ok(false);
            }
            if is_ours_alone(&transaction, &shape, &known)? {
                transaction.execute_batch(&format!("DROP TABLE main.{}", quote(table))).doing(doing)?;
            }
        }
        transaction.execute("DELETE FROM main._rollcall_applied WHERE name = ?1", [table]).doing(doing)?;
        forget_differing(&transaction, table)?;
        transaction.commit().doing(doing)?;
        self.clear(table)?;
        self.checkpoint("main");
        Ok(true)
    }
}

/// Whether a table was made here and nothing of the store's own stands on it: no column, index,
/// trigger, view or reference.
fn is_ours_alone(conn: &Connection, shape: &Shape, known: &Applied) -> Result<bool, CaptureError> {
    let is_hqs = |name: &str| known.spec.columns.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
    if !known.made || !shape.columns.iter().all(|column| is_hqs(&column.name)) {
        return Ok(false);
    }
    let beside = "SELECT count(*) = 0 FROM main.sqlite_master
        WHERE sql IS NOT NULL AND (type IN ('view', 'trigger') AND instr(lower(sql), lower(?1)) > 0
            OR type IN ('index', 'trigger') AND lower(tbl_name) = lower(?1))";
    let doing = "looking what stands on one of HQ's tables";
    let is_alone: bool = conn.query_row(beside, [&shape.name], |row| row.get(0)).doing(doing)?;
    Ok(is_alone && put::references(conn, &shape.name)?.is_empty())
}
