//! Decimals as text, exactly: one reading of them at both ends.

/// Parses plain decimal notation exactly, as an unscaled number of `fraction` digits behind the
/// point; none when it has more digits than fit or is not a number. Nothing around it is left out.
pub fn parse_decimal(text: &str, digits: u8, fraction: u8) -> Option<i128> {
    let (negative, text) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let part = part.trim_end_matches('0');
    if whole.len() + part.len() == 0 || part.len() > usize::from(fraction) {
        return None;
    }
    let mut number: i128 = 0;
    let padding = std::iter::repeat_n(b'0', usize::from(fraction) - part.len());
    for digit in whole.bytes().chain(part.bytes()).chain(padding) {
        if !digit.is_ascii_digit() {
            return None;
        }
        number = number.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
    }
    (number < 10_i128.pow(u32::from(digits))).then_some(if negative { -number } else { number })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_exact_is_a_decimal() {
        for (text, expected) in [("12.5", Some(1250)), ("-0.10", Some(-10)), ("+7", Some(700)), ("7.000", Some(700))] {
            assert_eq!(parse_decimal(text, 10, 2), expected, "{text}");
        }
        for text in ["", ".", "7\u{a0}", " 7", "1e3", "0.001", "123456789012"] {
            assert_eq!(parse_decimal(text, 10, 2), None, "{text:?}");
        }
    }
}
