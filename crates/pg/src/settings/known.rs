//! The settings that there are, and the values that they take.

use pgwire::error::{PgWireError, PgWireResult};
use rollcall_query::SERVER_VERSION;

use crate::{error::error, value::Zone};

/// How a connection hears of what its answers are missing.
pub(crate) const COVERAGE: &str = "rollcall.coverage";
/// The zone in which times are read and shown.
pub(crate) const TIME_ZONE: &str = "timezone";
/// The time for one statement.
pub(super) const STATEMENT_TIMEOUT: &str = "statement_timeout";

/// How a connection wants to hear of what is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Telling {
    /// A notice with each answer.
    Note,
    /// An incomplete answer is an error.
    Strict,
    /// The next question is not told of; that is recorded.
    OffOnce,
}

impl Telling {
    pub(super) fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "note" => Self::Note,
            "strict" => Self::Strict,
            "off-for-this-statement" => Self::OffOnce,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Strict => "strict",
            Self::OffOnce => "off-for-this-statement",
        }
    }
}

/// Which values a setting takes.
#[derive(Clone, Copy)]
enum Takes {
    /// One of these, whatever the case; the first word counts.
    OneOf(&'static [&'static str]),
    Zone,
    Milliseconds,
    /// Paths that lead to the tables that unqualified names mean here.
    SearchPath,
    /// It is kept and shown, and changes nothing here.
    Anything,
    /// It can be read only.
    Nothing,
    Coverage,
}

/// A setting that PostgreSQL has too, or one of ours.
pub(super) struct Known {
    pub(super) name: &'static str,
    pub(super) shown: &'static str,
    pub(super) default: &'static str,
    takes: Takes,
    /// Whether clients are told of a new value at once.
    pub(super) is_reported: bool,
}

const fn known(name: &'static str, default: &'static str, takes: Takes) -> Known {
    Known { name, shown: name, default, takes, is_reported: false }
}

const fn reported(name: &'static str, shown: &'static str, default: &'static str, takes: Takes) -> Known {
    Known { name, shown, default, takes, is_reported: true }
}

const BOOLEAN: Takes = Takes::OneOf(&["on", "off", "true", "false", "yes", "no", "1", "0"]);
const LEVELS: Takes = Takes::OneOf(&["read uncommitted", "read committed", "repeatable read", "serializable"]);
const ON: Takes = Takes::OneOf(&["on", "true", "yes", "1"]);

/// Every setting there is. What changes nothing here is taken, so that programs which set it can
/// connect; what would change an answer is taken only with the value that holds.
pub(super) static KNOWN: &[Known] = &[
    known(COVERAGE, "note", Takes::Coverage),
    reported(TIME_ZONE, "TimeZone", "UTC", Takes::Zone),
    known(STATEMENT_TIMEOUT, "0", Takes::Milliseconds),
    reported("datestyle", "DateStyle", "ISO, MDY", Takes::OneOf(&["iso", "iso, mdy", "iso,mdy"])),
    reported("intervalstyle", "IntervalStyle", "postgres", Takes::OneOf(&["postgres"])),
    reported("client_encoding", "client_encoding", "UTF8", Takes::OneOf(&["utf8", "utf-8", "unicode"])),
    reported("standard_conforming_strings", "standard_conforming_strings", "on", ON),
    reported("application_name", "application_name", "", Takes::Anything),
    reported("server_version", "server_version", SERVER_VERSION, Takes::Nothing),
    reported("server_encoding", "server_encoding", "UTF8", Takes::Nothing),
    reported("integer_datetimes", "integer_datetimes", "on", Takes::Nothing),
    reported("is_superuser", "is_superuser", "off", Takes::Nothing),
    reported("in_hot_standby", "in_hot_standby", "off", Takes::Nothing),
    reported("default_transaction_read_only", "default_transaction_read_only", "off", BOOLEAN),
    reported("scram_iterations", "scram_iterations", "4096", Takes::Nothing),
    known("server_version_num", "160006", Takes::Nothing),
    known("max_index_keys", "32", Takes::Nothing),
    known("max_identifier_length", "63", Takes::Nothing),
    known("block_size", "8192", Takes::Nothing),
    known("lc_collate", "C", Takes::Nothing),
    known("lc_ctype", "C.UTF-8", Takes::Nothing),
    known("search_path", "\"$user\", public", Takes::SearchPath),
    known("bytea_output", "hex", Takes::OneOf(&["hex"])),
    known("transaction_read_only", "off", BOOLEAN),
    known("transaction_deferrable", "off", BOOLEAN),
    known("default_transaction_deferrable", "off", BOOLEAN),
    known("transaction_isolation", "read committed", LEVELS),
    known("default_transaction_isolation", "read committed", LEVELS),
    known("session_authorization", "", Takes::Nothing),
    known("extra_float_digits", "1", Takes::OneOf(&["1", "2", "3"])),
    known("backslash_quote", "safe_encoding", Takes::Anything),
    known("bonjour", "off", Takes::Nothing),
    known("check_function_bodies", "on", Takes::Anything),
    known("client_min_messages", "notice", Takes::Anything),
    known("constraint_exclusion", "partition", Takes::Anything),
    known("cursor_tuple_fraction", "0.1", Takes::Anything),
    known("default_table_access_method", "heap", Takes::Anything),
    known("default_tablespace", "", Takes::Anything),
    known("default_text_search_config", "pg_catalog.simple", Takes::Anything),
    known("default_with_oids", "off", Takes::OneOf(&["off", "false"])),
    known("effective_cache_size", "4GB", Takes::Anything),
    known("enable_bitmapscan", "on", Takes::Anything),
    known("enable_hashagg", "on", Takes::Anything),
    known("enable_hashjoin", "on", Takes::Anything),
    known("enable_indexscan", "on", Takes::Anything),
    known("enable_mergejoin", "on", Takes::Anything),
    known("enable_nestloop", "on", Takes::Anything),
    known("enable_seqscan", "on", Takes::Anything),
    known("enable_sort", "on", Takes::Anything),
    known("escape_string_warning", "on", Takes::Anything),
    known("from_collapse_limit", "8", Takes::Anything),
    known("geqo", "on", Takes::Anything),
    known("gin_fuzzy_search_limit", "0", Takes::Anything),
    known("idle_in_transaction_session_timeout", "0", Takes::Anything),
    known("idle_session_timeout", "0", Takes::Anything),
    known("jit", "off", Takes::Anything),
    known("join_collapse_limit", "8", Takes::Anything),
    known("lc_messages", "C", Takes::Anything),
    known("lc_monetary", "C", Takes::Anything),
    known("lc_numeric", "C", Takes::Anything),
    known("lc_time", "C", Takes::Anything),
    known("lock_timeout", "0", Takes::Anything),
    known("log_min_duration_statement", "-1", Takes::Anything),
    known("log_statement", "none", Takes::Anything),
    known("maintenance_work_mem", "64MB", Takes::Anything),
    known("max_parallel_workers_per_gather", "0", Takes::Anything),
    known("password_encryption", "scram-sha-256", Takes::Nothing),
    known("plan_cache_mode", "auto", Takes::Anything),
    known("quote_all_identifiers", "off", Takes::Anything),
    known("random_page_cost", "4", Takes::Anything),
    known("row_security", "on", Takes::Anything),
    known("ssl", "on", Takes::Nothing),
    known("synchronize_seqscans", "on", Takes::Anything),
    known("synchronous_commit", "on", Takes::Anything),
    known("tcp_keepalives_idle", "0", Takes::Anything),
    known("tcp_keepalives_interval", "0", Takes::Anything),
    known("tcp_keepalives_count", "0", Takes::Anything),
    known("temp_buffers", "8MB", Takes::Anything),
    known("transaction_timeout", "0", Takes::Anything),
    known("work_mem", "4MB", Takes::Anything),
    known("xmlbinary", "base64", Takes::Anything),
    known("xmloption", "content", Takes::Anything),
];

