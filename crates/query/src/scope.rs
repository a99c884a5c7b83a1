//! Which sites an answer is about, from the query's own optimised plan.
//!
//! For every scan of a site table, the plan is asked which values of `_site` could still change the answer: filters that the
//! optimiser pushed to the scan, and keys of joins whose other side is known without reading a site table. What is not
//! understood restricts nothing, so a scope may be too wide and never too narrow. Nothing of the data is read: a site
//! without a single row is in scope like any other.
//!
//! The rule by which a restriction passes a join, from one side's key to the other's: only where rows of the other side
//! without a match leave no trace in the output. A restriction that comes from above passes to the side that has its column.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, AsArray, BooleanArray, StringViewArray},
        compute::cast,
        datatypes::{DataType, Field, Schema, TimeUnit},
        record_batch::RecordBatch,
    },
    common::{
        Column, DFSchema, JoinType, Result, ScalarValue,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    datasource::source_as_provider,
    logical_expr::{
        Between, BinaryExpr, Cast, Distinct, Expr, Join, LogicalPlan, LogicalPlanBuilder, Operator, TableScan, TryCast,
        utils::split_conjunction,
    },
    prelude::SessionContext,
};
use rollcall_lake::our_columns;
use rollcall_types::{SiteId, TableName, Timestamp};

use crate::scan::FilesTable;

/// The sites and the time that one scan of a site table is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanScope {
    /// The table.
    pub table: TableName,
    /// For every site of the roster, in order: whether its rows could change the answer.
    pub sites: Vec<bool>,
    /// Rows at or after this event time cannot change the answer; none if the query does not say.
    pub until: Option<Timestamp>,
    /// Nor can rows before this.
    pub from: Option<Timestamp>,
    /// The columns that are read.
    pub columns: Vec<String>,
}

/// What an answer is about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scope {
    /// Every scan of a site table.
    pub scans: Vec<ScanScope>,
    /// Names of the site attributes that the answer is grouped by, if it is grouped by nothing else; `id` is the site.
    pub grouped_by: Vec<String>,
}

/// Something that values of a column are known to satisfy.
#[derive(Debug, Clone)]
enum Restriction {
    /// They are among the values of an expression over a plan that reads no site table.
    Among(Arc<LogicalPlan>, Expr),
    /// A predicate over this column alone.
    Satisfies(Expr),
}

/// A restriction on a column of a plan's output.
type Known = (Column, Restriction);

/// A scan with all that restricts its `_site`.
struct Found {
    table: TableName,
    restrictions: Vec<Restriction>,
    filters: Vec<Expr>,
    columns: Vec<String>,
}

/// The scope of `plan`, which must be optimised, over these sites. `event_time` names a table's declared event time.
pub(crate) async fn scope(
    context: &SessionContext,
    plan: &LogicalPlan,
    sites: &[SiteId],
    event_time: &(dyn Fn(&TableName) -> Option<String> + Send + Sync),
) -> Result<Scope> {
    let mut found = Vec::new();
    walk(plan, Vec::new(), &mut found)?;
    let mut ids = None;
    let mut scans = Vec::new();
    for scan in found {
        let mut is_in = vec![true; sites.len()];
        for restriction in &scan.restrictions {
            match restriction {
                Restriction::Satisfies(predicate) => {
                    let ids = ids.get_or_insert_with(|| {
                        Arc::new(StringViewArray::from_iter_values(sites.iter().map(SiteId::as_str)))
                    });
                    let satisfied = evaluate(context, predicate, ids)?;
                    // Null is not true: such a row does not pass the filter.
                    is_in.iter_mut().enumerate().for_each(|(index, is_in)| {
                        *is_in &= satisfied.is_valid(index) && satisfied.value(index);
                    });
                }
                Restriction::Among(plan, key) => {
                    if let Some(is_among) = among(context, plan, key, sites).await? {
                        is_in.iter_mut().zip(is_among).for_each(|(is_in, is_among)| *is_in &= is_among);
                    }
                }
            }
        }
        let (from, until) = event_time(&scan.table).map_or((None, None), |column| period(&scan.filters, &column));
        scans.push(ScanScope { table: scan.table, sites: is_in, until, from, columns: scan.columns });
    }
    Ok(Scope { scans, grouped_by: grouped_by(plan)? })
}

