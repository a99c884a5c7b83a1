//! Bytes as text, text as bytes, and digests.

use datafusion::common::{Result, exec_err};
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};

use super::{
    bounds::VALUE_BYTES_MAX,
    function::Call,
    value::{Value, text},
};

/// A literal of bytes: `\x` and digits, or letters with `\\` and octal `\123`.
pub(super) fn byteain(literal: &str) -> Result<Vec<u8>> {
    if let Some(digits) = literal.strip_prefix("\\x") {
        return unhex(digits);
    }
    let wrong = || exec_err!("invalid input syntax for type bytea");
    let bytes = literal.as_bytes();
    let (mut out, mut place) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(byte) = bytes.get(place) {
        if *byte != b'\\' {
            out.push(*byte);
            place += 1;
            continue;
        }
        match bytes.get(place + 1..place + 4) {
            _ if bytes.get(place + 1) == Some(&b'\\') => {
                out.push(b'\\');
                place += 2;
            }
            Some([first @ b'0'..=b'3', second @ b'0'..=b'7', third @ b'0'..=b'7']) => {
                out.push((first - b'0') * 64 + (second - b'0') * 8 + third - b'0');
                place += 4;
            }
            _ => return wrong(),
        }
    }
    Ok(out)
}

pub(super) fn bytes_of<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::Bytes(byteain(arguments[0].str()?)?.into()))
}

fn unhex(digits: &str) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(digits.len() / 2);
    let mut high = None;
    for letter in digits.chars() {
        if letter.is_ascii_whitespace() && high.is_none() {
            continue;
        }
        let Some(digit) = letter.to_digit(16) else { return exec_err!("invalid hexadecimal digit: \"{letter}\"") };
        match high.take() {
            None => high = Some(digit),
            Some(high) => out.push((high * 16 + digit) as u8),
        }
    }
    if high.is_some() {
        return exec_err!("invalid hexadecimal data: odd number of digits");
    }
    Ok(out)
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)]))
        .collect()
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// By MIME: a line has 76 letters.
fn base64(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 4 / 3 + 4);
    for (place, three) in bytes.chunks(3).enumerate() {
        if place > 0 && place % 19 == 0 {
            out.push('\n');
        }
        let at = |place: usize| u32::from(three.get(place).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            let letter = BASE64[(bits >> (18 - 6 * place) & 63) as usize];
            out.push(if place > three.len() { '=' } else { char::from(letter) });
        }
    }
    out
}

fn unbase64(text: &str) -> Result<Vec<u8>> {
    let (mut out, mut bits, mut count, mut end) = (Vec::with_capacity(text.len() * 3 / 4), 0u32, 0, 0);
    for letter in text.bytes().filter(|letter| !matches!(letter, b' ' | b'\t' | b'\n' | b'\r')) {
        let value = if letter == b'=' {
            if end == 0 && count < 2 {
                return exec_err!("unexpected \"=\" while decoding base64 sequence");
            }
            end += 1;
            0
        } else {
            match BASE64.iter().position(|known| *known == letter).filter(|_| end == 0) {
                Some(value) => value as u32,
                None => {
                    let letter = char::from(letter);
                    return exec_err!("invalid symbol \"{letter}\" found while decoding base64 sequence");
                }
            }
        };
        bits = bits << 6 | value;
        count += 1;
        if count == 4 {
            let three = [(bits >> 16) as u8, (bits >> 8) as u8, bits as u8];
            out.extend_from_slice(&three[..3 - end.min(2)]);
            (bits, count) = (0, 0);
        }
    }
    if count != 0 {
        return exec_err!("invalid base64 end sequence");
    }
    Ok(out)
}

/// `encode(bytes, format)`.
pub(super) fn encode<'a>(call: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let bytes = arguments[0].bytes()?;
    if bytes.len() > VALUE_BYTES_MAX / 4 {
        call.room.check(bytes.len() * 4)?;
    }
    Ok(text(match arguments[1].str()?.to_ascii_lowercase().as_str() {
        "hex" => hex(bytes),
        "base64" => base64(bytes),
        "escape" => bytes.iter().fold(String::with_capacity(bytes.len()), |mut out, byte| {
            match byte {
                0 | 128.. => out.push_str(&format!("\\{byte:03o}")),
                b'\\' => out.push_str("\\\\"),
                byte => out.push(char::from(*byte)),
            }
            out
        }),
        other => return exec_err!("unrecognized encoding: \"{other}\""),
    }))
}

/// `decode(text, format)`.
pub(super) fn decode<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let text = arguments[0].str()?;
    Ok(Value::Bytes(
        match arguments[1].str()?.to_ascii_lowercase().as_str() {
            "hex" => unhex(text)?,
            "base64" => unbase64(text)?,
            "escape" => byteain_escape(text)?,
            other => return exec_err!("unrecognized encoding: \"{other}\""),
        }
        .into(),
    ))
}

fn byteain_escape(text: &str) -> Result<Vec<u8>> {
    // Here `\x` has no meaning of its own.
    if text.starts_with("\\x") { exec_err!("invalid input syntax for type bytea") } else { byteain(text) }
}

pub(super) fn sha224<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::Bytes(Sha224::digest(arguments[0].bytes()?).to_vec().into()))
}

pub(super) fn sha256<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::Bytes(Sha256::digest(arguments[0].bytes()?).to_vec().into()))
}

pub(super) fn sha384<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::Bytes(Sha384::digest(arguments[0].bytes()?).to_vec().into()))
}

pub(super) fn sha512<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::Bytes(Sha512::digest(arguments[0].bytes()?).to_vec().into()))
}
