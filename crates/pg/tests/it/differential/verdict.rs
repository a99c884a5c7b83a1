//! Whether two servers' answers to one question are the same.

use std::cmp::Ordering;

use super::questions::Question;
use crate::wire::{Answer, Row};

const FLOATS: [u32; 2] = [700, 701];
/// PostgreSQL's numbers of the types of exact numbers.
const EXACT: [u32; 4] = [20, 21, 23, 1700];
const NUMERIC: u32 = 1700;
const NUMERIC_ARRAY: u32 = 1231;

/// How HQ's answer stands to PostgreSQL's, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    /// Both answer the same, or both refuse.
    Equal,
    /// HQ refuses what PostgreSQL answers.
    Refused,
    /// The values are the same, but not all columns' types.
    Types,
    /// The values are the same, but not all columns' names.
    Names,
    /// HQ answers what PostgreSQL refuses.
    Answered,
    /// Some value, or how many there are, differs.
    Different,
}

impl Verdict {
    pub(crate) const ALL: [Self; 6] =
        [Self::Equal, Self::Refused, Self::Types, Self::Names, Self::Answered, Self::Different];

    /// As it is called in lists.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Refused => "error at HQ",
            Self::Types => "type differs",
            Self::Names => "name differs",
            Self::Answered => "answered, error at PostgreSQL",
            Self::Different => "different",
        }
    }

    /// Judges two answers whose values are text.
    pub(crate) fn of(question: &Question, right: &Answer, ours: &Answer) -> Self {
        let same = |one: &[u8], other: &[u8], oid| same_text(question, one, other, oid);
        judge(question, right, ours, &same)
    }

    /// Judges two answers whose values are binary. Values of unlike types are told from each other
    /// by their text.
    pub(crate) fn of_binary(question: &Question, right: &Answer, ours: &Answer) -> Self {
        if let (Answer::Rows { columns, rows }, Answer::Rows { columns: our_columns, rows: our_rows }) = (right, ours) {
            let alike = columns.len() == our_columns.len() && rows.len() == our_rows.len();
            let unlike_types = columns.iter().zip(our_columns).any(|(column, our_column)| column.oid != our_column.oid);
            if alike && unlike_types {
                return Self::Types;
            }
        }
        let same = |one: &[u8], other: &[u8], oid| {
            let (left, right) = if oid == NUMERIC { (unpacked(one), unpacked(other)) } else { (None, None) };
            match (left, right) {
                (Some(left), Some(right)) => same_text(question, left.as_bytes(), right.as_bytes(), oid),
                _ => one == other,
            }
        };
        judge(question, right, ours, &same)
    }
}

fn judge(question: &Question, right: &Answer, ours: &Answer, same: &dyn Fn(&[u8], &[u8], u32) -> bool) -> Verdict {
    let (columns, rows, our_columns, our_rows) = match (right, ours) {
        (Answer::Error { .. }, Answer::Error { .. }) | (Answer::Done, Answer::Done) => return Verdict::Equal,
        (_, Answer::Error { .. }) => return Verdict::Refused,
        (Answer::Error { .. }, _) => return Verdict::Answered,
        (Answer::Rows { columns, rows }, Answer::Rows { columns: our_columns, rows: our_rows }) => {
            (columns, rows, our_columns, our_rows)
        }
        _ => return Verdict::Different,
    };
    if columns.len() != our_columns.len() || rows.len() != our_rows.len() {
        return Verdict::Different;
    }
    let oids: Vec<u32> = columns.iter().map(|column| column.oid).collect();
    let (mut rows, mut our_rows) = (rows.clone(), our_rows.clone());
    if !question.is_ordered() {
        rows.sort();
        our_rows.sort();
    }
    if !rows.iter().zip(&our_rows).all(|(row, our_row)| same_row(row, our_row, &oids, same)) {
        return Verdict::Different;
    }
    let differ = columns.iter().zip(our_columns);
    if differ.clone().any(|(column, our_column)| column.name != our_column.name) {
        return Verdict::Names;
    }
    if differ.clone().any(|(column, our_column)| column.oid != our_column.oid) {
        Verdict::Types
    } else {
        Verdict::Equal
    }
}

fn same_row(row: &Row, our_row: &Row, oids: &[u32], same: &dyn Fn(&[u8], &[u8], u32) -> bool) -> bool {
    row.iter().zip(our_row).zip(oids).all(|((value, our_value), oid)| match (value, our_value) {
        (Some(value), Some(our_value)) => same(value, our_value, *oid),
        (None, None) => true,
        _ => false,
    })
}

