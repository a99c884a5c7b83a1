//! Writes rows as a Parquet data file, with the statistics that let any engine skip it.

use std::sync::Arc;

use arrow_array::{Array, RecordBatch, RecordBatchOptions, cast::AsArray};
use arrow_schema::{DataType, Fields, Schema, SchemaRef};
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat};
use parquet::{
    arrow::{ArrowWriter, ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder},
    basic::{Compression, Encoding, ZstdLevel},
    file::{
        metadata::ParquetMetaData,
        properties::{EnabledStatistics, WriterProperties},
        statistics::Statistics,
    },
    schema::types::ColumnPath,
};
use serde_json::Value;

use crate::{
    digest::Digest,
    error::{Doing, LakeError},
    schema::{ColumnType, TableSchema, our_columns},
    snapshot::{DataFile, FileStats},
};

/// How hard a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    /// As it arrives: the file lives until compaction.
    Ingest,
    /// For keeps.
    Compaction,
}

/// Bytes and description of a new data file called `path`.
pub(crate) fn write(
    path: String,
    schema: &TableSchema,
    batches: &[RecordBatch],
    effort: Effort,
    modified_ms: i64,
) -> Result<(Bytes, DataFile), LakeError> {
    let mut writer = Writer::new(schema, effort)?;
    batches.iter().try_for_each(|batch| writer.write(batch))?;
    writer.finish(path, modified_ms)
}

const WRITING: &str = "writing a data file";

/// A data file in the making.
pub(crate) struct Writer {
    schema: TableSchema,
    parquet: ArrowWriter<Vec<u8>>,
    mutations: u64,
}

impl Writer {
    pub(crate) fn new(schema: &TableSchema, effort: Effort) -> Result<Self, LakeError> {
        let (bytes, properties) = (Vec::with_capacity(1 << 16), properties(schema, effort)?);
        let parquet = ArrowWriter::try_new(bytes, schema.arrow().clone(), Some(properties)).doing(WRITING)?;
        Ok(Self { schema: schema.clone(), parquet, mutations: 0 })
    }

    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), LakeError> {
        self.mutations += count_mutations(batch);
        self.parquet.write(batch).doing(WRITING)
    }

    /// Bytes and description.
    pub(crate) fn finish(mut self, path: String, modified_ms: i64) -> Result<(Bytes, DataFile), LakeError> {
        let stats = file_stats(&self.schema, &self.parquet.finish().doing(WRITING)?);
        let bytes = std::mem::take(self.parquet.inner_mut());
        let size = bytes.len() as u64;
        let digest = Some(Digest::of(&bytes));
        let file = DataFile { path, size, modified_ms, stats, mutations: self.mutations, superseded: false, digest };
        Ok((bytes.into(), file))
    }
}

fn properties(schema: &TableSchema, effort: Effort) -> Result<WriterProperties, LakeError> {
    let level = match effort {
        Effort::Ingest => 1,
        Effort::Compaction => 3,
    };
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(level).doing("choosing a compression level")?))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_max_row_group_row_count(Some(1 << 20))
        .set_created_by("rollcall".to_owned());
    for column in &schema.columns {
        if column.kind == ColumnType::Double {
            // Bounds leave out NaN, which is greater than all numbers: readers would pass over it.
            let path = ColumnPath::from(column.name.as_str());
            builder = builder.set_column_statistics_enabled(path, EnabledStatistics::None);
        }
        // Numbers of high cardinality gain nothing from a dictionary and much from deltas.
        if matches!(column.kind, ColumnType::Long | ColumnType::Timestamp) {
            let path = ColumnPath::from(column.name.as_str());
            builder = builder
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
        }
    }
    Ok(builder.build())
}

fn count_mutations(batch: &RecordBatch) -> u64 {
    let Some(ops) = batch.column_by_name(our_columns::OP) else { return 0 };
    let is_mutation = |op: &str| our_columns::MUTATIONS.contains(&op);
    match ops.data_type() {
        DataType::Utf8 => ops.as_string::<i32>().iter().flatten().filter(|op| is_mutation(op)).count() as u64,
        _ => batch.num_rows() as u64,
    }
}

/// Delta statistics from what the Parquet writer gathered. Bounds that are not exact are left out,
/// and those of floats, since NaN is outside them.
fn file_stats(schema: &TableSchema, parquet: &ParquetMetaData) -> FileStats {
    let mut stats =
        FileStats { num_records: parquet.file_metadata().num_rows().unsigned_abs(), ..FileStats::default() };
    for (index, column) in schema.columns.iter().enumerate() {
        let groups = parquet.row_groups().iter().map(|group| group.column(index).statistics());
        let Some(groups) = groups.collect::<Option<Vec<&Statistics>>>() else { continue };
        if let Some(nulls) = groups.iter().map(|group| group.null_count_opt()).sum::<Option<u64>>() {
            stats.null_count.insert(column.name.clone(), nulls);
        }
        if let Some((min, max)) = bounds(column.kind, &groups) {
            stats.min_values.insert(column.name.clone(), min);
            stats.max_values.insert(column.name.clone(), max);
        }
    }
    stats
}

