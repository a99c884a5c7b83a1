//! Patterns of dates and times, as `to_char`, `to_date` and `to_timestamp` take them.

use datafusion::common::{Result, exec_err};

/// One part of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Field(Field),
    /// A sign that stands for any sign where a text is read.
    Separator(char),
    Space(char),
    Letter(char),
}

/// A field with what was written before and behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    /// In capitals, other than that of names such as `Month`.
    pub(super) name: &'static str,
    /// As it was written, to tell `MONTH` from `month`.
    pub(super) written: &'static str,
    /// Without fill, `FM`.
    pub(super) fill: bool,
    pub(super) ordinal: Option<Ordinal>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ordinal {
    Upper,
    Lower,
}

/// What a pattern knows: as it is written there, and its name here. Longer ones come before those
/// that they begin with.
const FIELDS: [(&str, &str); 111] = [
    ("A.D.", "BC."),
    ("A.M.", "AM."),
    ("AD", "BC"),
    ("AM", "AM"),
    ("B.C.", "BC."),
    ("BC", "BC"),
    ("CC", "CC"),
    ("DAY", "DAY"),
    ("DDD", "DDD"),
    ("DD", "DD"),
    ("DY", "DY"),
    ("Day", "DAY"),
    ("Dy", "DY"),
    ("D", "D"),
    ("FF1", "FF1"),
    ("FF2", "FF2"),
    ("FF3", "FF3"),
    ("FF4", "FF4"),
    ("FF5", "FF5"),
    ("FF6", "FF6"),
    ("FX", "FX"),
    ("HH24", "HH24"),
    ("HH12", "HH12"),
    ("HH", "HH12"),
    ("IDDD", "IDDD"),
    ("ID", "ID"),
    ("IW", "IW"),
    ("IYYY", "IYYY"),
    ("IYY", "IYY"),
    ("IY", "IY"),
    ("I", "I"),
    ("J", "J"),
    ("MI", "MI"),
    ("MM", "MM"),
    ("MONTH", "MONTH"),
    ("MON", "MON"),
    ("MS", "MS"),
    ("Month", "MONTH"),
    ("Mon", "MON"),
    ("OF", "OF"),
    ("P.M.", "AM."),
    ("PM", "AM"),
    ("Q", "Q"),
    ("RM", "RM"),
    ("SSSSS", "SSSS"),
    ("SSSS", "SSSS"),
    ("SS", "SS"),
    ("TZH", "TZH"),
    ("TZM", "TZM"),
    ("TZ", "TZ"),
    ("US", "US"),
    ("WW", "WW"),
    ("W", "W"),
    ("Y,YYY", "Y,YYY"),
    ("YYYY", "YYYY"),
    ("YYY", "YYY"),
    ("YY", "YY"),
    ("Y", "Y"),
    ("a.d.", "BC."),
    ("a.m.", "AM."),
    ("ad", "BC"),
    ("am", "AM"),
    ("b.c.", "BC."),
    ("bc", "BC"),
    ("cc", "CC"),
    ("day", "DAY"),
    ("ddd", "DDD"),
    ("dd", "DD"),
    ("dy", "DY"),
    ("d", "D"),
    ("ff1", "FF1"),
    ("ff2", "FF2"),
    ("ff3", "FF3"),
    ("ff4", "FF4"),
    ("ff5", "FF5"),
    ("ff6", "FF6"),
    ("fx", "FX"),
    ("hh24", "HH24"),
    ("hh12", "HH12"),
    ("hh", "HH12"),
    ("iddd", "IDDD"),
    ("id", "ID"),
    ("iw", "IW"),
    ("iyyy", "IYYY"),
    ("iyy", "IYY"),
    ("iy", "IY"),
    ("i", "I"),
    ("j", "J"),
    ("mi", "MI"),
    ("mm", "MM"),
    ("month", "MONTH"),
    ("mon", "MON"),
    ("ms", "MS"),
    ("of", "OF"),
    ("p.m.", "AM."),
    ("pm", "AM"),
    ("q", "Q"),
    ("rm", "RM"),
    ("sssss", "SSSS"),
    ("ssss", "SSSS"),
    ("ss", "SS"),
    ("tzh", "TZH"),
    ("tzm", "TZM"),
    ("tz", "TZ"),
    ("us", "US"),
    ("ww", "WW"),
    ("w", "W"),
    ("y,yyy", "Y,YYY"),
    ("yyyy", "YYYY"),
    ("yyy", "YYY"),
    ("yy", "YY"),
];

