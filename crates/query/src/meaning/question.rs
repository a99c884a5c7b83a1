//! The form of a question: clauses that the planner would pass over in silence are refused, and
//! some that it does not know are written in a way that it does. What needs no knowledge of types
//! `dialect` has done by then.

use std::ops::ControlFlow;

use datafusion::{
    common::{DataFusionError, Result, plan_datafusion_err},
    sql::sqlparser::ast::{
        AccessExpr, BinaryOperator, CastKind, DataType, DateTimeField, DuplicateTreatment, Expr, Function, FunctionArg,
        FunctionArgExpr, FunctionArgumentClause, FunctionArguments, GroupByExpr, Interval, Join, JoinConstraint,
        JoinOperator, NamedWindowDefinition, NamedWindowExpr, OrderByKind, Query, Select, SelectItem, SetExpr,
        SetOperator, SetQuantifier, Statement, Subscript, TableFactor, UnaryOperator, Value, VisitMut, VisitorMut,
        WindowFrameBound, WindowSpec, WindowType,
    },
};

use super::{
    any::{ALL, ANY},
    decimal::Number,
    pattern,
    rows::{is_power, is_row, rows_compared, signed_power},
    text::decimal_text,
};
use crate::syntax::{call, cast};

/// Writes a question as it can be planned with its meaning, or says what of it cannot. `is_scalar`
/// knows the names of functions that are no aggregates.
pub(crate) fn prepare(question: &mut Statement, is_scalar: &dyn Fn(&str) -> bool) -> Result<()> {
    let mut reader = Reader { is_scalar };
    match question.visit(&mut reader) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Reader<'a> {
    is_scalar: &'a dyn Fn(&str) -> bool,
}

type Flow = ControlFlow<DataFusionError>;

fn refuse_if(is_there: bool, what: &str) -> Flow {
    if is_there {
        return ControlFlow::Break(plan_datafusion_err!("{what} is not supported here"));
    }
    ControlFlow::Continue(())
}

