//! Which rows of a published table a site gets: a condition over the row's columns and the site's
//! attributes.
//!
//! The condition names attributes as `site.region`; of it, `region = site.region` is the usual one.
//! Sites whose attributes are alike, as far as the rule names them, get the same rows: it is
//! evaluated once for all of them, with their values in its place.

use std::{collections::BTreeSet, ops::ControlFlow, sync::Arc};

use datafusion::{
    arrow::{
        array::{Array, AsArray, BooleanArray},
        datatypes::{DataType, Field, Schema, SchemaRef},
        record_batch::{RecordBatch, RecordBatchOptions},
    },
    common::{
        Column, DFSchema, DataFusionError, ScalarValue, TableReference,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    execution::SessionState,
    logical_expr::{Expr, ExprSchemable, Volatility, simplify::SimplifyContext, utils::split_conjunction},
    optimizer::simplify_expressions::ExprSimplifier,
    physical_expr::PhysicalExpr,
    sql::sqlparser::{
        ast::{self, Ident, visit_expressions},
        dialect::PostgreSqlDialect,
        parser::Parser,
    },
};

use crate::error::QueryError;

/// The qualifier of a site's attributes.
const SITE: &str = "site";

/// A rule, parsed against a table's columns.
#[derive(Debug, Clone)]
pub struct Audience {
    rule: Expr,
    attributes: Vec<String>,
    columns: DFSchema,
    state: SessionState,
}

fn wrong(rule: &str, why: impl std::fmt::Display) -> QueryError {
    QueryError::Sql(format!("the audience {rule:?} cannot be used: {why}"))
}

impl Audience {
    /// Parses `rule` over `columns` and whatever attributes of a site it names.
    pub(crate) fn parse(state: &SessionState, rule: &str, columns: &SchemaRef) -> Result<Self, QueryError> {
        let failed = |error: datafusion::common::DataFusionError| wrong(rule, error.strip_backtrace());
        let columns = DFSchema::try_from(columns.as_ref().clone()).map_err(failed)?;
        let attributes = named(rule, &columns)?;
        let of_site: Vec<Field> = attributes.iter().map(|name| Field::new(name, DataType::Utf8, true)).collect();
        let of_site = DFSchema::try_from_qualified_schema(SITE, &Schema::new(of_site)).map_err(failed)?;
        let mut both = columns.clone();
        both.merge(&of_site);
        let parsed = state.create_logical_expr(rule, &both).map_err(failed)?;
        let mut refused = None;
        parsed
            .apply(|part| {
                match part {
                    Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable => {
                        refused = Some(format!("{} gives another answer each time", call.func.name()));
                    }
                    Expr::AggregateFunction(_) | Expr::WindowFunction(_) => {
                        refused = Some("it must be about one row and one site".to_owned());
                    }
                    Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) => {
                        refused = Some("it may not ask other tables".to_owned());
                    }
                    _ => {}
                }
                Ok(TreeNodeRecursion::Continue)
            })
            .map_err(failed)?;
        if let Some(why) = refused {
            return Err(wrong(rule, why));
        }
        let kind = parsed.get_type(&both).map_err(failed)?;
        if kind != DataType::Boolean && kind != DataType::Null {
            return Err(wrong(rule, format!("it is {kind}, and must be true or false")));
        }
        let audience = Self { rule: parsed, attributes, columns, state: state.clone() };
        // What cannot be worked out for a site is refused now, not when it is published.
        audience.of(&vec![None; audience.attributes.len()]).map_err(|error| wrong(rule, error))?;
        Ok(audience)
    }

    /// The attributes it names, in order.
    pub fn attributes(&self) -> &[String] {
        &self.attributes
    }

    /// The columns of the row it names.
    pub fn row_columns(&self) -> Vec<String> {
        let refs = self.rule.column_refs().into_iter();
        let of_row = refs.filter(|column| column.relation != Some(TableReference::bare(SITE)));
        of_row.map(|column| column.name.clone()).collect()
    }

    /// The rule for sites with these values of [`Self::attributes`].
    pub fn of(&self, values: &[Option<&str>]) -> Result<SiteAudience, QueryError> {
        let value = |name: &str| {
            let place = self.attributes.iter().position(|known| known == name);
            place.and_then(|place| values.get(place).copied().flatten())
        };
        let with_values = self.rule.clone().transform(|part| match &part {
            Expr::Column(Column { relation: Some(relation), name, .. }) if *relation == TableReference::bare(SITE) => {
                let literal = ScalarValue::Utf8(value(name).map(str::to_owned));
                Ok(Transformed::yes(Expr::Literal(literal, None)))
            }
            _ => Ok(Transformed::no(part)),
        })?;
        // Some functions are worked out only in a simpler form, such as coalesce.
        let context = SimplifyContext::builder()
            .with_schema(Arc::new(self.columns.clone()))
            .with_config_options(self.state.config_options().clone())
            .build();
        let simplifier = ExprSimplifier::new(context);
        let rule = simplifier.simplify(simplifier.coerce(with_values.data, &self.columns)?)?;
        // Conditions of the site alone decide for all rows.
        let mut constant = None;
        for part in split_conjunction(&rule).into_iter().filter(|part| part.column_refs().is_empty()) {
            let physical = self.state.create_physical_expr(part.clone(), &self.columns)?;
            let one = RecordBatch::try_new_with_options(
                Arc::new(Schema::empty()),
                Vec::new(),
                &RecordBatchOptions::new().with_row_count(Some(1)),
            )
            .map_err(DataFusionError::from)?;
            let holds = physical.evaluate(&one)?.into_array(1)?;
            let holds = holds.as_boolean_opt().is_some_and(|holds| holds.is_valid(0) && holds.value(0));
            constant = if holds { constant } else { Some(false) };
        }
        if rule.column_refs().is_empty() {
            constant = constant.or(Some(true));
        }
        let physical = self.state.create_physical_expr(rule, &self.columns)?;
        Ok(SiteAudience { physical, constant })
    }
}

