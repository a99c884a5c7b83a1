//! Reads a history and a roster as spreadsheets write them; whatever is wrong is said with its
//! line.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
    str::FromStr,
};

use anyhow::{Context, bail};
use chrono::{Datelike, NaiveDate, Utc};
use indicatif::ProgressBar;
use rollcall_roll::HistoryEvent;
use rollcall_types::{SiteId, Timestamp};

/// A CSV file's text, with the separator that its header has: spreadsheets of some countries write
/// `;`.
fn open_csv(path: &Path) -> anyhow::Result<csv::Reader<BufReader<File>>> {
    const BOM: &[u8] = b"\xef\xbb\xbf";
    let mut file = BufReader::new(File::open(path).with_context(|| format!("reading {}", path.display()))?);
    let start = file.fill_buf()?;
    let header = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let separator = if header.contains(&b';') && !header.contains(&b',') { b';' } else { b',' };
    if start.starts_with(BOM) {
        file.consume(BOM.len());
    }
    Ok(csv::ReaderBuilder::new().delimiter(separator).from_reader(file))
}

/// An id in the form that sites have: lower case.
fn site_id(text: &str, folded: &mut bool) -> anyhow::Result<SiteId> {
    let lower = text.to_lowercase();
    *folded |= lower != text;
    Ok(SiteId::new(&lower)?)
}