impl VisitorMut for Reader<'_> {
    type Break = DataFusionError;

    fn pre_visit_query(&mut self, query: &mut Query) -> Flow {
        refuse_if(
            query.for_clause.is_some() || query.settings.is_some() || query.format_clause.is_some(),
            "this clause",
        )?;
        refuse_if(!query.pipe_operators.is_empty(), "|>")?;
        if let Some(order) = &query.order_by {
            refuse_if(matches!(order.kind, OrderByKind::All(_)), "ORDER BY ALL")?;
        }
        all_of_sets(&query.body)?;
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> Flow {
        refuse_if(select.top.is_some(), "TOP")?;
        refuse_if(select.prewhere.is_some() || select.qualify.is_some(), "QUALIFY")?;
        refuse_if(!select.connect_by.is_empty(), "CONNECT BY")?;
        refuse_if(select.value_table_mode.is_some() || select.select_modifiers.is_some(), "this form of SELECT")?;
        refuse_if(!select.distribute_by.is_empty() || !select.cluster_by.is_empty(), "DISTRIBUTE BY")?;
        refuse_if(select.exclude.is_some(), "EXCLUDE")?;
        let of_another = |window: &NamedWindowDefinition| match &window.1 {
            NamedWindowExpr::NamedWindow(_) => true,
            NamedWindowExpr::WindowSpec(window) => window.window_name.is_some(),
        };
        refuse_if(select.named_window.iter().any(of_another), "a window made of another one")?;
        let joins = select.from.iter().flat_map(|from| &from.joins);
        refuse_if(joins.clone().any(is_merged_from_both), "RIGHT or FULL JOIN … USING")?;
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(value) | SelectItem::ExprWithAlias { expr: value, .. } = item {
                let _ = value.visit(&mut Counted);
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, select: &mut Select) -> Flow {
        for window in &mut select.named_window {
            if let NamedWindowExpr::WindowSpec(window) = &mut window.1 {
                bounds_as_written(window);
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, table: &mut TableFactor) -> Flow {
        match table {
            TableFactor::Table { version, with_ordinality, partitions, index_hints, with_hints, json_path, .. } => {
                refuse_if(version.is_some(), "a version of a table")?;
                refuse_if(*with_ordinality, "WITH ORDINALITY")?;
                let has_more = !partitions.is_empty() || !index_hints.is_empty() || !with_hints.is_empty();
                refuse_if(has_more || json_path.is_some(), "this clause of a table")
            }
            TableFactor::Function { with_ordinality, .. } | TableFactor::UNNEST { with_ordinality, .. } => {
                refuse_if(*with_ordinality, "WITH ORDINALITY")
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> Flow {
        match expr {
            Expr::CompoundFieldAccess { access_chain, .. } => {
                refuse_if(access_chain.iter().any(counts_from_end), "a negative subscript")
            }
            Expr::Function(function) => self.function(function),
            // Doubles are of any size: such a number is read as one at once.
            Expr::Cast { expr: value, data_type, .. } if is_double(data_type) => {
                if let Expr::Value(number) = value.as_mut()
                    && let Value::Number(text, _) = &number.value
                    && text.contains(['e', 'E'])
                {
                    number.value = Value::SingleQuotedString(text.clone());
                }
                ControlFlow::Continue(())
            }
            Expr::Cast { kind: CastKind::TryCast | CastKind::SafeCast, .. } => refuse_if(true, "TRY_CAST"),
            _ => ControlFlow::Continue(()),
        }
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> Flow {
        let nothing = Expr::value(Value::Null);
        let rewritten = match std::mem::replace(expr, nothing) {
            Expr::Interval(interval) => match interval_cast(interval) {
                Ok(cast) => cast,
                Err(error) => return ControlFlow::Break(error),
            },
            Expr::AnyOp { left, compare_op, right, is_some } => match *right {
                Expr::Subquery(_) => Expr::AnyOp { left, compare_op, right, is_some },
                array => quantified(ANY, *left, &compare_op, array),
            },
            Expr::AllOp { left, compare_op, right } => match *right {
                Expr::Subquery(_) => Expr::AllOp { left, compare_op, right },
                array => quantified(ALL, *left, &compare_op, array),
            },
            // A sign binds closer than a power.
            Expr::UnaryOp { op: UnaryOperator::Minus, expr: power } if is_power(&power) => signed_power(*power),
            Expr::BinaryOp { left, op, right } => rows_compared(left, op, right),
            Expr::IsNull(row) if is_row(&row) => return refuse_if(true, "IS NULL of a row"),
            Expr::IsNotNull(row) if is_row(&row) => return refuse_if(true, "IS NOT NULL of a row"),
            Expr::UnaryOp { op, expr } => match op {
                UnaryOperator::PGSquareRoot => call("sqrt", vec![*expr]),
                UnaryOperator::PGCubeRoot => call("cbrt", vec![*expr]),
                UnaryOperator::PGAbs => call("abs", vec![*expr]),
                UnaryOperator::BitwiseNot => {
                    // All bits but those that are set.
                    let all = Expr::value(Value::Number("-1".to_owned(), false));
                    let (left, right) = (Box::new(Expr::Nested(expr)), Box::new(all));
                    Expr::Nested(Box::new(Expr::BinaryOp { left, op: BinaryOperator::PGBitwiseXor, right }))
                }
                op => Expr::UnaryOp { op, expr },
            },
            // A number is exact, also where it is written with an exponent or is longer than 64
            // bits.
            Expr::Value(value) => match value.value {
                Value::Number(number, long) => Expr::value(Value::Number(plain_number(number), long)),
                other => Expr::Value(other.with_span(value.span)),
            },
            Expr::Function(mut function) if function.over.is_some() => {
                if let Some(WindowType::WindowSpec(window)) = &mut function.over {
                    bounds_as_written(window);
                }
                Expr::Function(function)
            }
            Expr::Function(function) if is_similar(&function) => match similar_pattern(function) {
                Ok(pattern) => pattern,
                Err(error) => return ControlFlow::Break(error),
            },
            Expr::Function(function) if is_series(&function) => call("unnest", vec![Expr::Function(function)]),
            other => other,
        };
        *expr = rewritten;
        ControlFlow::Continue(())
    }
}

impl Reader<'_> {
    /// What only aggregates have must not be passed over where a function is none.
    fn function(&self, function: &Function) -> Flow {
        let FunctionArguments::List(list) = &function.args else { return ControlFlow::Continue(()) };
        let is_unknown = |clause: &FunctionArgumentClause| {
            !matches!(clause, FunctionArgumentClause::OrderBy(_) | FunctionArgumentClause::IgnoreOrRespectNulls(_))
        };
        refuse_if(list.clauses.iter().any(is_unknown), "this clause in a function's arguments")?;
        let is_window = function.over.is_some();
        let is_distinct = matches!(list.duplicate_treatment, Some(DuplicateTreatment::Distinct));
        refuse_if(is_window && is_distinct, "DISTINCT in a window function")?;
        if let Some(WindowType::WindowSpec(window)) = &function.over {
            refuse_if(window.window_name.is_some(), "a window made of another one")?;
        }
        let name = function.name.to_string().to_ascii_lowercase();
        if !(self.is_scalar)(&name) {
            return ControlFlow::Continue(());
        }
        let of_aggregates = list.duplicate_treatment.is_some()
            || !list.clauses.is_empty()
            || function.filter.is_some()
            || function.over.is_some()
            || function.null_treatment.is_some()
            || !function.within_group.is_empty();
        if of_aggregates {
            let error =
                plan_datafusion_err!("{name} is no aggregate function: it takes no DISTINCT, ORDER BY, FILTER or OVER");
            return ControlFlow::Break(error);
        }
        ControlFlow::Continue(())
    }
}

/// Each row as often as it is there: what the planner makes of that is not PostgreSQL's.
fn all_of_sets(body: &SetExpr) -> Flow {
    let SetExpr::SetOperation { op, set_quantifier, left, right } = body else { return ControlFlow::Continue(()) };
    let is_all = !matches!(set_quantifier, SetQuantifier::None | SetQuantifier::Distinct);
    refuse_if(is_all && *op != SetOperator::Union, &format!("{op} ALL"))?;
    all_of_sets(left)?;
    all_of_sets(right)
}

/// Whether the columns that both sides of a join have would have to be taken from one or the other.
fn is_merged_from_both(join: &Join) -> bool {
    let (JoinOperator::FullOuter(constraint) | JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint)) =
        &join.join_operator
    else {
        return false;
    };
    matches!(constraint, JoinConstraint::Using(_) | JoinConstraint::Natural)
}

/// Here such a subscript would count from the end; in PostgreSQL there is no such item.
fn counts_from_end(access: &AccessExpr) -> bool {
    let AccessExpr::Subscript(Subscript::Index { index }) = access else { return false };
    matches!(index, Expr::UnaryOp { op: UnaryOperator::Minus, .. })
}

/// `EXISTS` in a list of columns, as a count of rows that is not nothing.
struct Counted;

impl VisitorMut for Counted {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let Expr::Exists { subquery, negated } = expr else { return ControlFlow::Continue(()) };
        let is_plain = subquery.limit_clause.is_none() && subquery.fetch.is_none();
        let SetExpr::Select(select) = subquery.body.as_mut() else { return ControlFlow::Continue(()) };
        let has_groups = match &select.group_by {
            GroupByExpr::Expressions(groups, _) => !groups.is_empty(),
            GroupByExpr::All(_) => true,
        };
        let is_row = |item: &SelectItem| match item {
            SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..) => true,
            SelectItem::UnnamedExpr(value) | SelectItem::ExprWithAlias { expr: value, .. } => {
                matches!(value, Expr::Value(_) | Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::Cast { .. })
            }
            _ => false,
        };
        if !is_plain || has_groups || select.having.is_some() || !select.projection.iter().all(is_row) {
            return ControlFlow::Continue(());
        }
        select.distinct = None;
        subquery.order_by = None;
        let mut count = call("count", Vec::new());
        if let Expr::Function(function) = &mut count
            && let FunctionArguments::List(list) = &mut function.args
        {
            list.args.push(FunctionArg::Unnamed(FunctionArgExpr::Wildcard));
        }
        select.projection = vec![SelectItem::UnnamedExpr(count)];
        let op = if *negated { BinaryOperator::Eq } else { BinaryOperator::Gt };
        let nothing = Box::new(Expr::value(Value::Number("0".to_owned(), false)));
        let counted = Box::new(Expr::Subquery(subquery.clone()));
        *expr = Expr::Nested(Box::new(Expr::BinaryOp { left: counted, op, right: nothing }));
        ControlFlow::Continue(())
    }
}

fn is_double(kind: &DataType) -> bool {
    matches!(
        kind,
        DataType::Float(_) | DataType::Float8 | DataType::Float4 | DataType::Real | DataType::DoublePrecision
    )
}

fn is_similar(function: &Function) -> bool {
    function.name.to_string().eq_ignore_ascii_case("similar_to_escape")
}

/// A pattern of `SIMILAR TO` as the regular expression that it stands for.
fn similar_pattern(function: Function) -> Result<Expr> {
    let FunctionArguments::List(list) = &function.args else { return Ok(Expr::Function(function)) };
    let text = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value))) => match &value.value {
            Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => Some(text.clone()),
            _ => None,
        },
        _ => None,
    };
    let texts: Option<Vec<String>> = list.args.iter().map(text).collect();
    let Some(texts) = texts else {
        return Err(plan_datafusion_err!("a pattern of SIMILAR TO must be a constant here"));
    };
    let (Some(pattern), escape) = (texts.first(), texts.get(1)) else { return Ok(Expr::Function(function)) };
    let escape = match escape {
        None => None,
        Some(escape) if escape.chars().count() == 1 => escape.chars().next(),
        Some(_) => return Err(plan_datafusion_err!("invalid escape string: it must be one letter")),
    };
    Ok(Expr::value(Value::SingleQuotedString(pattern::similar(pattern, escape)?)))
}