/// The attributes of a site that a rule names, in order. A name alone must be a column: it never
/// means an attribute, or a column that is not there would make the rule hold for every row.
fn named(rule: &str, columns: &DFSchema) -> Result<Vec<String>, QueryError> {
    let parser = Parser::new(&PostgreSqlDialect {}).try_with_sql(rule).map_err(|error| wrong(rule, error))?;
    let parsed = { parser }.parse_expr().map_err(|error| wrong(rule, error))?;
    let text = |ident: &Ident| match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    };
    let mut names = BTreeSet::new();
    let visited: ControlFlow<String> = visit_expressions(&parsed, |part| {
        match part {
            ast::Expr::CompoundIdentifier(parts) => {
                if let [first, name] = parts.as_slice()
                    && text(first) == SITE
                {
                    names.insert(text(name));
                }
            }
            ast::Expr::Identifier(ident) if !columns.has_column_with_unqualified_name(&text(ident)) => {
                return ControlFlow::Break(text(ident));
            }
            _ => {}
        }
        ControlFlow::Continue(())
    });
    match visited {
        ControlFlow::Break(name) => Err(wrong(rule, format!("there is no column {name}; an attribute is site.{name}"))),
        ControlFlow::Continue(()) => Ok(names.into_iter().collect()),
    }
}

/// A rule for sites that are alike.
#[derive(Debug, Clone)]
pub struct SiteAudience {
    physical: Arc<dyn PhysicalExpr>,
    constant: Option<bool>,
}

impl SiteAudience {
    /// Whether no row could ever be for these sites.
    pub fn is_nobody(&self) -> bool {
        self.constant == Some(false)
    }

