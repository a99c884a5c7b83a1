//! Parameters of prepared statements: which types they have, and their values as literals in the
//! statement.
//!
//! A value takes the place of its `$n` as a literal of its type, so that it means and may be used
//! for whatever the literal may: in LIMIT, in ANY, for the scope of an answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use datafusion::sql::sqlparser::{
    ast::{
        ArrayElemTypeDef, DataType, Expr, LimitClause, Query, Statement, UnaryOperator, Value, VisitMut, VisitorMut,
        visit_expressions,
    },
    dialect::PostgreSqlDialect,
    parser::Parser,
};

use super::names::name_columns;
use crate::{
    catalogue::{is_catalogue_question, plannable},
    error::QueryError,
    syntax::{cast, catalogue_type, null, number, text, value},
};

/// A value for a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Literal {
    /// No value.
    Null,
    /// PostgreSQL's text of a value.
    Text(String),
    /// Elements of an array.
    Array(Vec<Literal>),
}

impl Literal {
    /// The literal in SQL; `kind` is the name of its type, or of its elements', and none if the
    /// place decides.
    fn expr(&self, kind: Option<&DataType>) -> Expr {
        let typed = |expr, data_type: Option<DataType>| match data_type {
            Some(data_type) => cast(expr, data_type),
            None => expr,
        };
        match self {
            Self::Null => typed(value(Value::Null), kind.cloned()),
            Self::Text(written) => match kind {
                Some(DataType::BigInt(_)) if is_digits(written) && written.len() < 19 => number(written),
                Some(DataType::Numeric(_)) if is_decimal(written) => match written.strip_prefix('-') {
                    Some(digits) => {
                        let negative = Expr::UnaryOp { op: UnaryOperator::Minus, expr: Box::new(number(digits)) };
                        Expr::Nested(Box::new(negative))
                    }
                    None => number(written),
                },
                _ => typed(text(written), kind.cloned()),
            },
            Self::Array(elements) => {
                // The whole array is cast, and its elements with it.
                let elem = elements.iter().map(|element| element.expr(None)).collect();
                let array = Expr::Array(datafusion::sql::sqlparser::ast::Array { elem, named: true });
                if matches!(kind, Some(DataType::Array(_))) {
                    return array;
                }
                let of =
                    |kind: &DataType| DataType::Array(ArrayElemTypeDef::SquareBracket(Box::new(kind.clone()), None));
                typed(array, kind.map(of))
            }
        }
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A number with a point: without one it would be an integer.
fn is_decimal(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    digits.split_once('.').is_some_and(|(whole, part)| is_digits(whole) && is_digits(part))
}

fn type_named(name: &str) -> Option<DataType> {
    Parser::new(&PostgreSqlDialect {}).try_with_sql(name).ok()?.parse_data_type().ok()
}

/// The number of a placeholder such as `$1`.
fn number_of(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Placeholder(name) => name.strip_prefix('$')?.parse().ok().filter(|number| *number > 0),
            _ => None,
        },
        Expr::Nested(inner) => number_of(inner),
        _ => None,
    }
}

/// The statement with values in the place of its parameters, each with the name of its type if it
/// has one.
pub fn bind(statement: &Statement, values: &[(Literal, Option<String>)]) -> Result<Statement, QueryError> {
    let values = values.iter().map(|(value, kind)| value.expr(kind.as_deref().and_then(type_named).as_ref()));
    let values: Vec<Expr> = values.collect();
    let bound = with_values(statement, &values)?;
    // What is answered in the place of some catalogue questions has the parameters that these had.
    if is_catalogue_question(statement) && has_parameters(&plannable(&bound)) {
        return with_values(&plannable(statement), &values);
    }
    Ok(bound)
}

fn has_parameters(statement: &Statement) -> bool {
    let found = visit_expressions(statement, |expr| match number_of(expr) {
        Some(_) => ControlFlow::Break(()),
        None => ControlFlow::Continue(()),
    });
    found.is_break()
}

/// Puts values in the place of parameters.
struct Bind<'a>(&'a [Expr]);

impl VisitorMut for Bind<'_> {
    type Break = QueryError;

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<QueryError> {
        if let Expr::Value(_) = expr
            && let Some(number) = number_of(expr)
        {
            let Some(value) = self.0.get(number - 1) else {
                return ControlFlow::Break(QueryError::Syntax(format!("there is no value for parameter ${number}")));
            };
            *expr = value.clone();
        }
        ControlFlow::Continue(())
    }
}