/// Whether two values' texts mean the same: exact numbers may have more zeros at the end.
fn same_text(question: &Question, value: &[u8], our_value: &[u8], oid: u32) -> bool {
    if value == our_value {
        return true;
    }
    let (Ok(value), Ok(our_value)) = (std::str::from_utf8(value), std::str::from_utf8(our_value)) else { return false };
    if question.nearly && (EXACT.contains(&oid) || FLOATS.contains(&oid)) {
        let (Ok(value), Ok(our_value)) = (value.parse::<f64>(), our_value.parse::<f64>()) else { return false };
        return (value - our_value).abs() <= 1e-9 * value.abs();
    }
    if oid == NUMERIC_ARRAY {
        let items = |text: &str| text.split(['{', '}', ',']).map(str::to_owned).collect::<Vec<_>>();
        let (items, our_items) = (items(value), items(our_value));
        let mut both = items.iter().zip(&our_items);
        return items.len() == our_items.len()
            && both.all(|(item, our_item)| same_text(question, item.as_bytes(), our_item.as_bytes(), NUMERIC));
    }
    if !EXACT.contains(&oid) {
        return false;
    }
    let (Some(value), Some(our_value)) = (Decimal::read(value), Decimal::read(our_value)) else { return false };
    let fraction = value.fraction.len().min(our_value.fraction.len());
    value.trimmed() == our_value.trimmed()
        || (question.scale && value.rounded(fraction).trimmed() == our_value.rounded(fraction).trimmed())
}

/// An exact number as its digits.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Decimal {
    negative: bool,
    whole: Vec<u8>,
    fraction: Vec<u8>,
}

impl Decimal {
    fn read(text: &str) -> Option<Self> {
        let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let figures = |text: &str| {
            text.bytes().map(|byte| byte.is_ascii_digit().then(|| byte - b'0')).collect::<Option<Vec<u8>>>()
        };
        Some(Self { negative, whole: figures(whole)?, fraction: figures(fraction)? })
    }

    /// Without zeros that say nothing.
    fn trimmed(&self) -> Self {
        let start = self.whole.iter().position(|digit| *digit != 0).unwrap_or(self.whole.len());
        let end = self.fraction.iter().rposition(|digit| *digit != 0).map_or(0, |last| last + 1);
        let (whole, fraction) = (self.whole[start..].to_vec(), self.fraction[..end].to_vec());
        let negative = self.negative && !(whole.is_empty() && fraction.is_empty());
        Self { negative, whole, fraction }
    }

    /// With so many digits behind the point, half away from zero.
    fn rounded(&self, digits: usize) -> Self {
        let up = self.fraction.get(digits).is_some_and(|next| *next >= 5);
        let mut rounded = self.clone();
        rounded.fraction.truncate(digits);
        if !up {
            return rounded;
        }
        let mut figures: Vec<u8> = [&[0], &rounded.whole[..], &rounded.fraction[..]].concat();
        for figure in figures.iter_mut().rev() {
            match (*figure).cmp(&9) {
                Ordering::Less => {
                    *figure += 1;
                    break;
                }
                _ => *figure = 0,
            }
        }
        rounded.fraction = figures.split_off(figures.len() - digits);
        rounded.whole = figures;
        rounded
    }
}

/// PostgreSQL's binary form of an exact number as text: groups of four digits, the place of the
/// first one, the sign, and how many digits are shown.
fn unpacked(bytes: &[u8]) -> Option<String> {
    let words: Vec<u16> = bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
    let [count, place, sign, shown, groups @ ..] = &words[..] else { return None };
    if !matches!(sign, 0 | 0x4000) || groups.len() != usize::from(*count) {
        return None;
    }
    let place = i32::from(*place as i16);
    let group = |at: i32| usize::try_from(place - at).ok().and_then(|index| groups.get(index)).copied().unwrap_or(0);
    let whole: String = (0..=place.max(0)).rev().map(|at| format!("{:04}", group(at))).collect();
    let behind = i32::from(shown.div_ceil(4));
    let fraction: String = (1..=behind).map(|at| format!("{:04}", group(-at))).collect();
    let minus = if *sign == 0 { "" } else { "-" };
    Some(format!("{minus}{whole}.{}", &fraction[..usize::from(*shown)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_same_whatever_zeros_they_end_with() {
        let same = |one: &str, other: &str| {
            Decimal::read(one).map(|one| one.trimmed()) == Decimal::read(other).map(|other| other.trimmed())
        };
        assert!(same("1.50", "1.5") && same("-0.0", "0") && same("007", "7.000"));
        assert!(!same("1.5", "-1.5") && !same("1.05", "1.5") && !same("NaN", "1"));
        let rounded = |text: &str, digits| Decimal::read(text).map(|read| read.rounded(digits).trimmed());
        assert_eq!(rounded("0.66666667", 4), rounded("0.6667", 4));
        assert_eq!(rounded("9.9996", 3), rounded("10", 3));
    }

    #[test]
    fn a_packed_number_is_read() {
        let packed = |words: &[u16]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<_>>();
        assert_eq!(unpacked(&packed(&[2, 0, 0x4000, 2, 12, 5000])).as_deref(), Some("-0012.50"));
        assert_eq!(unpacked(&packed(&[1, 0xFFFF, 0, 3, 10])).as_deref(), Some("0000.001"));
        assert_eq!(unpacked(&packed(&[0, 0, 0xC000, 0])), None, "not a number");
    }
}
