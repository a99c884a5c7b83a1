//! Larger shapes of plans: groups, windows, limits, recursion, lateral joins, and rows that null
//! stands for.

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::DataType,
    common::{Column, JoinType, Result, Spans},
    datasource::{cte_worktable::CteWorkTable, provider_as_source},
    functions_aggregate::expr_fn::{count, count_distinct, max, min, sum},
    functions_window::expr_fn::{lag, rank, row_number},
    logical_expr::{
        Expr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder, SortExpr, Subquery, cast, grouping_set, lit, rollup,
    },
};
use rand::Rng;

use super::{
    super::predicates::{not_distinct, utf8},
    Plans, ROWS_MAX, Rel, Typed, is_text,
};

/// Rows of the roster, and a little more.
const SITES: u64 = 6;

impl Plans {
    /// Rows of stores that may be missing, met with texts of which one is null.
    pub(super) fn null_among(&mut self, depth: u32) -> Result<Rel> {
        let (outer, of_stores) = (self.rel(depth - 1)?, self.of_stores()?);
        let rows = outer.rows * of_stores.rows;
        if rows > ROWS_MAX {
            return Ok(outer);
        }
        let kind = self.pick(&[JoinType::Left, JoinType::Left, JoinType::Full, JoinType::Inner]);
        let pairs = Self::pairs(&outer, &of_stores);
        let (place, columns) = (outer.columns().len(), [outer.columns(), of_stores.columns()].concat());
        let mut on = Vec::new();
        if !pairs.is_empty() {
            let (left, right) = self.pick(&pairs);
            on.push(Expr::Column(left.0).eq(Expr::Column(right.0)));
        }
        if on.is_empty() || self.chance(30) {
            on.push(self.predicate(&columns, 0)?);
        }
        let joined = outer.builder().join_on(of_stores.plan, kind, on)?;
        let mut joined = self.all_of(joined, rows)?;
        let site = joined.columns().swap_remove(place).0;
        if self.chance(30) {
            let others = LogicalPlanBuilder::scan("sites", provider_as_source(self.roster.clone()), None)?;
            let others = self.all_of(others, SITES)?;
            let on = [Expr::Column(site.clone()).eq(Expr::Column(others.columns().swap_remove(0).0))];
            let kind = self.pick(&[JoinType::Left, JoinType::Full, JoinType::Right]);
            let builder = joined.builder().join_on(others.plan, kind, on)?;
            joined = self.all_of(builder, rows + SITES)?;
        }
        let site = if self.chance(70) { joined.columns().swap_remove(place).0 } else { self.text_of(&joined) };
        let sites = self.finish(joined.builder(), vec![cast(Expr::Column(site), DataType::Utf8)], rows)?;
        let texts = LogicalPlanBuilder::scan("sites", provider_as_source(self.roster.clone()), None)?;
        let texts = self.all_of(texts, SITES)?;
        let texts = if self.chance(80) { self.filtered(texts, 0)? } else { texts };
        let texts = self.texts(texts, 1)?;
        let with_null = self.with_null(texts, 1)?;
        self.met(sites, with_null)
    }

    pub(super) fn text_of(&mut self, rel: &Rel) -> Column {
        let texts: Vec<Typed> = rel.columns().into_iter().filter(|(_, kind)| is_text(kind)).collect();
        if texts.is_empty() { rel.columns().swap_remove(0).0 } else { self.pick(&texts).0 }
    }

    /// Two plans of texts, one by the other.
    pub(super) fn met(&mut self, left: Rel, right: Rel) -> Result<Rel> {
        let (is_all, rows) = (self.chance(40), left.rows * right.rows);
        let left_rows = left.rows;
        let joins = if rows > ROWS_MAX { 0 } else { 2 };
        let plan = match self.random.random_range(0..8 + joins) {
            0..5 => LogicalPlanBuilder::intersect(left.plan, right.plan, is_all)?,
            5..8 => LogicalPlanBuilder::except(left.plan, right.plan, is_all)?,
            _ => {
                let places = left.columns().into_iter().zip(right.columns());
                let on = places.map(|(left, right)| not_distinct(Expr::Column(left.0), Expr::Column(right.0)));
                let on: Vec<Expr> = on.collect();
                let kind = self.pick(&[JoinType::Inner, JoinType::Left, JoinType::RightSemi, JoinType::LeftMark]);
                left.builder().join_on(right.plan, kind, on)?.build()?
            }
        };
        let kept = if joins == 0 { left_rows } else { rows };
        self.all_of(LogicalPlanBuilder::from(plan), kept)
    }

    pub(super) fn with_null(&mut self, rel: Rel, count: usize) -> Result<Rel> {
        let nulls = LogicalPlanBuilder::values(vec![vec![utf8(None); count]])?;
        let builder = rel.builder().union(nulls.build()?)?;
        self.all_of(builder, rel.rows + 1)
    }

    pub(super) fn aggregate(&mut self, depth: u32) -> Result<Rel> {
        let rel = self.rel(depth - 1)?;
        let columns = rel.columns();
        let mut keys: Vec<Expr> = Vec::new();
        for _ in 0..self.pick(&[0, 1, 1, 2]) {
            let column = Expr::Column(self.pick(&columns).0);
            if !keys.contains(&column) {
                keys.push(column);
            }
        }
        let (first, kind) = self.pick(&columns);
        let first = Expr::Column(first);
        let made = match self.random.random_range(0..4) {
            0 => count_distinct(first),
            1 if kind == DataType::Int64 => sum(first),
            2 => min(first),
            _ => max(first),
        };
        let keys = match self.random.random_range(0..8) {
            0 if !keys.is_empty() => vec![rollup(keys)],
            1 if keys.len() == 2 => vec![grouping_set(keys.into_iter().map(|key| vec![key]).collect())],
            _ => keys,
        };
        let made = if self.chance(50) { vec![count(lit(1))] } else { vec![made] };
        let builder = rel.builder().aggregate(keys, made)?;
        self.all_of(builder, rel.rows * 2)
    }

