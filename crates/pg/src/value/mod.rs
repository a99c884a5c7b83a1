//! Values on the wire, in PostgreSQL's forms.
//!
//! Answers leave as PostgreSQL 15 would send them, as text and as binary, in rows ([`Encoder`]) and
//! in COPY ([`CopyForm`], [`CopyEncoder`]). Parameters come in through [`decode`]. Nothing here
//! knows of sessions or questions: the zone of a session and the formats a client asked for are
//! given. `DateStyle` is ISO and `IntervalStyle` is postgres; there are no others.

mod column;
mod copy;
mod datetime;
mod encoder;
mod interval;
mod list;
mod number;
mod parameter;
mod quote;
mod strings;
mod text;
mod types;
mod vector;
mod zone;

#[cfg(test)]
mod tests;

pub use copy::{CopyEncoder, CopyForm, ForceQuote};
pub use encoder::Encoder;
pub use parameter::{Parameter, decode};
pub use types::{pg_type, sql_type, type_len, type_modifier};
pub use zone::Zone;

/// A value, a type or an option that cannot be sent or understood: an SQLSTATE and a text for the
/// person who asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ValueError {
    /// The SQLSTATE, five characters.
    pub code: &'static str,
    /// What is wrong, in PostgreSQL's words where it has some.
    pub message: String,
}

impl ValueError {
    /// An error with this SQLSTATE and text.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    fn unsupported(message: impl Into<String>) -> Self {
        Self::new("0A000", message)
    }

    fn out_of_range(what: &str) -> Self {
        Self::new("22008", format!("{what} out of range"))
    }
}
