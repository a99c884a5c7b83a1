//! Why a question has no answer.

use std::collections::BTreeSet;

use datafusion::{
    arrow::error::ArrowError,
    common::{Column, DataFusionError, SchemaError, TableReference},
};
use parquet::errors::ParquetError;

/// Of so many columns at most the names are told, where one is not there.
const NAMES_TOLD: usize = 30;

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The text cannot be read.
    #[error("{0}")]
    Syntax(String),
    /// It has no meaning here, or asks for more than reading.
    #[error("{0}")]
    Sql(String),
    /// It names what is not there, or what is there twice; with PostgreSQL's code for it.
    #[error("{text}")]
    Unknown {
        /// The SQLSTATE.
        code: &'static str,
        /// What has which name.
        text: String,
    },
    /// PostgreSQL has it, and it is not had here.
    #[error("{0}")]
    Unsupported(String),
    /// The statement is too long or too deep.
    #[error("{0}")]
    TooComplex(String),
    /// A value cannot be had, such as a number divided by zero; with PostgreSQL's code for it.
    #[error("{text}")]
    Value {
        /// The SQLSTATE.
        code: &'static str,
        /// What is wrong with which value.
        text: String,
    },
    /// It ran into a limit.
    #[error("{0}")]
    Limit(String),
    /// A fault of HQ's own, of this question alone.
    #[error("HQ has a fault that this question brought out ({0}); nothing else is harmed by it")]
    Panicked(String),
    /// HQ is stopping.
    #[error("HQ is stopping")]
    Stopping,
    /// HQ could not run it.
    #[error("the query failed")]
    Failed(#[source] DataFusionError),
}

impl QueryError {
    /// PostgreSQL's code of the error.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            Self::Syntax(_) => "42601",
            Self::Sql(_) => "42000",
            Self::Unsupported(_) => "0A000",
            Self::TooComplex(_) => "54001",
            Self::Unknown { code, .. } | Self::Value { code, .. } => code,
            Self::Limit(_) => "54000",
            Self::Panicked(_) => "XX000",
            Self::Stopping => "57P01",
            Self::Failed(_) => "58000",
        }
    }
}

/// What a function or a rule of ours found wrong; it keeps its code on the way through the query
/// engine.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct Refused {
    code: &'static str,
    text: String,
}

/// An error of a value, with PostgreSQL's code for it.
pub(crate) fn refused(code: &'static str, text: impl Into<String>) -> DataFusionError {
    DataFusionError::External(Box::new(Refused { code, text: text.into() }))
}

/// What is said of a data file that is not as it was written, with PostgreSQL's code for it.
pub(crate) fn damage(text: String) -> Box<dyn std::error::Error + Send + Sync> {
    Box::new(Refused { code: "XX001", text })
}

/// What is said when a question's memory is exhausted.
pub(crate) const TOO_MUCH_MEMORY: &str = "the query needs more memory than one may have; ask for less at a time";

/// The code of what PostgreSQL has and is not had here.
pub(crate) const UNSUPPORTED: &str = "0A000";