fn is_series(function: &Function) -> bool {
    function.name.to_string().eq_ignore_ascii_case("generate_series")
}

/// Bounds of a frame are read as they are written, and not as values.
fn bounds_as_written(window: &mut WindowSpec) {
    let Some(frame) = &mut window.window_frame else { return };
    for bound in [Some(&mut frame.start_bound), frame.end_bound.as_mut()].into_iter().flatten() {
        let (WindowFrameBound::Preceding(Some(value)) | WindowFrameBound::Following(Some(value))) = bound else {
            continue;
        };
        if let Expr::Cast { expr: text, data_type: DataType::Interval { .. }, .. } = value.as_ref() {
            **value = Expr::Interval(Interval {
                value: text.clone(),
                leading_field: None,
                leading_precision: None,
                last_field: None,
                fractional_seconds_precision: None,
            });
        }
    }
}

/// A number without an exponent, and with a point where it is too long for an integer; as it was if
/// that is too long.
fn plain_number(number: String) -> String {
    let lower = number.replace('_', "").to_ascii_lowercase();
    let is_exact = lower.contains(['.', 'e']) || lower.parse::<i64>().is_err();
    let is_decimal = lower.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'-' | b'+'));
    if !is_exact || !is_decimal {
        return number;
    }
    match Number::parse(&lower) {
        Ok(exact) if exact.scale == 0 => format!("{}.", exact.value),
        Ok(exact) => decimal_text(exact.value, exact.scale),
        Err(_) => number,
    }
}

