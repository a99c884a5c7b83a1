//! Random logical plans over two tables that sites send, the roster and constant rows.

mod shapes;

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::{DataType, TimeUnit},
    common::{Column, JoinType, NullEquality, Result, ScalarValue},
    datasource::{TableProvider, provider_as_source},
    functions_aggregate::expr_fn::{count, max, min},
    logical_expr::{
        Expr, LogicalPlan, LogicalPlanBuilder, cast, exists, in_subquery, lit, not_exists, not_in_subquery,
        out_ref_col, scalar_subquery,
    },
};
use rand::{Rng, rngs::StdRng, seq::IndexedRandom};

use super::{predicates::utf8, rows};

/// A plan whose columns are `c0`, `c1`… of one alias.
pub(super) struct Rel {
    pub(super) plan: LogicalPlan,
    /// How many rows it has at most, about.
    rows: u64,
}

/// Plans with more rows than this would take longer than they are worth.
const ROWS_MAX: u64 = 400;
/// Of a table.
const ROWS_OF_TABLE: u64 = 8;

/// A column and its type.
pub(super) type Typed = (Column, DataType);

impl Rel {
    pub(super) fn columns(&self) -> Vec<Typed> {
        let kinds = self.plan.schema().fields().iter().map(|field| field.data_type().clone());
        self.plan.schema().columns().into_iter().zip(kinds).collect()
    }

    fn builder(&self) -> LogicalPlanBuilder {
        LogicalPlanBuilder::from(self.plan.clone())
    }
}

pub(super) fn is_text(kind: &DataType) -> bool {
    matches!(kind, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8)
}

pub(super) fn is_time(kind: &DataType) -> bool {
    matches!(kind, DataType::Timestamp(..) | DataType::Date32)
}

/// Whether values of two types are compared without a word.
fn is_alike(left: &DataType, right: &DataType) -> bool {
    (is_text(left) && is_text(right)) || left == right
}

/// Makes plans, each from what `random` says.
pub(super) struct Plans {
    pub(super) random: StdRng,
    /// The time that rows and literals are around, microseconds.
    pub(super) about: i64,
    tables: [Arc<dyn TableProvider>; 2],
    roster: Arc<dyn TableProvider>,
    names: u32,
}

impl Plans {
    pub(super) fn new(random: StdRng, about: i64) -> Self {
        Self { random, about, tables: rows::TABLES.map(rows::scanned), roster: rows::roster(), names: 0 }
    }

