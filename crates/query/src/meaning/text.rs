//! Numbers, truth values and bytes as PostgreSQL reads and writes them.

use datafusion::{
    arrow::datatypes::DataType,
    common::{Result, exec_err},
};

use super::{decimal::is_space, types::name};

/// An integer of a text, within what the type holds.
pub(super) fn integer(text: &str, kind: &DataType) -> Result<i64> {
    let trimmed = text.trim_matches(is_space);
    let digits = trimmed.strip_prefix(['-', '+']).unwrap_or(trimmed);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return exec_err!("invalid input syntax for type {}: \"{text}\"", name(kind));
    }
    let bounds = bounds(kind);
    match trimmed.parse::<i64>() {
        Ok(value) if bounds.contains(&value) => Ok(value),
        _ => exec_err!("value \"{text}\" is out of range for type {}", name(kind)),
    }
}

/// The values that an integer type holds.
pub(super) fn bounds(kind: &DataType) -> std::ops::RangeInclusive<i64> {
    match kind {
        DataType::Int16 => i64::from(i16::MIN)..=i64::from(i16::MAX),
        DataType::Int32 => i64::from(i32::MIN)..=i64::from(i32::MAX),
        _ => i64::MIN..=i64::MAX,
    }
}

/// A floating-point number of a text.
pub(super) fn float(text: &str, kind: &DataType) -> Result<f64> {
    let trimmed = text.trim_matches(is_space);
    let bare = trimmed.strip_prefix(['-', '+']).unwrap_or(trimmed).to_ascii_lowercase();
    let is_named = ["inf", "infinity", "nan"].contains(&bare.as_str());
    let starts_as_number = bare.starts_with(|letter: char| letter.is_ascii_digit() || letter == '.');
    let is_short = *kind == DataType::Float32;
    let parsed = match is_short {
        true => trimmed.parse::<f32>().map(f64::from),
        false => trimmed.parse::<f64>(),
    };
    match parsed {
        Ok(value) if is_named => Ok(value),
        Ok(value) if starts_as_number => {
            let mantissa = bare.split('e').next().unwrap_or_default();
            let is_zero = !mantissa.bytes().any(|byte| matches!(byte, b'1'..=b'9'));
            if value.is_infinite() || (value == 0.0 && !is_zero) {
                return exec_err!("\"{trimmed}\" is out of range for type {}", name(kind));
            }
            Ok(value)
        }
        _ => exec_err!("invalid input syntax for type {}: \"{text}\"", name(kind)),
    }
}

/// A truth value of a text.
pub(super) fn boolean(text: &str) -> Result<bool> {
    let word = text.trim_matches(is_space).to_ascii_lowercase();
    let begins = |whole: &str, least: usize| word.len() >= least && whole.starts_with(&word);
    if begins("true", 1) || begins("yes", 1) || word == "on" || word == "1" {
        return Ok(true);
    }
    if begins("false", 1) || begins("no", 1) || begins("off", 2) || word == "0" {
        return Ok(false);
    }
    exec_err!("invalid input syntax for type boolean: \"{text}\"")
}

/// Bytes of a text: hexadecimal after `\x`, or with `\ooo` and `\\` for what is no letter.
pub(super) fn bytes(text: &str) -> Result<Vec<u8>> {
    if let Some(digits) = text.strip_prefix("\\x") {
        let digits: Vec<u8> = digits.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        if !digits.len().is_multiple_of(2) {
            return exec_err!("invalid hexadecimal data: odd number of digits");
        }
        let value = |digit: u8| (digit as char).to_digit(16).map(|value| value as u8);
        let pair = |pair: &[u8]| match pair {
            [high, low] => Some(value(*high)? << 4 | value(*low)?),
            _ => None,
        };
        return match digits.chunks(2).map(pair).collect() {
            Some(bytes) => Ok(bytes),
            None => exec_err!("invalid hexadecimal digit in \"{text}\""),
        };
    }
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, behind)) = rest.split_first() {
        (rest, _) = match (first, behind) {
            (b'\\', [b'\\', behind @ ..]) => (behind, bytes.push(b'\\')),
            (b'\\', [high @ b'0'..=b'3', middle @ b'0'..=b'7', low @ b'0'..=b'7', behind @ ..]) => {
                (behind, bytes.push((high - b'0') << 6 | (middle - b'0') << 3 | (low - b'0')))
            }
            (b'\\', _) => return exec_err!("invalid input syntax for type bytea"),
            (byte, behind) => (behind, bytes.push(*byte)),
        };
    }
    Ok(bytes)
}

/// Bytes as a text.
pub(super) fn bytes_text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 + bytes.len() * 2);
    text.push_str("\\x");
    for byte in bytes {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// An exact number as a text, with all digits of its scale.
pub(super) fn decimal_text(value: i128, scale: i8) -> String {
    if scale <= 0 {
        let zeros = if value == 0 { 0 } else { scale.unsigned_abs() as usize };
        return format!("{value}{}", "0".repeat(zeros));
    }
    let scale = scale.unsigned_abs() as usize;
    let digits = format!("{:0>width$}", value.unsigned_abs(), width = scale + 1);
    let (whole, part) = digits.split_at(digits.len() - scale);
    format!("{}{whole}.{part}", if value < 0 { "-" } else { "" })
}

/// A floating-point number as a text: the shortest that is read as the same one.
pub(super) fn float_text(value: f64, is_short: bool) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let exponential = if is_short { format!("{:e}", value as f32) } else { format!("{value:e}") };
    let Some((mantissa, exponent)) = exponential.split_once('e') else { return exponential };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let precision = if is_short { 6 } else { 15 };
    if exponent < -4 || exponent >= precision {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    if is_short { format!("{}", value as f32) } else { format!("{value}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_postgresql_writes_them() {
        let cases = [
            (1e20, "1e+20"),
            (0.1, "0.1"),
            (1e-7, "1e-07"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (123456789012345.0, "123456789012345"),
            (1234567890123456.0, "1.234567890123456e+15"),
            (-0.0, "-0"),
            (1e15, "1e+15"),
            (100000.0, "100000"),
        ];
        for (value, text) in cases {
            assert_eq!(float_text(value, false), text);
        }
        assert_eq!(float_text(1e6, true), "1e+06");
        assert_eq!(float_text(123456.0, true), "123456");
        assert_eq!(float_text(f64::from(0.1_f32), true), "0.1");
    }

    #[test]
    fn bytes_are_read_in_both_forms() {
        assert_eq!(bytes("\\x41 42").expect("reads"), b"AB");
        assert_eq!(bytes("a\\\\b\\001").expect("reads"), b"a\\b\x01");
        assert!(bytes("\\x4").is_err() && bytes("\\x4g").is_err() && bytes("\\9").is_err());
        assert_eq!(bytes_text(b"A\xff"), "\\x41ff");
    }

    #[test]
    fn truth_is_read_by_its_beginning() {
        for (text, value) in [(" T ", true), ("yes", true), ("ON", true), ("of", false), ("n", false), ("0", false)] {
            assert_eq!(boolean(text).expect("reads"), value, "{text}");
        }
        assert!(boolean("o").is_err() && boolean("").is_err() && boolean("truely").is_err());
    }
}
