//! `information_schema`, with PostgreSQL's names of types and with the keys of tables.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::{
    arrow::{
        array::{ArrayRef, Int64Array, StringArray},
        datatypes::DataType,
    },
    catalog::{CatalogProviderList, SchemaProvider, TableProvider, information_schema::InformationSchemaProvider},
    common::{DataFusionError, Result},
};

use super::keys::{Key, constraint_column_usage, key_column_usage, made, repeated, table_constraints};

/// `information_schema` with the keys of the sites' tables.
#[derive(Debug)]
pub(crate) struct InformationSchema {
    catalog: &'static str,
    shown: Arc<dyn CatalogProviderList>,
    known: InformationSchemaProvider,
    keys: Vec<Key>,
}

/// Columns of `columns` that are never filled.
const NO_TEXT: [&str; 18] = [
    "column_default",
    "interval_type",
    "character_set_catalog",
    "character_set_schema",
    "character_set_name",
    "collation_catalog",
    "collation_schema",
    "collation_name",
    "domain_catalog",
    "domain_schema",
    "domain_name",
    "scope_catalog",
    "scope_schema",
    "scope_name",
    "identity_generation",
    "identity_start",
    "generation_expression",
    "dtd_identifier",
];
const NO_NUMBER: [&str; 4] =
    ["character_maximum_length", "character_octet_length", "interval_precision", "maximum_cardinality"];

/// Views of things that nothing here has, with the columns by which they are asked for.
const EMPTY: [(&str, &[&str]); 9] = [
    (
        "referential_constraints",
        &[
            "constraint_catalog",
            "constraint_schema",
            "constraint_name",
            "unique_constraint_catalog",
            "unique_constraint_schema",
            "unique_constraint_name",
            "match_option",
            "update_rule",
            "delete_rule",
        ],
    ),
    ("check_constraints", &["constraint_catalog", "constraint_schema", "constraint_name", "check_clause"]),
    ("triggers", &["trigger_catalog", "trigger_schema", "trigger_name", "event_object_schema", "event_object_table"]),
    ("sequences", &["sequence_catalog", "sequence_schema", "sequence_name", "data_type", "start_value", "increment"]),
    ("domains", &["domain_catalog", "domain_schema", "domain_name", "data_type", "domain_default"]),
    (
        "table_privileges",
        &["grantor", "grantee", "table_catalog", "table_schema", "table_name", "privilege_type", "is_grantable"],
    ),
    (
        "role_table_grants",
        &["grantor", "grantee", "table_catalog", "table_schema", "table_name", "privilege_type", "is_grantable"],
    ),
    (
        "column_privileges",
        &["grantor", "grantee", "table_catalog", "table_schema", "table_name", "column_name", "privilege_type"],
    ),
    ("element_types", &["object_catalog", "object_schema", "object_name", "object_type", "data_type", "udt_name"]),
];

const CONSTRAINTS: &str = "table_constraints";
const KEY_COLUMNS: &str = "key_column_usage";
const CONSTRAINT_COLUMNS: &str = "constraint_column_usage";
/// What is told here besides what DataFusion tells.
const OWN: [&str; 3] = [CONSTRAINTS, KEY_COLUMNS, CONSTRAINT_COLUMNS];

impl InformationSchema {
    pub(crate) fn new(catalog: &'static str, shown: Arc<dyn CatalogProviderList>, keys: Vec<Key>) -> Self {
        Self { catalog, known: InformationSchemaProvider::new(shown.clone()), shown, keys }
    }

    fn in_key(&self, schema: &str, table: &str, column: &str) -> bool {
        let mut keys = self.keys.iter().filter(|key| schema == "public" && key.table == table);
        keys.any(|key| key.columns.iter().any(|part| part == column))
    }

