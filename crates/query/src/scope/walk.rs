//! Carries restrictions from the root of a plan to its scans.
//!
//! A restriction on a column of a node's output says: rows that do not satisfy it can be there or
//! not, the answer is the same. The walk turns it into restrictions on the node's inputs, of which
//! the same must hold. Columns are named by their places: both sides of a join may have the same
//! names.
//!
//! The rule by which a restriction passes a join, from one side's key to the other's: only where
//! rows of the other side without a match leave no trace in the output. A restriction that comes
//! from above passes to the side that has its column. Where that side's columns are null in rows
//! without a match, it passes only if null does not satisfy it: else a row of any site could match,
//! take such a row away, and be seen by its absence. So each restriction knows whether null may
//! satisfy it; values that came through a join in which null equals null may be null.

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::{DataType, SchemaRef},
    common::{
        Column, DFSchema, JoinType, NullEquality, Result,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    logical_expr::{
        Cast, Distinct, Expr, ExprSchemable, Filter, Join, LogicalPlan, TableScan, TryCast, cast,
        utils::split_conjunction,
    },
};
use rollcall_lake::our_columns;
use rollcall_types::TableName;

use super::{among::reads_no_site, site_table};

/// Something that values of a column satisfy, or their rows do not matter.
#[derive(Debug, Clone)]
pub(super) enum Restriction {
    /// They are among the values of a column of a plan that reads no site table.
    Among {
        plan: Arc<LogicalPlan>,
        key: Column,
        /// Null may be, too.
        or_null: bool,
    },
    /// They make a predicate true.
    Satisfies(Predicate),
}

impl Restriction {
    /// Whether null may satisfy it. A predicate may be true of null.
    fn may_hold_of_null(&self) -> bool {
        match self {
            Self::Among { or_null, .. } => *or_null,
            Self::Satisfies(_) => true,
        }
    }

    /// The same of values that found an equal one in a join with this notion of equality.
    fn of_matched(self, nulls: NullEquality) -> Self {
        match self {
            Self::Among { plan, key, .. } if nulls == NullEquality::NullEqualsNothing => {
                Self::Among { plan, key, or_null: false }
            }
            other => other,
        }
    }
}

/// A predicate over one column.
#[derive(Debug, Clone)]
pub(super) struct Predicate {
    expr: Expr,
    /// The column's type, where the predicate was written.
    kind: DataType,
}

impl Predicate {
    /// The predicate and the place of its column, if it looks at nothing else and gives the same
    /// each time.
    fn of(expr: &Expr, schema: &DFSchema) -> Option<(usize, Self)> {
        let place = schema.maybe_index_of_column(&only_column(expr)?)?;
        let kind = schema.field(place).data_type().clone();
        Some((place, Self { expr: expr.clone(), kind }))
    }

    /// The predicate itself.
    pub(super) fn expr(&self) -> &Expr {
        &self.expr
    }

    /// The same over a column of this name and type.
    pub(super) fn over(&self, name: &str, kind: &DataType) -> Result<Expr> {
        let column = Expr::Column(Column::from_name(name));
        let column = if *kind == self.kind { column } else { cast(column, self.kind.clone()) };
        let renamed = self.expr.clone().transform_down(|expr| {
            Ok(match expr {
                Expr::Column(_) => Transformed::new(column.clone(), true, TreeNodeRecursion::Jump),
                other => Transformed::no(other),
            })
        });
        Ok(renamed?.data)
    }
}

/// A restriction on the column at this place of a plan's output.
type Known = (usize, Restriction);

/// A scan with all that restricts it.
pub(super) struct Found {
    pub(super) table: TableName,
    pub(super) schema: SchemaRef,
    /// On its `_site`.
    pub(super) restrictions: Vec<Restriction>,
    /// What rows must pass, over its columns.
    pub(super) filters: Vec<Expr>,
    pub(super) columns: Vec<String>,
}

