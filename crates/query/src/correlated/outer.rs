//! A subquery's answers for each row outside, all at once.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use datafusion::{
    arrow::datatypes::FieldRef,
    common::{
        Column, DFSchema, JoinType, Result,
        tree_node::{Transformed, TreeNode},
    },
    functions_window::row_number::row_number_udwf,
    logical_expr::{
        Aggregate, Distinct, DistinctOn, Expr, ExprSchemable, FetchType, Filter, Join, Limit, LogicalPlan,
        LogicalPlanBuilder, SkipType, Sort, SortExpr, SubqueryAlias, Union, Values, Window, WindowFunctionDefinition,
        expr::{AggregateFunction, WindowFunction},
        expr_rewriter::{NamePreserver, unalias},
        lit,
        utils::conjunction,
        when,
    },
};

use super::{
    plans::{aliased, columns, join, key, kind, project, unsupported, value},
    references::References,
    steady::must_be_steady,
};
use crate::meaning::same_key;

/// Names of columns that are added begin so; each is used once.
const PREFIX: &str = "__outer";
static NUMBER: AtomicU64 = AtomicU64::new(0);

fn number() -> u64 {
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

/// The distinct values, outside, of the columns that a subquery refers to: its parameters.
///
/// [`Outer::push`] carries them down through the subquery to where they are used, so that it
/// answers for all of them at once: each step then works by parameter, as Neumann and Kemper,
/// "Unnesting Arbitrary Queries" (BTW 2015), describe. What a step does with one parameter's rows
/// depends on no other's.
#[derive(Debug)]
pub(super) struct Outer {
    /// A row for each distinct combination of values.
    rows: LogicalPlan,
    /// The column outside, and the name of its values here.
    columns: Vec<(Column, String)>,
}

impl Outer {
    /// The values of `wanted` among the rows of `outside`.
    pub(super) fn new(outside: &LogicalPlan, wanted: Vec<Column>) -> Result<Self> {
        must_be_steady(outside)?;
        let number = number();
        let mut columns: Vec<(Column, String)> = Vec::new();
        for column in wanted {
            if columns.iter().all(|(known, _)| *known != column) {
                let name = format!("{PREFIX}_{number}_{}", columns.len());
                columns.push((column, name));
            }
        }
        let values = columns.iter().map(|(column, name)| Ok(value(column, outside.schema())?.alias(name)));
        let values = values.collect::<Result<Vec<_>>>()?;
        let rows = LogicalPlanBuilder::from(outside.clone()).project(values)?.distinct()?.build()?;
        Ok(Self { rows, columns })
    }

    /// A name for the subquery's value.
    pub(super) fn value_name(&self) -> String {
        format!("{PREFIX}_{}_value", number())
    }

    /// Whether a row outside belongs to a row of [`Outer::push`]; `of` gives the outside column's
    /// value.
    pub(super) fn condition(&self, of: impl Fn(&Column) -> Result<Expr>) -> Result<Expr> {
        if self.columns.is_empty() {
            return Ok(lit(true));
        }
        let values = self.columns.iter().map(|(column, _)| of(column)).collect::<Result<Vec<_>>>()?;
        Ok(same_key(values).eq(same_key(self.keys().collect())))
    }

    /// The subquery's rows for each combination of values: its columns as they were, and the
    /// values.
    pub(super) fn push(&self, plan: &LogicalPlan) -> Result<LogicalPlan> {
        let references = References::of(plan)?;
        if !references.deep.is_empty() {
            return unsupported("that refers to a table two levels further out");
        }
        if references.own.is_empty() {
            return join(self.rows.clone(), plan.clone(), JoinType::Inner, None);
        }
        match plan {
            LogicalPlan::Projection(projection) => self.projected(&projection.expr, &projection.input),
            LogicalPlan::SubqueryAlias(SubqueryAlias { input, alias, .. }) => {
                self.projected(&aliased(input.schema(), alias), input)
            }
            LogicalPlan::Filter(filter) => {
                let predicate = self.here(filter.predicate.clone())?;
                Ok(LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(self.push(&filter.input)?))?))
            }
            LogicalPlan::Join(one) => self.joined(one),
            LogicalPlan::Aggregate(aggregate) => self.aggregated(aggregate),
            LogicalPlan::Window(window) => self.windowed(window),
            LogicalPlan::Sort(sort) => {
                let (expr, input) = (self.sorted_by(&sort.expr)?, Arc::new(self.push(&sort.input)?));
                Ok(LogicalPlan::Sort(Sort { expr, input, fetch: sort.fetch }))
            }
            LogicalPlan::Limit(limit) => self.limited(limit),
            LogicalPlan::Distinct(Distinct::All(input)) => {
                Ok(LogicalPlan::Distinct(Distinct::All(Arc::new(self.push(input)?))))
            }
            LogicalPlan::Distinct(Distinct::On(on)) => self.distinct_on(on),
            LogicalPlan::Union(union) => {
                let parts = union.inputs.iter().map(|input| self.with_keys(self.push(input)?, columns(input.schema())));
                self.united(parts.collect::<Result<Vec<_>>>()?, plan.schema())
            }
            LogicalPlan::Values(values) => self.values(values),
            other => unsupported(&format!("with {} over its rows", kind(other))),
        }
    }

    fn keys(&self) -> impl Iterator<Item = Expr> {
        self.columns.iter().map(|(_, name)| key(name))
    }

    /// An expression of the subquery, with values for the columns outside.
    fn here(&self, expr: Expr) -> Result<Expr> {
        let names = NamePreserver::new_for_projection();
        let name = names.save(&expr);
        let inside = expr.transform(|expr| match &expr {
            Expr::OuterReferenceColumn(_, column) => match self.columns.iter().find(|(known, _)| known == column) {
                Some((_, name)) => Ok(Transformed::yes(key(name))),
                None => unsupported("that refers to a table two levels further out"),
            },
            _ => Ok(Transformed::no(expr)),
        })?;
        Ok(if inside.transformed { name.restore(inside.data) } else { inside.data })
    }

    fn all_here(&self, exprs: &[Expr]) -> Result<Vec<Expr>> {
        exprs.iter().map(|expr| self.here(expr.clone())).collect()
    }

    fn sorted_by(&self, by: &[SortExpr]) -> Result<Vec<SortExpr>> {
        by.iter().map(|by| Ok(by.with_expr(unalias(self.here(by.expr.clone())?)))).collect()
    }

    pub(super) fn with_keys(&self, input: LogicalPlan, columns: Vec<Expr>) -> Result<LogicalPlan> {
        project(input, self.keys().chain(columns).collect())
    }

    fn projected(&self, exprs: &[Expr], input: &LogicalPlan) -> Result<LogicalPlan> {
        self.with_keys(self.push(input)?, self.all_here(exprs)?)
    }

    fn joined(&self, one: &Join) -> Result<LogicalPlan> {
        let (left, right) = (References::of(&one.left)?, References::of(&one.right)?);
        let remade = |left: LogicalPlan, right: LogicalPlan, also: Option<Expr>| {
            let on = one.on.iter().map(|(left, right)| Ok((self.here(left.clone())?, self.here(right.clone())?)));
            let filter = one.filter.clone().map(|filter| self.here(filter)).transpose()?;
            let filter = conjunction(also.into_iter().chain(filter));
            let (left, right, on) = (Arc::new(left), Arc::new(right), on.collect::<Result<_>>()?);
            let (kind, constraint, nulls) = (one.join_type, one.join_constraint, one.null_equality);
            Ok(LogicalPlan::Join(Join::try_new(left, right, on, filter, kind, constraint, nulls, one.null_aware)?))
        };
        // Where both sides go by the values, those of the side that is kept whole are the join's.
        let joined = match (one.join_type, left.is_empty(), right.is_empty()) {
            (JoinType::Inner | JoinType::Left, _, true) => {
                return remade(self.push(&one.left)?, one.right.as_ref().clone(), None);
            }
            (JoinType::Inner | JoinType::Right, true, _) => {
                return remade(one.left.as_ref().clone(), self.push(&one.right)?, None);
            }
            (JoinType::Inner | JoinType::Left, ..) => {
                let (right, same) = self.renamed(self.push(&one.right)?)?;
                remade(self.push(&one.left)?, right, Some(same))?
            }
            (JoinType::Right, ..) => {
                let (left, same) = self.renamed(self.push(&one.left)?)?;
                remade(left, self.push(&one.right)?, Some(same))?
            }
            (other, ..) => return unsupported(&format!("with a {other} join")),
        };
        self.with_keys(joined, columns(&one.schema))
    }

    /// The same rows with the values under other names; and that they are the same as under these.
    fn renamed(&self, plan: LogicalPlan) -> Result<(LogicalPlan, Expr)> {
        let number = number();
        let other = |place: usize| format!("{PREFIX}_{number}_{place}");
        let keys = self.keys().enumerate().map(|(place, value)| value.alias(other(place)));
        let is_key = |column: &Column| self.columns.iter().any(|(_, name)| *name == column.name);
        let others = plan.schema().columns().into_iter().filter(|column| !is_key(column));
        let all = keys.chain(others.map(Expr::Column)).collect();
        let others = (0..self.columns.len()).map(|place| key(&other(place))).collect();
        Ok((project(plan, all)?, same_key(self.keys().collect()).eq(same_key(others))))
    }

    fn aggregated(&self, aggregate: &Aggregate) -> Result<LogicalPlan> {
        let groups = &aggregate.group_expr;
        if groups.iter().any(|group| matches!(group, Expr::GroupingSet(_))) {
            return unsupported("with GROUPING SETS, CUBE or ROLLUP");
        }
        let input = Arc::new(self.push(&aggregate.input)?);
        let by = self.keys().chain(self.all_here(groups)?).collect();
        let totals = LogicalPlan::Aggregate(Aggregate::try_new(input, by, self.all_here(&aggregate.aggr_expr)?)?);
        if !groups.is_empty() {
            return Ok(totals);
        }
        // A total has a row where nothing is totalled, too.
        let found = format!("{PREFIX}_{}_found", number());
        let (totals, same) = self.renamed(totals)?;
        let mut all_of_them = columns(totals.schema());
        all_of_them.push(lit(true).alias(&found));
        let totals = project(totals, all_of_them)?;
        let all = join(self.rows.clone(), totals, JoinType::Left, Some(same))?;
        let value = |(expr, column): (&Expr, Column)| {
            let Expr::AggregateFunction(AggregateFunction { func, .. }) = unalias(expr.clone()) else {
                return unsupported("with an aggregate of another kind");
            };
            let default = func.default_value(&expr.get_type(aggregate.input.schema())?)?;
            if default.is_null() {
                return Ok(Expr::Column(column));
            }
            let value =
                when(key(&found).is_null(), Expr::Literal(default, None)).otherwise(Expr::Column(column.clone()))?;
            Ok(value.alias_qualified(column.relation, column.name))
        };
        let values = aggregate.aggr_expr.iter().zip(aggregate.schema.columns()).map(value);
        self.with_keys(all, values.collect::<Result<_>>()?)
    }

    fn windowed(&self, window: &Window) -> Result<LogicalPlan> {
        let names = NamePreserver::new_for_projection();
        let within = |expr: &Expr| {
            let name = names.save(expr);
            let by_value = self.here(unalias(expr.clone()))?.transform(|expr| match expr {
                Expr::WindowFunction(mut function) => {
                    function.params.partition_by.extend(self.keys());
                    Ok(Transformed::yes(Expr::WindowFunction(function)))
                }
                other => Ok(Transformed::no(other)),
            })?;
            Ok(name.restore(unalias(by_value.data)))
        };
        let exprs = window.window_expr.iter().map(within).collect::<Result<Vec<_>>>()?;
        Ok(LogicalPlan::Window(Window::try_new(exprs, Arc::new(self.push(&window.input)?))?))
    }

    /// The first rows of each value.
    fn limited(&self, limit: &Limit) -> Result<LogicalPlan> {
        // A limit may be applied below a step that takes each row by itself.
        let below = |input: &Arc<LogicalPlan>| {
            LogicalPlan::Limit(Limit { input: input.clone(), skip: limit.skip.clone(), fetch: limit.fetch.clone() })
        };
        let (by, input) = match limit.input.as_ref() {
            LogicalPlan::Projection(projection) => return self.projected(&projection.expr, &below(&projection.input)),
            LogicalPlan::SubqueryAlias(SubqueryAlias { input, alias, .. }) => {
                return self.push(&LogicalPlanBuilder::from(below(input)).alias(alias.clone())?.build()?);
            }
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => (self.sorted_by(&sort.expr)?, &sort.input),
            _ => (Vec::new(), &limit.input),
        };
        let (skip, fetch) = bounds(limit)?;
        let input = self.push(input)?;
        let all = columns(input.schema());
        let (numbered, row) = numbered(input, self.keys().collect(), by)?;
        let after = key(&row).gt(lit(skip));
        let within = match fetch {
            Some(fetch) => after.and(key(&row).lt_eq(lit(skip.saturating_add(fetch)))),
            None => after,
        };
        project(LogicalPlan::Filter(Filter::try_new(within, Arc::new(numbered))?), all)
    }

    /// The first row of each combination of what it goes by.
    fn distinct_on(&self, on: &DistinctOn) -> Result<LogicalPlan> {
        let by: Vec<Expr> = self.keys().chain(self.all_here(&on.on_expr)?.into_iter().map(unalias)).collect();
        let order = on.sort_expr.as_ref().map(|order| self.sorted_by(order)).transpose()?.unwrap_or_default();
        let (numbered, row) = numbered(self.push(&on.input)?, by, order)?;
        let first = Filter::try_new(key(&row).eq(lit(1_u64)), Arc::new(numbered))?;
        self.with_keys(LogicalPlan::Filter(first), self.all_here(&on.select_expr)?)
    }

    /// All of `parts`, which have the keys first, with the names of `schema`.
    fn united(&self, parts: Vec<LogicalPlan>, schema: &DFSchema) -> Result<LogicalPlan> {
        let union = Union::try_new_with_loose_types(parts.into_iter().map(Arc::new).collect())?;
        let columns = union.schema.columns().into_iter().skip(self.columns.len());
        let named = columns.zip(schema.columns()).map(|(column, named)| {
            let is_same = column == named;
            let value = Expr::Column(column);
            if is_same { value } else { value.alias_qualified(named.relation, named.name) }
        });
        let named = named.collect();
        self.with_keys(LogicalPlan::Union(union), named)
    }

    fn values(&self, values: &Values) -> Result<LogicalPlan> {
        let rows = values.values.iter().map(|row| {
            let value = |(expr, field): (&Expr, &FieldRef)| {
                let value = unalias(self.here(expr.clone())?);
                Ok(value.cast_to(field.data_type(), self.rows.schema())?.alias(field.name()))
            };
            let row = row.iter().zip(values.schema.fields()).map(value).collect::<Result<Vec<_>>>()?;
            self.with_keys(self.rows.clone(), row)
        });
        self.united(rows.collect::<Result<Vec<_>>>()?, &values.schema)
    }
}

/// The rows with their number among those that have the same values of `by`, and the name of that
/// column.
fn numbered(rows: LogicalPlan, by: Vec<Expr>, order: Vec<SortExpr>) -> Result<(LogicalPlan, String)> {
    let name = format!("{PREFIX}_{}_row", number());
    let mut function = WindowFunction::new(WindowFunctionDefinition::WindowUDF(row_number_udwf()), Vec::new());
    (function.params.partition_by, function.params.order_by) = (by, order);
    let number = Expr::from(function).alias(&name);
    Ok((LogicalPlan::Window(Window::try_new(vec![number], Arc::new(rows))?), name))
}

/// How many rows a limit leaves out, and how many it takes then; none for all.
fn bounds(limit: &Limit) -> Result<(u64, Option<u64>)> {
    let (SkipType::Literal(skip), FetchType::Literal(fetch)) = (limit.get_skip_type()?, limit.get_fetch_type()?) else {
        return unsupported("with a LIMIT or OFFSET that is not a number");
    };
    Ok((skip as u64, fetch.map(|fetch| fetch as u64)))
}
