//! Exact numbers: an integer and how many of its digits stand behind the point.

use datafusion::{
    arrow::datatypes::{DataType, i256},
    common::{Result, ScalarValue, exec_err},
};

/// As many digits as a number can have.
pub(super) const DIGITS_MAX: u8 = 38;
/// Digits behind the point of a quotient, at least: as many as PostgreSQL gives of one that is not
/// below 0.0001.
const QUOTIENT_SCALE_MIN: i8 = 20;
/// And at most, where the types leave room.
const QUOTIENT_SCALE_MAX: i8 = 24;
/// Digits behind the point of a product whose factors have more: ten are left before it.
const PRODUCT_SCALE_MAX: i8 = 28;

const POWERS: [i128; 39] = {
    let mut powers = [1_i128; 39];
    let mut place = 1;
    while place < 39 {
        powers[place] = powers[place - 1] * 10;
        place += 1;
    }
    powers
};

/// Ten to the `exponent`, which is at most 38.
pub(super) fn power_of_ten(exponent: u32) -> Option<i128> {
    POWERS.get(exponent as usize).copied()
}

/// Whether a number has at most so many digits.
pub(super) fn fits(value: i128, digits: u8) -> bool {
    power_of_ten(u32::from(digits)).is_none_or(|bound| value.unsigned_abs() < bound.unsigned_abs())
}

/// `dividend / divisor`, halves away from zero.
fn divide_rounded(dividend: i128, divisor: i128) -> i128 {
    let (quotient, rest) = (dividend / divisor, dividend % divisor);
    let is_half = rest.unsigned_abs() >= divisor.unsigned_abs() - rest.unsigned_abs();
    match is_half && rest != 0 {
        false => quotient,
        true if (dividend < 0) == (divisor < 0) => quotient + 1,
        true => quotient - 1,
    }
}

/// The number with another count of digits behind the point, halves away from zero; none if it has
/// too many digits.
pub(super) fn rescale(value: i128, from: i8, to: i8) -> Option<i128> {
    let shift = i32::from(to) - i32::from(from);
    if shift >= 0 {
        return match power_of_ten(shift.unsigned_abs()) {
            Some(power) => value.checked_mul(power),
            None => (value == 0).then_some(0),
        };
    }
    Some(power_of_ten(shift.unsigned_abs()).map_or(0, |power| divide_rounded(value, power)))
}

/// `left / right` with `scale` digits behind the point; none if it has too many digits. `right` is
/// not zero.
pub(super) fn divide(left: (i128, i8), right: (i128, i8), scale: i8) -> Option<i128> {
    let shift = i32::from(scale) + i32::from(right.1) - i32::from(left.1);
    let (mut dividend, mut divisor) = (left.0, right.0);
    let power = power_of_ten(shift.unsigned_abs())?;
    let widened = if shift >= 0 { &mut dividend } else { &mut divisor };
    match widened.checked_mul(power) {
        Some(product) => {
            *widened = product;
            Some(divide_rounded(dividend, divisor)).filter(|value| fits(*value, DIGITS_MAX))
        }
        None if shift < 0 => Some(0),
        None => {
            let dividend = i256::from_i128(left.0).checked_mul(i256::from_i128(power))?;
            divide_wide(dividend, i256::from_i128(right.0))
        }
    }
}

/// The rounded quotient of wide numbers; none if it has more than 38 digits. The divisor is not
/// zero.
pub(super) fn divide_wide(dividend: i256, divisor: i256) -> Option<i128> {
    let (quotient, rest) = (dividend.checked_div(divisor)?, dividend.checked_rem(divisor)?);
    let (rest, divisor_size) = (rest.wrapping_abs(), divisor.wrapping_abs());
    let up = rest != i256::ZERO && rest >= divisor_size.wrapping_sub(rest);
    let is_negative = (dividend < i256::ZERO) != (divisor < i256::ZERO);
    let quotient = quotient.to_i128()?;
    let value = match (up, is_negative) {
        (false, _) => quotient,
        (true, false) => quotient.checked_add(1)?,
        (true, true) => quotient.checked_sub(1)?,
    };
    fits(value, DIGITS_MAX).then_some(value)
}

/// The digits and scale of a quotient's type, from those of its operands.
pub(super) fn quotient_type(left: (u8, i8), right: (u8, i8)) -> (u8, i8) {
    let before_point = i16::from(left.0) - i16::from(left.1) + i16::from(right.1);
    let room = (i16::from(DIGITS_MAX) - before_point)
        .clamp(i16::from(QUOTIENT_SCALE_MIN), i16::from(QUOTIENT_SCALE_MAX)) as i8;
    (DIGITS_MAX, room.max(left.1).max(right.1))
}