/// Finds the site tables' scans below `plan`; `known` restricts columns of its output.
fn walk(plan: &LogicalPlan, known: Vec<Known>, found: &mut Vec<Found>) -> Result<()> {
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
        LogicalPlan::TableScan(scan) => {
            if let Some(table) = site_table(scan) {
                let mut found_here = Found {
                    table,
                    restrictions: own_restrictions(scan),
                    filters: scan.filters.clone(),
                    columns: columns_read(scan),
                };
                for (column, restriction) in known {
                    match restriction {
                        _ if column.name == our_columns::SITE => found_here.restrictions.push(restriction),
                        Restriction::Satisfies(predicate) => found_here.filters.push(about(predicate, &column.name)?),
                        Restriction::Among(..) => {}
                    }
                }
                found.push(found_here);
            }
            Ok(())
        }
        LogicalPlan::Join(join) => walk_join(join, known, found),
        LogicalPlan::Filter(filter) => {
            let conjuncts = split_conjunction(&filter.predicate).into_iter();
            let own = conjuncts
                .filter_map(|predicate| Some((only_column(predicate)?, Restriction::Satisfies(predicate.clone()))));
            walk(&filter.input, known.into_iter().chain(own).collect(), found)
        }
        _ => {
            for (index, input) in plan.inputs().into_iter().enumerate() {
                let below = known
                    .iter()
                    .filter_map(|(column, restriction)| Some((below(plan, index, column)?, restriction.clone())));
                walk(input, below.collect(), found)?;
            }
            Ok(())
        }
    }
}