pub(super) fn find(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.name == name)
}

pub(super) fn unknown(name: &str) -> PgWireError {
    match name.starts_with("rollcall.") {
        true => error("42704", format!("there is no setting \"{name}\"; Rollcall has {COVERAGE} (note, strict)")),
        false => error("42704", format!("unrecognized configuration parameter \"{name}\"")),
    }
}

/// The value as it is kept; an error says which there are.
pub(super) fn checked(known: &Known, value: &str) -> PgWireResult<String> {
    let wrong = |may_be: &str| {
        let text = format!("invalid value for parameter \"{}\": \"{value}\"; it may be {may_be}", known.shown);
        Err(error("22023", text))
    };
    match known.takes {
        Takes::Coverage => match Telling::parse(value) {
            Some(telling) => Ok(telling.name().to_owned()),
            None => wrong("note, strict or 'off-for-this-statement'"),
        },
        // Some clients send the quotes of a text with it.
        Takes::OneOf(values) => match values.iter().any(|known| plain(value).eq_ignore_ascii_case(known)) {
            true => Ok(in_form(known, plain(value))),
            false => wrong(&values.join(", ")),
        },
        Takes::Zone => match Zone::parse(value) {
            Ok(zone) => Ok(zone.name().to_owned()),
            Err(failure) => Err(error("22023", failure.message)),
        },
        Takes::Milliseconds => match milliseconds(value) {
            Some(millis) => Ok(millis.to_string()),
            None => wrong("a number of milliseconds, or of other units as in 500ms, 5s, 2min, 1h"),
        },
        Takes::SearchPath => {
            let mut schemas = value.split(',').map(|name| name.trim().trim_matches(['"', '\'']).to_lowercase());
            let first = schemas.find(|name| !matches!(name.as_str(), "$user" | "pg_catalog" | ""));
            match first.as_deref() {
                None | Some("public") => Ok(value.to_owned()),
                Some(_) => wrong("public alone: write history.TABLE or rollcall.TABLE for tables of other schemas"),
            }
        }
        Takes::Anything => Ok(value.to_owned()),
        Takes::Nothing => Err(error("55P02", format!("parameter \"{}\" cannot be changed", known.shown))),
    }
}

fn plain(value: &str) -> &str {
    value.trim().trim_matches('\'')
}

/// Values that are equal are shown alike.
fn in_form(known: &Known, value: &str) -> String {
    match value.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "1" if !matches!(known.name, "extra_float_digits") => "on".to_owned(),
        "false" | "no" | "0" => "off".to_owned(),
        text if known.name == "datestyle" && text == "iso" => known.default.to_owned(),
        text if known.name == "datestyle" => text.to_uppercase().replace(", ", ",").replace(',', ", "),
        _ if known.name == "client_encoding" => "UTF8".to_owned(),
        text => text.to_owned(),
    }
}

/// Milliseconds in the largest unit that has no remainder, as PostgreSQL shows them.
pub(super) fn time(millis: &str) -> String {
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s"), (1, "ms")];
    match millis.parse::<u64>() {
        Ok(millis) if millis > 0 => {
            let unit = units.iter().find(|(size, _)| millis % size == 0);
            unit.map_or_else(String::new, |(size, name)| format!("{}{name}", millis / size))
        }
        _ => millis.to_owned(),
    }
}

/// Milliseconds in a time such as `5s`; a number alone is milliseconds.
fn milliseconds(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let unit = match text[digits..].trim() {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(unit)
}