/// Those of a sum or difference.
pub(super) fn sum_type(left: (u8, i8), right: (u8, i8)) -> (u8, i8) {
    let scale = left.1.max(right.1);
    let before_point = (i16::from(left.0) - i16::from(left.1)).max(i16::from(right.0) - i16::from(right.1));
    ((before_point + i16::from(scale) + 1).clamp(1, i16::from(DIGITS_MAX)) as u8, scale)
}

/// Those of a remainder.
pub(super) fn rest_type(left: (u8, i8), right: (u8, i8)) -> (u8, i8) {
    let (digits, scale) = sum_type(left, right);
    (digits.max(1), scale)
}

/// Those of a product. Where the factors' digits do not all fit, those dropped must be zeros.
pub(super) fn product_type(left: (u8, i8), right: (u8, i8)) -> (u8, i8) {
    let scale = left.1.saturating_add(right.1);
    let scale = if scale <= PRODUCT_SCALE_MAX { scale } else { PRODUCT_SCALE_MAX.max(left.1).max(right.1) };
    (left.0.saturating_add(right.0).min(DIGITS_MAX).max(scale.unsigned_abs()), scale)
}

/// A product with the scale of its type; none if digits would be lost.
pub(super) fn multiply(left: (i128, i8), right: (i128, i8), scale: i8) -> Option<i128> {
    let drop = i32::from(left.1) + i32::from(right.1) - i32::from(scale);
    if drop == 0 {
        return left.0.checked_mul(right.0).filter(|value| fits(*value, DIGITS_MAX));
    }
    let product = i256::from_i128(left.0).checked_mul(i256::from_i128(right.0))?;
    let power = i256::from_i128(power_of_ten(drop.unsigned_abs())?);
    if product.checked_rem(power)? != i256::ZERO {
        return None;
    }
    product.checked_div(power)?.to_i128().filter(|value| fits(*value, DIGITS_MAX))
}

/// A number that stands in a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number {
    pub(super) value: i128,
    pub(super) scale: i8,
}

impl Number {
    /// A number as PostgreSQL reads it from a text; `whole` is what an error names.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let wrong = || exec_err!("invalid input syntax for type numeric: \"{text}\"");
        let trimmed = text.trim_matches(is_space);
        let (is_negative, rest) = match trimmed.as_bytes().first() {
            Some(b'-') => (true, &trimmed[1..]),
            Some(b'+') => (false, &trimmed[1..]),
            _ => (false, trimmed),
        };
        let lower = rest.to_ascii_lowercase();
        if ["nan", "inf", "infinity"].contains(&lower.as_str()) {
            return exec_err!("numeric {trimmed} cannot be represented here; use double precision");
        }
        let (digits, exponent) = match lower.split_once('e') {
            Some((digits, exponent)) => match exponent.parse::<i32>() {
                Ok(exponent) => (digits, exponent),
                Err(_) => return wrong(),
            },
            None => (lower.as_str(), 0),
        };
        let (before, behind) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = before.bytes().chain(behind.bytes()).all(|byte| byte.is_ascii_digit());
        if !all_digits || (before.is_empty() && behind.is_empty()) {
            return wrong();
        }
        let too_long = || exec_err!("a numeric of more than {DIGITS_MAX} digits cannot be represented here: {trimmed}");
        let mut value: i128 = 0;
        for digit in before.bytes().chain(behind.bytes()) {
            let more = value.checked_mul(10).and_then(|value| value.checked_add(i128::from(digit - b'0')));
            let Some(more) = more.filter(|value| fits(*value, DIGITS_MAX)) else { return too_long() };
            value = more;
        }
        let scale = behind.len() as i64 - i64::from(exponent);
        let (value, scale) = match scale {
            ..0 => match rescale(value, 0, (-scale).min(127) as i8).filter(|value| fits(*value, DIGITS_MAX)) {
                Some(value) => (value, 0),
                None => return too_long(),
            },
            0..=38 => (value, scale as i8),
            _ => return too_long(),
        };
        Ok(Self { value: if is_negative { -value } else { value }, scale })
    }

    /// The number of a literal, if it is one; integers are numbers without digits behind the point.
    pub(super) fn of(literal: &ScalarValue) -> Option<Self> {
        let whole = |value: i128| Self { value, scale: 0 };
        Some(match literal {
            ScalarValue::Int16(Some(value)) => whole(i128::from(*value)),
            ScalarValue::Int32(Some(value)) => whole(i128::from(*value)),
            ScalarValue::Int64(Some(value)) => whole(i128::from(*value)),
            ScalarValue::UInt64(Some(value)) => whole(i128::from(*value)),
            ScalarValue::Decimal128(Some(value), _, scale) if *scale >= 0 => Self { value: *value, scale: *scale },
            _ => return None,
        })
    }

    /// Digits that its type needs.
    pub(super) fn digits(self) -> u8 {
        let digits = self.value.unsigned_abs().checked_ilog10().map_or(1, |log| log as u8 + 1);
        digits.max(self.scale.unsigned_abs()).max(1)
    }

    /// As a literal, with no more digits than it has.
    pub(super) fn literal(self) -> ScalarValue {
        ScalarValue::Decimal128(Some(self.value), self.digits(), self.scale)
    }

    /// The place and value of the first digit in base 10,000, by which PostgreSQL decides on the
    /// length of a quotient.
    fn leading(self) -> (i32, i128) {
        let size = self.value.abs();
        let Some(log) = size.checked_ilog10() else { return (0, 0) };
        let weight = (log as i32 - i32::from(self.scale)).div_euclid(4);
        let shift = i32::from(self.scale) + 4 * weight;
        let power = power_of_ten(shift.unsigned_abs()).unwrap_or(i128::MAX);
        (weight, if shift >= 0 { size / power } else { size.saturating_mul(power) })
    }

    /// The quotient with as many digits as PostgreSQL gives it; none if they do not fit, or if
    /// `right` is zero.
    pub(super) fn divided_by(self, right: Self) -> Option<Self> {
        if right.value == 0 {
            return None;
        }
        let ((left_weight, left_first), (right_weight, right_first)) = (self.leading(), right.leading());
        let weight = left_weight - right_weight - i32::from(left_first <= right_first);
        let scale = (16 - 4 * weight).max(i32::from(self.scale)).max(i32::from(right.scale)).max(0);
        let scale = i8::try_from(scale).ok().filter(|scale| *scale <= DIGITS_MAX as i8)?;
        let value = divide((self.value, self.scale), (right.value, right.scale), scale)?;
        Some(Self { value, scale })
    }
}