/// `left sign ANY (array)` as the function that stands for it.
fn quantified(name: &str, left: Expr, sign: &BinaryOperator, array: Expr) -> Expr {
    let array = match array {
        Expr::Nested(inner) => *inner,
        other => other,
    };
    call(name, vec![left, Expr::value(Value::SingleQuotedString(sign.to_string())), array])
}

/// `INTERVAL '…' unit` as a cast of its text.
fn interval_cast(interval: Interval) -> Result<Expr> {
    if interval.last_field.is_some() || interval.leading_precision.is_some() {
        return Err(plan_datafusion_err!("an interval with a range of fields or a precision is not supported here"));
    }
    let value = match *interval.value {
        Expr::Value(value) => match value.value {
            Value::SingleQuotedString(text) => text,
            Value::Number(number, _) => number,
            other => return Err(plan_datafusion_err!("an interval is a text, not {other}")),
        },
        other => return Err(plan_datafusion_err!("an interval is a text, not {other}")),
    };
    let text = match interval.leading_field {
        Some(field) if value.contains('.') && !matches!(field, DateTimeField::Second | DateTimeField::Seconds) => {
            return Err(plan_datafusion_err!("a fraction of {field} in an interval is not supported here"));
        }
        Some(field) if value.trim().parse::<f64>().is_ok() => format!("{value} {field}"),
        Some(_) => return Err(plan_datafusion_err!("an interval with fields is one number here")),
        None => value,
    };
    Ok(cast(Expr::value(Value::SingleQuotedString(text)), DataType::Interval { fields: None, precision: None }))
}