    /// Every column, with the type's name as PostgreSQL gives it.
    async fn columns(&self) -> Result<Arc<dyn TableProvider>> {
        let mut texts: [Vec<String>; 7] = Default::default();
        let (mut positions, mut measures): (Vec<i64>, Vec<[Option<i64>; 4]>) = Default::default();
        let catalog = self.shown.catalog(self.catalog);
        for schema_name in catalog.iter().flat_map(|catalog| catalog.schema_names()) {
            let Some(schema) = catalog.as_ref().and_then(|catalog| catalog.schema(&schema_name)) else { continue };
            for table in schema.table_names() {
                let Some(provider) = schema.table(&table).await? else { continue };
                for (position, field) in (1..).zip(provider.schema().fields()) {
                    let (long, short) = postgresql_type(field.data_type());
                    let nullable = if field.is_nullable() && !self.in_key(&schema_name, &table, field.name()) {
                        "YES"
                    } else {
                        "NO"
                    };
                    let of_column = [self.catalog, &schema_name, &table, field.name(), nullable, long, short];
                    texts.iter_mut().zip(of_column).for_each(|(column, text)| column.push(text.to_owned()));
                    positions.push(position);
                    measures.push(measures_of(field.data_type()));
                }
            }
        }
        let names =
            ["table_catalog", "table_schema", "table_name", "column_name", "is_nullable", "data_type", "udt_name"];
        let mut columns: Vec<(&str, ArrayRef)> =
            names.into_iter().zip(texts).map(|(name, texts)| (name, Arc::new(StringArray::from(texts)) as _)).collect();
        let count = positions.len();
        columns.push(("ordinal_position", Arc::new(Int64Array::from(positions))));
        for (name, value) in [("udt_catalog", self.catalog), ("udt_schema", "pg_catalog")] {
            columns.push((name, repeated(value, count)));
        }
        let same =
            [("is_identity", "NO"), ("is_generated", "NEVER"), ("is_updatable", "NO"), ("is_self_referencing", "NO")];
        columns.extend(same.map(|(name, value)| (name, repeated(value, count))));
        let no_text: ArrayRef = Arc::new(StringArray::from(vec![None::<&str>; count]));
        columns.extend(NO_TEXT.map(|name| (name, no_text.clone())));
        let names = ["numeric_precision", "numeric_precision_radix", "numeric_scale", "datetime_precision"];
        let numbers = names.into_iter().enumerate().map(|(place, name)| {
            let values = measures.iter().map(|of_type| of_type[place]);
            (name, Arc::new(Int64Array::from_iter(values)) as ArrayRef)
        });
        columns.extend(numbers);
        let no_number: ArrayRef = Arc::new(Int64Array::from(vec![None::<i64>; count]));
        columns.extend(NO_NUMBER.map(|name| (name, no_number.clone())));
        made(columns)
    }
}

/// The standard's name of a type, and PostgreSQL's own.
fn postgresql_type(kind: &DataType) -> (&'static str, &'static str) {
    match kind {
        DataType::Boolean => ("boolean", "bool"),
        DataType::Int8 | DataType::UInt8 | DataType::Int16 => ("smallint", "int2"),
        DataType::UInt16 | DataType::Int32 => ("integer", "int4"),
        DataType::UInt32 | DataType::Int64 | DataType::UInt64 => ("bigint", "int8"),
        DataType::Float16 | DataType::Float32 => ("real", "float4"),
        DataType::Float64 => ("double precision", "float8"),
        DataType::Decimal128(..) | DataType::Decimal256(..) => ("numeric", "numeric"),
        DataType::Date32 | DataType::Date64 => ("date", "date"),
        DataType::Timestamp(_, Some(_)) => ("timestamp with time zone", "timestamptz"),
        DataType::Timestamp(_, None) => ("timestamp without time zone", "timestamp"),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => ("bytea", "bytea"),
        _ => ("text", "text"),
    }
}

/// Digits, their radix, digits behind the point, and digits of a second.
fn measures_of(kind: &DataType) -> [Option<i64>; 4] {
    let whole = |bits| [Some(bits), Some(2), Some(0), None];
    match kind {
        DataType::Int8 | DataType::UInt8 | DataType::Int16 => whole(16),
        DataType::UInt16 | DataType::Int32 => whole(32),
        DataType::UInt32 | DataType::Int64 | DataType::UInt64 => whole(64),
        DataType::Float16 | DataType::Float32 => [Some(24), Some(2), None, None],
        DataType::Float64 => [Some(53), Some(2), None, None],
        DataType::Decimal128(digits, fraction) | DataType::Decimal256(digits, fraction) => {
            [Some(i64::from(*digits)), Some(10), Some(i64::from(*fraction)), None]
        }
        DataType::Date32 | DataType::Date64 => [None, None, None, Some(0)],
        DataType::Timestamp(..) => [None, None, None, Some(6)],
        _ => [None; 4],
    }
}

fn is_empty(view: &str) -> bool {
    EMPTY.iter().any(|(name, _)| *name == view)
}

#[async_trait]
impl SchemaProvider for InformationSchema {
    fn table_names(&self) -> Vec<String> {
        let mut names = self.known.table_names();
        names.extend(OWN.map(str::to_owned));
        names.extend(EMPTY.map(|(name, _)| name.to_owned()));
        names
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        match name {
            "columns" => self.columns().await.map(Some),
            CONSTRAINTS => table_constraints(self.catalog, &self.keys).map(Some),
            KEY_COLUMNS => key_column_usage(self.catalog, &self.keys).map(Some),
            CONSTRAINT_COLUMNS => constraint_column_usage(self.catalog, &self.keys).map(Some),
            _ if is_empty(name) => {
                let columns = EMPTY.iter().find(|(known, _)| *known == name).map_or(&[][..], |(_, columns)| columns);
                let none: ArrayRef = Arc::new(StringArray::from(Vec::<Option<&str>>::new()));
                made(columns.iter().map(|column| (*column, none.clone())).collect()).map(Some)
            }
            _ => self.known.table(name).await,
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        OWN.contains(&name) || is_empty(name) || self.known.table_exist(name)
    }
}
