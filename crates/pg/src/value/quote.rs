//! Quoting of what was just written: values are written plainly first, and the few that need it are
//! widened in place, so that a value costs no allocation of its own.

use bytes::BytesMut;

/// Replaces each byte behind `start` for which there is a pair by that pair, and puts everything
/// behind `start` between two quotes if one is given.
pub(super) fn widen(out: &mut BytesMut, start: usize, quote: Option<u8>, pair: impl Fn(u8) -> Option<[u8; 2]>) {
    let old_len = out.len();
    let pairs = out[start..].iter().filter(|byte| pair(**byte).is_some()).count();
    let quotes = if quote.is_some() { 2 } else { 0 };
    if pairs + quotes == 0 {
        return;
    }
    out.resize(old_len + pairs + quotes, 0);
    let mut to = out.len();
    if let Some(quote) = quote {
        to -= 1;
        out[to] = quote;
    }
    for from in (start..old_len).rev() {
        match pair(out[from]) {
            Some(two) => {
                to -= 2;
                out[to..to + 2].copy_from_slice(&two);
            }
            None => {
                to -= 1;
                out[to] = out[from];
            }
        }
    }
    if let Some(quote) = quote {
        out[start] = quote;
    }
}

/// Quotes an element of an array where PostgreSQL does.
pub(super) fn quote_element(out: &mut BytesMut, start: usize) {
    let element = &out[start..];
    let plain = !element.is_empty()
        && !element.eq_ignore_ascii_case(b"null")
        && !element.iter().any(|byte| matches!(byte, b'"' | b'\\' | b'{' | b'}' | b',') || is_space(*byte));
    if !plain {
        widen(out, start, Some(b'"'), |byte| matches!(byte, b'"' | b'\\').then_some([b'\\', byte]));
    }
}

/// Quotes a field of a record where PostgreSQL does.
pub(super) fn quote_field(out: &mut BytesMut, start: usize) {
    let field = &out[start..];
    let plain = !field.is_empty()
        && !field.iter().any(|byte| matches!(byte, b'"' | b'\\' | b'(' | b')' | b',') || is_space(*byte));
    if !plain {
        widen(out, start, Some(b'"'), |byte| matches!(byte, b'"' | b'\\').then_some([byte, byte]));
    }
}

/// What PostgreSQL takes for white space in arrays and records.
pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}
