//! Warnings and errors that come again and again are written once a minute, with a count of those
//! between.

use std::{
    collections::HashMap,
    fmt::{self, Debug, Write},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

/// The same is written this often.
const EVERY: Duration = Duration::from_secs(60);
/// Different lines that are remembered; older ones are forgotten beyond.
const KEPT_MAX: usize = 1000;
/// Fields that say what a line is about. Others, such as the reason, differ each time although it
/// is the same trouble.
const ABOUT: [&str; 8] = ["site", "table", "work", "channel", "user", "database", "message", "page"];

/// Formats as `inner` does, what was not said within the last minute.
pub(crate) struct OnceAMinute<F> {
    inner: F,
    said: Mutex<HashMap<String, Said>>,
}

struct Said {
    at: Instant,
    /// How often it came since.
    since: u64,
}

/// Whether a line is written.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    Write {
        /// How often it came since it was written last.
        since: u64,
    },
    Leave,
}

impl<F> OnceAMinute<F> {
    pub(crate) fn new(inner: F) -> Self {
        Self { inner, said: Mutex::default() }
    }

    fn turn(&self, key: String, now: Instant) -> Turn {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() >= KEPT_MAX {
            said.retain(|_, known| now.duration_since(known.at) < EVERY);
        }
        match said.get_mut(&key) {
            Some(known) if now.duration_since(known.at) < EVERY => {
                known.since += 1;
                Turn::Leave
            }
            known => {
                let since = known.map_or(0, |known| known.since);
                said.insert(key, Said { at: now, since: 0 });
                Turn::Write { since }
            }
        }
    }
}

/// What a line is about.
struct About(String);

impl Visit for About {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if ABOUT.contains(&field.name()) {
            // A text has room for any value.
            let _ = write!(self.0, " {}={value:?}", field.name());
        }
    }
}

impl<S, N, F> FormatEvent<S, N> for OnceAMinute<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let metadata = event.metadata();
        if *metadata.level() > Level::WARN {
            return self.inner.format_event(context, writer, event);
        }
        let mut about = About(format!("{}:{}", metadata.target(), metadata.line().unwrap_or_default()));
        event.record(&mut about);
        match self.turn(about.0, Instant::now()) {
            Turn::Leave => Ok(()),
            Turn::Write { since: 0 } => self.inner.format_event(context, writer, event),
            Turn::Write { since } => {
                let mut line = String::new();
                self.inner.format_event(context, Writer::new(&mut line), event)?;
                let mut writer = writer;
                match line.trim_end().strip_suffix('}') {
                    // A line of JSON stays one.
                    Some(object) => writeln!(writer, "{object},\"repeated\":{since}}}"),
                    None => {
                        writeln!(writer, "{} (and {since} times more since this was written last)", line.trim_end())
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_lines_are_one_and_a_count() {
        let once = OnceAMinute::new(());
        let begun = Instant::now();
        assert_eq!(once.turn("disk".to_owned(), begun), Turn::Write { since: 0 });
        for tenth in 1..=100 {
            assert_eq!(once.turn("disk".to_owned(), begun + Duration::from_millis(tenth * 120)), Turn::Leave);
        }
        assert_eq!(once.turn("other".to_owned(), begun), Turn::Write { since: 0 });
        assert_eq!(once.turn("disk".to_owned(), begun + EVERY), Turn::Write { since: 100 });
        assert_eq!(once.turn("disk".to_owned(), begun + EVERY * 3), Turn::Write { since: 0 });
    }
}
