//! Small pieces of statements, put together and read.

use datafusion::sql::sqlparser::ast::{
    CastKind, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident,
    ObjectName, TableAlias, TableAliasColumnDef, Value,
};

/// A name as PostgreSQL reads it: in small letters, unless it is quoted.
pub fn folded(name: &Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() }
}

/// The name of a type that the standard has not, in small letters and without the schema
/// `pg_catalog`: `oid`, `regclass`.
pub(crate) fn catalogue_type(data_type: &DataType) -> Option<String> {
    match data_type {
        DataType::Regclass => Some("regclass".to_owned()),
        DataType::Custom(name, modifiers) if modifiers.is_empty() => match name.0.as_slice() {
            [name] => name.as_ident().map(folded),
            [schema, name] if folded(schema.as_ident()?) == "pg_catalog" => name.as_ident().map(folded),
            _ => None,
        },
        _ => None,
    }
}

/// Gives the one column of a function's rows the name that they have, as PostgreSQL does.
pub(crate) fn name_only_column(alias: &mut TableAlias, columns: usize) {
    if alias.columns.is_empty() && columns == 1 {
        alias.columns.push(TableAliasColumnDef { name: alias.name.clone(), data_type: None });
    }
}

/// A call of a function without a schema.
pub(crate) fn call(name: &str, arguments: impl IntoIterator<Item = Expr>) -> Expr {
    let args = arguments.into_iter().map(|argument| FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))).collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

/// A value that is written out.
pub(crate) fn value(value: Value) -> Expr {
    Expr::Value(value.with_empty_span())
}

/// A number as it is written.
pub(crate) fn number(digits: impl ToString) -> Expr {
    value(Value::Number(digits.to_string(), false))
}

/// A text.
pub(crate) fn text(text: impl Into<String>) -> Expr {
    value(Value::SingleQuotedString(text.into()))
}

/// A cast.
pub(crate) fn cast(expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr), data_type, array: false, format: None }
}

/// NULL of a type.
pub(crate) fn null(data_type: DataType) -> Expr {
    cast(value(Value::Null), data_type)
}
