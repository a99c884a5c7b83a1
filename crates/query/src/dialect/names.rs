//! Names of columns that a question gives no name: those that PostgreSQL gives (`count`,
//! `?column?`), so that programs find them.
//!
//! PostgreSQL lets several columns of an answer have one name; the planner does not. The second
//! gets a mark behind its name, which [`shown_name`] takes off where the answer is shown.

use std::{collections::HashMap, ops::ControlFlow};

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, DataType, Expr, Ident, ObjectName, Select, SelectItem, SetExpr, Statement, TrimWhereField, Value,
    VisitMut, VisitorMut,
};

use crate::syntax::{cast, folded};

/// Stands between a name and the number of its repetition: no keyboard has it.
const MARK: char = '\u{1f}';

/// The name of a column as it is shown.
pub fn shown_name(name: &str) -> &str {
    name.split(MARK).next().unwrap_or(name)
}

/// Names what has no name, in every part of a question.
pub(crate) fn name_columns(statement: &mut Statement) {
    if let Statement::Query(query) = statement {
        tell_apart(&mut query.body);
    }
    let _: ControlFlow<()> = statement.visit(&mut Names);
}

/// Marks columns of one name that the question itself gives; those of a subquery would be ambiguous
/// where they are named.
fn tell_apart(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => name_projection(&mut select.projection, Marked::All),
        SetExpr::Query(query) => tell_apart(&mut query.body),
        SetExpr::SetOperation { left, right, .. } => {
            tell_apart(left);
            tell_apart(right);
        }
        _ => {}
    }
}

/// Which columns of one name are told apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Marked {
    All,
    /// Only those that nobody named.
    Unnamed,
}

struct Names;

impl VisitorMut for Names {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        name_projection(&mut select.projection, Marked::Unnamed);
        select.projection.iter_mut().for_each(type_number);
        ControlFlow::Continue(())
    }
}

/// A whole number that is selected as it is written is an integer to clients, as long as one holds
/// it. It has a name by now.
fn type_number(item: &mut SelectItem) {
    let SelectItem::ExprWithAlias { expr, .. } = item else { return };
    let fits = matches!(expr, Expr::Value(value)
        if matches!(&value.value, Value::Number(digits, _) if digits.parse::<i32>().is_ok()));
    if fits {
        *expr = cast(expr.clone(), DataType::Int(None));
    }
}

fn name_projection(projection: &mut [SelectItem], marked: Marked) {
    let mut seen: HashMap<String, usize> = HashMap::new();
    for item in projection {
        let name = match item {
            SelectItem::UnnamedExpr(expr) => name_of(expr).0,
            SelectItem::ExprWithAlias { alias, .. } => shown_name(&folded(alias)).to_owned(),
            _ => continue,
        };
        let times = seen.entry(name.clone()).or_default();
        *times += 1;
        let is_named = match item {
            SelectItem::UnnamedExpr(expr) => matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_)),
            _ => true,
        };
        let alias = match times {
            _ if is_named && marked == Marked::Unnamed => continue,
            1 if is_named => continue,
            1 => Ident::with_quote('"', name),
            times => Ident::with_quote('"', format!("{name}{MARK}{times}")),
        };
        if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
        }
    }
}

fn last_of(name: &ObjectName) -> String {
    name.0.last().and_then(|part| part.as_ident()).map_or_else(|| "?column?".to_owned(), folded)
}

