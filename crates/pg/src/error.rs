//! Errors as a client of PostgreSQL gets them.

use pgwire::error::{ErrorInfo, PgWireError};
use rollcall_query::QueryError;
use rollcall_types::describe;

use super::value::ValueError;

/// The code of what is HQ's own fault.
pub(super) const HQ_FAILED: &str = "58000";
/// What PostgreSQL has and this port has not.
pub(super) const UNSUPPORTED: &str = "0A000";
/// Only reading is possible.
pub(super) const READ_ONLY: &str = "25006";

/// An error with a code.
pub(super) fn error(code: &str, text: impl Into<String>) -> PgWireError {
    PgWireError::UserError(Box::new(ErrorInfo::new("ERROR".to_owned(), code.to_owned(), text.into())))
}

/// An error with a code and a hint.
pub(super) fn error_with_hint(code: &str, text: impl Into<String>, hint: impl Into<String>) -> PgWireError {
    let mut info = ErrorInfo::new("ERROR".to_owned(), code.to_owned(), text.into());
    info.hint = Some(hint.into());
    PgWireError::UserError(Box::new(info))
}

/// There is no prepared statement of this name. Clients know by the routine that they may prepare
/// it again.
pub(super) fn no_statement(name: &str) -> PgWireError {
    let text = format!("prepared statement \"{name}\" does not exist");
    let mut info = ErrorInfo::new("ERROR".to_owned(), "26000".to_owned(), text);
    info.routine = Some("FetchPreparedStatement".to_owned());
    PgWireError::UserError(Box::new(info))
}

/// Why a question has no answer.
pub(super) fn failed(failure: &QueryError) -> PgWireError {
    error(failure.sqlstate(), describe(failure))
}

/// A value that cannot be sent or understood.
pub(super) fn of_value(failure: ValueError) -> PgWireError {
    error(failure.code, failure.message)
}

/// What is possible here, when something else is asked for.
pub(super) fn read_only() -> PgWireError {
    error(
        READ_ONLY,
        "this is not possible here; what is: SELECT, WITH, EXPLAIN, COPY (SELECT …) TO STDOUT, cursors, transactions, SET, SHOW, \
         and INSERT, UPDATE and DELETE on tables that HQ publishes",
    )
}
