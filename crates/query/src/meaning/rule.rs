//! Gives casts and comparisons of a plan PostgreSQL's meaning, before DataFusion makes types meet
//! in its own way.

use datafusion::{
    arrow::datatypes::DataType,
    common::{
        DFSchema, Result, ScalarValue, plan_err,
        tree_node::{Transformed, TreeNode},
    },
    config::ConfigOptions,
    logical_expr::{
        BinaryExpr, Expr, ExprSchemable, Join, Like, LogicalPlan, Operator, SortExpr, Union, WindowFrameBound,
        WindowFrameUnits,
        expr::{Between, Case, WindowFunctionParams},
        expr_rewriter::NamePreserver,
        lit,
        type_coercion::binary::comparison_coercion,
        utils::merge_schema,
    },
    optimizer::AnalyzerRule,
};

use super::{
    any,
    cast::{cast_to, closed, is_open},
    compare::Comparer,
    convert::Target,
    operator::{Operation, apply},
    order::order_key,
    pattern,
    same::same_key,
    types::{INTERVAL, More, canonical, is_text, name},
};

/// The rule.
#[derive(Debug)]
pub(super) struct Meaning;

impl AnalyzerRule for Meaning {
    fn name(&self) -> &str {
        "postgresql_meaning"
    }

    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        Ok(plan.transform_up_with_subqueries(|node| rewrite_node(node, config))?.data)
    }
}

fn rewrite_node(plan: LogicalPlan, config: &ConfigOptions) -> Result<Transformed<LogicalPlan>> {
    let mut schema = merge_schema(&plan.inputs());
    if let LogicalPlan::TableScan(scan) = &plan {
        let source = DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?;
        schema.merge(&source);
    }
    let names = NamePreserver::new(&plan);
    let comparer = Comparer { schema: &schema, config };
    let rewritten = plan.map_expressions(|expr| {
        let name = names.save(&expr);
        Ok(expr.transform_up(|expr| rewrite(expr, &comparer))?.update_data(|expr| name.restore(expr)))
    })?;
    if let LogicalPlan::Filter(filter) = &rewritten.data {
        must_be_boolean(&filter.predicate, &comparer, "WHERE")?;
    }
    if let LogicalPlan::Union(union) = &rewritten.data {
        must_be_alike(union)?;
    }
    let rewritten = rewritten.map_data(|plan| match plan {
        LogicalPlan::Join(join) => Ok(LogicalPlan::Join(join_keys(join, config)?)),
        LogicalPlan::Sort(mut sort) => {
            sort.expr = in_order(sort.expr, &comparer)?;
            Ok(LogicalPlan::Sort(sort))
        }
        other => Ok(other),
    })?;
    rewritten.map_data(LogicalPlan::recompute_schema)
}

/// What rows are ordered by, where the engine's order of values is not PostgreSQL's.
fn in_order(by: Vec<SortExpr>, comparer: &Comparer<'_>) -> Result<Vec<SortExpr>> {
    let one = |mut by: SortExpr| {
        by.expr = match canonical(&by.expr.get_type(comparer.schema)?) {
            INTERVAL => order_key(by.expr),
            _ => one_zero(by.expr, comparer)?,
        };
        Ok(by)
    };
    by.into_iter().map(one).collect()
}

/// A float with one zero and one NaN; any other value as it is.
fn one_zero(value: Expr, comparer: &Comparer<'_>) -> Result<Expr> {
    Ok(match canonical(&value.get_type(comparer.schema)?) {
        DataType::Float64 | DataType::Float32 => order_key(value),
        _ => value,
    })
}

/// Columns of texts and of others make no union.
fn must_be_alike(union: &Union) -> Result<()> {
    for column in 0..union.schema.fields().len() {
        let kinds = union.inputs.iter().filter_map(|input| input.schema().fields().get(column));
        let mut kinds: Vec<DataType> = kinds.map(|field| canonical(field.data_type())).collect();
        kinds.retain(|kind| *kind != DataType::Null);
        let (texts, others): (Vec<_>, Vec<_>) = kinds.iter().partition(|kind| is_text(kind));
        if let (Some(text), Some(other)) = (texts.first(), others.first()) {
            return plan_err!("UNION types {} and {} cannot be matched", name(other), name(text));
        }
    }
    Ok(())
}

