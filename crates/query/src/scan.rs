//! A table provider over exactly the data files of one pinned version.

use std::{collections::HashSet, sync::Arc};

use async_trait::async_trait;
use datafusion::{
    arrow::datatypes::{DataType, Field, Schema, SchemaRef},
    catalog::{Session, TableProvider},
    common::{Result, Statistics, stats::Precision},
    datasource::{
        listing::PartitionedFile,
        physical_plan::{
            FileGroup, FileScanConfigBuilder, ParquetFileReaderFactory, ParquetSource,
            parquet::CachedParquetFileReaderFactory,
        },
        source::DataSourceExec,
        table_schema::TableSchema,
    },
    execution::object_store::ObjectStoreUrl,
    logical_expr::{Expr, TableProviderFilterPushDown, TableType},
    physical_plan::{ExecutionPlan, empty::EmptyExec, project_schema},
};
use rollcall_lake::DataFile;
use rollcall_types::TableName;

use crate::{
    only::only_these,
    verified::{Checking, Verified},
};

/// Data files of one table, read as one.
#[derive(Debug)]
pub(crate) struct FilesTable {
    schema: SchemaRef,
    /// The table's path within the lake.
    root: String,
    files: Vec<Arc<DataFile>>,
    store_url: ObjectStoreUrl,
    /// The site table whose rows an answer needs whole; none for tables of HQ's own, and for the
    /// corrections by which current rows are told: these concern only sites whose rows are read
    /// anyway.
    site_table: Option<TableName>,
    /// Only rows of these sites come out; all if none.
    only: Option<Arc<HashSet<String>>>,
}

impl FilesTable {
    pub(crate) fn new(lake: &SchemaRef, root: String, files: Vec<Arc<DataFile>>, store_url: ObjectStoreUrl) -> Self {
        Self { schema: reading_schema(lake), root, files, store_url, site_table: None, only: None }
    }

    pub(crate) fn of_sites(self, table: Option<TableName>, only: Option<Arc<HashSet<String>>>) -> Self {
        Self { site_table: table, only, ..self }
    }

    pub(crate) fn site_table(&self) -> Option<&TableName> {
        self.site_table.as_ref()
    }
}

/// The lake's schema with texts as views, which are faster to filter and group by.
fn reading_schema(lake: &SchemaRef) -> SchemaRef {
    let fields: Vec<Field> = lake
        .fields()
        .iter()
        .map(|field| match field.data_type() {
            DataType::Utf8 => field.as_ref().clone().with_data_type(DataType::Utf8View),
            DataType::Binary => field.as_ref().clone().with_data_type(DataType::BinaryView),
            _ => field.as_ref().clone(),
        })
        .collect();
    Arc::new(Schema::new(fields))
}

/// Row count and size are exact; bounds of columns are left to the files' own footers.
fn statistics(file: &DataFile, schema: &Schema) -> Statistics {
    Statistics {
        num_rows: Precision::Exact(usize::try_from(file.stats.num_records).unwrap_or(usize::MAX)),
        total_byte_size: Precision::Inexact(usize::try_from(file.size).unwrap_or(usize::MAX)),
        column_statistics: Statistics::unknown_column(schema),
    }
}

const FOOTER_HINT_BYTES: usize = 64 * 1024;

#[async_trait]
impl TableProvider for FilesTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let pushed = |filter: &&Expr| {
            // Bounds of a file leave out NaN, which is greater than all numbers: such a file would
            // be passed over.
            let is_float =
                |name: &str| self.schema.field_with_name(name).is_ok_and(|field| field.data_type().is_floating());
            let reads_floats = filter.column_refs().iter().any(|column| is_float(&column.name));
            // A predicate must not see rows that its author may not: an error could tell of them.
            match self.only.is_some() || reads_floats {
                true => TableProviderFilterPushDown::Unsupported,
                false => TableProviderFilterPushDown::Inexact,
            }
        };
        Ok(filters.iter().map(pushed).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match &self.only {
            Some(only) => {
                let all = self.scan_files(state, None, None)?;
                only_these(state, all, only.clone(), projection)
            }
            None => self.scan_files(state, projection, limit),
        }
    }
}

impl FilesTable {
    fn scan_files(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if self.files.is_empty() {
            return Ok(Arc::new(EmptyExec::new(project_schema(&self.schema, projection)?)));
        }
        let files: FileGroup = self
            .files
            .iter()
            .map(|file| {
                let one = PartitionedFile::new(format!("{}/{}", self.root, file.path), file.size)
                    .with_statistics(Arc::new(statistics(file, &self.schema)));
                match file.digest {
                    Some(digest) => one.with_extension(digest),
                    None => one,
                }
            })
            .collect();
        let merged = self.files.iter().map(|file| statistics(file, &self.schema)).collect::<Vec<_>>();
        let merged = Statistics::try_merge_iter(merged.iter(), &self.schema)?;
        let groups = files.split_files(state.config().target_partitions().max(1));
        let runtime = state.runtime_env();
        let store = runtime.object_store(&self.store_url)?;
        let cache = runtime.cache_manager.get_file_metadata_cache();
        let readers = CachedParquetFileReaderFactory::new(store.clone(), cache);
        let readers: Arc<dyn ParquetFileReaderFactory> = match state.config().get_extension::<Verified>() {
            Some(verified) => Arc::new(Checking { readers, store, verified }),
            None => Arc::new(readers),
        };
        let source = ParquetSource::new(TableSchema::from(self.schema.clone()))
            .with_table_parquet_options(state.default_table_options().parquet)
            .with_metadata_size_hint(FOOTER_HINT_BYTES)
            .with_pushdown_filters(true)
            .with_reorder_filters(true)
            .with_parquet_file_reader_factory(readers);
        let config = FileScanConfigBuilder::new(self.store_url.clone(), Arc::new(source))
            .with_file_groups(groups)
            .with_statistics(merged)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}
