//! A table's columns: our own and the site's, as Delta types, and how schemas of different stores
//! merge.

use std::{collections::BTreeMap, sync::Arc};

use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::error::LakeError;

/// Names of the columns every table of sites' rows has.
pub mod our_columns {
    /// The site's id.
    pub const SITE: &str = "_site";
    /// The life of the journal.
    pub const EPOCH: &str = "_epoch";
    /// Position in the journal.
    pub const SEQ: &str = "_seq";
    /// `I`, `U`, `D`, or `S` for a row stated by a load.
    pub const OP: &str = "_op";
    /// Statement time at the site, on HQ's clock; informative only.
    pub const CHANGED_AT: &str = "_changed_at";
    /// When HQ received the change.
    pub const RECEIVED_AT: &str = "_received_at";
    /// JSON object of values that did not fit their column.
    pub const MISFIT: &str = "_misfit";
    /// The row's key in a form that is one-to-one, where the key's columns are not; a part of the
    /// key where the table has it.
    pub const EXACT_KEY: &str = rollcall_types::columns::EXACT_KEY;

    /// [`OP`]s that supersede an older version of their row.
    pub const MUTATIONS: [&str; 2] = ["U", "D"];
}

/// A column's type at HQ: Delta's primitive types, as far as sites' data needs them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnType {
    /// True or false.
    Boolean,
    /// 32-bit integer.
    Integer,
    /// 64-bit integer.
    Long,
    /// 64-bit float.
    Double,
    /// Exact decimal.
    Decimal {
        /// Digits in all, 1 to 38.
        digits: u8,
        /// Digits behind the point.
        fraction: u8,
    },
    /// Text.
    String,
    /// Bytes.
    Binary,
    /// Calendar day.
    Date,
    /// Instant, microseconds, UTC.
    Timestamp,
}

impl ColumnType {
    /// The Arrow type in files and in memory.
    pub fn arrow(self) -> DataType {
        match self {
            Self::Boolean => DataType::Boolean,
            Self::Integer => DataType::Int32,
            Self::Long => DataType::Int64,
            Self::Double => DataType::Float64,
            Self::Decimal { digits, fraction } => DataType::Decimal128(digits, fraction as i8),
            Self::String => DataType::Utf8,
            Self::Binary => DataType::Binary,
            Self::Date => DataType::Date32,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        }
    }

    /// The type's name in a Delta schema.
    pub fn delta(self) -> String {
        match self {
            Self::Boolean => "boolean".into(),
            Self::Integer => "integer".into(),
            Self::Long => "long".into(),
            Self::Double => "double".into(),
            Self::Decimal { digits, fraction } => format!("decimal({digits},{fraction})"),
            Self::String => "string".into(),
            Self::Binary => "binary".into(),
            Self::Date => "date".into(),
            Self::Timestamp => "timestamp".into(),
        }
    }

    /// The type of this name in a Delta schema.
    pub fn from_delta(name: &str) -> Option<Self> {
        Some(match name {
            "boolean" => Self::Boolean,
            "integer" => Self::Integer,
            "long" => Self::Long,
            "double" => Self::Double,
            "string" => Self::String,
            "binary" => Self::Binary,
            "date" => Self::Date,
            "timestamp" => Self::Timestamp,
            _ => {
                let (digits, fraction) = name.strip_prefix("decimal(")?.strip_suffix(')')?.split_once(',')?;
                let (digits, fraction) = (digits.trim().parse().ok()?, fraction.trim().parse().ok()?);
                // What Delta and Arrow hold in 128 bits.
                ((1..=38).contains(&digits) && fraction <= digits).then_some(Self::Decimal { digits, fraction })?
            }
        })
    }

    /// The type proposed for a column that a site declares as `declared` and sends as `sent`.
    pub fn propose(declared: &str, sent: &DataType) -> Self {
        let upper = declared.to_ascii_uppercase();
        match sent {
            DataType::Boolean => Self::Boolean,
            DataType::Int32 | DataType::Int64 => Self::Long,
            DataType::Float64 => Self::Double,
            DataType::Decimal128(digits, fraction) => {
                Self::Decimal { digits: *digits, fraction: fraction.unsigned_abs() }
            }
            DataType::Binary => Self::Binary,
            DataType::Timestamp(..) => Self::Timestamp,
            DataType::Date32 => Self::Date,
            _ if upper.contains("DATETIME") || upper.contains("TIMESTAMP") => Self::Timestamp,
            _ if upper.contains("DATE") => Self::Date,
            _ => Self::String,
        }
    }
}

