//! `INSERT`, `UPDATE` and `DELETE` on tables that HQ publishes.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::Schema;
use rollcall_query::{ChangeKind, Extras, columns_set, datafusion::sql::sqlparser::ast::Statement};

use rollcall_books::definitions::AtStoresChange;
use rollcall_registry::HqError;

use crate::{
    publisher::Publisher,
    publishing::publish,
    scheduled,
    tables::{ATTEMPTS, Mode, Request, failed, refresh},
};

/// Publishes what a statement changes: its name as PostgreSQL has it, and how many rows.
pub async fn change(
    publisher: &Arc<Publisher>,
    statement: &Statement,
    by: &str,
    extras: impl Fn() -> Extras,
) -> Result<(&'static str, usize), HqError> {
    for _ in 0..ATTEMPTS {
        publisher.registry.lake.follow().await?;
        refresh(publisher).await;
        // Taken before the statement pins its versions: if it is the newest still when the rows are
        // published, they were worked out on nothing older.
        let versions = publisher.tables.all();
        let mut extras = extras();
        extras.user = Some(by.to_owned());
        let change = publisher.engine.change(statement, extras).await.map_err(HqError::query)?;
        let known = versions.get(&change.table).ok_or_else(|| {
            HqError::Invalid(format!(
                "{} is not a table that HQ publishes, and only those can be changed here; `rollcall publish` makes one",
                change.table
            ))
        })?;
        scheduled::check_is_own(publisher, &change.table)?;
        let key = &known.definition().key;
        if let Some(column) = columns_set(statement).into_iter().find(|column| key.contains(column)) {
            let text = format!("{column} names the rows of {}: delete a row and insert another", change.table);
            return Err(HqError::Invalid(text));
        }
        let Some(first) = change.rows.first() else { return Ok((tag(change.kind), 0)) };
        let rows = arrow_select::concat::concat_batches(&first.schema(), &change.rows).map_err(failed)?;
        let count = rows.num_rows();
        if count == 0 {
            return Ok((tag(change.kind), 0));
        }
        let none = RecordBatch::new_empty(Arc::new(Schema::empty()));
        let (rows, gone, mode) = match change.kind {
            ChangeKind::Insert => (rows, None, Mode::Insert),
            ChangeKind::Update => (rows, None, Mode::Merge),
            ChangeKind::Delete => (none, Some(rows), Mode::Merge),
        };
        let request = Request {
            table: change.table,
            rows,
            gone,
            mode,
            key: Vec::new(),
            to: None,
            mends: None,
            at_stores: AtStoresChange::default(),
            shared: None,
            by: by.to_owned(),
            note: statement.to_string().chars().take(200).collect(),
            dry_run: false,
            based_on: Some(known.image.version),
            scheduled: None,
        };
        match publish(publisher, request).await {
            Err(HqError::Outdated) => {}
            outcome => return outcome.map(|_| (tag(change.kind), count)),
        }
    }
    Err(HqError::Outdated)
}

fn tag(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Insert => "INSERT",
        ChangeKind::Update => "UPDATE",
        ChangeKind::Delete => "DELETE",
    }
}