    /// Which rows are for these sites; never null.
    pub fn mask(&self, rows: &RecordBatch) -> Result<BooleanArray, QueryError> {
        if let Some(constant) = self.constant {
            return Ok(BooleanArray::from(vec![constant; rows.num_rows()]));
        }
        let mask = self.physical.evaluate(rows)?.into_array(rows.num_rows())?;
        let mask = mask.as_boolean_opt().cloned().ok_or_else(|| QueryError::Sql("no condition".to_owned()))?;
        Ok(match mask.nulls() {
            Some(valid) => BooleanArray::new(mask.values() & valid.inner(), None),
            None => mask,
        })
    }
}

#[cfg(test)]
mod tests {
    use datafusion::{
        arrow::{
            array::{Int64Array, StringArray},
            datatypes::Int64Type,
        },
        prelude::SessionContext,
    };
    use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

    use super::*;

    fn prices() -> RecordBatch {
        RecordBatch::try_from_iter([
            ("region", Arc::new(StringArray::from(vec![Some("north"), Some("south"), None])) as Arc<dyn Array>),
            ("zone", Arc::new(Int64Array::from(vec![1, 2, 3]))),
        ])
        .expect("rows")
    }

    fn parse(rule: &str) -> Result<Audience, QueryError> {
        let state = SessionContext::new().state();
        Audience::parse(&state, rule, &prices().schema())
    }

    fn rows_for(rule: &str, values: &[Option<&str>]) -> Vec<bool> {
        let audience = parse(rule).expect("a rule").of(values).expect("works out");
        audience.mask(&prices()).expect("evaluates").values().iter().collect()
    }

    #[test]
    fn a_site_gets_the_rows_its_attributes_choose() {
        assert_eq!(rows_for("region = site.region", &[Some("south")]), [false, true, false]);
        assert_eq!(rows_for("region = site.region", &[None]), [false; 3], "a site without a region gets nothing");
        assert_eq!(rows_for("zone = site.zone", &[Some("3")]), [false, false, true], "attributes are texts");
        assert_eq!(rows_for("region IS NULL OR region = site.region", &[Some("north")]), [true, false, true]);
        assert_eq!(rows_for("true", &[]), [true; 3]);
        let of_ids = parse("site.id IN ('a-1', 'b-2') AND zone > 1").expect("a rule");
        assert_eq!(of_ids.attributes(), ["id"]);
        assert!(of_ids.of(&[Some("c-3")]).expect("works out").is_nobody());
        assert!(!of_ids.of(&[Some("a-1")]).expect("works out").is_nobody());
    }

    /// A condition over the columns of [`prices`] and attributes `a` to `c`.
    fn random_rule(random: &mut StdRng, depth: u32) -> String {
        let mut one = |all: &[&str]| (*all.choose(random).expect("some")).to_owned();
        let texts = ["region", "site.a", "site.b", "site.c", "'north'", "''", "NULL"];
        let numbers = ["zone", "1", "2", "-1", "zone + 1"];
        let compare = one(&["=", "<>", "<", ">=", "IS DISTINCT FROM"]);
        if depth > 0 && random.random_bool(0.6) {
            let (left, right) = (random_rule(random, depth - 1), random_rule(random, depth - 1));
            return match random.random_range(0..3) {
                0 => format!("({left} AND {right})"),
                1 => format!("({left} OR {right})"),
                _ => format!("NOT ({left})"),
            };
        }
        let mut one = |all: &[&str]| (*all.choose(random).expect("some")).to_owned();
        match one(&["texts", "numbers", "null", "call", "in", "like"]).as_str() {
            "texts" => format!("{} {compare} {}", one(&texts), one(&texts)),
            "numbers" => format!("{} {compare} {}", one(&numbers), one(&numbers)),
            "null" => format!("{} IS NULL", one(&texts)),
            "call" => format!("coalesce({}, {}) = {}", one(&texts), one(&texts), one(&texts)),
            "in" => format!("{} IN ({}, {})", one(&texts), one(&texts), one(&texts)),
            _ => format!("{} LIKE '%{}%'", one(&texts), one(&["o", "N", ""])),
        }
    }

