//! Functions with PostgreSQL's names and PostgreSQL's meaning.
//!
//! A name that PostgreSQL has means here what it means there, or is an error that says so: see
//! [`audit`]. A function is a list of forms ([`function::Form`]), each with the types it takes; it
//! is evaluated row by row on [`value::Value`]s, and what it gives is bounded ([`bounds`]).
//! PostgreSQL 15 was asked what is right: `tests/functions/*.txt`.

mod abbreviations;
mod arrays;
mod audit;
mod bounded;
mod bounds;
mod bytes;
mod calendar;
mod casts;
mod catalogue;
mod columns;
mod from_char;
mod function;
mod input;
mod intervals;
mod json;
mod matches;
mod math;
mod moments;
mod now;
mod number_char;
mod number_pattern;
mod ordered;
mod parse;
mod pattern;
mod planner;
mod quoting;
mod regexes;
mod show;
mod texts;
mod times;
mod to_char;
mod value;
mod zone;

use datafusion::{logical_expr::ScalarUDF, prelude::SessionContext};

/// A span of time as PostgreSQL writes it: `1 mon 2 days 03:04:05`.
pub fn interval_text(months: i32, days: i32, micros: i64) -> String {
    show::interval(value::Interval { months, days, micros })
}

/// Gives a session these functions.
pub(crate) fn register(context: &SessionContext) {
    for function in all().into_iter().chain(audit::refused()) {
        replace(context, function);
    }
    bounded::install(context);
    for function in ordered::aggregates() {
        // The library's would come back by its other names when the session is copied.
        context.deregister_udaf(function.name());
        context.register_udaf(function);
    }
    let known = context.state().aggregate_functions().get("bool_and").cloned();
    if let Some(function) = known {
        context.register_udaf(function.as_ref().clone().with_aliases(["every"]));
    }
    planner::install(context);
}

/// Puts a function in the place of the library's. That one's other names, which PostgreSQL does not
/// have, keep their meaning; it must not be known by them as itself, or it would come back by its
/// first name when the session is copied.
fn replace(context: &SessionContext, function: ScalarUDF) {
    let old = context.state().scalar_functions().get(function.name()).cloned();
    if let Some(old) = old {
        context.deregister_udf(old.name());
        for name in std::iter::once(old.name()).chain(old.aliases().iter().map(String::as_str)) {
            if name != function.name() && !context.state().scalar_functions().contains_key(name) {
                context.register_udf(bounded::renamed(name, old.clone()));
            }
        }
    }
    context.register_udf(function);
}

/// All functions here.
fn all() -> Vec<ScalarUDF> {
    [
        times::functions(),
        times::of_spans(),
        times::of_texts(),
        times::of_literals(),
        catalogue::of_texts(),
        catalogue::of_expressions(),
        catalogue::of_numbers(),
        catalogue::of_arrays(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
