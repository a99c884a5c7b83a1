//! What clients of PostgreSQL ask of a server that nothing else here answers: some functions, the constraints in
//! `information_schema`, and questions that cannot be planned as they are written.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray},
        compute::cast,
        datatypes::{DataType, Field, Schema},
    },
    catalog::{CatalogProviderList, SchemaProvider, TableProvider, information_schema::InformationSchemaProvider},
    common::{DataFusionError, Result, ScalarValue, exec_err},
    datasource::MemTable,
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, create_udf},
    prelude::SessionContext,
    sql::sqlparser::{
        ast::{Ident, SelectItem, SetExpr, Statement},
        dialect::PostgreSqlDialect,
        parser::Parser,
    },
};

/// The version of PostgreSQL whose ways are followed.
const SERVER_VERSION: &str = "16.6";

/// A function of texts, evaluated row by row; known by its name.
#[derive(Debug)]
struct OfTexts {
    name: &'static str,
    signature: Signature,
    value: fn(&[Option<&str>]) -> Result<Option<String>>,
}

impl OfTexts {
    fn udf(name: &'static str, value: fn(&[Option<&str>]) -> Result<Option<String>>) -> ScalarUDF {
        let any = Signature::one_of(
            vec![
                datafusion::logical_expr::TypeSignature::Nullary,
                datafusion::logical_expr::TypeSignature::VariadicAny,
            ],
            Volatility::Stable,
        );
        ScalarUDF::new_from_impl(Self { name, signature: any, value })
    }
}

impl PartialEq for OfTexts {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for OfTexts {}

impl std::hash::Hash for OfTexts {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for OfTexts {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let texts = arrays.iter().map(|array| Ok(cast(array, &DataType::Utf8)?)).collect::<Result<Vec<ArrayRef>>>()?;
        let texts: Vec<&StringArray> = texts.iter().map(|array| array.as_string::<i32>()).collect();
        let value = |row: usize| {
            let of_row: Vec<Option<&str>> =
                texts.iter().map(|column| column.is_valid(row).then(|| column.value(row))).collect();
            (self.value)(&of_row)
        };
        let rows = if texts.is_empty() { 1 } else { args.number_rows };
        let values = (0..rows).map(value).collect::<Result<StringArray>>()?;
        if texts.is_empty() {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&values, 0)?));
        }
        Ok(ColumnarValue::Array(Arc::new(values)))
    }
}

/// The function that says who asks; the parser turns `current_user` and `user` into it.
pub(crate) fn session_user(user: Option<&str>) -> ScalarUDF {
    let name = ScalarValue::from(user.unwrap_or("hq"));
    let value = move |_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(name.clone()));
    create_udf("session_user", vec![], DataType::Utf8, Volatility::Stable, Arc::new(value))
}

/// Adds the functions to a session.
pub(crate) fn add_functions(context: &SessionContext) {
    context.register_udf(OfTexts::udf("version", |_| {
        let product = env!("CARGO_PKG_VERSION");
        Ok(Some(format!("PostgreSQL {SERVER_VERSION} (Rollcall {product})")))
    }));
    context.register_udf(OfTexts::udf("current_setting", |arguments| {
        let name = arguments.first().copied().flatten().unwrap_or_default();
        match (setting(name), arguments.get(1).copied().flatten()) {
            (Some(value), _) => Ok(Some(value.to_owned())),
            (None, Some("true" | "t")) => Ok(None),
            (None, _) => exec_err!("unrecognized configuration parameter {name:?}"),
        }
    }));
    // Nothing here has a comment.
    context.register_udf(OfTexts::udf("col_description", |_| Ok(None)));
    context.register_udf(OfTexts::udf("format", |arguments| match arguments.split_first() {
        Some((Some(form), values)) => format(form, values).map(Some),
        _ => Ok(None),
    }));
}

fn setting(name: &str) -> Option<&'static str> {
    Some(match name.to_ascii_lowercase().as_str() {
        "timezone" => "UTC",
        "server_version" => SERVER_VERSION,
        "server_version_num" => "160006",
        "search_path" => "\"$user\", public",
        "server_encoding" | "client_encoding" => "UTF8",
        "max_index_keys" => "32",
        "default_transaction_read_only" | "transaction_read_only" | "standard_conforming_strings" => "on",
        "datestyle" => "ISO, MDY",
        _ => return None,
    })
}