fn walk_join(join: &Join, known: Vec<Known>, found: &mut Vec<Found>) -> Result<()> {
    let (mut left, mut right): (Vec<Known>, Vec<Known>) = (Vec::new(), Vec::new());
    let (left_may_be_null, right_may_be_null) = match join.join_type {
        JoinType::Left => (false, true),
        JoinType::Right => (true, false),
        JoinType::Full => (true, true),
        _ => (false, false),
    };
    for (column, restriction) in known {
        let is_left = join.left.schema().has_column(&column);
        let may_be_null = if is_left { left_may_be_null } else { right_may_be_null };
        // A predicate may hold of the null that stands for "no match", and then every row that matches matters.
        if !(may_be_null && matches!(restriction, Restriction::Satisfies(_))) {
            if is_left { &mut left } else { &mut right }.push((column, restriction));
        }
    }
    let (to_left, to_right) = passes(join);
    let (mut more_left, mut more_right) = (Vec::new(), Vec::new());
    for (left_key, right_key) in &join.on {
        let (Some(left_key), Some(right_key)) = (plain(left_key), plain(right_key)) else { continue };
        if to_right {
            let known = restrictions_of(&join.left, left_key);
            let from_above =
                left.iter().filter(|(column, _)| column == left_key).map(|(_, restriction)| restriction.clone());
            more_right.extend(known.into_iter().chain(from_above).map(|restriction| (right_key.clone(), restriction)));
        }
        if to_left {
            let known = restrictions_of(&join.right, right_key);
            let from_above =
                right.iter().filter(|(column, _)| column == right_key).map(|(_, restriction)| restriction.clone());
            more_left.extend(known.into_iter().chain(from_above).map(|restriction| (left_key.clone(), restriction)));
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

/// What all values of a column of `plan`'s output satisfy.
fn restrictions_of(plan: &LogicalPlan, column: &Column) -> Vec<Restriction> {
    if reads_no_site(plan) {
        return vec![Restriction::Among(Arc::new(plan.clone()), Expr::Column(column.clone()))];
    }
    match plan {
        LogicalPlan::TableScan(scan) if column.name == our_columns::SITE => own_restrictions(scan),
        LogicalPlan::Join(join) if join.join_type == JoinType::Inner => {
            let mut all = Vec::new();
            for side in [&join.left, &join.right] {
                if side.schema().has_column(column) {
                    all.extend(restrictions_of(side, column));
                }
            }
            for (left, right) in &join.on {
                let (Some(left), Some(right)) = (plain(left), plain(right)) else { continue };
                if left == column {
                    all.extend(restrictions_of(&join.right, right));
                } else if right == column {
                    all.extend(restrictions_of(&join.left, left));
                }
            }
            all
        }
        LogicalPlan::Join(join) => {
            // Only columns of the side that is kept as it is: others may be null.
            let kept = match join.join_type {
                JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => &join.left,
                JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => &join.right,
                _ => return Vec::new(),
            };
            if kept.schema().has_column(column) { restrictions_of(kept, column) } else { Vec::new() }
        }
        LogicalPlan::Union(_) => Vec::new(),
        _ => match plan.inputs().as_slice() {
            [input] => below(plan, 0, column).map_or_else(Vec::new, |column| restrictions_of(input, &column)),
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
    let conjuncts = scan.filters.iter().flat_map(split_conjunction);
    let about_site = |expr: &&Expr| only_column(expr).is_some_and(|column| column.name == our_columns::SITE);
    conjuncts.filter(about_site).map(|expr| Restriction::Satisfies(expr.clone())).collect()
}

/// The column that a predicate looks at, if it looks at nothing else and gives the same each time.
fn only_column(predicate: &Expr) -> Option<Column> {
    let mut columns = predicate.column_refs().into_iter();
    let column = columns.next()?.clone();
    (columns.next().is_none() && !predicate.is_volatile() && !has_subquery(predicate)).then_some(column)
}

/// A predicate over one column, whatever it was called above, as one over `name`.
fn about(predicate: Expr, name: &str) -> Result<Expr> {
    let renamed = predicate.transform(|expr| {
        Ok(match expr {
            Expr::Column(_) => Transformed::yes(Expr::Column(Column::from_name(name))),
            other => Transformed::no(other),
        })
    });
    Ok(renamed?.data)
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

/// The site table that a scan reads; none for tables of HQ's own.
fn site_table(scan: &TableScan) -> Option<TableName> {
    let provider = source_as_provider(&scan.source).ok()?;
    let files = provider.downcast_ref::<FilesTable>()?;
    files.site_table().cloned()
}

/// Whether a plan gives the same rows whatever sites sent, and whenever it runs within this query.
fn reads_no_site(plan: &LogicalPlan) -> bool {
    let mut is_plain = true;
    let walked = plan.apply_with_subqueries(|node| {
        let reads_sites = match node {
            LogicalPlan::TableScan(scan) => {
                let files = source_as_provider(&scan.source);
                scan.fetch.is_some() || files.map_or(true, |provider| provider.downcast_ref::<FilesTable>().is_some())
            }
            // Which rows are within a limit may differ from run to run.
            LogicalPlan::Limit(_) | LogicalPlan::Extension(_) | LogicalPlan::RecursiveQuery(_) => true,
            LogicalPlan::Sort(sort) => sort.fetch.is_some(),
            _ => false,
        };
        let mut is_volatile = false;
        node.apply_expressions(|expr| {
            is_volatile |=
                expr.is_volatile() || expr.exists(|expr| Ok(matches!(expr, Expr::OuterReferenceColumn(..))))?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        is_plain &= !reads_sites && !is_volatile;
        Ok(if is_plain { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    });
    walked.is_ok() && is_plain
}

/// The column that an expression is, cast from text to text or not.
fn plain(expr: &Expr) -> Option<&Column> {
    let is_text = |kind: &DataType| matches!(kind, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8);
    match expr {
        Expr::Column(column) => Some(column),
        Expr::Alias(alias) => plain(&alias.expr),
        Expr::Cast(Cast { expr, field }) | Expr::TryCast(TryCast { expr, field }) if is_text(field.data_type()) => {
            plain(expr)
        }
        _ => None,
    }
}

/// The column of an input from which a column of the node's output comes unchanged, where rows of that input with other
/// values cannot change output rows with this one.
fn below(plan: &LogicalPlan, input: usize, column: &Column) -> Option<Column> {
    let index = plan.schema().maybe_index_of_column(column)?;
    match plan {
        LogicalPlan::Projection(projection) => plain(projection.expr.get(index)?).cloned(),
        LogicalPlan::SubqueryAlias(alias) => Some(alias.input.schema().columns().into_iter().nth(index)?),
        LogicalPlan::Filter(_) | LogicalPlan::Repartition(_) => Some(column.clone()),
        LogicalPlan::Sort(sort) => sort.fetch.is_none().then(|| column.clone()),
        LogicalPlan::Distinct(Distinct::All(_)) => Some(column.clone()),
        LogicalPlan::Union(union) => union.inputs.get(input)?.schema().columns().into_iter().nth(index),
        LogicalPlan::Aggregate(aggregate) => {
            let is_plain = !aggregate.group_expr.iter().any(|expr| matches!(expr, Expr::GroupingSet(_)));
            let key = aggregate.group_expr.get(index).filter(|_| is_plain)?;
            plain(key).cloned()
        }
        _ => None,
    }
}

/// For which sites a predicate over `_site` is true.
fn evaluate(context: &SessionContext, predicate: &Expr, ids: &Arc<StringViewArray>) -> Result<BooleanArray> {
    let schema = Arc::new(Schema::new(vec![Field::new(our_columns::SITE, DataType::Utf8View, true)]));
    let predicate = about(predicate.clone(), our_columns::SITE)?;
    let physical = context.create_physical_expr(predicate, &DFSchema::try_from(schema.clone())?)?;
    let rows = RecordBatch::try_new(schema, vec![ids.clone()])?;
    let values = physical.evaluate(&rows)?.into_array(ids.len())?;
    Ok(cast(&values, &DataType::Boolean)?.as_boolean().clone())
}

/// Which sites are among the values of an expression over a plan that reads no site table.
async fn among(
    context: &SessionContext,
    plan: &Arc<LogicalPlan>,
    key: &Expr,
    sites: &[SiteId],
) -> Result<Option<Vec<bool>>> {
    if is_whole_roster(plan, key) {
        return Ok(None);
    }
    let projected = LogicalPlanBuilder::from(plan.as_ref().clone()).project([key.clone()])?.build()?;
    let rows = context.execute_logical_plan(projected).await?.collect().await?;
    let mut is_among = vec![false; sites.len()];
    for rows in rows {
        let texts = cast(rows.column(0), &DataType::Utf8)?;
        for text in texts.as_string::<i32>().iter().flatten() {
            if let Ok(index) = sites.binary_search_by(|site| site.as_str().cmp(text)) {
                is_among[index] = true;
            }
        }
    }
    Ok(Some(is_among))
}

/// Whether the values are the ids of all sites: most questions join the roster.
fn is_whole_roster(plan: &LogicalPlan, key: &Expr) -> bool {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => is_whole_roster(&alias.input, key),
        LogicalPlan::TableScan(scan) => {
            let is_id = matches!(key, Expr::Column(column) if column.name == "id");
            is_id && is_roster(scan) && scan.filters.is_empty() && scan.fetch.is_none()
        }
        _ => false,
    }
}

/// The event times that filters of a scan let through: from (included), until (excluded).
fn period(filters: &[Expr], column: &str) -> (Option<Timestamp>, Option<Timestamp>) {
    let (mut from, mut until): (Option<Timestamp>, Option<Timestamp>) = (None, None);
    let mut at_least = |time: Timestamp| from = Some(from.map_or(time, |known| known.max(time)));
    let mut before = |time: Timestamp| until = Some(until.map_or(time, |known| known.min(time)));
    for conjunct in filters.iter().flat_map(split_conjunction) {
        match conjunct {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                let (subject, op, bound) = match (subject(left, column), subject(right, column)) {
                    (Some(subject), None) => (subject, *op, right),
                    (None, Some(subject)) => match op.swap() {
                        Some(op) => (subject, op, left),
                        None => continue,
                    },
                    _ => continue,
                };
                let Some(bound) = instant(bound) else { continue };
                match op {
                    Operator::Lt if subject == Subject::Time => before(bound),
                    Operator::Lt => before(bound),
                    Operator::LtEq => before(subject.end_of(bound)),
                    Operator::Eq => {
                        at_least(bound);
                        before(subject.end_of(bound));
                    }
                    Operator::GtEq => at_least(bound),
                    Operator::Gt => at_least(bound),
                    _ => {}
                }
            }
            Expr::Between(Between { expr, negated: false, low, high }) => {
                let Some(subject) = subject(expr, column) else { continue };
                if let Some(low) = instant(low) {
                    at_least(low);
                }
                if let Some(high) = instant(high) {
                    before(subject.end_of(high));
                }
            }
            _ => {}
        }
    }
    (from, until)
}

/// What is compared with a bound: the event time, or its day.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Subject {
    Time,
    Day,
}

impl Subject {
    /// The first instant after all those equal to `bound`.
    fn end_of(self, bound: Timestamp) -> Timestamp {
        const DAY_MICROS: i64 = 86_400_000_000;
        bound.plus_micros(if self == Self::Day { DAY_MICROS } else { 1 })
    }
}

fn subject(expr: &Expr, column: &str) -> Option<Subject> {
    match expr {
        Expr::Column(known) if known.name == column => Some(Subject::Time),
        Expr::Cast(Cast { expr, field }) | Expr::TryCast(TryCast { expr, field }) => {
            match (subject(expr, column)?, field.data_type()) {
                (Subject::Time, DataType::Timestamp(..)) => Some(Subject::Time),
                (Subject::Time, DataType::Date32 | DataType::Date64) => Some(Subject::Day),
                _ => None,
            }
        }
        _ => None,
    }
}

/// A literal as an instant, UTC.
fn instant(expr: &Expr) -> Option<Timestamp> {
    let Expr::Literal(value, _) = expr else { return None };
    let kind = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    match value {
        ScalarValue::TimestampSecond(..)
        | ScalarValue::TimestampMillisecond(..)
        | ScalarValue::TimestampMicrosecond(..)
        | ScalarValue::TimestampNanosecond(..)
        | ScalarValue::Date32(_)
        | ScalarValue::Date64(_) => match value.cast_to(&kind).ok()? {
            ScalarValue::TimestampMicrosecond(micros, _) => micros.map(Timestamp::from_micros),
            _ => None,
        },
        _ => None,
    }
}

/// The site attributes that the outermost grouping is by, if by nothing else.
fn grouped_by(plan: &LogicalPlan) -> Result<Vec<String>> {
    let mut node = plan;
    let aggregate = loop {
        match node {
            LogicalPlan::Aggregate(aggregate) => break aggregate,
            LogicalPlan::Projection(_)
            | LogicalPlan::Sort(_)
            | LogicalPlan::Limit(_)
            | LogicalPlan::Filter(_)
            | LogicalPlan::SubqueryAlias(_) => match node.inputs().as_slice() {
                [input] => node = input,
                _ => return Ok(Vec::new()),
            },
            _ => return Ok(Vec::new()),
        }
    };
    let mut names = Vec::new();
    for expr in &aggregate.group_expr {
        let Some(origin) = plain(expr).and_then(|column| origin(&aggregate.input, column)) else {
            return Ok(Vec::new());
        };
        match origin {
            Origin::Site => names.push("id".to_owned()),
            Origin::Attribute(name) => names.push(name),
        }
    }
    let is_dimension = names.iter().all(|name| name == "id") || joins_sites_by_id(&aggregate.input)?;
    Ok(if is_dimension { names } else { Vec::new() })
}

/// What a column is of the site whose row it goes with.
enum Origin {
    Site,
    Attribute(String),
}

/// Whether a column comes unchanged from the roster or from `_site`.
fn origin(plan: &LogicalPlan, column: &Column) -> Option<Origin> {
    match plan {
        LogicalPlan::TableScan(scan) if site_table(scan).is_some() => {
            (column.name == our_columns::SITE).then_some(Origin::Site)
        }
        LogicalPlan::TableScan(scan) => is_roster(scan).then(|| Origin::Attribute(column.name.clone())),
        LogicalPlan::Join(join) => {
            let side = if join.left.schema().has_column(column) { &join.left } else { &join.right };
            origin(side, column)
        }
        _ => match plan.inputs().as_slice() {
            [input] => origin(input, &below(plan, 0, column)?),
            _ => None,
        },
    }
}

fn is_roster(scan: &TableScan) -> bool {
    scan.table_name.table() == "sites"
}

/// Whether the roster is read once, and joined with site tables by the site's id: then its attributes are those of the site
/// that a row is from.
fn joins_sites_by_id(plan: &LogicalPlan) -> Result<bool> {
    let (mut rosters, mut by_id) = (0, false);
    plan.apply_with_subqueries(|node| {
        match node {
            LogicalPlan::TableScan(scan) if site_table(scan).is_none() && is_roster(scan) => rosters += 1,
            LogicalPlan::Join(join) => {
                for (left, right) in &join.on {
                    let of = |side: &LogicalPlan, key: &Expr| plain(key).and_then(|column| origin(side, column));
                    let kinds = (of(&join.left, left), of(&join.right, right));
                    by_id |= match kinds {
                        (Some(Origin::Site), Some(Origin::Attribute(name)))
                        | (Some(Origin::Attribute(name)), Some(Origin::Site)) => name == "id",
                        _ => false,
                    };
                }
            }
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(rosters == 1 && by_id)
}