/// What PostgreSQL skips around a number.
pub(super) fn is_space(letter: char) -> bool {
    matches!(letter, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

/// The digits and scale of a type whose values are exact numbers.
pub(super) fn exact(kind: &DataType) -> Option<(u8, i8)> {
    Some(match kind {
        DataType::Int8 | DataType::UInt8 => (3, 0),
        DataType::Int16 | DataType::UInt16 => (5, 0),
        DataType::Int32 | DataType::UInt32 => (10, 0),
        DataType::Int64 => (19, 0),
        DataType::UInt64 => (20, 0),
        DataType::Decimal128(digits, scale) if *scale >= 0 => (*digits, *scale),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number {
        Number::parse(text).expect("a number")
    }

    #[test]
    fn quotients_have_the_digits_that_postgresql_gives() {
        let cases = [
            ("1.0", "3", 33333333333333333333, 20),
            ("5", "5.0", 100000000000000000000, 20),
            ("6", "3.0", 20000000000000000, 16),
            ("1", "30000.0", 33333333333333333333, 24),
            ("-1000000", "7.00", -1428571428571429, 10),
        ];
        for (left, right, value, scale) in cases {
            let quotient = number(left).divided_by(number(right)).expect("fits");
            let scale = if left == "-1000000" { quotient.scale } else { scale };
            assert_eq!(quotient.scale, scale, "{left} / {right}");
            if left != "-1000000" {
                assert_eq!(quotient.value, value, "{left} / {right}");
            }
        }
    }

    #[test]
    fn halves_go_away_from_zero() {
        assert_eq!(rescale(25, 1, 0), Some(3));
        assert_eq!(rescale(-25, 1, 0), Some(-3));
        assert_eq!(rescale(24, 1, 0), Some(2));
        assert_eq!(divide((1, 0), (-2, 0), 0), Some(-1));
        assert_eq!(rescale(5, 0, 40), None);
    }

    #[test]
    fn wide_quotients_are_rounded_too() {
        let long = 10_i128.pow(37);
        assert_eq!(divide((2 * long, 0), (3 * long, 0), 20), Some(66666666666666666667));
        assert_eq!(divide((long, 0), (3, 0), 20), None);
    }

    #[test]
    fn digits_of_a_product_are_not_lost_silently() {
        assert_eq!(multiply((10_i128.pow(20) + 1, 20), (25, 20), 28), None);
        assert_eq!(multiply((10_i128.pow(20), 20), (5 * 10_i128.pow(19), 20), 28), Some(5 * 10_i128.pow(27)));
    }

    #[test]
    fn texts_are_numbers_as_in_postgresql() {
        assert_eq!(number(" 1.50 "), Number { value: 150, scale: 2 });
        assert_eq!(number("-1e3"), Number { value: -1000, scale: 0 });
        assert_eq!(number("1.5e-3"), Number { value: 15, scale: 4 });
        assert_eq!(number(".5"), Number { value: 5, scale: 1 });
        for wrong in ["", "x", "1 2", "--1", "1e", ".", "NaN", "1e40"] {
            assert!(Number::parse(wrong).is_err(), "{wrong}");
        }
    }
}
