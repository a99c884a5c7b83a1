//! The settings of a connection: which there are, what they may be, and how long a value holds.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use pgwire::error::PgWireResult;

use rollcall_query::SERVER_VERSION;

use super::{error::error, value::Zone};

/// How a connection hears of what its answers are missing.
pub(super) const COVERAGE: &str = "rollcall.coverage";
/// The zone in which times are read and shown.
pub(super) const TIME_ZONE: &str = "timezone";
/// The time for one statement.
pub(super) const STATEMENT_TIMEOUT: &str = "statement_timeout";

/// How a connection wants to hear of what is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Telling {
    /// A notice with each answer.
    Note,
    /// An incomplete answer is an error.
    Strict,
    /// The next question is not told of; that is recorded.
    OffOnce,
}

impl Telling {
    fn parse(text: &str) -> Option<Self> {
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
struct Known {
    name: &'static str,
    shown: &'static str,
    default: &'static str,
    takes: Takes,
    /// Whether clients are told of a new value at once.
    is_reported: bool,
}

const fn known(name: &'static str, default: &'static str, takes: Takes) -> Known {
    Known { name, shown: name, default, takes, is_reported: false }
}

const fn reported(name: &'static str, shown: &'static str, default: &'static str, takes: Takes) -> Known {
    Known { name, shown, default, takes, is_reported: true }
}

const BOOLEAN: Takes = Takes::OneOf(&["on", "off", "true", "false", "yes", "no", "1", "0"]);
const ON: Takes = Takes::OneOf(&["on", "true", "yes", "1"]);

/// Every setting there is. What changes nothing here is taken, so that programs which set it can connect; what would change an
/// answer is taken only with the value that holds.
static KNOWN: &[Known] = &[
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
    known("transaction_isolation", "read committed", Takes::Anything),
    known("default_transaction_isolation", "read committed", Takes::Anything),
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

/// A transaction, or the part of it since a savepoint.
#[derive(Debug, Clone)]
struct Level {
    /// The savepoint's name; none for the transaction itself.
    savepoint: Option<String>,
    /// What held before it, and what would hold after its end.
    before: (Values, Values),
}

type Values = Arc<BTreeMap<String, String>>;

/// The values that were set.
#[derive(Debug, Clone, Default)]
pub(super) struct Settings {
    /// What the client gave when it connected, and what `RESET` goes back to.
    initial: Values,
    now: Values,
    /// What holds once the transaction is committed: without what is set for it alone.
    after: Values,
    levels: Vec<Level>,
}

/// How long a value holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    Session,
    Transaction,
}

fn find(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.name == name)
}

fn unknown(name: &str) -> pgwire::error::PgWireError {
    match name.starts_with("rollcall.") {
        true => error("42704", format!("there is no setting \"{name}\"; Rollcall has {COVERAGE} (note, strict)")),
        false => error("42704", format!("unrecognized configuration parameter \"{name}\"")),
    }
}

impl Settings {
    /// Those of a new connection.
    pub(super) fn new(given: impl IntoIterator<Item = (String, String)>) -> PgWireResult<Self> {
        let mut settings = Self::default();
        for (name, value) in given {
            settings.set(&name, Some(&value), For::Session)?;
        }
        settings.initial = settings.now.clone();
        Ok(settings)
    }

    /// Sets a value, or with none goes back to the first; says what a client is to be told of at once.
    pub(super) fn set(
        &mut self,
        name: &str,
        value: Option<&str>,
        holds: For,
    ) -> PgWireResult<Option<(&'static str, String)>> {
        let name = name.to_ascii_lowercase();
        let known = find(&name);
        // Names with a point are free for programs' own use, but for ours.
        if known.is_none() && (!name.contains('.') || name.starts_with("rollcall.")) {
            return Err(unknown(&name));
        }
        let value = match value {
            Some(value) if value.eq_ignore_ascii_case("default") => None,
            Some(value) => Some(known.map_or_else(|| Ok(value.to_owned()), |known| checked(known, value))?),
            None => None,
        };
        let value = value.or_else(|| self.initial.get(&name).cloned());
        let put = |values: &mut Values| match &value {
            Some(value) => drop(Arc::make_mut(values).insert(name.clone(), value.clone())),
            None => drop(Arc::make_mut(values).remove(&name)),
        };
        put(&mut self.now);
        if holds == For::Session {
            put(&mut self.after);
        }
        Ok(known.filter(|known| known.is_reported).map(|known| (known.shown, self.get(known.name).unwrap_or_default())))
    }