/// The statement with what `EXECUTE` gives for its parameters, each of the type of that name, if
/// the parameter has one. Only values that are written out are taken: an expression would be
/// evaluated wherever its parameter stands.
pub fn execute(statement: &Statement, given: &[Expr], types: &[Option<String>]) -> Result<Statement, QueryError> {
    if let Some(other) = given.iter().find(|expr| !is_written_out(expr)) {
        let text = format!("EXECUTE takes values that are written out, and {other} is an expression");
        return Err(QueryError::Unsupported(text));
    }
    let typed = |(expr, kind): (&Expr, &Option<String>)| match kind.as_deref().and_then(type_named) {
        Some(kind) => cast(expr.clone(), kind),
        None => Expr::Nested(Box::new(expr.clone())),
    };
    with_values(statement, &given.iter().zip(types).map(typed).collect::<Vec<_>>())
}

fn is_written_out(expr: &Expr) -> bool {
    match expr {
        Expr::Value(value) => !matches!(value.value, Value::Placeholder(_)),
        Expr::Nested(inner) | Expr::Cast { expr: inner, .. } => is_written_out(inner),
        Expr::UnaryOp { op: UnaryOperator::Minus | UnaryOperator::Plus, expr } => is_written_out(expr),
        Expr::Array(array) => array.elem.iter().all(is_written_out),
        Expr::TypedString(_) | Expr::Interval(_) => true,
        _ => false,
    }
}

fn with_values(statement: &Statement, values: &[Expr]) -> Result<Statement, QueryError> {
    let mut statement = statement.clone();
    // A parameter alone has no name, whatever takes its place.
    name_columns(&mut statement);
    match statement.visit(&mut Bind(values)) {
        ControlFlow::Continue(()) => Ok(statement),
        ControlFlow::Break(error) => Err(error),
    }
}

/// What is known of a statement's parameters before they have values.
#[derive(Debug, Clone)]
pub(crate) struct Placeholders {
    /// How many there are.
    pub(crate) count: usize,
    /// The statement as it can be planned without values.
    pub(crate) statement: Statement,
    /// Types that are written in the statement, or were told.
    pub(crate) known: BTreeMap<usize, DataType>,
    /// Those that are arrays of the type that the planner infers.
    pub(crate) arrays: BTreeSet<usize>,
}

/// Finds a statement's parameters; `told` are the names of types that the client gave.
pub(crate) fn placeholders(statement: &Statement, told: &[Option<String>]) -> Placeholders {
    let told = (1..).zip(told).filter_map(|(number, name)| Some((number, type_named(name.as_deref()?)?)));
    let mut found = Find { known: told.collect(), count: 0 };
    let mut statement = statement.clone();
    let _: ControlFlow<()> = statement.visit(&mut found);
    let mut untyped = Untyped { known: &found.known, arrays: BTreeSet::new() };
    let _: ControlFlow<()> = statement.visit(&mut untyped);
    let arrays = untyped.arrays;
    Placeholders { count: found.count, statement, known: found.known, arrays }
}

/// Finds the types that a statement itself gives its parameters.
struct Find {
    known: BTreeMap<usize, DataType>,
    count: usize,
}

impl VisitorMut for Find {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let mut rows = |expr: Option<&Expr>| {
            if let Some(number) = expr.and_then(number_of) {
                self.known.entry(number).or_insert(DataType::BigInt(None));
            }
        };
        if let Some(LimitClause::LimitOffset { limit, offset, .. }) = &query.limit_clause {
            rows(limit.as_ref());
            rows(offset.as_ref().map(|offset| &offset.value));
        }
        rows(query.fetch.as_ref().and_then(|fetch| fetch.quantity.as_ref()));
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Cast { expr: inner, data_type, .. } = expr
            && let Some(number) = number_of(inner)
        {
            // What is cast to one of these is a name, or a number that is written out.
            let is_name = catalogue_type(data_type).is_some_and(|name| name.starts_with("reg"));
            self.known.entry(number).or_insert_with(|| if is_name { DataType::Text } else { data_type.clone() });
        }
        self.count = self.count.max(number_of(expr).unwrap_or_default());
        ControlFlow::Continue(())
    }
}

/// Puts typed NULLs in the place of parameters whose type is known.
struct Untyped<'a> {
    known: &'a BTreeMap<usize, DataType>,
    arrays: BTreeSet<usize>,
}

impl VisitorMut for Untyped<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::AnyOp { left, compare_op, right, .. } | Expr::AllOp { left, compare_op, right } = expr {
            let inner = match right.as_ref() {
                Expr::Cast { expr, .. } => expr.as_ref(),
                other => other,
            };
            if let Some(number) = number_of(inner) {
                let element = match self.known.get(&number) {
                    Some(DataType::Array(ArrayElemTypeDef::SquareBracket(kind, _))) => null(kind.as_ref().clone()),
                    _ => {
                        self.arrays.insert(number);
                        inner.clone()
                    }
                };
                *expr = Expr::BinaryOp { left: left.clone(), op: compare_op.clone(), right: Box::new(element) };
            }
            return ControlFlow::Continue(());
        }
        if let Expr::Value(_) = expr
            && let Some(kind) = number_of(expr).and_then(|number| self.known.get(&number))
        {
            *expr = null(kind.clone());
        }
        ControlFlow::Continue(())
    }
}
