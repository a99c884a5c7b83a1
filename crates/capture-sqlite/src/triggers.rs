//! The triggers that fill the journal. Only SQL that SQLite has known since 3.6.19 is used: the
//! store's own programs, with their own SQLite, run it.
//!
//! - A row is journalled as *read back by key*, never from `NEW`: the store's own triggers may
//!   still change it, and the order of triggers is undefined.
//! - `D` is journalled only when the key is gone.
//! - `BEFORE` triggers note the rows that conflict on *any* unique key, because `REPLACE` deletes
//!   them without telling. The `AFTER` trigger then writes `D` for those gone, and `U` instead of
//!   `I` where the key itself was there.
//! - A note can be left over (`OR IGNORE` fires no `AFTER`). That is harmless: every use of a note
//!   looks at the table again, and `U` in place of `I` is always right. The agent deletes committed
//!   notes now and then.
//! - Every column carries its table's name, and the store's table is called [`ROW`] inside: SQLite
//!   takes a bare quoted name that is no column for a string, and a table called `old` or `new` for
//!   the trigger's own row.
//! - SQLite runs the newest trigger first. Ours are to be the newest: one of the store's with
//!   `RAISE(IGNORE)` keeps later ones from running.
//! - Neither the journal nor the notes have a constraint that could fail: under `OR IGNORE` a
//!   failing insert would be swallowed.

use crate::{
    error::CaptureError,
    layout::Layout,
    shape::{Key, Shape, UniqueColumn, quote},
};

/// Name and SQL of one trigger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trigger {
    pub(crate) name: String,
    pub(crate) sql: String,
}

/// The name under which a table's trigger is found again.
fn trigger_name(kind: &str, table: &str) -> String {
    format!("_rollcall_{kind}_{table}")
}

/// What the store's table is called within the statements of a trigger.
const ROW: &str = "_rollcall_row";

/// How triggers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As they are made.
    Present,
    /// As agents before 0.2 made them: the table by its own name. They capture all the same, unless
    /// the table is called `old` or `new`.
    First,
}

/// Whether the first form captured this table truly.
pub(crate) fn first_form_captures(table: &str) -> bool {
    !["old", "new"].contains(&table.to_lowercase().as_str())
}

/// How many triggers a captured table has.
pub(crate) const COUNT: usize = 5;

/// The [`COUNT`] triggers of one table.
pub(crate) fn triggers(shape: &Shape, layout: &Layout, form: Form) -> Result<Vec<Trigger>, CaptureError> {
    let sql = TriggerSql::new(shape, layout, form)?;
    let table = quote(&shape.name);
    let before_insert = sql.note("NEW", None);
    let before_update = sql.note("NEW", Some("OLD"));
    let bodies = [
        ("bi", "BEFORE INSERT", Some(before_insert.0), before_insert.1),
        ("ai", "AFTER INSERT", None, sql.after_insert()),
        ("bu", "BEFORE UPDATE", Some(before_update.0), before_update.1),
        ("au", "AFTER UPDATE", None, sql.after_update()),
        ("ad", "AFTER DELETE", None, sql.after_delete()),
    ];
    Ok(bodies
        .into_iter()
        .map(|(kind, event, when, body)| {
            let name = trigger_name(kind, &shape.name);
            let when = when.map_or_else(String::new, |condition| format!(" WHEN {condition}"));
            let sql = format!("CREATE TRIGGER {} {event} ON {table} FOR EACH ROW{when} BEGIN {body} END", quote(&name));
            Trigger { name, sql }
        })
        .collect())
}

struct TriggerSql<'a> {
    shape: &'a Shape,
    form: Form,
    /// The table as what rows are taken from, and before their columns.
    from: String,
    row: String,
    number: i64,
    /// Journal columns and the expressions that fill them from a row of the table.
    targets: String,
    values: String,
    /// The key as columns of the table, of the notes, and of the journal.
    key: Vec<KeyColumn>,
}

struct KeyColumn {
    /// The table's column, or its row number: behind `NEW.` and `OLD.`.
    column: String,
    /// The same with the table's name before it.
    qualified: String,
    note: String,
    journal: String,
}

const NOW: &str = "julianday('now')";

