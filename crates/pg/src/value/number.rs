//! Numbers: floats as the shortest text that is read back as the same float, and numerics with
//! every digit.

use std::{
    fmt::{LowerExp, Write as _},
    str::FromStr,
};

use arrow_buffer::i256;
use bytes::{BufMut, BytesMut};

use super::text::Text;

/// What the two kinds of floats differ in.
pub(super) trait Float: Copy + PartialEq + LowerExp + FromStr {
    /// Up to this power of ten (excluded) a number is written without an exponent.
    const FIXED_MAX: i32;
    /// So many digits always suffice.
    const DIGITS_MAX: usize;
    /// The absolute value as a whole number times a power of two, if it is finite; of numbers that
    /// have only their integral part.
    fn whole(self) -> Option<(u64, i32)>;
    /// `NaN` and infinities have words.
    fn word(self) -> Option<&'static str>;
}

impl Float for f64 {
    const FIXED_MAX: i32 = 15;
    const DIGITS_MAX: usize = 17;

    fn whole(self) -> Option<(u64, i32)> {
        let exponent = ((self.to_bits() >> 52) & 0x7ff) as i32 - 1075;
        (exponent > 0).then(|| (self.to_bits() & ((1 << 52) - 1) | (1 << 52), exponent))
    }

    fn word(self) -> Option<&'static str> {
        word(self.is_nan(), self.is_infinite(), self.is_sign_negative())
    }
}

impl Float for f32 {
    const FIXED_MAX: i32 = 6;
    const DIGITS_MAX: usize = 9;

    fn whole(self) -> Option<(u64, i32)> {
        let exponent = ((self.to_bits() >> 23) & 0xff).cast_signed() - 150;
        (exponent > 0).then(|| (u64::from(self.to_bits() & ((1 << 23) - 1) | (1 << 23)), exponent))
    }

    fn word(self) -> Option<&'static str> {
        word(self.is_nan(), self.is_infinite(), self.is_sign_negative())
    }
}

fn word(is_nan: bool, is_infinite: bool, is_negative: bool) -> Option<&'static str> {
    match (is_nan, is_infinite, is_negative) {
        (true, ..) => Some("NaN"),
        (_, true, false) => Some("Infinity"),
        (_, true, true) => Some("-Infinity"),
        _ => None,
    }
}

/// The text of a float.
pub(super) fn put_float<F: Float>(out: &mut BytesMut, value: F) {
    if let Some(word) = value.word() {
        out.put_slice(word.as_bytes());
        return;
    }
    let mut scientific = Text::new();
    // A float's shortest form always fits.
    let _ = write!(scientific, "{value:e}");
    if let Some(other) = off_the_edge(value, scientific.as_bytes()) {
        scientific = other;
    }
    put_layout(out, scientific.as_bytes(), F::FIXED_MAX);
}

/// PostgreSQL never writes a decimal number that lies exactly between two floats, although it would
/// be read back as the right one; it writes more digits.
fn off_the_edge<F: Float>(value: F, shortest: &[u8]) -> Option<Text> {
    let whole = value.whole()?;
    let (_, digits, exponent) = parts(shortest);
    if !is_on_edge(whole, &digits, exponent) {
        return None;
    }
    for precision in digits.len..F::DIGITS_MAX {
        let mut longer = Text::new();
        let _ = write!(longer, "{value:.precision$e}");
        let (_, digits, exponent) = parts(longer.as_bytes());
        let read = std::str::from_utf8(longer.as_bytes()).ok()?.parse::<F>().ok()?;
        if read == value && !is_on_edge(whole, &digits, exponent) {
            return Some(longer);
        }
    }
    None
}

/// The digits of a number without the zeros at its end.
struct Digits {
    bytes: [u8; 20],
    len: usize,
}

/// Sign, digits and exponent of `-1.25e7`.
fn parts(scientific: &[u8]) -> (bool, Digits, i32) {
    let mut digits = Digits { bytes: [0; 20], len: 0 };
    let (mut exponent, mut exponent_is_negative, mut in_exponent) = (0, false, false);
    for byte in scientific {
        match byte {
            b'e' => in_exponent = true,
            b'-' if in_exponent => exponent_is_negative = true,
            b'0'..=b'9' if in_exponent => exponent = exponent * 10 + i32::from(byte - b'0'),
            b'0'..=b'9' => {
                digits.bytes[digits.len] = *byte;
                digits.len += 1;
            }
            _ => {}
        }
    }
    while digits.len > 1 && digits.bytes[digits.len - 1] == b'0' {
        digits.len -= 1;
    }
    if exponent_is_negative {
        exponent = -exponent;
    }
    (scientific.first() == Some(&b'-'), digits, exponent)
}

/// Whether the decimal number is exactly half-way between this float and a neighbour. `exponent`
/// is that of the first digit.
fn is_on_edge((mantissa, power): (u64, i32), digits: &Digits, exponent: i32) -> bool {
    let number = digits.bytes[..digits.len].iter().fold(0_u64, |all, digit| all * 10 + u64::from(digit - b'0'));
    let Ok(tens) = u32::try_from(exponent + 1 - i32::try_from(digits.len).unwrap_or(i32::MAX)) else {
        return false;
    };
    // With more tens than this, the number has more factors five than a mantissa can have.
    if number == 0 || tens > 24 {
        return false;
    }
    let twos = number.trailing_zeros();
    let odd = u128::from(number >> twos) * 5_u128.pow(tens);
    let middle = u128::from(mantissa) * 2;
    (odd == middle + 1 || odd == middle - 1) && i64::from(twos + tens) == i64::from(power) - 1
}

