//! Lives of sites' journals that may lack what was confirmed before: a database put back in time,
//! exchanged, or made anew.
//!
//! Such a life is kept apart: its rows come and are kept, and what people see stays the life
//! before. It takes that one's place when every row confirmed before is in it, or when a person
//! says so. Until then an incident is open, and every answer names the site.

use std::sync::Arc;

use arrow_array::{Array, cast::AsArray, types::Int64Type};
use rollcall_lake::{ColumnType, Cursor, Lake, Table, TableSchema, our_columns};
use rollcall_query::{Engine, Extras};
use rollcall_types::{Epoch, Seq, SiteId, SiteNumber, TableName};
use serde::Serialize;

use rollcall_registry::{HqError, SiteRecord, roster::ContestedLife};

/// Columns of numbers whose sums are shown.
const SUMS_MAX: usize = 3;

/// One table of two lives.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ComparedTable {
    /// The table that is compared.
    pub table: TableName,
    /// The life before, and the one that is contested.
    pub before: LifeOfTable,
    /// What the contested life has of it.
    pub after: LifeOfTable,
    /// Rows of the life before that never were in the contested one.
    pub missing: i64,
    /// Rows deleted in the life before that are there in the contested one.
    pub back_again: i64,
    /// Whether all rows of the contested life are here.
    pub is_stated: bool,
}

/// What a life has of a table.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct LifeOfTable {
    /// How many rows it has.
    pub rows: i64,
    /// By column, as exact text.
    pub sums: Vec<(String, String)>,
}

impl ComparedTable {
    fn is_contained(&self) -> bool {
        self.is_stated && self.missing == 0 && self.back_again == 0
    }

    fn describe(&self) -> String {
        let of = |life: &LifeOfTable| {
            let sums = life.sums.iter().map(|(column, sum)| format!(", {column} {sum}"));
            format!("{} rows{}", life.rows, sums.collect::<String>())
        };
        let state = if self.is_stated { "" } else { " so far" };
        let mut text = format!("{}: before {}; now {}{state}", self.table, of(&self.before), of(&self.after));
        if self.missing > 0 {
            text.push_str(&format!("; {} rows confirmed before are not in it", self.missing));
        }
        if self.back_again > 0 {
            text.push_str(&format!("; {} rows deleted before are there again", self.back_again));
        }
        text
    }
}

/// Whether the contested life has all that was confirmed in the one before.
pub fn is_contained(compared: &[ComparedTable]) -> bool {
    compared.iter().all(ComparedTable::is_contained)
}

/// The question, for people.
pub fn describe(site: &SiteId, life: &ContestedLife, compared: &[ComparedTable]) -> String {
    let tables: Vec<String> =
        compared.iter().filter(|table| !table.is_contained()).map(ComparedTable::describe).collect();
    let shown = match life.is_shown {
        true => format!("an earlier HQ let life {} take its place", life.epoch),
        false => format!("life {} stays current, and what comes now is kept apart", life.before),
    };
    format!(
        "{site}: {}; {shown}. {}Rule with `rollcall site {site} accept {} --reason …` or `rollcall site {site} keep {} --reason …`",
        life.reason,
        tables.iter().map(|table| format!("{table}. ")).collect::<String>(),
        life.epoch,
        if life.is_shown { life.epoch } else { life.before },
    )
}

/// Compares lives of sites, row by row.
#[derive(Debug, Clone, Copy)]
pub struct LifeJudge<'a> {
    /// Where both lives' rows are.
    pub lake: &'a Lake,
    /// What counts and compares them.
    pub engine: &'a Engine,
}