/// Keys of a join are compared like any values.
fn join_keys(mut join: Join, config: &ConfigOptions) -> Result<Join> {
    let mut both = join.left.schema().as_ref().clone();
    both.merge(join.right.schema());
    let comparer = Comparer { schema: &both, config };
    let on = join.on.into_iter().map(|(left, right)| {
        let (left, right) = comparer.pair(left, right, "=")?;
        Ok((one_zero(left, &comparer)?, one_zero(right, &comparer)?))
    });
    join.on = on.collect::<Result<_>>()?;
    Ok(join)
}

fn must_be_boolean(value: &Expr, comparer: &Comparer<'_>, place: &str) -> Result<()> {
    let kind = value.get_type(comparer.schema)?;
    if matches!(kind, DataType::Boolean | DataType::Null) || is_open(value) {
        return Ok(());
    }
    plan_err!("argument of {place} must be type boolean, not type {}", name(&kind))
}

fn rewrite(expr: Expr, comparer: &Comparer<'_>) -> Result<Transformed<Expr>> {
    let schema = comparer.schema;
    let rewritten = match expr {
        Expr::Cast(cast) => {
            let from = cast.expr.get_type(schema)?;
            let target = Target { kind: cast.field.data_type().clone(), more: More::of(&cast.field) };
            cast_to(*cast.expr, &from, target, comparer.config)?
        }
        Expr::Negative(inner) => match canonical(&inner.get_type(schema)?) {
            DataType::Int16 => apply(Operation::Subtract, zero(ScalarValue::Int16(Some(0))), *inner),
            DataType::Int32 => apply(Operation::Subtract, zero(ScalarValue::Int32(Some(0))), *inner),
            DataType::Int64 => apply(Operation::Subtract, zero(ScalarValue::Int64(Some(0))), *inner),
            _ => return Ok(Transformed::no(Expr::Negative(inner))),
        },
        Expr::BinaryExpr(binary) => return rewrite_binary(binary, comparer),
        Expr::Between(between) => rewrite_between(between, comparer)?,
        Expr::InList(within) if !within.list.is_empty() => comparer.in_list(within)?,
        Expr::Case(case) => Expr::Case(rewrite_case(case, comparer)?),
        Expr::Like(like) => Expr::Like(plain_like(like, comparer)?),
        Expr::SimilarTo(like) => similar(like, comparer)?,
        Expr::ScalarFunction(mut function) => {
            if let Some(compared) = any::planned(&function, comparer)? {
                return Ok(Transformed::yes(compared));
            }
            let what = match function.name() {
                "coalesce" => "COALESCE",
                "greatest" => "GREATEST",
                "least" => "LEAST",
                "nullif" => "NULLIF",
                "make_array" => "ARRAY",
                _ => return Ok(Transformed::no(Expr::ScalarFunction(function))),
            };
            function.args = comparer.alike(function.args, what)?;
            Expr::ScalarFunction(function)
        }
        Expr::AggregateFunction(mut function) => {
            must_be_ordered(function.func.name(), &function.params.args, comparer)?;
            if function.params.distinct {
                // Zero and its negative are one value.
                function.params.args =
                    function.params.args.into_iter().map(|arg| one_zero(arg, comparer)).collect::<Result<_>>()?;
            }
            if !["mode", "percentile_cont", "percentile_disc"].contains(&function.func.name()) {
                function.params.order_by = in_order(function.params.order_by, comparer)?;
            }
            return Ok(Transformed::yes(Expr::AggregateFunction(function)));
        }
        Expr::WindowFunction(mut function) => {
            must_be_ordered(function.fun.name(), &function.params.args, comparer)?;
            must_not_span(&function.params, comparer)?;
            function.params.order_by = in_order(function.params.order_by, comparer)?;
            return Ok(Transformed::yes(Expr::WindowFunction(function)));
        }
        other => return Ok(Transformed::no(other)),
    };
    Ok(Transformed::yes(rewritten))
}

