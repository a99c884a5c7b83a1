//! Which names PostgreSQL has too, and what is done so that each means the same here.
//!
//! Each name that is known here and in PostgreSQL is in one of three lists: functions of this
//! crate, the library's functions that were compared with PostgreSQL's, and those that are refused.
//! A test keeps the lists whole.

use datafusion::{
    arrow::datatypes::DataType,
    common::{Result, plan_err},
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility},
};

/// Names that would mean something else here, and what to do instead.
const REFUSED: [(&str, &str); 3] = [
    ("generate_series", "write it behind FROM"),
    ("current_time", "use localtime, or now()"),
    ("row", "write the columns one by one"),
];

/// Library functions that give what PostgreSQL gives; answers from the catalogue of a server are
/// among them.
#[cfg(test)]
const VERIFIED: [&str; 80] = [
    "abs",
    "any_value",
    "array_agg",
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "coalesce",
    "col_description",
    "corr",
    "count",
    "covar_pop",
    "covar_samp",
    "cume_dist",
    "current_database",
    "current_schema",
    "current_schemas",
    "current_setting",
    "dense_rank",
    "every",
    "first_value",
    "format_type",
    "gcd",
    "greatest",
    "grouping",
    "has_any_column_privilege",
    "has_database_privilege",
    "has_schema_privilege",
    "has_table_privilege",
    "lag",
    "last_value",
    "lcm",
    "lead",
    "least",
    "max",
    "md5",
    "min",
    "nth_value",
    "ntile",
    "nullif",
    "parse_ident",
    "percent_rank",
    "pg_advisory_unlock_all",
    "pg_backend_pid",
    "pg_encoding_to_char",
    "pg_get_constraintdef",
    "pg_get_expr",
    "pg_get_partkeydef",
    "pg_get_statisticsobjdef_columns",
    "pg_get_userbyid",
    "pg_partition_ancestors",
    "pg_relation_is_publishable",
    "pg_relation_size",
    "pg_stat_get_numscans",
    "pg_table_is_visible",
    "pg_total_relation_size",
    "random",
    "rank",
    "regr_avgx",
    "regr_avgy",
    "regr_count",
    "regr_intercept",
    "regr_r2",
    "regr_slope",
    "regr_sxx",
    "regr_sxy",
    "regr_syy",
    "row_number",
    "session_user",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "string_agg",
    "sum",
    "var_pop",
    "var_samp",
    "variance",
    "version",
];

/// A name that is an error.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Refused {
    name: &'static str,
    instead: &'static str,
    signature: Signature,
}

pub(super) fn refused() -> Vec<ScalarUDF> {
    let any = || Signature::one_of(vec![TypeSignature::Nullary, TypeSignature::VariadicAny], Volatility::Immutable);
    let refused = |(name, instead)| ScalarUDF::new_from_impl(Refused { name, instead, signature: any() });
    REFUSED.into_iter().map(refused).collect()
}

impl Refused {
    fn error<T>(&self) -> Result<T> {
        plan_err!(
            "function {} is not available here: PostgreSQL's meaning of it is not implemented; {}",
            self.name,
            self.instead
        )
    }
}

impl ScalarUDFImpl for Refused {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        self.error()
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.error()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use datafusion::prelude::{SessionConfig, SessionContext};
    use datafusion_pg_catalog::{pg_catalog::context::EmptyContextProvider, setup_pg_catalog};

    use super::*;

    /// Every name of a session that PostgreSQL has too is in exactly one list.
    #[test]
    fn every_common_name_is_accounted_for() {
        let config = SessionConfig::new().with_default_catalog_and_schema("hq", "public");
        let context = SessionContext::new_with_config(config);
        setup_pg_catalog(&context, "hq", EmptyContextProvider).expect("sets up");
        crate::meaning::install(&context).expect("installs");
        crate::functions::register(&context);
        for function in crate::session::functions(&crate::Extras::default()) {
            context.register_udf(function);
        }
        let state = context.state();
        let known = state.scalar_functions().keys().chain(state.aggregate_functions().keys());
        let known: BTreeSet<&str> = known.chain(state.window_functions().keys()).map(String::as_str).collect();
        // What PostgreSQL's grammar knows besides the functions of its catalogue.
        let grammar = "any_value coalesce current_date current_time current_timestamp greatest grouping least localtime \
                       localtimestamp nullif row trim";
        let names = include_str!("../../tests/functions/postgresql.names");
        let theirs: BTreeSet<&str> = names.lines().chain(grammar.split_whitespace()).collect();
        let ours: BTreeSet<String> =
            crate::functions::all().iter().map(|function| function.name().to_owned()).collect();
        let ordered: BTreeSet<String> =
            crate::functions::ordered::aggregates().iter().map(|function| function.name().to_owned()).collect();
        for name in &ours {
            let function = &state.scalar_functions()[name.as_str()];
            assert_eq!(function.name(), name, "another function took the name");
            let shown = format!("{function:?}");
            assert!(["Function {", "Now {"].iter().any(|ours| shown.contains(ours)), "{shown}");
        }
        let wrong: Vec<&&str> = known
            .intersection(&theirs)
            .filter(|name| {
                let lists = [
                    ours.contains(**name) || ordered.contains(**name),
                    VERIFIED.contains(name),
                    REFUSED.iter().any(|(refused, _)| refused == *name),
                ];
                lists.into_iter().filter(|is_in| *is_in).count() != 1
            })
            .collect();
        assert!(wrong.is_empty(), "in no list, or in several: {wrong:?}");
    }
}