/// PostgreSQL's `format` with `%s`, `%I`, `%L` and `%%`.
fn format(form: &str, values: &[Option<&str>]) -> Result<String> {
    let (mut text, mut letters, mut values) = (String::new(), form.chars(), values.iter());
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        let kind = letters.next();
        if kind == Some('%') {
            text.push('%');
            continue;
        }
        let Some(value) = values.next() else { return exec_err!("too few arguments for format()") };
        match (kind, value) {
            (Some('s'), value) => text.push_str(value.unwrap_or_default()),
            (Some('I'), Some(name)) if is_plain(name) => text.push_str(name),
            (Some('I'), Some(name)) => text.push_str(&format!("\"{}\"", name.replace('"', "\"\""))),
            (Some('L'), Some(value)) => text.push_str(&format!("'{}'", value.replace('\'', "''"))),
            (Some('L'), None) => text.push_str("NULL"),
            _ => return exec_err!("format() knows %s, %I, %L and %% here"),
        }
    }
    Ok(text)
}

fn is_plain(name: &str) -> bool {
    name.starts_with(|letter: char| letter.is_ascii_lowercase() || letter == '_')
        && name.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_')
}

/// A key of a table, as `information_schema` tells it.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) table: String,
    pub(crate) columns: Vec<String>,
}

/// `information_schema` with the keys of the sites' tables.
#[derive(Debug)]
pub(crate) struct InformationSchema {
    catalog: &'static str,
    shown: Arc<dyn CatalogProviderList>,
    known: InformationSchemaProvider,
    keys: Vec<Key>,
}

const CONSTRAINTS: &str = "table_constraints";
const KEY_COLUMNS: &str = "key_column_usage";

impl InformationSchema {
    pub(crate) fn new(catalog: &'static str, shown: Arc<dyn CatalogProviderList>, keys: Vec<Key>) -> Self {
        Self { catalog, known: InformationSchemaProvider::new(shown.clone()), shown, keys }
    }

    /// Every column, with the type's name as PostgreSQL gives it.
    async fn columns(&self) -> Result<Arc<dyn TableProvider>> {
        let (mut texts, mut positions): ([Vec<String>; 7], Vec<i64>) = Default::default();
        let catalog = self.shown.catalog(self.catalog);
        for schema_name in catalog.iter().flat_map(|catalog| catalog.schema_names()) {
            let Some(schema) = catalog.as_ref().and_then(|catalog| catalog.schema(&schema_name)) else { continue };
            for table in schema.table_names() {
                let Some(provider) = schema.table(&table).await? else { continue };
                for (position, field) in (1..).zip(provider.schema().fields()) {
                    let (long, short) = postgresql_type(field.data_type());
                    let nullable = if field.is_nullable() { "YES" } else { "NO" };
                    let of_column = [self.catalog, &schema_name, &table, field.name(), nullable, long, short];
                    texts.iter_mut().zip(of_column).for_each(|(column, text)| column.push(text.to_owned()));
                    positions.push(position);
                }
            }
        }
        let names =
            ["table_catalog", "table_schema", "table_name", "column_name", "is_nullable", "data_type", "udt_name"];
        let mut columns: Vec<(&str, ArrayRef)> =
            names.into_iter().zip(texts).map(|(name, texts)| (name, Arc::new(StringArray::from(texts)) as _)).collect();
        let none = vec![None::<i64>; positions.len()];
        columns.push(("ordinal_position", Arc::new(Int64Array::from(positions))));
        columns.push(("udt_schema", repeated("pg_catalog", none.len())));
        columns.push(("column_default", Arc::new(StringArray::from(vec![None::<&str>; none.len()]))));
        for name in ["character_maximum_length", "numeric_precision", "numeric_scale", "datetime_precision"] {
            columns.push((name, Arc::new(Int64Array::from(none.clone()))));
        }
        made(columns)
    }