impl<'a> TriggerSql<'a> {
    fn new(shape: &'a Shape, layout: &Layout, form: Form) -> Result<Self, CaptureError> {
        let rowid = shape.rowid.unwrap_or_default();
        let (from, row) = match form {
            Form::Present => (format!("{} AS {ROW}", quote(&shape.name)), ROW.to_owned()),
            Form::First => (quote(&shape.name), quote(&shape.name)),
        };
        let column_sql = |name: &str| match (&shape.key, name) {
            (Key::Rowid, rollcall_types::columns::ROWID) => rowid.to_owned(),
            _ => quote(name),
        };
        let values: Vec<String> =
            layout.columns.iter().map(|column| format!("{row}.{}", column_sql(&column.name))).collect();
        let targets: Vec<String> = (0..values.len()).map(|index| format!("c{index}")).collect();
        let key = layout.key.iter().enumerate().map(|(index, name)| {
            Ok(KeyColumn {
                column: column_sql(name),
                qualified: format!("{row}.{}", column_sql(name)),
                note: format!("k{index}"),
                journal: layout.journal_column(name)?,
            })
        });
        Ok(Self {
            shape,
            form,
            number: layout.number,
            targets: targets.join(","),
            values: values.join(","),
            key: key.collect::<Result<_, CaptureError>>()?,
            from,
            row,
        })
    }

    /// Finds the row that the trigger's `row` (NEW or OLD) is, by the fastest way.
    fn locate(&self, row: &str) -> String {
        match self.shape.rowid {
            Some(rowid) => format!("{}.{rowid}={row}.{rowid}", self.row),
            None => self.join_key(|key| format!("{}={row}.{}", key.qualified, key.column)),
        }
    }

    fn join_key(&self, part: impl Fn(&KeyColumn) -> String) -> String {
        self.key.iter().map(part).collect::<Vec<_>>().join(" AND ")
    }

    /// The row with this key exists, keys compared byte by byte as HQ does; `=` first, so that an
    /// index is used.
    fn key_exists(&self, value: impl Fn(&KeyColumn) -> String) -> String {
        let condition = self.join_key(|key| {
            let value = value(key);
            if self.shape.rowid == Some(key.column.as_str()) {
                format!("{}={value}", key.qualified)
            } else {
                format!("{0} IS {value} AND {0} COLLATE BINARY IS {value}", key.qualified)
            }
        });
        format!("EXISTS(SELECT 1 FROM {} WHERE {condition})", self.from)
    }

    /// The condition under which rows conflict with the new one, and the statements that note their
    /// keys.
    fn note(&self, new: &str, old: Option<&str>) -> (String, String) {
        let notes: Vec<&str> = self.key.iter().map(|key| key.note.as_str()).collect();
        let keys: Vec<&str> = self.key.iter().map(|key| key.qualified.as_str()).collect();
        let mut conditions = Vec::new();
        // Notes that OR IGNORE left over must not pile up while no agent runs.
        let mut statements = vec![
            "DELETE FROM _rollcall_noted WHERE rowid <= (SELECT max(rowid) FROM _rollcall_noted) - 1000;".to_owned(),
        ];
        for unique in &self.shape.uniques {
            let matches = |unique: &UniqueColumn| {
                let name = if self.shape.rowid == Some(unique.name.as_str()) {
                    unique.name.clone()
                } else {
                    quote(&unique.name)
                };
                format!("{}.{name}={new}.{name} COLLATE {}", self.row, quote(&unique.collation))
            };
            let mut condition = unique.iter().map(matches).collect::<Vec<_>>().join(" AND ");
            if let Some(old) = old {
                condition.push_str(&format!(" AND NOT ({})", self.locate(old)));
            }
            conditions.push(format!("EXISTS(SELECT 1 FROM {} WHERE {condition})", self.from));
            statements.push(format!(
                "INSERT INTO _rollcall_noted(t,{}) SELECT {},{} FROM {} WHERE {condition};",
                notes.join(","),
                self.number,
                keys.join(","),
                self.from
            ));
        }
        (conditions.join(" OR "), statements.join(" "))
    }

    fn journal_row(&self, op: &str, locate: &str) -> String {
        format!(
            "INSERT INTO _rollcall_journal(t,op,at,{}) SELECT {},{op},{NOW},{} FROM {} WHERE {locate};",
            self.targets, self.number, self.values, self.from
        )
    }

    fn journal_delete(&self, value: impl Fn(&KeyColumn) -> String, from: &str) -> String {
        let targets: Vec<&str> = self.key.iter().map(|key| key.journal.as_str()).collect();
        let values: Vec<String> = self.key.iter().map(value).collect();
        format!(
            "INSERT INTO _rollcall_journal(t,op,at,{}) SELECT {},'D',{NOW},{} {from};",
            targets.join(","),
            self.number,
            values.join(",")
        )
    }