/// The name, and whether it is the expression's own: a cast then does not change it.
fn name_of(expr: &Expr) -> (String, bool) {
    let own = |name: &str| (name.to_owned(), true);
    match expr {
        Expr::Identifier(name) => (folded(name), true),
        Expr::CompoundIdentifier(names) => (names.last().map_or_else(String::new, folded), true),
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => name_of(inner),
        Expr::Function(function) => (last_of(&function.name), true),
        Expr::Cast { expr, data_type, .. } => match name_of(expr) {
            (name, true) => (name, true),
            _ => (type_name(data_type), false),
        },
        Expr::TypedString(typed) => (type_name(&typed.data_type), false),
        Expr::Interval(_) => ("interval".to_owned(), false),
        Expr::Case { else_result, .. } => match else_result.as_deref().map(name_of) {
            Some((name, true)) => (name, true),
            _ => ("case".to_owned(), false),
        },
        Expr::Array(_) => own("array"),
        Expr::CompoundFieldAccess { root, .. } => name_of(root),
        Expr::Extract { .. } => own("extract"),
        Expr::Position { .. } => own("position"),
        Expr::Substring { shorthand, .. } => own(if *shorthand { "substr" } else { "substring" }),
        Expr::Overlay { .. } => own("overlay"),
        Expr::Ceil { .. } => own("ceil"),
        Expr::Floor { .. } => own("floor"),
        Expr::AtTimeZone { .. } => own("timezone"),
        Expr::Trim { trim_where, .. } => own(match trim_where {
            Some(TrimWhereField::Leading) => "ltrim",
            Some(TrimWhereField::Trailing) => "rtrim",
            _ => "btrim",
        }),
        Expr::Exists { negated: false, .. } => own("exists"),
        Expr::BinaryOp { op: BinaryOperator::Overlaps, .. } => own("overlaps"),
        Expr::Tuple(_) => own("row"),
        Expr::Subquery(query) => first_of(&query.body),
        _ => ("?column?".to_owned(), false),
    }
}

/// The name of a subquery's only column.
fn first_of(body: &SetExpr) -> (String, bool) {
    match body {
        SetExpr::Select(select) => match select.projection.first() {
            Some(SelectItem::UnnamedExpr(expr)) => (name_of(expr).0, true),
            Some(SelectItem::ExprWithAlias { alias, .. }) => (shown_name(&folded(alias)).to_owned(), true),
            _ => ("?column?".to_owned(), false),
        },
        SetExpr::Query(query) => first_of(&query.body),
        SetExpr::SetOperation { left, .. } => first_of(left),
        SetExpr::Values(_) => ("column1".to_owned(), true),
        _ => ("?column?".to_owned(), false),
    }
}

/// PostgreSQL's own name of a type.
fn type_name(kind: &DataType) -> String {
    let name = match kind {
        DataType::Int(_) | DataType::Integer(_) | DataType::Int4(_) => "int4",
        DataType::BigInt(_) | DataType::Int8(_) => "int8",
        DataType::SmallInt(_) | DataType::Int2(_) => "int2",
        DataType::Real | DataType::Float4 => "float4",
        DataType::Double(_) | DataType::DoublePrecision | DataType::Float8 | DataType::Float(_) => "float8",
        DataType::Numeric(_) | DataType::Decimal(_) | DataType::Dec(_) => "numeric",
        DataType::Boolean | DataType::Bool => "bool",
        DataType::Varchar(_) | DataType::CharacterVarying(_) | DataType::CharVarying(_) => "varchar",
        DataType::Char(_) | DataType::Character(_) => "bpchar",
        DataType::Text => "text",
        DataType::Date => "date",
        DataType::Bytea => "bytea",
        DataType::Timestamp(_, zone) => {
            use datafusion::sql::sqlparser::ast::TimezoneInfo::{Tz, WithTimeZone};
            if matches!(zone, Tz | WithTimeZone) { "timestamptz" } else { "timestamp" }
        }
        DataType::Time(..) => "time",
        DataType::Interval { .. } => "interval",
        DataType::Array(inner) => {
            use datafusion::sql::sqlparser::ast::ArrayElemTypeDef::{AngleBracket, None, Parenthesis, SquareBracket};
            return match inner {
                SquareBracket(inner, _) | AngleBracket(inner) | Parenthesis(inner) => type_name(inner),
                None => "array".to_owned(),
            };
        }
        DataType::Custom(name, _) => return last_of(name),
        other => return other.to_string().to_lowercase(),
    };
    name.to_owned()
}