impl From<DataFusionError> for QueryError {
    fn from(error: DataFusionError) -> Self {
        let value = |code, text: &str| Self::Value { code, text: text.to_owned() };
        match error.find_root() {
            DataFusionError::ResourcesExhausted(text) => {
                let line = text.lines().next().unwrap_or_default();
                Self::Limit(format!("{TOO_MUCH_MEMORY} ({line})"))
            }
            DataFusionError::External(source) => match source.downcast_ref::<Refused>() {
                Some(Refused { code: UNSUPPORTED, text }) => Self::Unsupported(text.clone()),
                Some(Refused { code, text }) => value(code, text),
                None => Self::Failed(error),
            },
            DataFusionError::ArrowError(source, _) => match source.as_ref() {
                ArrowError::DivideByZero => value("22012", "division by zero"),
                ArrowError::ArithmeticOverflow(text) => value("22003", text),
                ArrowError::CastError(text) => value("22P02", text),
                ArrowError::ExternalError(source) => match source.downcast_ref::<Refused>() {
                    Some(Refused { code, text }) => value(code, text),
                    None => Self::Failed(error),
                },
                _ => Self::Failed(error),
            },
            DataFusionError::ParquetError(source) => match source.as_ref() {
                ParquetError::External(source) => match source.downcast_ref::<Refused>() {
                    Some(Refused { code, text }) => value(code, text),
                    None => Self::Failed(error),
                },
                _ => Self::Failed(error),
            },
            DataFusionError::Execution(text) => value(code_of(text), text),
            DataFusionError::SchemaError(source, _) => match unknown_column(source) {
                Some((code, text)) => Self::Unknown { code, text },
                None => Self::Failed(error),
            },
            DataFusionError::Plan(text) => match unknown_name(text) {
                Some((code, text)) => Self::Unknown { code, text },
                None => Self::Failed(error),
            },
            _ => Self::Failed(error),
        }
    }
}

/// PostgreSQL's code and words for a column that is not there, or there twice; and what could be
/// meant.
fn unknown_column(source: &SchemaError) -> Option<(&'static str, String)> {
    match source {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let of_table = field.relation.as_ref().map(TableReference::table);
            let is_of = |one: &Column, table: &str| one.relation.as_ref().is_some_and(|of| of.table() == table);
            let is_read = |table: &str| valid_fields.iter().any(|one| is_of(one, table));
            if let Some(table) = of_table.filter(|table| !is_read(table)) {
                return Some(("42P01", format!("missing FROM-clause entry for table \"{table}\"")));
            }
            let name = match of_table {
                Some(table) => format!("{table}.{}", field.name),
                None => format!("\"{}\"", field.name),
            };
            let could_be = valid_fields.iter().filter(|one| of_table.is_none_or(|table| is_of(one, table)));
            let names: BTreeSet<&str> = could_be.map(|one| one.name.as_str()).collect();
            let there = match names.len() {
                0 => String::new(),
                1..=NAMES_TOLD => format!("; there is {}", names.into_iter().collect::<Vec<_>>().join(", ")),
                more => format!("; there are {more} others"),
            };
            Some(("42703", format!("column {name} does not exist{there}")))
        }
        SchemaError::AmbiguousReference { field } => {
            Some(("42702", format!("column reference \"{}\" is ambiguous", field.name)))
        }
        SchemaError::DuplicateQualifiedField { .. } | SchemaError::DuplicateUnqualifiedField { .. } => None,
    }
}

/// PostgreSQL's code and words for a table or function that is not there, by the planner's words.
fn unknown_name(text: &str) -> Option<(&'static str, String)> {
    if let Some(name) = text.strip_prefix("table function '").and_then(|rest| rest.strip_suffix("' not found")) {
        return Some(("42883", format!("function {name} does not exist")));
    }
    if let Some(name) = text.strip_prefix("table '").and_then(|rest| rest.strip_suffix("' not found")) {
        // Names that were not qualified got the catalog's and the first schema's.
        let name = name.trim_start_matches("hq.").trim_start_matches("public.");
        return Some(("42P01", format!("relation \"{name}\" does not exist")));
    }
    let (name, meant) = text.strip_prefix("Invalid function '")?.split_once("'.\n")?;
    Some(("42883", format!("function {name} does not exist ({meant})")))
}

/// PostgreSQL's code of what is wrong with a value, by the words that it has for it.
fn code_of(text: &str) -> &'static str {
    const CODES: [(&str, &str); 6] = [
        ("division by zero", "22012"),
        ("invalid input syntax", "22P02"),
        ("date/time field value out of range", "22008"),
        ("timestamp out of range", "22008"),
        ("out of range", "22003"),
        ("numeric field overflow", "22003"),
    ];
    CODES.iter().find(|(words, _)| text.contains(words)).map_or("22000", |(_, code)| code)
}