    /// `D` for every noted row that is gone.
    fn journal_replaced(&self) -> String {
        let mut gone = format!(
            "FROM _rollcall_noted WHERE t={} AND NOT {}",
            self.number,
            self.key_exists(|key| format!("_rollcall_noted.{}", key.note))
        );
        if self.form == Form::Present {
            // A row may have been noted more than once. DISTINCT would say the same, and cost each
            // row a table of its own.
            let same = self.join_key(|key| format!("_rollcall_twin.{0} IS _rollcall_noted.{0}", key.note));
            gone.push_str(&format!(
                " AND NOT EXISTS(SELECT 1 FROM _rollcall_noted AS _rollcall_twin WHERE _rollcall_twin.t={} AND {same} \
                 AND _rollcall_twin.rowid<_rollcall_noted.rowid)",
                self.number
            ));
        }
        self.journal_delete(|key| key.note.clone(), &gone)
    }

    /// Forgets notes that have served: of rows that are gone, and, under the condition if there is
    /// one, of the row itself. Others may belong to an outer statement whose own trigger led here.
    fn forget_notes(&self, own_has_served: Option<&str>) -> String {
        let mut own = self.join_key(|key| format!("{} IS NEW.{}", key.note, key.column));
        if let Some(condition) = own_has_served {
            own.push_str(&format!(" AND ({condition})"));
        }
        let there = self.key_exists(|key| format!("_rollcall_noted.{}", key.note));
        format!("DELETE FROM _rollcall_noted WHERE t={} AND ({own} OR NOT {there});", self.number)
    }

    fn after_insert(&self) -> String {
        let was_there = self.join_key(|key| format!("{} IS NEW.{}", key.note, key.column));
        let op = format!(
            "CASE WHEN EXISTS(SELECT 1 FROM _rollcall_noted WHERE t={} AND {was_there}) THEN 'U' ELSE 'I' END",
            self.number
        );
        [self.journal_replaced(), self.journal_row(&op, &self.locate("NEW")), self.forget_notes(None)].join(" ")
    }

    /// No trigger of the store's on this table can lead from one of ours to another amid a
    /// statement. Those that run after an insert or update cannot: ours run before them.
    fn no_statement_is_around(&self) -> String {
        format!(
            "NOT EXISTS(SELECT 1 FROM sqlite_master WHERE type='trigger' AND lower(tbl_name)=lower('{}') \
             AND name NOT GLOB '_rollcall_*' AND NOT (sql LIKE '%AFTER INSERT%' OR sql LIKE '%AFTER UPDATE%'))",
            self.shape.name.replace('\'', "''")
        )
    }

    fn after_update(&self) -> String {
        let moved = self
            .key
            .iter()
            .map(|key| format!("OLD.{0} COLLATE BINARY IS NOT NEW.{0}", key.column))
            .collect::<Vec<_>>()
            .join(" OR ");
        let noted = |row: &str| {
            let same = self.join_key(|key| format!("{} IS {row}.{}", key.note, key.column));
            format!("EXISTS(SELECT 1 FROM _rollcall_noted WHERE t={} AND {same})", self.number)
        };
        let there = self.key_exists(|key| format!("OLD.{}", key.column));
        // Every `I` is a row more and every `D` one less, which the count of rows relies on: a row
        // that moves to a key where none was is new there, and a key that was noted is told as gone
        // by its note.
        let (gone, op) = match self.form {
            Form::First => (format!("WHERE ({moved}) AND NOT {there}"), "'U'".to_owned()),
            Form::Present => (
                format!("WHERE ({moved}) AND NOT {there} AND NOT {}", noted("OLD")),
                format!("CASE WHEN ({moved}) AND NOT {} THEN 'I' ELSE 'U' END", noted("NEW")),
            ),
        };
        let old_key = self.journal_delete(|key| format!("OLD.{}", key.column), &gone);
        let (replaced, row) = (self.journal_replaced(), self.journal_row(&op, &self.locate("NEW")));
        match self.form {
            Form::First => [replaced, old_key, row, self.forget_notes(None)].join(" "),
            // What is noted is asked for before it is told. A note of a row that keeps its key is
            // none of this update's: it is of the insert whose conflict this update settles, or of
            // a statement around this one, which is still to remove the row.
            Form::Present => {
                let served = format!("{moved} OR {}", self.no_statement_is_around());
                [old_key, replaced, row, self.forget_notes(Some(&served))].join(" ")
            }
        }
    }

    fn after_delete(&self) -> String {
        let gone = format!("WHERE NOT {}", self.key_exists(|key| format!("OLD.{}", key.column)));
        let delete = self.journal_delete(|key| format!("OLD.{}", key.column), &gone);
        match self.form {
            Form::First => delete,
            // A note that is left of the row would have its next life told as an update, and this
            // end a second time.
            Form::Present => {
                let own = self.join_key(|key| format!("{} IS OLD.{}", key.note, key.column));
                let there = self.key_exists(|key| format!("OLD.{}", key.column));
                format!("{delete} DELETE FROM _rollcall_noted WHERE t={} AND {own} AND NOT {there};", self.number)
            }
        }
    }
}
