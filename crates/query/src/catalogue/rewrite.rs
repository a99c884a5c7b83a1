//! How a catalogue question becomes one that can be planned.

use std::sync::LazyLock;

use datafusion::sql::sqlparser::ast::Statement;
use datafusion_pg_catalog::sql::PostgresCompatibilityParser;

use super::{is_catalogue_question, rules};

static PARSER: LazyLock<PostgresCompatibilityParser> = LazyLock::new(PostgresCompatibilityParser::new);

/// A catalogue question with the rules applied that make it one that can be planned; any other
/// statement as it is.
pub(crate) fn rewritten(statement: Statement) -> Statement {
    if !is_catalogue_question(&statement) {
        return statement;
    }
    let statement = rules::apply(statement);
    // Some of the library's rules work on the text.
    match PARSER.parse(&statement.to_string()).as_deref() {
        Ok([one]) => one.clone(),
        _ => PARSER.rewrite(statement),
    }
}