    /// Goes back to the values of the start; says what a client is to be told of.
    pub(super) fn reset_all(&mut self) -> Vec<(&'static str, String)> {
        let before = std::mem::replace(&mut self.now, self.initial.clone());
        self.after = self.initial.clone();
        self.changed_since(&before)
    }

    fn changed_since(&self, before: &Values) -> Vec<(&'static str, String)> {
        let reported = KNOWN.iter().filter(|known| known.is_reported);
        let changed = reported.filter(|known| before.get(known.name) != self.now.get(known.name));
        changed.map(|known| (known.shown, self.get(known.name).unwrap_or_default())).collect()
    }

    /// A value; none if there is no such setting.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        let name = name.to_ascii_lowercase();
        self.now.get(&name).cloned().or_else(|| find(&name).map(|known| known.default.to_owned()))
    }

    /// The same, where one that is not there is an error.
    pub(super) fn show(&self, name: &str) -> PgWireResult<String> {
        let value = self.get(name).ok_or_else(|| unknown(name))?;
        Ok(if name.eq_ignore_ascii_case(STATEMENT_TIMEOUT) { time(&value) } else { value })
    }

    /// How a setting's name is written.
    pub(super) fn shown(name: &str) -> String {
        let name = name.to_ascii_lowercase();
        find(&name).map_or(name, |known| known.shown.to_owned())
    }

    /// All names with their values.
    pub(super) fn all(&self) -> BTreeMap<String, String> {
        let mut all: BTreeMap<String, String> =
            KNOWN.iter().map(|known| (known.name.to_owned(), known.default.to_owned())).collect();
        all.extend(self.now.iter().map(|(name, value)| (name.clone(), value.clone())));
        all
    }

    /// What clients are told when they connect.
    pub(super) fn reported(&self) -> Vec<(&'static str, String)> {
        let reported = KNOWN.iter().filter(|known| known.is_reported);
        reported.map(|known| (known.shown, self.get(known.name).unwrap_or_default())).collect()
    }

    /// How the next question is told of; none if that was not set.
    pub(super) fn telling(&self) -> Option<Telling> {
        self.now.get(COVERAGE).and_then(|text| Telling::parse(text))
    }

    /// Uses up "off for this statement".
    pub(super) fn tell_again(&mut self) {
        for values in [&mut self.now, &mut self.after, &mut self.initial] {
            if values.get(COVERAGE).is_some_and(|text| Telling::parse(text) == Some(Telling::OffOnce)) {
                Arc::make_mut(values).remove(COVERAGE);
            }
        }
        for level in &mut self.levels {
            for values in [&mut level.before.0, &mut level.before.1] {
                if values.get(COVERAGE).is_some_and(|text| Telling::parse(text) == Some(Telling::OffOnce)) {
                    Arc::make_mut(values).remove(COVERAGE);
                }
            }
        }
    }

    /// The session's zone.
    pub(super) fn zone(&self) -> Zone {
        self.now.get(TIME_ZONE).and_then(|name| Zone::parse(name).ok()).unwrap_or_else(Zone::utc)
    }

    /// The time for one statement; none for as long as HQ allows.
    pub(super) fn statement_timeout(&self) -> Option<Duration> {
        let millis = self.now.get(STATEMENT_TIMEOUT).and_then(|text| text.parse().ok()).unwrap_or(0);
        (millis > 0).then(|| Duration::from_millis(millis))
    }

    /// A transaction or a savepoint begins.
    pub(super) fn begin(&mut self, savepoint: Option<String>) {
        self.levels.push(Level { savepoint, before: (self.now.clone(), self.after.clone()) });
    }

    /// The transaction is committed.
    pub(super) fn commit(&mut self) -> Vec<(&'static str, String)> {
        self.levels.clear();
        let before = std::mem::replace(&mut self.now, self.after.clone());
        self.changed_since(&before)
    }

    /// The transaction is undone, or what came after a savepoint; false if there is no such savepoint.
    pub(super) fn rollback(&mut self, savepoint: Option<&str>) -> Option<Vec<(&'static str, String)>> {
        let place = match savepoint {
            None if self.levels.is_empty() => return Some(Vec::new()),
            None => 0,
            Some(_) => self.place_of(savepoint)?,
        };
        let level = self.levels.get(place)?.clone();
        // The savepoint itself stays; a transaction does not.
        self.levels.truncate(place + usize::from(savepoint.is_some()));
        let before = std::mem::replace(&mut self.now, level.before.0);
        self.after = level.before.1;
        Some(self.changed_since(&before))
    }

