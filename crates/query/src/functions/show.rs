//! Values as PostgreSQL writes them.

use std::fmt::Write;

use super::{
    calendar::{Civil, DAY, HOUR, MINUTE, SECOND},
    value::{Interval, Kind, Value},
    zone::{Zone, offset_text},
};

/// A value's text; none of NULL.
pub(super) fn shown(value: &Value<'_>, kind: &Kind, zone: &Zone) -> Option<String> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(value) => if *value { "t" } else { "f" }.to_owned(),
        Value::Int(value) => value.to_string(),
        Value::Numeric(value) => value.to_string(),
        Value::Float(value) if *kind == Kind::Float4 => float(*value, 1e6, (*value as f32).abs().to_string()),
        Value::Float(value) => float(*value, 1e15, value.abs().to_string()),
        Value::Text(value) => value.to_string(),
        Value::Bytes(value) => value.iter().fold("\\x".to_owned(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        }),
        Value::Date(days) => date(i64::from(*days) * DAY),
        Value::Time(micros) => time(*micros),
        Value::Timestamp(micros) => timestamp(*micros, ""),
        Value::Timestamptz(micros) => timestamp(zone.to_local(*micros), &offset_text(zone.offset(*micros))),
        Value::Interval(value) => interval(*value),
        Value::List(values) => {
            let of = if let Kind::List(of) = kind { of.as_ref() } else { &Kind::Other };
            let items = values.iter().map(|value| match (value, shown(value, of, zone)) {
                (_, None) => "NULL".to_owned(),
                (Value::List(_), Some(text)) => text,
                (_, Some(text)) => array_item(text),
            });
            format!("{{{}}}", items.collect::<Vec<_>>().join(","))
        }
    })
}

fn array_item(text: String) -> String {
    let special = |letter: char| matches!(letter, '{' | '}' | ',' | '"' | '\\') || letter.is_ascii_whitespace();
    if text.is_empty() || text.eq_ignore_ascii_case("null") || text.contains(special) {
        return format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    }
    text
}

/// The shortest digits that are read as the same number, with an exponent where PostgreSQL writes
/// one.
fn float(value: f64, large: f64, plain: String) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    let sign = if value.is_sign_negative() { "-" } else { "" };
    if value.is_infinite() {
        return format!("{sign}Infinity");
    }
    if value == 0.0 || (1e-4..large).contains(&value.abs()) {
        return format!("{sign}{plain}");
    }
    let (whole, part) = plain.split_once('.').unwrap_or((&plain, ""));
    let digits = format!("{whole}{part}");
    let leading = digits.len() - digits.trim_start_matches('0').len();
    let exponent = whole.len() as i64 - 1 - leading as i64;
    let significant = digits.trim_matches('0');
    let (first, rest) = significant.split_at(1.min(significant.len()));
    let point = if rest.is_empty() { "" } else { "." };
    let direction = if exponent < 0 { '-' } else { '+' };
    format!("{sign}{first}{point}{rest}e{direction}{:02}", exponent.abs())
}

fn date(micros: i64) -> String {
    let at = Civil::of(micros);
    if at.year > 0 {
        return format!("{:04}-{:02}-{:02}", at.year, at.month, at.day);
    }
    format!("{:04}-{:02}-{:02} BC", 1 - at.year, at.month, at.day)
}

fn time(micros: i64) -> String {
    let (hours, minutes) = (micros / HOUR, micros / MINUTE % 60);
    format!("{hours:02}:{minutes:02}:{}", seconds(micros % MINUTE))
}

fn seconds(micros: i64) -> String {
    let part = micros % SECOND;
    let whole = format!("{:02}", micros / SECOND);
    if part == 0 { whole } else { format!("{whole}.{part:06}").trim_end_matches('0').to_owned() }
}

fn timestamp(local: i64, offset: &str) -> String {
    let day = date(local);
    let (day, era) = day.strip_suffix(" BC").map_or((day.as_str(), ""), |day| (day, " BC"));
    format!("{day} {}{offset}{era}", time(local.rem_euclid(DAY)))
}

/// `1 mon 2 days 03:04:05`.
pub(super) fn interval(value: Interval) -> String {
    let mut parts = Vec::new();
    let mut negative = false;
    let amounts =
        [(i64::from(value.months) / 12, "year"), (i64::from(value.months) % 12, "mon"), (i64::from(value.days), "day")];
    for (amount, unit) in amounts.into_iter().filter(|(amount, _)| *amount != 0) {
        // Behind a negative amount a positive one needs its sign.
        let sign = if negative && amount > 0 { "+" } else { "" };
        let plural = if amount == 1 { "" } else { "s" };
        parts.push(format!("{sign}{amount} {unit}{plural}"));
        negative = amount < 0;
    }
    if value.micros != 0 || parts.is_empty() {
        let micros = value.micros.unsigned_abs() as i64;
        let sign = if value.micros < 0 {
            "-"
        } else if negative {
            "+"
        } else {
            ""
        };
        parts.push(format!("{sign}{}", time(micros)));
    }
    parts.join(" ")
}