    pub(super) fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from.choose(&mut self.random).expect("some").clone()
    }

    pub(super) fn chance(&mut self, percent: u32) -> bool {
        self.random.random_ratio(percent, 100)
    }

    fn fresh(&mut self) -> String {
        self.names += 1;
        format!("q{}", self.names)
    }

    /// A whole question.
    pub(super) fn question(&mut self) -> Result<LogicalPlan> {
        let depth = self.pick(&[1, 2, 2, 3, 3, 4]);
        let rel = self.rel(depth)?;
        let mut columns: Vec<Expr> = rel.columns().into_iter().map(|(column, _)| Expr::Column(column)).collect();
        while columns.len() > 1 && self.chance(60) {
            columns.remove(self.random.random_range(0..columns.len()));
        }
        match self.random.random_range(0..8) {
            0 => rel.builder().aggregate(Vec::<Expr>::new(), [count(lit(1)), max(columns.remove(0))])?.build(),
            1 => rel.builder().project(columns)?.distinct()?.build(),
            _ => rel.builder().project(columns)?.build(),
        }
    }

    fn all_of(&mut self, builder: LogicalPlanBuilder, rows: u64) -> Result<Rel> {
        let columns = builder.schema().columns().into_iter().filter(|column| column.name != "__grouping_id");
        let columns = columns.map(Expr::Column).collect();
        self.finish(builder, columns, rows)
    }

    fn finish(&mut self, builder: LogicalPlanBuilder, columns: Vec<Expr>, rows: u64) -> Result<Rel> {
        let columns = columns.into_iter().enumerate().map(|(index, expr)| expr.alias(format!("c{index}")));
        let plan = builder.project(columns.collect::<Vec<_>>())?.alias(self.fresh())?.build()?;
        Ok(Rel { plan, rows })
    }

    pub(super) fn rel(&mut self, depth: u32) -> Result<Rel> {
        if depth == 0 {
            return self.leaf();
        }
        match self.random.random_range(0..33) {
            30.. => self.null_among(depth),
            0..6 => self.filter(depth),
            6..14 => self.join(depth),
            14 | 15 => self.union(depth),
            16..20 => self.intersection(depth),
            20 | 21 => self.aggregate(depth),
            22 => {
                let rel = self.rel(depth - 1)?;
                self.all_of(rel.builder().distinct()?, rel.rows)
            }
            23 => self.distinct_on(depth),
            24 => self.window(depth),
            25 => self.limit(depth),
            26 => self.lateral(depth),
            27 => self.recursive(depth),
            28 => self.projection(depth),
            _ => self.leaf(),
        }
    }

    fn of_stores(&mut self) -> Result<Rel> {
        let index = self.random.random_range(0..2);
        let source = provider_as_source(self.tables[index].clone());
        self.all_of(LogicalPlanBuilder::scan(rows::TABLES[index], source, None)?, ROWS_OF_TABLE)
    }

    fn leaf(&mut self) -> Result<Rel> {
        let null = || utf8(None);
        let builder = match self.random.random_range(0..10) {
            0..6 => {
                let rel = self.of_stores()?;
                return if self.chance(45) { self.filtered(rel, 1) } else { Ok(rel) };
            }
            6 | 7 => LogicalPlanBuilder::scan("sites", provider_as_source(self.roster.clone()), None)?,
            _ => {
                let count = self.random.random_range(1..4);
                let rows = (0..count).map(|_| {
                    let text = self.pick(&rows::TEXTS);
                    let text = if self.chance(25) { null() } else { utf8(Some(text)) };
                    vec![text, lit(self.random.random_range(0..4_i64))]
                });
                LogicalPlanBuilder::values(rows.collect())?
            }
        };
        let rel = self.all_of(builder, rows::SITES as u64)?;
        if self.chance(50) { self.filtered(rel, 1) } else { Ok(rel) }
    }

    fn filtered(&mut self, rel: Rel, depth: u32) -> Result<Rel> {
        let predicate = self.predicate(&rel.columns(), depth)?;
        let builder = rel.builder().filter(predicate)?;
        self.all_of(builder, rel.rows)
    }

    fn filter(&mut self, depth: u32) -> Result<Rel> {
        let rel = self.rel(depth - 1)?;
        self.filtered(rel, depth)
    }

    /// Pairs of columns, one of each, that can be compared.
    fn pairs(left: &Rel, right: &Rel) -> Vec<(Typed, Typed)> {
        let right = right.columns();
        let of_left = |left: Typed| right.iter().map(move |right| (left.clone(), right.clone())).collect::<Vec<_>>();
        let all = left.columns().into_iter().flat_map(of_left);
        all.filter(|(left, right)| is_alike(&left.1, &right.1)).collect()
    }

    fn join(&mut self, depth: u32) -> Result<Rel> {
        let (left, right) = (self.rel(depth - 1)?, self.rel(depth - 1)?);
        let of_one =
            [JoinType::LeftSemi, JoinType::RightSemi, JoinType::LeftAnti, JoinType::RightAnti, JoinType::LeftMark];
        let of_both = [JoinType::Inner, JoinType::Left, JoinType::Right, JoinType::Full];
        let is_of_one = left.rows * right.rows > ROWS_MAX || self.chance(40);
        let kind = if is_of_one { self.pick(&of_one) } else { self.pick(&of_both) };
        let rows = if is_of_one { left.rows.max(right.rows) } else { left.rows * right.rows };
        let pairs = Self::pairs(&left, &right);
        let both: Vec<Typed> = left.columns().into_iter().chain(right.columns()).collect();
        let filter = if self.chance(40) { Some(self.predicate(&both, 0)?) } else { None };
        let nulls = self.pick(&[NullEquality::NullEqualsNothing, NullEquality::NullEqualsNull]);
        let mut keys = (Vec::new(), Vec::new());
        if !pairs.is_empty() {
            let count = self.pick(&[1, 1, 1, 2]);
            for _ in 0..count {
                // First columns are mostly the site's id.
                let index = if self.chance(30) { 0 } else { self.random.random_range(0..pairs.len()) };
                let (left, right) = pairs[index].clone();
                keys.0.push(left.0);
                keys.1.push(right.0);
            }
        }
        let builder = if keys.0.is_empty() || self.chance(15) {
            let of_keys = keys.0.into_iter().zip(keys.1).map(|(left, right)| {
                let (left, right) = (Expr::Column(left), Expr::Column(right));
                if nulls == NullEquality::NullEqualsNull {
                    super::predicates::not_distinct(left, right)
                } else {
                    left.eq(right)
                }
            });
            let all: Vec<Expr> = of_keys.chain(filter).collect();
            let all = if all.is_empty() { vec![lit(true)] } else { all };
            left.builder().join_on(right.plan, kind, all)?
        } else {
            left.builder().join_detailed(right.plan, kind, keys, filter, nulls)?
        };
        self.all_of(builder, rows)
    }

    /// A text column, or a text, or null: `count` of them.
    fn texts(&mut self, rel: Rel, count: usize) -> Result<Rel> {
        let texts: Vec<Typed> = rel.columns().into_iter().filter(|(_, kind)| is_text(kind)).collect();
        let mut columns = Vec::new();
        for _ in 0..count {
            let text = if texts.is_empty() || self.chance(8) {
                let text = self.pick(&rows::TEXTS);
                utf8(Some(text).filter(|_| self.random.random_bool(0.5)))
            } else {
                Expr::Column(self.pick(&texts).0)
            };
            columns.push(cast(text, DataType::Utf8));
        }
        self.finish(rel.builder(), columns, rel.rows)
    }

    fn union(&mut self, depth: u32) -> Result<Rel> {
        let (left, right) = (self.rel(depth - 1)?, self.rel(depth - 1)?);
        let kinds = |rel: &Rel| rel.columns().into_iter().map(|(_, kind)| kind).collect::<Vec<_>>();
        let (left, right) =
            if kinds(&left) == kinds(&right) { (left, right) } else { (self.texts(left, 2)?, self.texts(right, 2)?) };
        let rows = left.rows + right.rows;
        let builder = left.builder();
        let builder = if self.chance(70) { builder.union(right.plan)? } else { builder.union_distinct(right.plan)? };
        self.all_of(builder, rows)
    }

    fn intersection(&mut self, depth: u32) -> Result<Rel> {
        let count = self.pick(&[1, 1, 1, 2]);
        let (left, right) = (self.rel(depth - 1)?, self.rel(depth - 1)?);
        let (left, mut right) = (self.texts(left, count)?, self.texts(right, count)?);
        if self.chance(40) {
            right = self.with_null(right, count)?;
        }
        self.met(left, right)
    }

    fn projection(&mut self, depth: u32) -> Result<Rel> {
        let rel = self.rel(depth - 1)?;
        let mut columns = Vec::new();
        for (column, kind) in rel.columns() {
            let column = Expr::Column(column);
            columns.push(if !self.chance(40) {
                column
            } else if is_text(&kind) {
                match self.random.random_range(0..3) {
                    0 => datafusion::functions::core::expr_fn::coalesce(vec![column, utf8(Some("s1"))]),
                    1 => cast(column, DataType::LargeUtf8),
                    _ => datafusion::functions::core::expr_fn::nullif(column, utf8(Some("s1"))),
                }
            } else if is_time(&kind) {
                self.of_time(column, kind).0
            } else {
                column.is_null()
            });
        }
        self.finish(rel.builder(), columns, rel.rows)
    }

    /// Rows of another plan that go with a column of the outer one.
    fn correlated(&mut self, outer: &[Typed], depth: u32) -> Result<Rel> {
        let inner = self.rel(depth)?;
        let inner = if self.chance(40) { self.filtered(inner, 0)? } else { inner };
        let mut pairs = Vec::new();
        for (column, kind) in inner.columns() {
            for (outer, outer_kind) in outer {
                if is_alike(&kind, outer_kind) {
                    pairs.push((column.clone(), out_ref_col(outer_kind.clone(), outer.clone())));
                }
            }
        }
        if pairs.is_empty() || self.chance(15) {
            return Ok(inner);
        }
        let (column, outer) = self.pick(&pairs);
        let is_same = match self.random.random_range(0..8) {
            0 => super::predicates::not_distinct(Expr::Column(column), outer),
            1 => Expr::Column(column).lt(outer),
            _ => Expr::Column(column).eq(outer),
        };
        Ok(Rel { plan: inner.builder().filter(is_same)?.build()?, rows: inner.rows })
    }

    /// A predicate that asks another plan.
    pub(super) fn of_subquery(&mut self, outer: &[Typed], depth: u32) -> Result<Expr> {
        let inner = self.correlated(outer, depth)?;
        let (column, kind) = self.pick(&inner.columns());
        let column = Expr::Column(column);
        let alike: Vec<Typed> = outer.iter().filter(|(_, other)| is_alike(other, &kind)).cloned().collect();
        let is_exists = alike.is_empty() || self.chance(35);
        if is_exists {
            let plan = Arc::new(inner.builder().project([lit(1)])?.build()?);
            return Ok(if self.chance(60) { exists(plan) } else { not_exists(plan) });
        }
        let subject = Expr::Column(self.pick(&alike).0);
        if self.chance(30) {
            let value = if self.chance(50) { max(column) } else { min(column) };
            let plan = inner.builder().aggregate(Vec::<Expr>::new(), [value])?.build()?;
            let value = scalar_subquery(Arc::new(plan));
            return Ok(if self.chance(60) { subject.eq(value) } else { subject.lt_eq(value) });
        }
        let plan = Arc::new(inner.builder().project([column])?.build()?);
        Ok(if self.chance(60) { in_subquery(subject, plan) } else { not_in_subquery(subject, plan) })
    }
}

/// A unit of time.
pub(super) const UNITS: [TimeUnit; 4] =
    [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond];

/// A literal of the type, at this time.
pub(super) fn literal(micros: i64, kind: &DataType) -> Expr {
    let utc = ScalarValue::TimestampMicrosecond(Some(micros), None);
    let value = match kind {
        DataType::Timestamp(unit, zone) => match unit {
            TimeUnit::Second => ScalarValue::TimestampSecond(Some(micros.div_euclid(1_000_000)), zone.clone()),
            TimeUnit::Millisecond => ScalarValue::TimestampMillisecond(Some(micros.div_euclid(1000)), zone.clone()),
            TimeUnit::Microsecond => ScalarValue::TimestampMicrosecond(Some(micros), zone.clone()),
            TimeUnit::Nanosecond => ScalarValue::TimestampNanosecond(Some(micros * 1000), zone.clone()),
        },
        _ => utc.cast_to(kind).expect("a date"),
    };
    lit(value)
}