fn bounds(kind: ColumnType, groups: &[&Statistics]) -> Option<(Value, Value)> {
    let longs = || {
        let min = groups.iter().filter_map(|group| match group {
            Statistics::Int64(values) => values.min_opt().copied(),
            Statistics::Int32(values) => values.min_opt().map(|value| i64::from(*value)),
            _ => None,
        });
        let max = groups.iter().filter_map(|group| match group {
            Statistics::Int64(values) => values.max_opt().copied(),
            Statistics::Int32(values) => values.max_opt().map(|value| i64::from(*value)),
            _ => None,
        });
        Some((min.min()?, max.max()?))
    };
    match kind {
        ColumnType::Long | ColumnType::Integer => longs().map(|(min, max)| (min.into(), max.into())),
        ColumnType::Timestamp => {
            // Delta keeps milliseconds: round outwards.
            let (min, max) = longs()?;
            let text = |millis: i64| {
                DateTime::from_timestamp_millis(millis)
                    .map(|time| Value::from(time.to_rfc3339_opts(SecondsFormat::Millis, true)))
            };
            Some((text(min.div_euclid(1000))?, text(max.div_euclid(1000) + 1)?))
        }
        ColumnType::Date => {
            let (min, max) = longs()?;
            let text = |days: i64| {
                DateTime::from_timestamp(days * 86_400, 0).map(|time| Value::from(time.date_naive().to_string()))
            };
            Some((text(min)?, text(max)?))
        }
        ColumnType::String => {
            let exact = groups.iter().all(|group| group.min_is_exact() && group.max_is_exact());
            let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
            let min = groups.iter().filter_map(|group| group.min_bytes_opt()).min()?;
            let max = groups.iter().filter_map(|group| group.max_bytes_opt()).max()?;
            (exact && max.len() <= 32).then_some((text(min)?.into(), text(max)?.into()))
        }
        _ => None,
    }
}

/// Reads a data file whole; columns it lacks are null.
pub(crate) fn read(bytes: Bytes, schema: &TableSchema) -> Result<Vec<RecordBatch>, LakeError> {
    stream(bytes, schema, None)?.collect()
}

/// Reads a data file batch by batch: all columns, or only these.
pub(crate) fn stream(
    bytes: Bytes,
    schema: &TableSchema,
    columns: Option<&[String]>,
) -> Result<impl Iterator<Item = Result<RecordBatch, LakeError>> + use<>, LakeError> {
    let doing = "reading a data file";
    let mut builder = ParquetRecordBatchReaderBuilder::try_new(bytes).doing(doing)?.with_batch_size(1 << 16);
    let mut wanted = schema.arrow().clone();
    if let Some(columns) = columns {
        let is_wanted = |name: &str| columns.iter().any(|column| column == name);
        let fields = wanted.fields().iter().filter(|field| is_wanted(field.name())).cloned();
        wanted = Arc::new(Schema::new(fields.collect::<Fields>()));
        let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().map(String::as_str));
        builder = builder.with_projection(mask);
    }
    let reader = builder.build().doing(doing)?;
    Ok(reader.map(move |batch| fit_to(&batch.doing(doing)?, &wanted)))
}

/// The columns of `schema` in its order, from a batch that may lack some or hold them in another
/// encoding.
pub(crate) fn fit(batch: &RecordBatch, schema: &TableSchema) -> Result<RecordBatch, LakeError> {
    fit_to(batch, schema.arrow())
}

fn fit_to(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, LakeError> {
    let doing = "fitting rows to a schema";
    let columns = schema.fields().iter().map(|field| match batch.column_by_name(field.name()) {
        Some(column) if column.data_type() == field.data_type() => Ok(column.clone()),
        Some(column) => arrow_cast::cast(column, field.data_type()).doing(doing),
        None => Ok(arrow_array::new_null_array(field.data_type(), batch.num_rows())),
    });
    let columns = columns.collect::<Result<_, LakeError>>()?;
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &rows).doing(doing)
}

/// A name no other file has.
pub(crate) fn new_path() -> String {
    format!("part-{}.parquet", rollcall_runtime::new_id())
}

#[cfg(test)]
mod tests {
    use arrow_array::{Float64Array, Int64Array};
    use parquet::file::reader::{FileReader, SerializedFileReader};

    use super::*;
    use crate::schema::Column;

    #[test]
    fn a_float_has_no_bounds_that_leave_out_nan() {
        let columns = vec![Column::new("n", ColumnType::Long), Column::new("f", ColumnType::Double)];
        let schema = TableSchema::new(columns, Vec::new());
        let batch = RecordBatch::try_new(
            schema.arrow().clone(),
            vec![Arc::new(Int64Array::from(vec![1, 2])), Arc::new(Float64Array::from(vec![1.0, f64::NAN]))],
        )
        .expect("a batch");
        let (bytes, file) = write("f".to_owned(), &schema, &[batch], Effort::Ingest, 0).expect("writes");
        let reader = SerializedFileReader::new(bytes).expect("opens");
        let group = reader.metadata().row_group(0);
        assert!(group.column(0).statistics().is_some());
        assert!(group.column(1).statistics().is_none());
        assert!(file.stats.min_values.contains_key("n") && !file.stats.min_values.contains_key("f"));
    }
}
