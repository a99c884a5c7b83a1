//! The settings of a connection, and how long a value holds.

pub(super) mod calls;
mod known;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use pgwire::error::PgWireResult;

pub(super) use self::known::{COVERAGE, TIME_ZONE, Telling};
use self::known::{KNOWN, STATEMENT_TIMEOUT, checked, find, time, unknown};
use super::value::Zone;

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

    /// Sets a value, or with none goes back to the first; says what a client is to be told of at
    /// once.
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
        let of_levels = self.levels.iter_mut().flat_map(|level| [&mut level.before.0, &mut level.before.1]);
        for values in [&mut self.now, &mut self.after, &mut self.initial].into_iter().chain(of_levels) {
            if values.get(COVERAGE).is_some_and(|text| Telling::parse(text) == Some(Telling::OffOnce)) {
                Arc::make_mut(values).remove(COVERAGE);
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

    /// The transaction is undone, or what came after a savepoint; false if there is no such
    /// savepoint.
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
