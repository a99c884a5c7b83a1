//! SQL's own forms of functions, such as `EXTRACT(… FROM …)`.

use std::sync::Arc;

use datafusion::{
    common::{DFSchema, Result},
    execution::SessionStateBuilder,
    logical_expr::{
        Expr, ScalarUDF, lit,
        planner::{ExprPlanner, PlannerResult, RawBinaryExpr},
    },
    prelude::SessionContext,
    sql::sqlparser::ast::BinaryOperator,
};

/// Plans these forms as calls of the functions here.
#[derive(Debug)]
struct Forms {
    extract: Arc<ScalarUDF>,
    matches: Option<Arc<ScalarUDF>>,
    position: Option<Arc<ScalarUDF>>,
    substring: Option<Arc<ScalarUDF>>,
    overlay: Option<Arc<ScalarUDF>>,
}

fn planned(function: Option<&Arc<ScalarUDF>>, arguments: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
    Ok(match function {
        Some(function) => PlannerResult::Planned(function.call(arguments)),
        None => PlannerResult::Original(arguments),
    })
}

impl ExprPlanner for Forms {
    /// The operators of regular expressions, which the library would take for its own kind of them.
    fn plan_binary_op(&self, expr: RawBinaryExpr, _: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let (ignores_case, is_negated) = match expr.op {
            BinaryOperator::PGRegexMatch => (false, false),
            BinaryOperator::PGRegexIMatch => (true, false),
            BinaryOperator::PGRegexNotMatch => (false, true),
            BinaryOperator::PGRegexNotIMatch => (true, true),
            _ => return Ok(PlannerResult::Original(expr)),
        };
        let Some(matches) = &self.matches else { return Ok(PlannerResult::Original(expr)) };
        let mut arguments = vec![expr.left, expr.right];
        if ignores_case {
            arguments.push(lit("i"));
        }
        let found = matches.call(arguments);
        Ok(PlannerResult::Planned(if is_negated { Expr::Not(Box::new(found)) } else { found }))
    }

    fn plan_extract(&self, arguments: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        planned(Some(&self.extract), arguments)
    }

    fn plan_position(&self, arguments: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        planned(self.position.as_ref(), arguments)
    }

    fn plan_substring(&self, arguments: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        planned(self.substring.as_ref(), arguments)
    }

    fn plan_overlay(&self, arguments: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        planned(self.overlay.as_ref(), arguments)
    }
}

/// Puts them before the library's own.
pub(super) fn install(context: &SessionContext) {
    let state = context.state();
    let known = |name: &str| state.scalar_functions().get(name).cloned();
    let Some(extract) = known("extract") else { return };
    let forms = Forms {
        extract,
        matches: known("regexp_like"),
        position: known("strpos"),
        substring: known("substring"),
        overlay: known("overlay"),
    };
    let mut planners: Vec<Arc<dyn ExprPlanner>> = vec![Arc::new(forms)];
    planners.extend(state.expr_planners().iter().cloned());
    let changed = SessionStateBuilder::new_from_existing(state).with_expr_planners(planners).build();
    *context.state_ref().write() = changed;
}