    #[tokio::test]
    async fn a_rule_means_what_the_same_condition_means_in_a_question() {
        let mut random = StdRng::seed_from_u64(23);
        let values: [&[Option<&str>]; 3] =
            [&[Some("north"), None, Some("")], &[None; 3], &[Some("o"), Some("south"), None]];
        let (mut held, mut refused) = (0, 0);
        for _ in 0..400 {
            let rule = random_rule(&mut random, 2);
            let Ok(parsed) = parse(&rule) else {
                refused += 1;
                continue;
            };
            for values in values {
                let of = |name: &str| values[usize::from(name.as_bytes()[0] - b'a')];
                let own: Vec<_> = parsed.attributes().iter().map(|name| of(name)).collect();
                let mask = parsed.of(&own).expect("works out").mask(&prices()).expect("evaluates");
                let mut condition = rule.clone();
                for name in ["a", "b", "c"] {
                    let value = of(name).map_or("CAST(NULL AS TEXT)".to_owned(), |value| format!("'{value}'"));
                    condition = condition.replace(&format!("site.{name}"), &value);
                }
                let context = SessionContext::new();
                context.register_batch("prices", prices()).expect("registers");
                let sql = format!("SELECT zone FROM prices WHERE {condition} ORDER BY zone");
                let found = context.sql(&sql).await.expect("plans").collect().await.expect("answers");
                let found: Vec<i64> = found
                    .iter()
                    .flat_map(|rows| rows.column(0).as_primitive::<Int64Type>().values().to_vec())
                    .collect();
                let chosen = (1..).zip(mask.iter()).filter(|(_, is_chosen)| *is_chosen == Some(true));
                assert_eq!(found, chosen.map(|(zone, _)| zone).collect::<Vec<i64>>(), "{rule} with {values:?}");
                held += found.len();
            }
        }
        assert!(held > 300 && refused < 300, "{held} rows held, {refused} rules refused");
    }

    #[test]
    fn no_text_whatever_is_more_than_an_error() {
        // Others each time, and as many as are asked for: `ROLLCALL_RUNS=100000`.
        let asked: Option<u64> = std::env::var("ROLLCALL_RUNS").ok().and_then(|runs| runs.parse().ok());
        let seed = asked.map_or(7, |_| rand::rng().random());
        eprintln!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        for _ in 0..asked.unwrap_or(2000).max(2000) {
            let mut rule: Vec<char> = random_rule(&mut random, 2).chars().collect();
            for _ in 0..random.random_range(0..4) {
                let at = random.random_range(0..rule.len());
                match random.random_range(0..3) {
                    0 => drop(rule.remove(at)),
                    1 => rule.insert(
                        at,
                        *['\'', '(', ')', '\u{0}', '\u{202e}', '$', ';', '"'].choose(&mut random).expect("some"),
                    ),
                    _ => rule.truncate(at.max(1)),
                }
                if rule.is_empty() {
                    rule.push('(');
                }
            }
            let rule: String = rule.into_iter().collect();
            if let Ok(parsed) = parse(&rule) {
                let none = vec![None; parsed.attributes().len()];
                let _ = parsed.of(&none).and_then(|of| of.mask(&prices()));
            }
        }
    }

    #[test]
    fn what_is_no_rule_is_refused_with_a_reason() {
        for (rule, why) in [
            ("regoin = site.region", "regoin"),
            // No column, and the name of an attribute: it would hold for every row.
            ("format = site.format", "no column format"),
            ("zone > 1 AND lower(format) = site.format", "no column format"),
            ("zone + 1", "true or false"),
            ("random() < 0.5", "each time"),
            ("zone < (SELECT 1)", "other tables"),
            ("max(zone) > 1", "one row"),
            ("region =", "audience"),
        ] {
            let error = parse(rule).expect_err(rule).to_string();
            assert!(error.contains(why), "{rule}: {error}");
        }
    }
}