/// Finds the site tables' scans below `plan`; `known` restricts columns of its output.
pub(super) fn walk(plan: &LogicalPlan, known: Vec<Known>, found: &mut Vec<Found>) -> Result<()> {
    // Subqueries that the optimiser left in expressions stand alone.
    plan.apply_expressions(|expr| {
        expr.apply(|expr| {
            let subquery = match expr {
                Expr::ScalarSubquery(subquery) => Some(subquery),
                Expr::InSubquery(within) => Some(&within.subquery),
                Expr::Exists(exists) => Some(&exists.subquery),
                Expr::SetComparison(compared) => Some(&compared.subquery),
                _ => None,
            };
            if let Some(subquery) = subquery {
                walk(&subquery.subquery, Vec::new(), found)?;
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    match plan {
        LogicalPlan::TableScan(scan) => walk_scan(scan, known, found),
        LogicalPlan::Join(join) => walk_join(join, known, found),
        LogicalPlan::Filter(filter) => walk(&filter.input, known.into_iter().chain(own_of(filter)).collect(), found),
        _ => {
            for (index, input) in plan.inputs().into_iter().enumerate() {
                let below =
                    known.iter().filter_map(|(place, known)| Some((below(plan, index, *place)?, known.clone())));
                walk(input, below.collect(), found)?;
            }
            Ok(())
        }
    }
}

/// What rows must satisfy to pass a filter, column by column.
fn own_of(filter: &Filter) -> impl Iterator<Item = Known> {
    let conjuncts = split_conjunction(&filter.predicate).into_iter();
    conjuncts.filter_map(|expr| {
        let (place, predicate) = Predicate::of(expr, filter.input.schema())?;
        Some((place, Restriction::Satisfies(predicate)))
    })
}

fn walk_scan(scan: &TableScan, known: Vec<Known>, found: &mut Vec<Found>) -> Result<()> {
    let Some(table) = site_table(scan) else {
        // A view that was not put in its place reads what its plan reads.
        return match scan.source.get_logical_plan() {
            Some(view) => walk(&view, Vec::new(), found),
            None => Ok(()),
        };
    };
    let mut found_here = Found {
        table,
        schema: scan.source.schema(),
        restrictions: own_restrictions(scan),
        filters: scan.filters.clone(),
        columns: columns_read(scan),
    };
    for (place, restriction) in known {
        // A row that does not matter above may yet take the place of another within a limit.
        if scan.fetch.is_some() {
            break;
        }
        let field = scan.projected_schema.field(place);
        match restriction {
            _ if field.name() == our_columns::SITE => found_here.restrictions.push(restriction),
            Restriction::Satisfies(predicate) => {
                found_here.filters.push(predicate.over(field.name(), field.data_type())?);
            }
            Restriction::Among { .. } => {}
        }
    }
    found.push(found_here);
    Ok(())
}

/// A side of a join.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

/// The side of a join, and the place there, that a column of its output comes from; a mark comes
/// from neither.
fn side_of(join: &Join, place: usize) -> Option<(Side, usize)> {
    let left = join.left.schema().fields().len();
    match join.join_type {
        JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => {
            Some(if place < left { (Side::Left, place) } else { (Side::Right, place - left) })
        }
        JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => (place < left).then_some((Side::Left, place)),
        JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => {
            (place < join.right.schema().fields().len()).then_some((Side::Right, place))
        }
    }
}

/// Whether the columns of a side are null in rows without a match.
fn may_be_null(join: &Join, side: Side) -> bool {
    match join.join_type {
        JoinType::Left => side == Side::Right,
        JoinType::Right => side == Side::Left,
        JoinType::Full => true,
        _ => false,
    }
}

/// The pairs of columns that a join compares, by their places on the left and on the right.
fn key_places(join: &Join) -> impl Iterator<Item = (usize, usize)> {
    join.on
        .iter()
        .filter_map(|(left, right)| Some((plain(left, join.left.schema())?, plain(right, join.right.schema())?)))
}

fn walk_join(join: &Join, known: Vec<Known>, found: &mut Vec<Found>) -> Result<()> {
    let (mut left, mut right): (Vec<Known>, Vec<Known>) = (Vec::new(), Vec::new());
    for (place, restriction) in known {
        let Some((side, place)) = side_of(join, place) else { continue };
        if may_be_null(join, side) && restriction.may_hold_of_null() {
            continue;
        }
        match side {
            Side::Left => left.push((place, restriction)),
            Side::Right => right.push((place, restriction)),
        }
    }
    let (to_left, to_right) = passes(join);
    let (mut more_left, mut more_right) = (Vec::new(), Vec::new());
    for (left_key, right_key) in key_places(join) {
        let over = |from: (&LogicalPlan, usize), above: &[Known], to: usize| -> Vec<Known> {
            let above = above.iter().filter(|(place, _)| *place == from.1).map(|(_, restriction)| restriction.clone());
            let all = restrictions_of(from.0, from.1).into_iter().chain(above);
            all.map(|restriction| (to, restriction.of_matched(join.null_equality))).collect()
        };
        if to_right {
            more_right.extend(over((join.left.as_ref(), left_key), &left, right_key));
        }
        if to_left {
            more_left.extend(over((join.right.as_ref(), right_key), &right, left_key));
        }
    }
    left.extend(more_left);
    right.extend(more_right);
    walk(&join.left, left, found)?;
    walk(&join.right, right, found)
}

/// Whether rows of the left, and of the right side, matter only if they have a match.
fn passes(join: &Join) -> (bool, bool) {
    if join.null_aware {
        // A null on the right empties the answer: every row of it matters.
        return (false, false);
    }
    match join.join_type {
        JoinType::Inner | JoinType::LeftSemi | JoinType::RightSemi => (true, true),
        JoinType::Left | JoinType::LeftAnti | JoinType::LeftMark => (false, true),
        JoinType::Right | JoinType::RightAnti | JoinType::RightMark => (true, false),
        JoinType::Full => (false, false),
    }
}

/// What all values of a column of `plan`'s output satisfy, whatever sites sent.
fn restrictions_of(plan: &LogicalPlan, place: usize) -> Vec<Restriction> {
    if reads_no_site(plan) {
        let key = plan.schema().columns().swap_remove(place);
        return vec![Restriction::Among { plan: Arc::new(plan.clone()), key, or_null: true }];
    }
    match plan {
        LogicalPlan::TableScan(scan) if scan.projected_schema.field(place).name() == our_columns::SITE => {
            own_restrictions(scan)
        }
        LogicalPlan::Join(join) => {
            let Some((side, own)) = side_of(join, place) else { return Vec::new() };
            // Of a side that is null where there is no match, null is a value, too.
            if may_be_null(join, side) {
                return Vec::new();
            }
            let this = if side == Side::Left { &join.left } else { &join.right };
            let mut all = restrictions_of(this, own);
            if matches!(join.join_type, JoinType::Inner | JoinType::LeftSemi | JoinType::RightSemi) {
                for (left, right) in key_places(join) {
                    match side {
                        Side::Left if left == own => all.extend(restrictions_of(&join.right, right)),
                        Side::Right if right == own => all.extend(restrictions_of(&join.left, left)),
                        _ => {}
                    }
                }
            }
            all
        }
        LogicalPlan::Union(_) => Vec::new(),
        _ => match plan.inputs().as_slice() {
            [input] => below(plan, 0, place).map_or_else(Vec::new, |place| restrictions_of(input, place)),
            _ => Vec::new(),
        },
    }
}

/// The columns that a scan gives out, or looks at.
fn columns_read(scan: &TableScan) -> Vec<String> {
    let given = scan.projected_schema.fields().iter().map(|field| field.name().clone());
    let looked_at =
        scan.filters.iter().flat_map(|filter| filter.column_refs().into_iter().map(|column| column.name.clone()));
    let mut columns: Vec<String> = given.chain(looked_at).collect();
    columns.sort();
    columns.dedup();
    columns
}

/// Filters of a scan that look at `_site` alone.
fn own_restrictions(scan: &TableScan) -> Vec<Restriction> {
    let schema = scan.source.schema();
    let conjuncts = scan.filters.iter().flat_map(split_conjunction);
    let about_site = conjuncts.filter_map(|expr| {
        let column = only_column(expr).filter(|column| column.name == our_columns::SITE)?;
        let kind = schema.field_with_name(&column.name).ok()?.data_type().clone();
        Some(Restriction::Satisfies(Predicate { expr: expr.clone(), kind }))
    });
    about_site.collect()
}

/// The column that a predicate looks at, if it looks at nothing else and gives the same each time.
fn only_column(predicate: &Expr) -> Option<Column> {
    let mut columns = predicate.column_refs().into_iter();
    let column = columns.next()?.clone();
    (columns.next().is_none() && !predicate.is_volatile() && !has_subquery(predicate)).then_some(column)
}

fn has_subquery(expr: &Expr) -> bool {
    let is_one = |expr: &Expr| {
        Ok(matches!(
            expr,
            Expr::ScalarSubquery(_)
                | Expr::InSubquery(_)
                | Expr::Exists(_)
                | Expr::SetComparison(_)
                | Expr::OuterReferenceColumn(..)
        ))
    };
    expr.exists(is_one).unwrap_or(true)
}

/// The place of the column that an expression is, cast from text to text or not.
pub(super) fn plain(expr: &Expr, schema: &DFSchema) -> Option<usize> {
    let is_text = |kind: &DataType| matches!(kind, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8);
    match expr {
        Expr::Column(column) => schema.maybe_index_of_column(column),
        Expr::Alias(alias) => plain(&alias.expr, schema),
        Expr::Cast(Cast { expr, field }) | Expr::TryCast(TryCast { expr, field })
            if is_text(field.data_type()) && expr.get_type(schema).is_ok_and(|kind| is_text(&kind)) =>
        {
            plain(expr, schema)
        }
        _ => None,
    }
}

/// The place in an input from which a column of the node's output comes unchanged, where rows of
/// that input with other values cannot change output rows with this one.
pub(super) fn below(plan: &LogicalPlan, input: usize, place: usize) -> Option<usize> {
    match plan {
        LogicalPlan::Projection(projection) => plain(projection.expr.get(place)?, projection.input.schema()),
        LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Repartition(_)
        | LogicalPlan::Distinct(Distinct::All(_)) => Some(place),
        LogicalPlan::Sort(sort) => sort.fetch.is_none().then_some(place),
        LogicalPlan::Union(union) => (place < union.inputs.get(input)?.schema().fields().len()).then_some(place),
        LogicalPlan::Aggregate(aggregate) => {
            let is_plain = !aggregate.group_expr.iter().any(|expr| matches!(expr, Expr::GroupingSet(_)));
            let key = aggregate.group_expr.get(place).filter(|_| is_plain)?;
            plain(key, aggregate.input.schema())
        }
        _ => None,
    }
}