/// The roster as `rollcall roster import` takes it: separated by commas, ids in lower case.
pub(super) fn roster_text(path: &Path, folded: &mut bool) -> anyhow::Result<String> {
    let mut reader = open_csv(path)?;
    let header = reader.headers()?.clone();
    let id = header.iter().position(|column| column.trim().eq_ignore_ascii_case("id"));
    let id = id.with_context(|| format!("{} needs a column `id`", path.display()))?;
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(header.iter().map(|column| column.trim().to_lowercase()))?;
    for (line, row) in (2..).zip(reader.records()) {
        let row = row.with_context(|| format!("{}, line {line}", path.display()))?;
        let own = site_id(row.get(id).unwrap_or_default().trim(), folded);
        let own = own.with_context(|| format!("{}, line {line}: id", path.display()))?;
        let fields = row.iter().enumerate().map(|(place, field)| if place == id { own.as_str() } else { field });
        writer.write_record(fields)?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}

/// A time of a history. One of another century is a wrong unit or a wrong column, and would be
/// replayed minute by minute.
fn time(text: &str) -> anyhow::Result<Timestamp> {
    const FORMS: [&str; 4] = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M"];
    let plain = || FORMS.iter().find_map(|form| chrono::NaiveDateTime::parse_from_str(text, form).ok());
    let at = match text.parse::<Timestamp>() {
        Ok(at) => at,
        Err(_) => match plain() {
            Some(time) => Timestamp::from_micros(time.and_utc().timestamp_micros()),
            None => bail!("{text:?} is no time: write 2026-01-31T10:00:00Z, or 2026-01-31 10:00 for UTC"),
        },
    };
    let year = at.to_chrono().year();
    let latest = Utc::now().year() + 1;
    if !(YEAR_MIN..=latest).contains(&year) {
        bail!("{text:?} is in the year {year}, and histories lie between {YEAR_MIN} and {latest}");
    }
    Ok(at)
}

const YEAR_MIN: i32 = 1990;

pub(super) fn read_events(path: &Path, folded: &mut bool) -> anyhow::Result<(Vec<HistoryEvent>, Timestamp)> {
    let mut reader = open_csv(path)?;
    let header = reader.headers()?.clone();
    let column = |name: &str| {
        let found = header.iter().position(|column| column.trim().eq_ignore_ascii_case(name));
        found.with_context(|| format!("{} needs a column `{name}`", path.display()))
    };
    let (at, site, stream) = (column("at")?, column("site")?, column("stream")?);
    let count = column("count").ok();
    let spinner = ProgressBar::new_spinner().with_message("reading");
    let (mut events, mut empty) = (Vec::new(), 0);
    for (line, row) in (2..).zip(reader.records()) {
        let row = row.with_context(|| format!("line {line}"))?;
        let field = |index: usize| row.get(index).unwrap_or_default().trim();
        let counted = count.map(field).filter(|text| !text.is_empty());
        let counted = counted.map_or(Ok(1.0), f32::from_str).with_context(|| format!("line {line}: count"))?;
        if !counted.is_finite() || counted < 0.0 {
            bail!("line {line}: count is {counted}, and must be a number of events");
        }
        if counted == 0.0 {
            empty += 1;
            continue;
        }
        events.push(HistoryEvent {
            at: time(field(at)).with_context(|| format!("line {line}: at"))?,
            site: site_id(field(site), folded).with_context(|| format!("line {line}: site"))?,
            stream: field(stream).to_owned(),
            count: counted,
        });
        if events.len() % 100_000 == 0 {
            spinner.set_message(format!("reading: {} events", events.len()));
            spinner.tick();
        }
    }
    spinner.finish_and_clear();
    if empty > 0 {
        eprintln!("{empty} lines with a count of 0 are left out");
    }
    events.sort_by_key(|event| event.at);
    let until = events.last().with_context(|| format!("{} has no events", path.display()))?.at;
    Ok((events, until))
}

/// Holiday calendars: rows with the columns calendar and day (`2026-12-25`).
pub(super) fn read_holidays(path: &Path) -> anyhow::Result<BTreeMap<String, BTreeSet<String>>> {
    let mut reader = open_csv(path)?;
    let header = reader.headers()?.clone();
    let column = |name: &str| {
        let found = header.iter().position(|column| column.trim().eq_ignore_ascii_case(name));
        found.with_context(|| format!("{} needs a column `{name}`", path.display()))
    };
    let (calendar, day) = (column("calendar")?, column("day")?);
    let mut holidays: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (line, row) in (2..).zip(reader.records()) {
        let row = row.with_context(|| format!("{}, line {line}", path.display()))?;
        let field = |index: usize| row.get(index).unwrap_or_default().trim().to_owned();
        let date = field(day);
        if date.parse::<NaiveDate>().is_err() {
            bail!("{}, line {line}: {date:?} is no day; write 2026-12-25", path.display());
        }
        holidays.entry(field(calendar)).or_default().insert(date);
    }
    Ok(holidays)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn file(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("writes");
        (directory, path)
    }

    #[test]
    fn histories_are_taken_as_spreadsheets_write_them() {
        let text = "\u{feff}At;Site;Stream;Count\n2026-01-31 10:00;Store-7;sales;3\n2026-01-31T09:00:00Z;store-7;sales;\n2026-01-31 11:00;store-7;sales;0\n";
        let (_directory, path) = file("events.csv", text);
        let mut folded = false;
        let (events, until) = read_events(&path, &mut folded).expect("reads");
        assert!(folded && events.len() == 2 && events.iter().all(|event| event.site.as_str() == "store-7"));
        assert_eq!(until.to_string(), "2026-01-31T10:00:00Z");
        let (_directory, path) = file("roster.csv", "ID;TZ\nStore-7;UTC\n");
        assert_eq!(roster_text(&path, &mut folded).expect("reads"), "id,tz\nstore-7,UTC\n");
    }

    #[test]
    fn what_cannot_be_an_event_is_refused_with_its_line() {
        for (row, why) in [
            ("1970-01-01T00:00:00Z,s,sales,1", "1970"),
            ("2123-01-01T00:00:00Z,s,sales,1", "2123"),
            ("31/01/2026 10:00,s,sales,1", "write 2026-01-31T10:00:00Z"),
            ("2026-01-31T10:00:00Z,s,sales,-1", "count is -1"),
            ("2026-01-31T10:00:00Z,s,sales,NaN", "count is NaN"),
            ("2026-01-31T10:00:00Z,,sales,1", "site"),
        ] {
            let (_directory, path) = file("events.csv", &format!("at,site,stream,count\n{row}\n"));
            let error = format!("{:#}", read_events(&path, &mut false).expect_err(row));
            assert!(error.contains("line 2") && error.contains(why), "{row}: {error}");
        }
    }
}