/// The same for an operator between two values.
fn rewrite_binary(binary: BinaryExpr, comparer: &Comparer<'_>) -> Result<Transformed<Expr>> {
    let BinaryExpr { left, op, right } = binary;
    let schema = comparer.schema;
    let rewritten = match op {
        Operator::Eq
        | Operator::NotEq
        | Operator::Lt
        | Operator::LtEq
        | Operator::Gt
        | Operator::GtEq
        | Operator::IsDistinctFrom
        | Operator::IsNotDistinctFrom => {
            let is_literal = |side: &Expr| matches!(side, Expr::Literal(..)) || is_open(side);
            // It may become a join's key, and keys are the same bit by bit.
            let is_key =
                matches!(op, Operator::Eq | Operator::IsNotDistinctFrom) && !is_literal(&left) && !is_literal(&right);
            let (left, right) = match is_key {
                true => (one_zero(*left, comparer)?, one_zero(*right, comparer)?),
                false => (*left, *right),
            };
            match op {
                Operator::IsNotDistinctFrom if is_key => {
                    let (left, right) = comparer.pair(left, right, "=")?;
                    let kinds = (left.get_type(schema)?, right.get_type(schema)?);
                    match comparison_coercion(&kinds.0, &kinds.1) {
                        // Each side by itself: what is compared may become a join's key.
                        Some(kind) => same_key(vec![left.cast_to(&kind, schema)?])
                            .eq(same_key(vec![right.cast_to(&kind, schema)?])),
                        None => comparer.comparison(left, op, right)?,
                    }
                }
                _ => comparer.comparison(left, op, right)?,
            }
        }
        Operator::RegexMatch | Operator::RegexIMatch | Operator::RegexNotMatch | Operator::RegexNotIMatch => {
            must_be_texts(&left, &right, comparer, "~")?;
            let right = with_pattern(*right, "a regular expression", pattern::regular)?;
            Expr::BinaryExpr(BinaryExpr { left, op, right: Box::new(right) })
        }
        Operator::And | Operator::Or => {
            let place = if op == Operator::And { "AND" } else { "OR" };
            must_be_boolean(&left, comparer, place)?;
            must_be_boolean(&right, comparer, place)?;
            return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })));
        }
        _ => return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right }))),
    };
    Ok(Transformed::yes(rewritten))
}

/// Bounds of a frame that are spans of what it is ordered by need that itself.
fn must_not_span(window: &WindowFunctionParams, comparer: &Comparer<'_>) -> Result<()> {
    let frame = &window.window_frame;
    let is_value = |bound: &WindowFrameBound| match bound {
        WindowFrameBound::Preceding(value) | WindowFrameBound::Following(value) => !value.is_null(),
        WindowFrameBound::CurrentRow => false,
    };
    let spans = frame.units == WindowFrameUnits::Range && (is_value(&frame.start_bound) || is_value(&frame.end_bound));
    for by in window.order_by.iter().filter(|_| spans) {
        if canonical(&by.expr.get_type(comparer.schema)?) == INTERVAL {
            return plan_err!("RANGE over intervals is not supported here");
        }
    }
    Ok(())
}

/// There is no least of values without an order, and that of intervals is not DataFusion's.
fn must_be_ordered(aggregate: &str, args: &[Expr], comparer: &Comparer<'_>) -> Result<()> {
    let ("min" | "max", [value]) = (aggregate, args) else { return Ok(()) };
    let kind = canonical(&value.get_type(comparer.schema)?);
    if matches!(kind, DataType::Boolean | DataType::Binary | DataType::Interval(_)) {
        return plan_err!("function {aggregate}({}) does not exist here", name(&kind));
    }
    Ok(())
}

fn zero(value: ScalarValue) -> Expr {
    Expr::Literal(value, None)
}