/// One column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name at HQ, lower case.
    pub name: String,
    /// Its type.
    pub kind: ColumnType,
    /// What the first site called it, if that differs.
    pub site_name: Option<String>,
}

impl Column {
    /// A column named as it is.
    pub fn new(name: &str, kind: ColumnType) -> Self {
        Self { name: name.to_owned(), kind, site_name: None }
    }
}

/// A table's columns in order, and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSchema {
    /// Columns of ours and the site's.
    pub columns: Vec<Column>,
    /// Key columns of the site's rows; empty for tables that are not a site's.
    pub key: Vec<String>,
    arrow: SchemaRef,
}

impl TableSchema {
    /// A schema of these columns.
    pub fn new(columns: Vec<Column>, key: Vec<String>) -> Self {
        let fields: Vec<Field> =
            columns.iter().map(|column| Field::new(&column.name, column.kind.arrow(), true)).collect();
        Self { columns, key, arrow: Arc::new(Schema::new(fields)) }
    }

    /// The schema of a site's table before any of its own columns is known.
    pub fn for_sites(key: Vec<String>) -> Self {
        use our_columns::*;
        let columns = vec![
            Column::new(SITE, ColumnType::String),
            Column::new(EPOCH, ColumnType::Integer),
            Column::new(SEQ, ColumnType::Long),
            Column::new(OP, ColumnType::String),
            Column::new(CHANGED_AT, ColumnType::Timestamp),
            Column::new(RECEIVED_AT, ColumnType::Timestamp),
            Column::new(MISFIT, ColumnType::String),
        ];
        Self::new(columns, key)
    }

    /// The Arrow schema; every column is nullable.
    pub fn arrow(&self) -> &SchemaRef {
        &self.arrow
    }

    /// The column of this name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The columns by which rows of one site are told apart: the key, and its exact form once a row
    /// had one.
    pub fn key_columns(&self) -> impl Iterator<Item = &str> {
        let exact = self.column(our_columns::EXACT_KEY).filter(|_| !self.key.is_empty());
        self.key.iter().map(String::as_str).chain(exact.map(|column| column.name.as_str()))
    }

    /// This schema with a column of another type.
    pub fn with_type(&self, name: &str, kind: ColumnType) -> Self {
        let mut columns = self.columns.clone();
        columns.iter_mut().filter(|column| column.name == name).for_each(|column| column.kind = kind);
        Self::new(columns, self.key.clone())
    }

    /// This schema with the columns of `others` that it lacks; types of known columns never change.
    pub fn merged<'a>(&self, others: impl IntoIterator<Item = &'a Column>) -> Option<TableSchema> {
        let mut columns = self.columns.clone();
        for column in others {
            if !columns.iter().any(|known| known.name == column.name) {
                columns.push(column.clone());
            }
        }
        (columns.len() > self.columns.len()).then(|| Self::new(columns, self.key.clone()))
    }

    pub(crate) fn to_delta(&self) -> String {
        let fields: Vec<_> = self
            .columns
            .iter()
            .map(|column| {
                let metadata: BTreeMap<&str, &str> =
                    column.site_name.iter().map(|name| ("rollcall.name", name.as_str())).collect();
                json!({"name": column.name, "type": column.kind.delta(), "nullable": true, "metadata": metadata})
            })
            .collect();
        json!({"type": "struct", "fields": fields}).to_string()
    }

    pub(crate) fn from_delta(text: &str, key: Vec<String>) -> Result<Self, LakeError> {
        #[derive(Deserialize)]
        struct Struct {
            fields: Vec<DeltaField>,
        }
        #[derive(Deserialize)]
        struct DeltaField {
            name: String,
            r#type: serde_json::Value,
            #[serde(default)]
            metadata: BTreeMap<String, serde_json::Value>,
        }
        let parsed: Struct = serde_json::from_str(text).map_err(LakeError::damaged)?;
        let columns = parsed.fields.into_iter().map(|field| {
            let kind = field.r#type.as_str().and_then(ColumnType::from_delta);
            let kind = kind.ok_or_else(|| {
                LakeError::damaged(format!(
                    "column {:?} has a type this version does not know: {}",
                    field.name, field.r#type
                ))
            })?;
            let site_name = field.metadata.get("rollcall.name").and_then(|name| name.as_str()).map(str::to_owned);
            Ok(Column { name: field.name, kind, site_name })
        });
        Ok(Self::new(columns.collect::<Result<_, LakeError>>()?, key))
    }
}
