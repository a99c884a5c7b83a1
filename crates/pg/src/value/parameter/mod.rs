//! Parameters of a prepared question, as clients send them: in text or in binary, alone or in
//! arrays. What comes in is checked to the last byte and never believed about its own size.

mod array;
mod binary;
#[cfg(test)]
mod tests;

use bytes::BytesMut;
use pgwire::api::Type;
use postgres_types::Kind;

use super::{ValueError, strings::put_hex};

/// The value of a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parameter {
    /// NULL.
    Null,
    /// The value in PostgreSQL's text form.
    Text(String),
    /// The elements of an array; those of an array with more dimensions are arrays.
    Array(Vec<Parameter>),
}

/// The value of a parameter of the declared type.
///
/// # Errors
/// If the bytes are not a value of that type, or the type has no binary form here.
pub fn decode(bytes: Option<&[u8]>, is_binary: bool, declared: &Type) -> Result<Parameter, ValueError> {
    let Some(bytes) = bytes else {
        return Ok(Parameter::Null);
    };
    match (element_of(declared), is_binary) {
        (Some(element), true) => array::decode_binary(bytes, element),
        (Some(element), false) => array::decode_text(utf8(bytes)?, element),
        (None, true) => binary::decode(bytes, declared).map(Parameter::Text),
        (None, false) => text(utf8(bytes)?, declared).map(Parameter::Text),
    }
}

/// The elements' type if it is an array. The vectors of the catalogue have a text form of their own
/// and are left as they are.
fn element_of(declared: &Type) -> Option<&Type> {
    match declared.kind() {
        Kind::Array(_) if matches!(*declared, Type::INT2_VECTOR | Type::OID_VECTOR) => None,
        Kind::Array(element) => Some(element),
        _ => None,
    }
}

/// A text without zero bytes, as all texts in PostgreSQL are.
fn utf8(bytes: &[u8]) -> Result<&str, ValueError> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let rest = &bytes[error.valid_up_to()..];
        let bad: Vec<String> = rest.iter().take(4).map(|byte| format!("0x{byte:02x}")).collect();
        let message = format!("invalid byte sequence for encoding \"UTF8\": {}", bad.join(" "));
        ValueError::new("22021", message)
    })?;
    if text.contains('\0') {
        return Err(ValueError::new("22021", "invalid byte sequence for encoding \"UTF8\": 0x00"));
    }
    Ok(text)
}

/// A text of the declared type in its usual form. Only where PostgreSQL takes forms that other
/// parsers do not is a text changed; whether it is a number or a date shows when it is cast.
fn text(text: &str, declared: &Type) -> Result<String, ValueError> {
    match *declared {
        Type::BOOL => boolean(text).map(str::to_owned),
        Type::BYTEA => bytea(text),
        _ => Ok(text.to_owned()),
    }
}

/// Any unambiguous beginning of a word will do.
fn boolean(text: &str) -> Result<&'static str, ValueError> {
    let word = text.trim_matches(|character: char| character.is_ascii_whitespace() || character == '\x0b');
    let begins = |whole: &str, least: usize| {
        word.len() >= least && whole.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
    };
    if begins("true", 1) || begins("yes", 1) || begins("on", 2) || word == "1" {
        return Ok("t");
    }
    if begins("false", 1) || begins("no", 1) || begins("off", 2) || word == "0" {
        return Ok("f");
    }
    Err(ValueError::new("22P02", format!("invalid input syntax for type boolean: \"{text}\"")))
}

/// A byte string from its hexadecimal form or from the older one with backslashes.
fn bytea(text: &str) -> Result<String, ValueError> {
    let bytes = match text.strip_prefix("\\x") {
        Some(digits) => hexadecimal(digits)?,
        None => unescaped(text.as_bytes())?,
    };
    Ok(hex(&bytes))
}

/// White space may stand between the pairs of digits.
fn hexadecimal(digits: &str) -> Result<Vec<u8>, ValueError> {
    let mut bytes = Vec::with_capacity(digits.len() / 2);
    let mut rest = digits.chars().peekable();
    let digit = |character: char| {
        let value = character.to_digit(16).and_then(|value| u8::try_from(value).ok());
        value.ok_or_else(|| ValueError::new("22023", format!("invalid hexadecimal digit: \"{character}\"")))
    };
    while let Some(first) = rest.next() {
        if matches!(first, ' ' | '\n' | '\t' | '\r') {
            continue;
        }
        let high = digit(first)?;
        let second =
            rest.next().ok_or_else(|| ValueError::new("22023", "invalid hexadecimal data: odd number of digits"))?;
        bytes.push(high << 4 | digit(second)?);
    }
    Ok(bytes)
}

fn unescaped(text: &[u8]) -> Result<Vec<u8>, ValueError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, behind @ ..] = rest {
        (rest, _) = match (first, behind) {
            (b'\\', [b'\\', behind @ ..]) => (behind, bytes.push(b'\\')),
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', behind @ ..]) => {
                (behind, bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0')))
            }
            (b'\\', _) => {
                return Err(ValueError::new("22P02", "invalid input syntax for type bytea"));
            }
            (plain, behind) => (behind, bytes.push(*plain)),
        };
    }
    Ok(bytes)
}

/// `\x` and the digits.
fn hex(bytes: &[u8]) -> String {
    let mut out = BytesMut::new();
    put_hex(&mut out, bytes);
    String::from_utf8_lossy(&out).into_owned()
}