fn rewrite_between(between: Between, comparer: &Comparer<'_>) -> Result<Expr> {
    let Between { expr, negated, low, high } = between;
    let (above, low) = comparer.pair(expr.as_ref().clone(), *low, ">=")?;
    let (below, high) = comparer.pair(*expr, *high, "<=")?;
    if above == below {
        let (low, high) = (Box::new(low), Box::new(high));
        return Ok(Expr::Between(Between { expr: Box::new(above), negated, low, high }));
    }
    let within = above.gt_eq(low).and(below.lt_eq(high));
    Ok(if negated { Expr::Not(Box::new(within)) } else { within })
}

fn rewrite_case(case: Case, comparer: &Comparer<'_>) -> Result<Case> {
    let Case { mut expr, when_then_expr, else_expr } = case;
    let (mut whens, mut results): (Vec<Expr>, Vec<Expr>) = (Vec::new(), Vec::new());
    for (when, then) in when_then_expr {
        whens.push(*when);
        results.push(*then);
    }
    if let Some(value) = expr {
        let pairs = whens.into_iter().map(|when| comparer.pair(value.as_ref().clone(), when, "="));
        let pairs = pairs.collect::<Result<Vec<_>>>()?;
        let first = pairs.first().map(|(value, _)| value.clone());
        let Some(first) = first.filter(|first| pairs.iter().all(|(value, _)| value == first)) else {
            return plan_err!("the values of a CASE must be of one type here");
        };
        expr = Some(Box::new(first));
        whens = pairs.into_iter().map(|(_, when)| when).collect();
    } else {
        for when in &whens {
            must_be_boolean(when, comparer, "CASE/WHEN")?;
        }
    }
    let has_else = else_expr.is_some();
    results.extend(else_expr.map(|value| *value));
    let mut results = comparer.alike(results, "CASE")?;
    let else_expr = if has_else { results.pop().map(Box::new) } else { None };
    let when_then_expr = whens.into_iter().zip(results).map(|(when, then)| (Box::new(when), Box::new(then))).collect();
    Ok(Case { expr, when_then_expr, else_expr })
}

fn must_be_texts(one: &Expr, other: &Expr, comparer: &Comparer<'_>, sign: &str) -> Result<()> {
    let (one, other) = (one.get_type(comparer.schema)?, other.get_type(comparer.schema)?);
    let may_be = |kind: &DataType| is_text(kind) || *kind == DataType::Null;
    if may_be(&one) && may_be(&other) {
        return Ok(());
    }
    plan_err!("operator does not exist: {} {sign} {}", name(&one), name(&other))
}

/// A pattern of the question written in another way.
fn with_pattern(pattern: Expr, what: &str, written: impl Fn(&str) -> Result<String>) -> Result<Expr> {
    match &pattern {
        Expr::Literal(literal, _) => match literal.try_as_str() {
            Some(Some(text)) => Ok(lit(written(text)?)),
            _ => Ok(pattern),
        },
        _ => plan_err!("{what} must be a constant here"),
    }
}

fn plain_like(mut like: Like, comparer: &Comparer<'_>) -> Result<Like> {
    must_be_texts(&like.expr, &like.pattern, comparer, "LIKE")?;
    if let Some(escape) = like.escape_char.take().filter(|escape| *escape != '\\') {
        let written = |text: &str| pattern::like(text, escape);
        like.pattern = Box::new(with_pattern(*like.pattern, "a pattern with ESCAPE", written)?);
    }
    Ok(like)
}

fn similar(like: Like, comparer: &Comparer<'_>) -> Result<Expr> {
    must_be_texts(&like.expr, &like.pattern, comparer, "SIMILAR TO")?;
    let written = |text: &str| pattern::regular(&pattern::similar(text, like.escape_char)?);
    let right = Box::new(with_pattern(*like.pattern, "a pattern of SIMILAR TO", written)?);
    let op = if like.negated { Operator::RegexNotMatch } else { Operator::RegexMatch };
    Ok(Expr::BinaryExpr(BinaryExpr { left: like.expr, op, right }))
}

/// An open value beside one of a known type.
pub(super) fn open_as(value: Expr, kind: &DataType, config: &ConfigOptions) -> Result<Expr> {
    if is_open(&value) && !is_text(kind) { closed(value, kind, config) } else { Ok(value) }
}
