//! Types whose names are functions in PostgreSQL: `date(x)` is a cast.

use datafusion::sql::sqlparser::ast::{DataType, Expr, Function, FunctionArguments, Ident, SelectItem};

use crate::syntax::folded;

const TYPE_CALLS: [(&str, DataType); 4] = [
    ("date", DataType::Date),
    ("int8", DataType::BigInt(None)),
    ("int4", DataType::Integer(None)),
    ("float8", DataType::DoublePrecision),
];

/// The type that is called by its name, with one argument and nothing else.
pub(super) fn type_call(function: &Function) -> Option<(&'static str, DataType)> {
    let FunctionArguments::List(list) = &function.args else { return None };
    let is_plain = list.args.len() == 1 && list.clauses.is_empty() && list.duplicate_treatment.is_none();
    let [name] = function.name.0.as_slice() else { return None };
    let name = folded(name.as_ident()?);
    let known = TYPE_CALLS.into_iter().find(|(known, _)| *known == name);
    known.filter(|_| is_plain && function.over.is_none() && function.filter.is_none())
}

/// The column is called as what was called.
pub(super) fn name(item: &mut SelectItem) {
    if let SelectItem::UnnamedExpr(Expr::Function(function)) = item
        && let Some((name, _)) = type_call(function)
    {
        let expr = Expr::Function(function.clone());
        *item = SelectItem::ExprWithAlias { expr, alias: Ident::new(name) };
    }
}
