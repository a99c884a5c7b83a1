//! Which columns from outside a subquery refers to.

use datafusion::{
    common::{
        Column, DFSchema, Result,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    logical_expr::{
        Expr, Join, LogicalPlan, Subquery,
        expr::{Exists, InSubquery, SetComparison},
        utils::merge_schema,
    },
};

use super::plans::unsupported;

/// The columns from outside that a plan refers to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct References {
    /// Of its own expressions.
    pub(super) own: Vec<Column>,
    /// Of subqueries within it, to columns that the plan does not have either.
    pub(super) deep: Vec<Column>,
}

impl References {
    pub(super) fn of(plan: &LogicalPlan) -> Result<Self> {
        let mut found = Self::default();
        found.add(plan)?;
        Ok(found)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.own.is_empty() && self.deep.is_empty()
    }

    fn add(&mut self, plan: &LogicalPlan) -> Result<()> {
        self.add_expressions(plan)?;
        if let LogicalPlan::Join(join) = plan {
            self.add(&join.left)?;
            return self.add_side(join);
        }
        for input in plan.inputs() {
            self.add(input)?;
        }
        Ok(())
    }

    /// The expressions of one node.
    fn add_expressions(&mut self, plan: &LogicalPlan) -> Result<()> {
        let schema = merge_schema(&plan.inputs());
        plan.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::OuterReferenceColumn(_, column) = expr {
                    self.own.push(column.clone());
                }
                if let Some(subquery) = subquery_of(expr) {
                    self.add_beneath(&subquery.subquery, &schema)?;
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        Ok(())
    }

    /// The right side of a join, which may be lateral.
    fn add_side(&mut self, join: &Join) -> Result<()> {
        match lateral(&join.right) {
            Some(subquery) => self.add_beneath(&subquery.subquery, join.left.schema()),
            None => self.add(&join.right),
        }
    }

    /// What a subquery refers to that is not in `schema`, which it stands beside.
    fn add_beneath(&mut self, subquery: &LogicalPlan, schema: &DFSchema) -> Result<()> {
        let within = Self::of(subquery)?;
        self.deep.extend(within.own.into_iter().chain(within.deep).filter(|column| !schema.has_column(column)));
        Ok(())
    }
}

/// The subquery that an expression is.
pub(super) fn subquery_of(expr: &Expr) -> Option<&Subquery> {
    match expr {
        Expr::ScalarSubquery(subquery)
        | Expr::Exists(Exists { subquery, .. })
        | Expr::InSubquery(InSubquery { subquery, .. })
        | Expr::SetComparison(SetComparison { subquery, .. }) => Some(subquery),
        _ => None,
    }
}

/// The subquery of a lateral join's right side.
pub(super) fn lateral(side: &LogicalPlan) -> Option<&Subquery> {
    match side {
        LogicalPlan::Subquery(subquery) => Some(subquery),
        LogicalPlan::SubqueryAlias(alias) => match alias.input.as_ref() {
            LogicalPlan::Subquery(subquery) => Some(subquery),
            _ => None,
        },
        _ => None,
    }
}

/// A value of a row outside, as a subquery refers to it.
pub(super) fn from_inside(value: Expr, outside: &DFSchema) -> Result<Expr> {
    let inside = value.transform(|expr| match expr {
        Expr::Column(column) => {
            let (_, field) = outside.qualified_field_from_column(&column)?;
            Ok(Transformed::yes(Expr::OuterReferenceColumn(field.clone(), column)))
        }
        Expr::OuterReferenceColumn(..) => unsupported("that refers to a table two levels further out"),
        other if subquery_of(&other).is_some() => unsupported("beside another one"),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(inside.data)
}