impl Field {
    /// Whether it is written with digits.
    pub(super) fn is_number(&self) -> bool {
        !matches!(
            self.name,
            "AM" | "AM." | "BC" | "BC." | "DAY" | "DY" | "FX" | "MONTH" | "MON" | "OF" | "RM" | "TZ" | "TZH"
        )
    }

    /// Whether its letters are to be capitals: all, the first, none.
    pub(super) fn cased(&self, name: &str) -> String {
        let mut letters = self.written.chars();
        let (first, second) = (letters.next().unwrap_or('a'), letters.find(|letter| letter.is_ascii_alphabetic()));
        match (first.is_ascii_uppercase(), second.is_some_and(|letter| letter.is_ascii_uppercase())) {
            (true, true) => name.to_uppercase(),
            (true, false) => name.to_owned(),
            _ => name.to_lowercase(),
        }
    }
}

pub(super) fn is_separator(letter: char) -> bool {
    letter.is_ascii_graphic() && !letter.is_ascii_alphanumeric()
}

fn plain(letter: char) -> Part {
    match letter {
        letter if is_separator(letter) => Part::Separator(letter),
        letter if letter.is_ascii_whitespace() => Part::Space(letter),
        letter => Part::Letter(letter),
    }
}

/// A pattern's parts.
pub(super) fn parts(pattern: &str) -> Result<Vec<Part>> {
    if pattern.len() > 4096 {
        return exec_err!("a date pattern has 4096 letters at most");
    }
    let (mut parts, mut rest) = (Vec::new(), pattern);
    while let Some(letter) = rest.chars().next() {
        let (mut fill, mut translated, mut behind) = (true, false, rest);
        loop {
            if let Some(next) = behind.strip_prefix("FM").or_else(|| behind.strip_prefix("fm")) {
                (fill, behind) = (false, next);
            } else if let Some(next) = behind.strip_prefix("TM").or_else(|| behind.strip_prefix("tm")) {
                (translated, behind) = (true, next);
            } else {
                break;
            }
        }
        let known = FIELDS.iter().chain(&[("y", "Y")]).find(|(written, _)| behind.starts_with(written));
        if let Some((written, name)) = known {
            rest = &behind[written.len()..];
            let ordinal =
                [("TH", Ordinal::Upper), ("th", Ordinal::Lower)].into_iter().find(|(end, _)| rest.starts_with(end));
            if ordinal.is_some() {
                rest = &rest[2..];
            }
            rest = rest.strip_prefix("SP").unwrap_or(rest);
            let ordinal = ordinal.map(|(_, ordinal)| ordinal);
            // A name in the session's language has no fill.
            let fill = fill && !(translated && matches!(*name, "MONTH" | "DAY"));
            parts.push(Part::Field(Field { name, written, fill, ordinal }));
        } else if behind.len() < rest.len() {
            rest = behind;
        } else if letter == '"' {
            rest = quoted(&rest[1..], &mut parts);
        } else {
            rest = if rest.starts_with("\\\"") { &rest[1..] } else { rest };
            let letter = rest.chars().next().unwrap_or(letter);
            parts.push(plain(letter));
            rest = &rest[letter.len_utf8()..];
        }
    }
    Ok(parts)
}

/// Takes letters up to the closing quotation mark; what is behind it.
fn quoted<'a>(text: &'a str, parts: &mut Vec<Part>) -> &'a str {
    let mut escaped = false;
    for (place, letter) in text.char_indices() {
        match letter {
            '"' if !escaped => return &text[place + 1..],
            '\\' if !escaped => escaped = true,
            letter => {
                parts.push(Part::Letter(letter));
                escaped = false;
            }
        }
    }
    ""
}

pub(super) const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
pub(super) const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
pub(super) const ROMAN_MONTHS: [&str; 12] = ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"];

/// `st`, `nd`, `rd` or `th` behind a number.
pub(super) fn ordinal(digits: &str, ordinal: Ordinal) -> String {
    let bytes = digits.as_bytes();
    let teens = bytes.len() > 1 && bytes[bytes.len() - 2] == b'1';
    let ending = match bytes.last() {
        Some(b'1') if !teens => "st",
        Some(b'2') if !teens => "nd",
        Some(b'3') if !teens => "rd",
        _ => "th",
    };
    if ordinal == Ordinal::Upper { ending.to_uppercase() } else { ending.to_owned() }
}