fn put_layout(out: &mut BytesMut, scientific: &[u8], fixed_max: i32) {
    let (is_negative, digits, exponent) = parts(scientific);
    let digits = &digits.bytes[..digits.len];
    let mut text = Text::new();
    if is_negative {
        text.push(b'-');
    }
    let before_point = usize::try_from(exponent + 1).unwrap_or(0);
    if exponent < -4 || exponent >= fixed_max {
        text.push(digits[0]);
        if digits.len() > 1 {
            text.push(b'.');
            digits[1..].iter().for_each(|digit| text.push(*digit));
        }
        text.push(b'e');
        text.push(if exponent < 0 { b'-' } else { b'+' });
        text.push_padded(u64::from(exponent.unsigned_abs()), 2);
    } else if exponent < 0 {
        text.push_str("0.");
        text.push_zeros(usize::try_from(-exponent - 1).unwrap_or(0));
        digits.iter().for_each(|digit| text.push(*digit));
    } else if digits.len() <= before_point {
        digits.iter().for_each(|digit| text.push(*digit));
        text.push_zeros(before_point - digits.len());
    } else {
        digits[..before_point].iter().for_each(|digit| text.push(*digit));
        text.push(b'.');
        digits[before_point..].iter().for_each(|digit| text.push(*digit));
    }
    text.write_to(out);
}

/// A numeric: sign and digits of a whole number that is to be divided by ten to the `scale`.
pub(super) struct Decimal {
    is_negative: bool,
    digits: Text,
    scale: i32,
}

impl Decimal {
    pub(super) fn new(value: i128, scale: i8) -> Self {
        const LOW: u128 = 10_u128.pow(19);
        let mut digits = Text::new();
        let mut parts = [0_u64; 3];
        let mut rest = value.unsigned_abs();
        for part in &mut parts {
            *part = u64::try_from(rest % LOW).unwrap_or_default();
            rest /= LOW;
        }
        let mut started = false;
        for part in parts.iter().rev() {
            if started {
                digits.push_padded(*part, 19);
            } else if *part != 0 {
                digits.push_padded(*part, 1);
                started = true;
            }
        }
        Self { is_negative: value < 0, digits, scale: i32::from(scale) }
    }

    pub(super) fn wide(value: i256, scale: i8) -> Self {
        if let Some(narrow) = value.to_i128() {
            return Self::new(narrow, scale);
        }
        // So large a number is rare enough to go through the general formatter.
        let printed = value.to_string();
        let mut digits = Text::new();
        digits.push_str(printed.trim_start_matches('-'));
        Self { is_negative: printed.starts_with('-'), digits, scale: i32::from(scale) }
    }

    fn digits(&self) -> &[u8] {
        self.digits.as_bytes()
    }

    /// The digits before the point; negative if there are zeros right behind the point.
    fn whole_digits(&self) -> i32 {
        i32::try_from(self.digits().len()).unwrap_or(i32::MAX) - self.scale
    }

    pub(super) fn put_text(&self, out: &mut BytesMut) {
        let digits = self.digits();
        if self.is_negative {
            out.put_u8(b'-');
        }
        let fraction = usize::try_from(self.scale).unwrap_or(0);
        let split = digits.len().saturating_sub(fraction);
        if split == 0 {
            out.put_u8(b'0');
        }
        out.put_slice(&digits[..split]);
        if self.scale < 0 && !digits.is_empty() {
            out.put_bytes(b'0', usize::try_from(-self.scale).unwrap_or(0));
        }
        if fraction > 0 {
            out.put_u8(b'.');
            out.put_bytes(b'0', fraction.saturating_sub(digits.len()));
            out.put_slice(&digits[split..]);
        }
    }

    pub(super) fn put_binary(&self, out: &mut BytesMut) {
        let digits = self.digits();
        let display_scale = i16::try_from(self.scale.max(0)).unwrap_or(0);
        let used = digits.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1);
        let digits = &digits[..used];
        if digits.is_empty() {
            for part in [0, 0, 0, display_scale] {
                out.put_i16(part);
            }
            return;
        }
        let whole = self.whole_digits();
        let weight = (whole - 1).div_euclid(4);
        let first = usize::try_from(whole - 4 * weight).unwrap_or(4).min(digits.len());
        let first_is_short = usize::try_from(whole - 4 * weight).unwrap_or(4) - first;
        let groups = 1 + (digits.len() - first).div_ceil(4);
        out.put_i16(i16::try_from(groups).unwrap_or(i16::MAX));
        out.put_i16(i16::try_from(weight).unwrap_or(i16::MAX));
        out.put_i16(if self.is_negative { 0x4000 } else { 0 });
        out.put_i16(display_scale);
        out.put_i16(group(&digits[..first], first_is_short));
        for rest in digits[first..].chunks(4) {
            out.put_i16(group(rest, 4 - rest.len()));
        }
    }
}

/// Up to four decimal digits as one digit of base 10,000, with zeros put behind.
fn group(digits: &[u8], zeros: usize) -> i16 {
    let value = digits.iter().fold(0, |all, digit| all * 10 + i16::from(digit - b'0'));
    (0..zeros).fold(value, |all, _| all * 10)
}