impl LifeJudge<'_> {
    /// How far both lives are here: as long as that is the same, so is the comparison.
    pub fn stamp(&self, record: &SiteRecord, life: &ContestedLife) -> Vec<Cursor> {
        let number = SiteNumber(record.number);
        let tables = self.lake.tables();
        let cursors =
            tables.values().flat_map(|table| [life.before, life.epoch].map(|epoch| table.cursor(number, epoch)));
        cursors.map(Option::unwrap_or_default).collect()
    }

    /// What the contested life of a site has of all that the one before had.
    pub async fn compare(
        &self,
        site: &SiteId,
        record: &SiteRecord,
        life: &ContestedLife,
    ) -> Result<Vec<ComparedTable>, HqError> {
        let number = SiteNumber(record.number);
        let mut compared = Vec::new();
        for (name, table) in self.lake.tables() {
            // Of a table without a column no row ever came, from any site.
            let schema = table.snapshot().schema().clone();
            let is_empty = schema.key.iter().any(|name| schema.column(name).is_none());
            if table.is_published() || is_empty || table.cursor(number, life.before).is_none() {
                continue;
            }
            compared.push(self.compare_table(site, number, life, &name, &table).await?);
        }
        Ok(compared)
    }

    async fn compare_table(
        &self,
        site: &SiteId,
        number: SiteNumber,
        life: &ContestedLife,
        name: &TableName,
        table: &Arc<Table>,
    ) -> Result<ComparedTable, HqError> {
        let snapshot = table.snapshot();
        let schema = snapshot.schema().clone();
        let before_from = snapshot.cursor(number, life.before).unwrap_or_default().floor;
        let cursor = snapshot.cursor(number, life.epoch).unwrap_or_default();
        // A load that began and is not complete states what is not here yet.
        let is_stated = cursor.floor > Seq(0) && cursor.begin <= cursor.floor;
        let sql = Sql { table: name, schema: &schema, site };
        let (before, after) = (sql.rows_of(life.before, before_from), sql.rows_of(life.epoch, cursor.floor));
        let differing = self.numbers(&sql.differing(&before, life.epoch)).await?;
        let back_again = match schema.key.is_empty() || is_keyless(&schema) {
            true => 0,
            false => self.numbers(&sql.back_again(life, before_from, &after)).await?,
        };
        Ok(ComparedTable {
            table: name.clone(),
            before: self.life(&sql, &before).await?,
            after: self.life(&sql, &after).await?,
            missing: differing,
            back_again,
            is_stated,
        })
    }

    /// One number.
    async fn numbers(&self, sql: &str) -> Result<i64, HqError> {
        let answer = self.engine.query(sql, Extras::default()).await.map_err(HqError::query)?;
        let first = answer.batches.iter().find(|rows| rows.num_rows() > 0);
        let value = first.and_then(|rows| rows.column(0).as_primitive_opt::<Int64Type>().map(|column| column.value(0)));
        Ok(value.unwrap_or_default())
    }

    async fn life(&self, sql: &Sql<'_>, rows: &str) -> Result<LifeOfTable, HqError> {
        let columns = sql.sum_columns();
        let sums: Vec<String> = columns.iter().map(|name| format!(", CAST(sum(\"{name}\") AS VARCHAR)")).collect();
        let answer = self
            .engine
            .query(&format!("SELECT count(*){} FROM ({rows})", sums.concat()), Extras::default())
            .await
            .map_err(HqError::query)?;
        let Some(row) = answer.batches.iter().find(|rows| rows.num_rows() > 0) else {
            return Ok(LifeOfTable::default());
        };
        let count = row.column(0).as_primitive_opt::<Int64Type>().map_or(0, |column| column.value(0));
        let text = |index: usize| {
            let column = arrow_cast::cast(row.column(index + 1), &arrow_schema::DataType::Utf8).ok()?;
            let column = column.as_string::<i32>();
            column.is_valid(0).then(|| column.value(0).to_owned())
        };
        let sums = columns.into_iter().enumerate().filter_map(|(index, name)| Some((name, text(index)?)));
        Ok(LifeOfTable { rows: count, sums: sums.collect() })
    }
}

/// Whether rows are told apart by SQLite's row numbers, which another life may give out otherwise.
fn is_keyless(schema: &TableSchema) -> bool {
    schema.key == [rollcall_types::columns::ROWID]
}

/// The questions about one site's rows of one table.
struct Sql<'a> {
    table: &'a TableName,
    schema: &'a TableSchema,
    site: &'a SiteId,
}

