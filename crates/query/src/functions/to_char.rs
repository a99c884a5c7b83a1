//! `to_char` of dates, times and intervals.

use datafusion::common::{Result, exec_err};

use super::{
    calendar::{Civil, JULIAN_1970, days},
    function::Call,
    pattern::{DAYS, Field, MONTHS, Part, ROMAN_MONTHS, ordinal, parts},
    value::{Interval, Value, text},
    zone::Zone,
};

/// What is written: a moment on a clock, or a span.
struct Written {
    at: Civil,
    is_interval: bool,
    /// The clock's distance from UTC in seconds, and its name.
    east: i64,
    zone: String,
}

pub(super) fn time_to_char<'a>(call: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let parts = parts(arguments[1].str()?)?;
    if parts.is_empty() {
        return Ok(Value::Null);
    }
    let written = match &arguments[0] {
        Value::Timestamp(local) => at(*local),
        Value::Timestamptz(utc) => zoned(*utc, &call.zone),
        Value::Interval(interval) => span(*interval),
        _ => return exec_err!("to_char knows no pattern for this type"),
    };
    let mut out = String::new();
    for part in &parts {
        match part {
            Part::Field(field) => field_written(&written, field, &mut out)?,
            Part::Separator(letter) | Part::Space(letter) | Part::Letter(letter) => out.push(*letter),
        }
    }
    Ok(text(out))
}

fn at(local: i64) -> Written {
    Written { at: Civil::of(local), is_interval: false, east: 0, zone: String::new() }
}

fn zoned(utc: i64, zone: &Zone) -> Written {
    Written { east: zone.offset(utc), zone: zone.abbreviation(utc), ..at(zone.to_local(utc)) }
}

fn span(interval: Interval) -> Written {
    let (year, month) = (i64::from(interval.months) / 12, i64::from(interval.months) % 12);
    let at = Civil { year, month, day: i64::from(interval.days), time: interval.micros };
    Written { at, is_interval: true, east: 0, zone: String::new() }
}

/// A number with zeros before it; a negative one has a sign besides.
fn padded(number: i64, width: usize, fill: bool) -> String {
    match (fill, number < 0) {
        (false, _) => number.to_string(),
        (true, false) => format!("{number:0width$}"),
        (true, true) => format!("-{:0width$}", -number),
    }
}

fn spaced(name: String, width: usize, fill: bool) -> String {
    if fill { format!("{name:<width$}") } else { name }
}

fn field_written(written: &Written, field: &Field, out: &mut String) -> Result<()> {
    let at = &written.at;
    if written.is_interval && !field.is_number() && !matches!(field.name, "AM" | "AM." | "FX" | "RM") {
        return exec_err!("invalid format specification for an interval value");
    }
    let text = match field.name {
        "AM" | "AM." => field.cased(match (at.hour() % 24 >= 12, field.name) {
            (false, "AM") => "AM",
            (true, "AM") => "PM",
            (false, _) => "A.M.",
            (true, _) => "P.M.",
        }),
        "BC" | "BC." => field.cased(match (at.year <= 0, field.name) {
            (false, "BC") => "AD",
            (true, "BC") => "BC",
            (false, _) => "A.D.",
            (true, _) => "B.C.",
        }),
        "MONTH" => spaced(field.cased(named(&MONTHS, at.month - 1)), 9, field.fill),
        "MON" => field.cased(&named(&MONTHS, at.month - 1)[..3]),
        "DAY" => spaced(field.cased(named(&DAYS, at.weekday())), 9, field.fill),
        "DY" => field.cased(&named(&DAYS, at.weekday())[..3]),
        "RM" if at.month == 0 => String::new(),
        "RM" => {
            let place = if at.month < 0 { at.month + 12 } else { at.month - 1 };
            spaced(field.cased_all(named(&ROMAN_MONTHS, place)), 4, field.fill)
        }
        "TZ" => {
            if field.written == "tz" {
                written.zone.to_lowercase()
            } else {
                written.zone.clone()
            }
        }
        "TZH" => {
            let sign = if written.east < 0 { '-' } else { '+' };
            format!("{sign}{:02}", written.east.abs() / 3600)
        }
        "OF" => {
            let sign = if written.east < 0 { '-' } else { '+' };
            let (hours, minutes) = (written.east.abs() / 3600, written.east.abs() / 60 % 60);
            let hours = padded(hours, 2, field.fill);
            if minutes == 0 { format!("{sign}{hours}") } else { format!("{sign}{hours}:{minutes:02}") }
        }
        "FX" => String::new(),
        _ => match number(written, field)? {
            Some(digits) => match field.ordinal {
                Some(kind) => format!("{digits}{}", ordinal(&digits, kind)),
                None => digits,
            },
            None => String::new(),
        },
    };
    out.push_str(&text);
    Ok(())
}