    /// A row for each of these keys: which it is, and what more is told of it.
    fn of_keys(&self, keys: &[&Key], own: Vec<(&str, ArrayRef)>) -> Result<Arc<dyn TableProvider>> {
        let names = keys.iter().map(|key| format!("{}_pkey", key.table));
        let tables = keys.iter().map(|key| key.table.as_str());
        let mut columns: Vec<(&str, ArrayRef)> = vec![
            ("constraint_catalog", repeated(self.catalog, keys.len())),
            ("constraint_schema", repeated("public", keys.len())),
            ("constraint_name", Arc::new(StringArray::from_iter_values(names))),
            ("table_catalog", repeated(self.catalog, keys.len())),
            ("table_schema", repeated("public", keys.len())),
            ("table_name", Arc::new(StringArray::from_iter_values(tables))),
        ];
        columns.extend(own);
        made(columns)
    }
}

fn repeated(value: &str, count: usize) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(std::iter::repeat_n(value, count)))
}

fn made(columns: Vec<(&str, ArrayRef)>) -> Result<Arc<dyn TableProvider>> {
    let fields: Vec<Field> =
        columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?;
    Ok(Arc::new(MemTable::try_new(rows.schema(), vec![vec![rows]])?))
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

#[async_trait]
impl SchemaProvider for InformationSchema {
    fn table_names(&self) -> Vec<String> {
        let mut names = self.known.table_names();
        names.extend([CONSTRAINTS, KEY_COLUMNS].map(str::to_owned));
        names
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        match name {
            "columns" => self.columns().await.map(Some),
            CONSTRAINTS => {
                let keys: Vec<&Key> = self.keys.iter().collect();
                let own = vec![
                    ("constraint_type", repeated("PRIMARY KEY", keys.len())),
                    ("is_deferrable", repeated("NO", keys.len())),
                ];
                self.of_keys(&keys, own).map(Some)
            }
            KEY_COLUMNS => {
                let all = self.keys.iter().flat_map(|key| std::iter::repeat_n(key, key.columns.len()));
                let names = self.keys.iter().flat_map(|key| &key.columns);
                let positions = self.keys.iter().flat_map(|key| 1..=key.columns.len() as i64);
                let own: Vec<(&str, ArrayRef)> = vec![
                    ("column_name", Arc::new(StringArray::from_iter_values(names))),
                    ("ordinal_position", Arc::new(Int64Array::from_iter_values(positions))),
                ];
                self.of_keys(&all.collect::<Vec<_>>(), own).map(Some)
            }
            _ => self.known.table(name).await,
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        [CONSTRAINTS, KEY_COLUMNS].contains(&name) || self.known.table_exist(name)
    }
}

/// Clients' questions that cannot be planned, by a part of their text, and what is answered instead. A driver asks for keys
/// and indexes with a function that makes several rows of one; it is told of none.
const INSTEAD: [(&[&str], &str); 7] = [
    (
        &["_pg_expandarray", "KEY_SEQ"],
        "SELECT NULL::text AS \"TABLE_CAT\", NULL::text AS \"TABLE_SCHEM\", NULL::text AS \"TABLE_NAME\", \
         NULL::text AS \"COLUMN_NAME\", NULL::int AS \"KEY_SEQ\", NULL::text AS \"PK_NAME\" WHERE false",
    ),
    (
        &["_pg_expandarray"],
        "SELECT NULL::text AS \"TABLE_CAT\", NULL::text AS \"TABLE_SCHEM\", NULL::text AS \"TABLE_NAME\", \
         NULL::boolean AS \"NON_UNIQUE\", NULL::text AS \"INDEX_QUALIFIER\", NULL::text AS \"INDEX_NAME\", \
         NULL::int AS \"TYPE\", NULL::int AS \"ORDINAL_POSITION\", NULL::text AS \"COLUMN_NAME\", \
         NULL::text AS \"ASC_OR_DESC\", NULL::bigint AS \"CARDINALITY\", NULL::bigint AS \"PAGES\", \
         NULL::text AS \"FILTER_CONDITION\" WHERE false",
    ),
    (&["pg_settings", "'max_index_keys'"], "SELECT '32' AS setting"),
    (
        &["pg_constraint", "FKTABLE_NAME"],
        "SELECT NULL::text AS \"PKTABLE_CAT\", NULL::text AS \"PKTABLE_SCHEM\", NULL::text AS \"PKTABLE_NAME\", \
         NULL::text AS \"PKCOLUMN_NAME\", NULL::text AS \"FKTABLE_CAT\", NULL::text AS \"FKTABLE_SCHEM\", \
         NULL::text AS \"FKTABLE_NAME\", NULL::text AS \"FKCOLUMN_NAME\", NULL::int AS \"KEY_SEQ\", \
         NULL::int AS \"UPDATE_RULE\", NULL::int AS \"DELETE_RULE\", NULL::text AS \"FK_NAME\", \
         NULL::text AS \"PK_NAME\", NULL::int AS \"DEFERRABILITY\" WHERE false",
    ),
    (
        &["array_in'", "typname = $1"],
        "SELECT false AS is_array, 'b' AS typtype, typname, oid FROM (VALUES ('bool', 16), ('int8', 20), ('int4', 23), \
         ('text', 25), ('float8', 701), ('timestamptz', 1184), ('numeric', 1700)) AS t (typname, oid) WHERE typname = $1",
    ),
    (
        &["array_in'", "typname, pg_type.oid"],
        "SELECT false AS is_array, typtype, typname, oid FROM pg_catalog.pg_type WHERE typtype = 'b' ORDER BY oid",
    ),
    (
        &["SELECT c.relkind = 'c' FROM pg_catalog.pg_class"],
        "SELECT * FROM (VALUES ('bool', 16), ('bytea', 17), ('int8', 20), ('int2', 21), ('int4', 23), ('text', 25), \
         ('float4', 700), ('float8', 701), ('date', 1082), ('timestamp', 1114), ('timestamptz', 1184), \
         ('numeric', 1700)) AS t (typname, oid)",
    ),
];

/// The question as it can be planned: what is answered in its place, or itself with a name for every column.
pub(crate) fn plannable(question: &Statement) -> Statement {
    let mut question = instead_of(question).unwrap_or_else(|| question.clone());
    name_columns_apart(&mut question);
    question
}

/// PostgreSQL lets several columns of an answer have one name; here the second of `SELECT 1, 1` is called `1_2`.
fn name_columns_apart(question: &mut Statement) {
    let Statement::Query(query) = question else { return };
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    let mut seen: HashMap<String, usize> = HashMap::new();
    for item in &mut select.projection {
        let SelectItem::UnnamedExpr(expression) = item else { continue };
        let text = expression.to_string();
        let times = seen.entry(text.clone()).or_default();
        *times += 1;
        if *times > 1 {
            let alias = Ident::with_quote('"', format!("{text}_{times}"));
            *item = SelectItem::ExprWithAlias { expr: expression.clone(), alias };
        }
    }
}

fn instead_of(question: &Statement) -> Option<Statement> {
    let text = question.to_string();
    let instead = INSTEAD.iter().find(|(parts, _)| parts.iter().all(|part| text.contains(part)));
    let instead = instead.map(|(_, instead)| (*instead).to_owned()).or_else(|| without_comments(&text))?;
    Parser::parse_sql(&PostgreSqlDialect {}, &instead).ok()?.into_iter().next()
}

/// The question without asking for the comment on a column, of a table that is named by a value: nothing has one.
fn without_comments(question: &str) -> Option<String> {
    const CALL: &str = "COL_DESCRIPTION(CAST(";
    let start = question.find(CALL)?;
    let mut depth = 0;
    let length = question[start..].find(|letter| {
        depth += i32::from(letter == '(') - i32::from(letter == ')');
        letter == ')' && depth == 0
    })?;
    Some(format!("{}NULL::text{}", &question[..start], &question[start + length + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_quotes_as_postgresql_does() {
        let values = [Some("public"), Some("My Table"), Some("it's"), None, None];
        assert_eq!(format("%s.%I = %L %L %s%%", &values).expect("formats"), "public.\"My Table\" = 'it''s' NULL %");
        assert!(format("%s %s", &values[..1]).is_err());
    }

    #[test]
    fn a_comment_on_a_column_is_not_asked_for() {
        let question = "SELECT a, COL_DESCRIPTION(CAST(f('(x', b) AS OID), 1) AS c FROM t";
        // A parenthesis within a text is counted as one: then the question stays as it is.
        assert_eq!(without_comments(question), None);
        let question = question.replace("'(x'", "'x'");
        assert_eq!(without_comments(&question).as_deref(), Some("SELECT a, NULL::text AS c FROM t"));
    }
}