impl Sql<'_> {
    fn of(&self, epoch: Epoch) -> String {
        format!("FROM history.\"{}\" WHERE _site = '{}' AND _epoch = {}", self.table, self.site, epoch.0)
    }

    /// The columns that make up a row's content: the stores' own, and what did not fit them.
    fn content(&self) -> Vec<String> {
        let ours = [
            our_columns::SITE,
            our_columns::EPOCH,
            our_columns::SEQ,
            our_columns::OP,
            our_columns::CHANGED_AT,
            our_columns::RECEIVED_AT,
        ];
        let is_row_number = |name: &str| is_keyless(self.schema) && name == rollcall_types::columns::ROWID;
        let columns = self.schema.columns.iter().map(|column| column.name.as_str());
        columns.filter(|name| !ours.contains(name) && !is_row_number(name)).map(|name| format!("\"{name}\"")).collect()
    }

    fn key(&self) -> String {
        self.schema.key_columns().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
    }

    /// Numbers of which a sum says something: not those that name rows.
    fn sum_columns(&self) -> Vec<String> {
        let is_amount = |kind| matches!(kind, ColumnType::Decimal { .. } | ColumnType::Double);
        let of_stores = self.schema.columns.iter().filter(|column| !self.schema.key.contains(&column.name));
        of_stores.filter(|column| is_amount(column.kind)).map(|column| column.name.clone()).take(SUMS_MAX).collect()
    }

    /// The newest version of each row of a life, from a position on.
    fn newest(&self, epoch: Epoch, from: Seq) -> String {
        let from = from.0;
        if self.schema.key.is_empty() {
            return format!("SELECT * {} AND _seq >= {from}", self.of(epoch));
        }
        format!(
            "SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY {} ORDER BY _seq DESC) AS _newest {} AND _seq >= {from}) \
             WHERE _newest = 1",
            self.key(),
            self.of(epoch)
        )
    }

    /// The rows that a life has.
    fn rows_of(&self, epoch: Epoch, from: Seq) -> String {
        format!("SELECT * FROM ({}) WHERE _op <> 'D'", self.newest(epoch, from))
    }

    /// How many rows of the life before the contested one never had, in any version: rows are
    /// counted by their content.
    fn differing(&self, before: &str, epoch: Epoch) -> String {
        let content = self.content().join(", ");
        // Without a key each row number of the other life counts once.
        let one_each = match is_keyless(self.schema) {
            true => format!("SELECT DISTINCT {content}, _rowid {} AND _op <> 'D'", self.of(epoch)),
            false => format!("SELECT {content} {} AND _op <> 'D'", self.of(epoch)),
        };
        format!(
            "SELECT coalesce(CAST(sum(_here - _there) AS BIGINT), 0) FROM (SELECT {content}, sum(_here) AS _here, sum(_there) AS _there \
             FROM (SELECT {content}, 1 AS _here, 0 AS _there FROM ({before}) UNION ALL SELECT {content}, 0, 1 FROM ({one_each})) \
             GROUP BY {content}) WHERE _here > _there"
        )
    }

    /// How many rows that the life before deleted the contested one has, without ever having
    /// deleted them.
    fn back_again(&self, life: &ContestedLife, before_from: Seq, after: &str) -> String {
        let key = self.key();
        format!(
            "SELECT count(*) FROM (SELECT {key}, max(_gone) AS _gone, max(_there) AS _there, max(_deleted) AS _deleted FROM ( \
             SELECT {key}, 1 AS _gone, 0 AS _there, 0 AS _deleted FROM ({}) WHERE _op = 'D' \
             UNION ALL SELECT {key}, 0, 1, 0 FROM ({after}) \
             UNION ALL SELECT {key}, 0, 0, 1 {} AND _op = 'D') GROUP BY {key}) WHERE _gone = 1 AND _there = 1 AND _deleted = 0",
            self.newest(life.before, before_from),
            self.of(life.epoch)
        )
    }
}
