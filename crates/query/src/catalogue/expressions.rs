//! Expressions of catalogue questions, taken apart.

use datafusion::sql::sqlparser::ast::{
    AccessExpr, DataType, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectNamePart, Subscript, Value,
    ValueWithSpan,
};

use crate::syntax::null;

/// The name of a called function, in small letters and without its schema, and its arguments.
pub(super) fn called(expression: &Expr) -> Option<(String, Vec<&Expr>)> {
    let Expr::Function(function) = expression else { return None };
    let name = function.name.0.last()?.as_ident()?.value.to_lowercase();
    let arguments = match &function.args {
        FunctionArguments::List(list) => list.args.iter().map(plain).collect::<Option<Vec<_>>>()?,
        FunctionArguments::None => Vec::new(),
        FunctionArguments::Subquery(_) => return None,
    };
    Some((name, arguments))
}

fn plain(argument: &FunctionArg) -> Option<&Expr> {
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expression)) => Some(expression),
        _ => None,
    }
}

/// Nothing, where an array of texts is expected.
pub(super) fn null_texts() -> Expr {
    use datafusion::sql::sqlparser::ast::ArrayElemTypeDef::SquareBracket;
    null(DataType::Array(SquareBracket(Box::new(DataType::Text), None)))
}

/// The last part of a column's name.
pub(super) fn column(expression: &Expr) -> Option<&str> {
    match unnested(expression) {
        Expr::Identifier(ident) => Some(&ident.value),
        Expr::CompoundIdentifier(idents) => idents.last().map(|ident| ident.value.as_str()),
        _ => None,
    }
}

/// What is in the parentheses.
pub(super) fn unnested(expression: &Expr) -> &Expr {
    match expression {
        Expr::Nested(inner) => unnested(inner),
        other => other,
    }
}

/// Whether the value of an expression is written out: as text, or as a parameter. Drivers cast
/// their parameters to texts first.
pub(super) fn is_written(expression: &Expr) -> bool {
    match expression {
        Expr::Value(ValueWithSpan { value, .. }) => {
            matches!(value, Value::SingleQuotedString(_) | Value::Placeholder(_))
        }
        Expr::Cast { expr, data_type, .. } => is_text_type(&type_name(data_type)) && is_written(expr),
        _ => false,
    }
}

/// Whether values of the type of this name are texts.
pub(super) fn is_text_type(name: &str) -> bool {
    matches!(name, "text" | "name" | "varchar" | "character varying")
}

/// The name of a type in small letters, without the schema `pg_catalog` or `information_schema`.
pub(super) fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Custom(name, modifiers) if modifiers.is_empty() => match name.0.last() {
            Some(ObjectNamePart::Identifier(ident)) => ident.value.to_lowercase(),
            _ => String::new(),
        },
        other => other.to_string().to_lowercase(),
    }
}

/// A column and what is read of it: `a.b[i]` as `a.b` and `i`.
pub(super) fn subscript<'a>(root: &Expr, chain: &'a [AccessExpr]) -> Option<(Expr, &'a Expr)> {
    let (AccessExpr::Subscript(Subscript::Index { index }), dots) = chain.split_last()? else { return None };
    let mut idents = match root {
        Expr::Identifier(ident) => vec![ident.clone()],
        Expr::CompoundIdentifier(idents) => idents.clone(),
        _ => return None,
    };
    for dot in dots {
        let AccessExpr::Dot(Expr::Identifier(ident)) = dot else { return None };
        idents.push(ident.clone());
    }
    Some((Expr::CompoundIdentifier(idents), index))
}