    /// All columns in turn: rows that this does not order are alike.
    pub(super) fn total_order(&mut self, rel: &Rel) -> Vec<SortExpr> {
        let mut columns = rel.columns();
        columns.rotate_left(self.random.random_range(0..rel.columns().len()));
        columns
            .into_iter()
            .map(|(column, _)| Expr::Column(column).sort(self.random.random_bool(0.5), self.random.random_bool(0.5)))
            .collect()
    }

    pub(super) fn distinct_on(&mut self, depth: u32) -> Result<Rel> {
        let rel = self.rel(depth - 1)?;
        let order = self.total_order(&rel);
        let all = rel.columns().into_iter().map(|(column, _)| Expr::Column(column)).collect();
        let builder = rel.builder().distinct_on(vec![order[0].expr.clone()], all, Some(order))?;
        self.all_of(builder, rel.rows)
    }

    pub(super) fn window(&mut self, depth: u32) -> Result<Rel> {
        let rel = self.rel(depth - 1)?;
        let order = self.total_order(&rel);
        let column = Expr::Column(self.pick(&rel.columns()).0);
        let function = match self.random.random_range(0..4) {
            0 => rank(),
            1 => lag(column, None, None),
            _ => row_number(),
        };
        let partition = if self.chance(60) { vec![Expr::Column(self.pick(&rel.columns()).0)] } else { Vec::new() };
        let window = function.partition_by(partition).order_by(order).build()?.alias("w");
        let builder = rel.builder().window([window])?;
        let rel = self.all_of(builder, rel.rows)?;
        if self.chance(50) { self.filtered(rel, 1) } else { Ok(rel) }
    }

    pub(super) fn limit(&mut self, depth: u32) -> Result<Rel> {
        let rel = self.rel(depth - 1)?;
        let order = self.total_order(&rel);
        let (skip, fetch) = (self.pick(&[0, 0, 1]), self.random.random_range(1..6));
        let builder = rel.builder().sort(order)?.limit(skip, Some(fetch))?;
        self.all_of(builder, 6)
    }

    pub(super) fn lateral(&mut self, depth: u32) -> Result<Rel> {
        let left = self.rel(depth - 1)?;
        let inner = self.correlated(&left.columns(), depth - 1)?;
        let rows = left.rows * inner.rows;
        if rows > ROWS_MAX {
            return Ok(left);
        }
        let mut inner = inner.plan;
        if self.chance(40) {
            let column = Expr::Column(inner.schema().columns().remove(0));
            inner = LogicalPlanBuilder::from(inner)
                .aggregate(Vec::<Expr>::new(), [max(column).alias("c0"), count(lit(1)).alias("c1")])?
                .build()?;
        }
        let outer_ref_columns = inner.all_out_ref_exprs();
        let right = if outer_ref_columns.is_empty() {
            inner
        } else {
            LogicalPlan::Subquery(Subquery { subquery: Arc::new(inner), outer_ref_columns, spans: Spans::new() })
        };
        let right = LogicalPlanBuilder::from(right).alias(self.fresh())?.build()?;
        let kind = self.pick(&[JoinType::Inner, JoinType::Left]);
        let builder = left.builder().join_on(right, kind, [lit(true)])?;
        self.all_of(builder, rows)
    }

    pub(super) fn recursive(&mut self, depth: u32) -> Result<Rel> {
        let (first, step) = (self.rel(depth - 1)?, self.rel(depth - 1)?);
        // Each text of the first, and of each step, finds a row of the next, in two steps.
        let rows = first.rows.min(8) * (1 + step.rows + step.rows * step.rows);
        if rows > 10 * ROWS_MAX {
            return Ok(first);
        }
        let (first, step) = (self.texts(first, 1)?, self.texts(step, 2)?);
        let (name, of_level) = (self.fresh(), || lit(0_i64).alias("level"));
        let text = Expr::Column(first.columns()[0].0.clone());
        let first = first.builder().project([text.alias("text"), of_level()])?.distinct()?.build()?;
        let table = CteWorkTable::new(&name, Arc::new(first.schema().as_arrow().clone()));
        let work = LogicalPlanBuilder::scan(name.as_str(), provider_as_source(Arc::new(table)), None)?;
        let of_work = |column: &str| Expr::Column(Column::new(Some(name.as_str()), column));
        let columns = step.columns();
        let kind = self.pick(&[JoinType::Inner, JoinType::Left]);
        let on = of_work("text").eq(Expr::Column(columns[0].0.clone()));
        let term = work
            .filter(of_work("level").lt(lit(2_i64)))?
            .join_on(step.plan, kind, [on])?
            .project([
                Expr::Column(columns[1].0.clone()).alias("text"),
                (of_work("level") + lit(1_i64)).alias("level"),
            ])?
            .build()?;
        let is_distinct = self.chance(30);
        let builder =
            LogicalPlanBuilder::from(first).to_recursive_query(name.clone(), term, is_distinct)?.alias(name)?;
        self.all_of(builder, rows)
    }
}