    /// A savepoint is let go, with what holds now; false if there is none of this name.
    pub(super) fn release(&mut self, savepoint: &str) -> bool {
        let place = self.place_of(Some(savepoint));
        place.is_some_and(|place| {
            self.levels.truncate(place);
            true
        })
    }

    /// How many savepoints there are.
    pub(super) fn savepoints(&self) -> usize {
        self.levels.iter().filter(|level| level.savepoint.is_some()).count()
    }

    fn place_of(&self, savepoint: Option<&str>) -> Option<usize> {
        self.levels.iter().rposition(|level| level.savepoint.is_some() && level.savepoint.as_deref() == savepoint)
    }
}

/// The value as it is kept; an error says which there are.
fn checked(known: &Known, value: &str) -> PgWireResult<String> {
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
            let schemas = value.split(',').map(|name| name.trim().trim_matches(['"', '\'']).to_lowercase());
            let first = schemas.filter(|name| !matches!(name.as_str(), "$user" | "pg_catalog" | "")).next();
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
fn time(millis: &str) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn set(settings: &mut Settings, name: &str, value: &str, holds: For) {
        settings.set(name, Some(value), holds).expect("can be set");
    }

    #[test]
    fn names_are_found_whatever_their_case_and_unknown_ones_are_errors() {
        let mut settings = Settings::default();
        set(&mut settings, "ROLLCALL.Coverage", "STRICT", For::Session);
        assert_eq!(settings.telling(), Some(Telling::Strict));
        assert_eq!(settings.get("rollcall.coverage").as_deref(), Some("strict"));
        for (name, value) in [
            ("rollcall.covrage", "strict"),
            ("rollcall.coverage", "strikt"),
            ("no_such_setting", "1"),
            ("timezone", "Mars/Olympus"),
            ("search_path", "history, public"),
            ("datestyle", "German"),
            ("standard_conforming_strings", "off"),
            ("server_version", "9"),
        ] {
            assert!(settings.set(name, Some(value), For::Session).is_err(), "{name} = {value}");
        }
        set(&mut settings, "my_program.user", "ada", For::Session);
        assert_eq!(settings.get("my_program.user").as_deref(), Some("ada"));
    }

    #[test]
    fn values_hold_as_long_as_they_should() {
        let mut settings = Settings::new([("rollcall.coverage".to_owned(), "strict".to_owned())]).expect("valid");
        settings.begin(None);
        set(&mut settings, "rollcall.coverage", "note", For::Transaction);
        set(&mut settings, "statement_timeout", "5s", For::Session);
        assert_eq!(
            (settings.telling(), settings.statement_timeout()),
            (Some(Telling::Note), Some(Duration::from_secs(5)))
        );
        settings.begin(Some("a".to_owned()));
        set(&mut settings, "statement_timeout", "1min", For::Session);
        assert!(settings.rollback(Some("a")).is_some());
        assert_eq!(settings.statement_timeout(), Some(Duration::from_secs(5)));
        assert!(settings.rollback(Some("b")).is_none());
        settings.commit();
        assert_eq!(
            (settings.telling(), settings.statement_timeout()),
            (Some(Telling::Strict), Some(Duration::from_secs(5)))
        );
        settings.begin(None);
        set(&mut settings, "timezone", "America/Los_Angeles", For::Session);
        let told = settings.rollback(None).expect("there is a transaction");
        assert_eq!(told, [("TimeZone", "UTC".to_owned())]);
        settings.reset_all();
        assert_eq!(settings.statement_timeout(), None);
        assert_eq!(settings.telling(), Some(Telling::Strict), "what was given at the start is what RESET goes back to");
    }

    #[test]
    fn off_for_a_statement_is_used_up_once() {
        let mut settings = Settings::default();
        settings.begin(None);
        set(&mut settings, COVERAGE, "off-for-this-statement", For::Session);
        settings.begin(Some("a".to_owned()));
        assert_eq!(settings.telling(), Some(Telling::OffOnce));
        settings.tell_again();
        assert_eq!(settings.telling(), None);
        settings.rollback(Some("a"));
        assert_eq!(settings.telling(), None, "no savepoint brings it back");
        settings.commit();
        assert_eq!(settings.telling(), None);
    }
}
