//! A column gets a wider type: every file of the table is written anew with it, history too, and
//! what did not fit is taken in.
//!
//! Ingest goes on meanwhile. What it adds while files are being written is written in the next
//! round; the last few are, with the commit that exchanges all of them and the schema. A reader
//! sees the table before or after, never between.

use rollcall_runtime::Instant;
use std::{collections::HashMap, sync::Arc, time::Duration};

use crate::{
    action::{Action, Remove},
    data_file::{self, Effort},
    error::{Doing, LakeError},
    misfit::{is_wider, widen},
    schema::{ColumnType, TableSchema},
    snapshot::{DataFile, Snapshot, meta_data_for},
    table::{Put, Table},
};

/// So many files are left for the round that commits.
const LAST_FILES: usize = 4;
/// Rounds before it is given up: each writes what came while the one before did.
const ROUNDS_MAX: usize = 50;
/// Vacuum takes files that no version names two hours after they were put.
const TIME_MAX: Duration = Duration::from_secs(100 * 60);

/// What retyping did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetypeReport {
    /// Files written anew.
    pub files: usize,
    /// Their rows.
    pub rows: u64,
}

impl Table {
    /// Gives a column of the table a wider type. It is refused for a part of the key, and where a
    /// value could come to be another one.
    pub async fn retype(self: &Arc<Self>, column: &str, kind: ColumnType) -> Result<RetypeReport, LakeError> {
        let mut written: HashMap<String, DataFile> = HashMap::new();
        let begun = Instant::now();
        for _ in 0..ROUNDS_MAX {
            let base = self.refresh().await?;
            check(base.schema(), column, kind)?;
            let schema = base.schema().with_type(column, kind);
            self.write_missing(&base, &schema, column, kind, &mut written).await?;
            let _committing = self.committing.lock().await;
            let base = self.snapshot();
            check(base.schema(), column, kind)?;
            if base.files().filter(|file| !written.contains_key(&file.path)).count() > LAST_FILES {
                continue;
            }
            let schema = base.schema().with_type(column, kind);
            self.write_missing(&base, &schema, column, kind, &mut written).await?;
            let actions = exchange(&base, &schema, &written)?;
            if begun.elapsed() > TIME_MAX {
                return Err(LakeError::Rows(format!(
                    "the table could not be written anew within {} minutes, and nothing was changed",
                    TIME_MAX.as_secs() / 60
                )));
            }
            match self.put_entry(&base, "CHANGE COLUMN", actions).await? {
                Put::Won => {
                    self.checkpoint_if_due();
                    let of_table = base.files().filter_map(|file| written.get(&file.path));
                    let rows = of_table.map(|file| file.stats.num_records).sum();
                    return Ok(RetypeReport { files: base.files().count(), rows });
                }
                // Somebody was first; what they wrote is next.
                Put::Lost(_) => {}
                // Nobody knows what was taken away meanwhile.
                Put::Slept => written.clear(),
            }
        }
        Err(LakeError::Contention(ROUNDS_MAX))
    }

    /// Writes those files of a version anew that are not yet.
    async fn write_missing(
        &self,
        base: &Snapshot,
        schema: &TableSchema,
        column: &str,
        kind: ColumnType,
        written: &mut HashMap<String, DataFile>,
    ) -> Result<(), LakeError> {
        for file in base.files().filter(|file| !written.contains_key(&file.path)).cloned().collect::<Vec<_>>() {
            let bytes = self.get_data_file(&file).await?;
            let (old, new, name, of) = (base.schema().clone(), schema.clone(), column.to_owned(), file.clone());
            let rewritten = rollcall_runtime::blocking(move || {
                let mut writer = data_file::Writer::new(&new, Effort::Compaction)?;
                for rows in data_file::stream(bytes, &old, None)? {
                    writer.write(&data_file::fit(&widen(&rows?, &name, kind)?, &new)?)?;
                }
                let (bytes, mut file) = writer.finish(data_file::new_path(), of.modified_ms)?;
                (file.mutations, file.superseded) = (of.mutations, of.superseded);
                Ok::<_, LakeError>((bytes, file))
            });
            let (bytes, new) = rewritten.await.doing("writing a file anew")??;
            self.put_data_file(bytes, &new).await?;
            written.insert(file.path.clone(), new);
        }
        Ok(())
    }
}

fn check(schema: &TableSchema, column: &str, kind: ColumnType) -> Result<(), LakeError> {
    let wrong = |text: String| Err(LakeError::Rows(text));
    let Some(known) =
        schema.column(column).filter(|column| !column.name.starts_with('_') || column.site_name.is_some())
    else {
        return wrong(format!("the table has no column {column:?} of the stores'"));
    };
    if schema.key.iter().any(|name| name == column) {
        return wrong(format!("{column:?} is part of the table's key, whose type stays as it is"));
    }
    if !is_wider(known.kind, kind) {
        return wrong(format!(
            "{column:?} is {}; as {} some of its values could not be kept. Give a type that holds all of them, or string",
            known.kind.delta(),
            kind.delta()
        ));
    }
    Ok(())
}

fn exchange(
    base: &Snapshot,
    schema: &TableSchema,
    written: &HashMap<String, DataFile>,
) -> Result<Vec<Action>, LakeError> {
    let now_ms = rollcall_runtime::now().as_millis();
    let mut actions = vec![Action::meta_data(meta_data_for(schema, Some(&base.meta_data), now_ms))];
    for file in base.files() {
        let new = written.get(&file.path).ok_or_else(|| LakeError::damaged("a file was not written anew"))?;
        let remove = Remove { path: file.path.clone(), deletion_timestamp: Some(now_ms), data_change: true };
        actions.push(Action::remove(remove));
        actions.push(Action::add(new.to_add(true)?));
    }
    Ok(actions)
}
