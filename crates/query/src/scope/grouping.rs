//! What of its site an answer is grouped by.

use datafusion::{
    common::{Result, tree_node::TreeNodeRecursion},
    logical_expr::{Expr, JoinType, LogicalPlan},
};
use rollcall_lake::our_columns;

use super::{
    is_roster, site_table,
    walk::{below, plain},
};

/// The site attributes that the outermost grouping is by, if by nothing else.
pub(super) fn grouped_by(plan: &LogicalPlan) -> Result<Vec<String>> {
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
        let Some(origin) = origin_of(expr, &aggregate.input) else { return Ok(Vec::new()) };
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

fn origin_of(expr: &Expr, input: &LogicalPlan) -> Option<Origin> {
    origin(input, plain(expr, input.schema())?)
}

/// Whether a column comes unchanged from the roster or from `_site`.
fn origin(plan: &LogicalPlan, place: usize) -> Option<Origin> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            let name = scan.projected_schema.field(place).name();
            if site_table(scan).is_some() {
                (name == our_columns::SITE).then_some(Origin::Site)
            } else {
                is_roster(scan).then(|| Origin::Attribute(name.clone()))
            }
        }
        LogicalPlan::Join(join) => {
            let left = join.left.schema().fields().len();
            let is_right_alone =
                matches!(join.join_type, JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark);
            if is_right_alone {
                (place < join.right.schema().fields().len()).then(|| origin(&join.right, place)).flatten()
            } else if place < left {
                origin(&join.left, place)
            } else if join.join_type == JoinType::LeftMark {
                None
            } else {
                origin(&join.right, place - left)
            }
        }
        _ => match plan.inputs().as_slice() {
            [input] => origin(input, below(plan, 0, place)?),
            _ => None,
        },
    }
}

/// Whether the roster is read once, and joined with site tables by the site's id: then its
/// attributes are those of the site that a row is from.
fn joins_sites_by_id(plan: &LogicalPlan) -> Result<bool> {
    let (mut rosters, mut by_id) = (0, false);
    plan.apply_with_subqueries(|node| {
        match node {
            LogicalPlan::TableScan(scan) if is_roster(scan) => rosters += 1,
            LogicalPlan::Join(join) => {
                for (left, right) in &join.on {
                    by_id |= match (origin_of(left, &join.left), origin_of(right, &join.right)) {
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