fn named(names: &[&'static str], place: i64) -> &'static str {
    usize::try_from(place).ok().and_then(|place| names.get(place)).copied().unwrap_or("   ")
}

impl Field {
    fn cased_all(&self, name: &str) -> String {
        if self.written.starts_with(|letter: char| letter.is_ascii_lowercase()) {
            name.to_lowercase()
        } else {
            name.to_owned()
        }
    }
}

/// The fields that are numbers.
fn number(written: &Written, field: &Field) -> Result<Option<String>> {
    let (at, fill) = (&written.at, field.fill);
    // There is no year 0 but one before it.
    let shown = |year: i64| if written.is_interval || year > 0 { year } else { 1 - year };
    let two = |number: i64| Some(padded(number, 2, fill));
    let micros = at.part_of_second();
    Ok(match field.name {
        "HH12" => two(if at.hour() % 12 == 0 { 12 } else { at.hour() % 12 }),
        "HH24" => two(at.hour()),
        "MI" => two(at.minute()),
        "SS" => two(at.second()),
        "MS" => Some(padded(micros / 1000, 3, true)),
        "US" => Some(padded(micros, 6, true)),
        "FF1" => Some((micros / 100_000).to_string()),
        "FF2" => Some(padded(micros / 10_000, 2, true)),
        "FF3" => Some(padded(micros / 1000, 3, true)),
        "FF4" => Some(padded(micros / 100, 4, true)),
        "FF5" => Some(padded(micros / 10, 5, true)),
        "FF6" => Some(padded(micros, 6, true)),
        "SSSS" => Some((at.hour() * 3600 + at.minute() * 60 + at.second()).to_string()),
        "TZM" => Some(format!("{:02}", written.east.abs() / 60 % 60)),
        "MM" => two(at.month),
        "DD" => Some(if fill { format!("{:02}", at.day) } else { at.day.to_string() }),
        "Q" if at.month == 0 => None,
        "Q" => Some(((at.month - 1) / 3 + 1).to_string()),
        "Y,YYY" => Some(format!("{},{:03}", shown(at.year) / 1000, shown(at.year) % 1000)),
        "YYYY" => Some(padded(shown(at.year), 4, fill)),
        "YYY" => Some(padded(shown(at.year) % 1000, 3, fill)),
        "YY" => two(shown(at.year) % 100),
        "Y" => Some((shown(at.year) % 10).to_string()),
        "CC" => {
            let century = match (written.is_interval, at.year > 0) {
                (true, _) => at.year / 100,
                (false, true) => (at.year - 1) / 100 + 1,
                (false, false) => at.year / 100 - 1,
            };
            two(century)
        }
        "W" => Some(((at.day - 1) / 7 + 1).to_string()),
        _ if written.is_interval => return exec_err!("{} of an interval is not available here", field.name),
        "DDD" => Some(padded(at.day_of_year(), 3, fill)),
        "IDDD" => {
            let (year, _) = at.iso_week();
            let start = super::calendar::monday(year, 1);
            Some(padded(days(at.year, at.month, at.day) - start + 1, 3, fill))
        }
        "D" => Some((at.weekday() + 1).to_string()),
        "ID" => Some(if at.weekday() == 0 { 7 } else { at.weekday() }.to_string()),
        "WW" => two((at.day_of_year() - 1) / 7 + 1),
        "IW" => two(at.iso_week().1),
        "J" => Some((days(at.year, at.month, at.day) + JULIAN_1970).to_string()),
        "IYYY" => Some(padded(shown(at.iso_week().0), 4, fill)),
        "IYY" => Some(padded(shown(at.iso_week().0) % 1000, 3, fill)),
        "IY" => two(shown(at.iso_week().0) % 100),
        "I" => Some((shown(at.iso_week().0) % 10).to_string()),
        name => return exec_err!("to_char does not know {name}"),
    })
}
