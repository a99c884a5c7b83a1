//! Averages of floating-point numbers, variances and standard deviations.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray, Decimal128Array, Decimal256Array, Float64Array},
        datatypes::{DataType, Decimal128Type, Decimal256Type, Float64Type, i256},
    },
    common::{Result, exec_datafusion_err, exec_err},
};

use super::{
    decimal::{DIGITS_MAX, divide_wide, fits},
    sums::{each_exact, each_float},
    totals::Total,
};

/// What is asked of the spread of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Spread {
    Average,
    Variance { of_sample: bool },
    Deviation { of_sample: bool },
}

/// Digits behind the point of a variance or deviation of exact numbers.
pub(super) const SPREAD_SCALE: i8 = 20;

/// The spread of floating-point numbers, by the method of Youngs and Cramer as in PostgreSQL.
#[derive(Debug, Clone)]
pub(super) struct FloatSpread(pub(super) Spread);

/// The sum, and the sum of squares of what differs from the mean.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Moments {
    sum: f64,
    squares: f64,
}

impl Total for FloatSpread {
    type State = Moments;

    fn each(&self, values: &ArrayRef, mut add: impl FnMut(usize, Moments) -> Result<()>) -> Result<()> {
        each_float(values, |row, value| add(row, Moments { sum: value, squares: 0.0 }))
    }

    fn add(&self, state: Moments, count: i64, value: Moments) -> Result<Moments> {
        let number = value.sum;
        let sum = state.sum + number;
        let mut squares = state.squares;
        if count > 0 {
            let count = (count + 1) as f64;
            let difference = number * count - sum;
            squares += difference * difference / (count * (count - 1.0));
            if (sum.is_infinite() || squares.is_infinite()) && state.sum.is_finite() && number.is_finite() {
                return exec_err!("value out of range: overflow");
            }
        } else if !number.is_finite() {
            squares = f64::NAN;
        }
        Ok(Moments { sum, squares })
    }

    fn merge(&self, one: (Moments, i64), other: (Moments, i64)) -> Result<Moments> {
        if one.1 == 0 || other.1 == 0 {
            return Ok(if one.1 == 0 { other.0 } else { one.0 });
        }
        let (count_one, count_other) = (one.1 as f64, other.1 as f64);
        let difference = one.0.sum / count_one - other.0.sum / count_other;
        let more = count_one * count_other * difference * difference / (count_one + count_other);
        Ok(Moments { sum: one.0.sum + other.0.sum, squares: one.0.squares + other.0.squares + more })
    }

    fn remove(&self, _: Moments, _: Moments) -> Option<Moments> {
        None
    }

    fn pack(&self, states: &[Moments]) -> Result<Vec<ArrayRef>> {
        let sums: Float64Array = states.iter().map(|state| state.sum).collect::<Vec<_>>().into();
        let squares: Float64Array = states.iter().map(|state| state.squares).collect::<Vec<_>>().into();
        Ok(vec![Arc::new(sums), Arc::new(squares)])
    }

    fn unpack(&self, columns: &[ArrayRef], row: usize) -> Moments {
        let value = |column: &ArrayRef| column.as_primitive::<Float64Type>().value(row);
        Moments { sum: value(&columns[0]), squares: value(&columns[1]) }
    }

    fn results(&self, states: &[Moments], counts: &[i64]) -> Result<ArrayRef> {
        let result = |(state, count): (&Moments, &i64)| {
            let number = *count as f64;
            match self.0 {
                _ if *count == 0 => None,
                Spread::Average => Some(state.sum / number),
                Spread::Variance { of_sample: true } | Spread::Deviation { of_sample: true } if *count < 2 => None,
                Spread::Variance { of_sample: true } => Some(state.squares / (number - 1.0)),
                Spread::Variance { of_sample: false } => Some(state.squares / number),
                Spread::Deviation { of_sample: true } => Some((state.squares / (number - 1.0)).sqrt()),
                Spread::Deviation { of_sample: false } => Some((state.squares / number).sqrt()),
            }
        };
        Ok(Arc::new(states.iter().zip(counts).map(result).collect::<Float64Array>()))
    }
}

/// The spread of integers or exact numbers, from exact sums.
#[derive(Debug, Clone)]
pub(super) struct ExactSpread {
    pub(super) spread: Spread,
    /// Digits behind the point of the values.
    pub(super) scale: i8,
}

/// The sum, and the sum of squares.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Powers {
    sum: i128,
    squares: i256,
}

fn too_long() -> datafusion::error::DataFusionError {
    exec_datafusion_err!("numeric value out of range: a variance of more digits than can be kept here")
}

impl Total for ExactSpread {
    type State = Powers;

    fn each(&self, values: &ArrayRef, mut add: impl FnMut(usize, Powers) -> Result<()>) -> Result<()> {
        each_exact(values, |row, value| {
            let wide = i256::from_i128(value);
            add(row, Powers { sum: value, squares: wide.wrapping_mul(wide) })
        })
    }

    fn add(&self, state: Powers, _: i64, value: Powers) -> Result<Powers> {
        let (sum, squares) = (state.sum.checked_add(value.sum), state.squares.checked_add(value.squares));
        match (sum, squares) {
            (Some(sum), Some(squares)) => Ok(Powers { sum, squares }),
            _ => Err(too_long()),
        }
    }

    fn merge(&self, one: (Powers, i64), other: (Powers, i64)) -> Result<Powers> {
        self.add(one.0, one.1, other.0)
    }

    fn remove(&self, state: Powers, value: Powers) -> Option<Powers> {
        let (sum, squares) = (state.sum.checked_sub(value.sum)?, state.squares.checked_sub(value.squares)?);
        Some(Powers { sum, squares })
    }

    fn pack(&self, states: &[Powers]) -> Result<Vec<ArrayRef>> {
        let sums = Decimal128Array::from_iter_values(states.iter().map(|state| state.sum));
        let squares = Decimal256Array::from_iter_values(states.iter().map(|state| state.squares));
        Ok(vec![
            Arc::new(sums.with_data_type(DataType::Decimal128(DIGITS_MAX, 0))),
            Arc::new(squares.with_data_type(DataType::Decimal256(76, 0))),
        ])
    }

    fn unpack(&self, columns: &[ArrayRef], row: usize) -> Powers {
        let sum = columns[0].as_primitive::<Decimal128Type>().value(row);
        Powers { sum, squares: columns[1].as_primitive::<Decimal256Type>().value(row) }
    }

    fn results(&self, states: &[Powers], counts: &[i64]) -> Result<ArrayRef> {
        let result = |(state, count): (&Powers, &i64)| self.result(*state, *count);
        let results = states.iter().zip(counts).map(result).collect::<Result<Decimal128Array>>()?;
        Ok(Arc::new(results.with_data_type(DataType::Decimal128(DIGITS_MAX, SPREAD_SCALE))))
    }
}

impl ExactSpread {
    fn result(&self, state: Powers, count: i64) -> Result<Option<i128>> {
        let (of_sample, is_deviation) = match self.spread {
            Spread::Variance { of_sample } => (of_sample, false),
            Spread::Deviation { of_sample } => (of_sample, true),
            Spread::Average => return exec_err!("an average of exact numbers is no spread"),
        };
        if count == 0 || (of_sample && count == 1) {
            return Ok(None);
        }
        let wide = |value: i64| i256::from_i128(i128::from(value));
        let sum = i256::from_i128(state.sum);
        let of_squares = state.squares.checked_mul(wide(count));
        let squared = sum.checked_mul(sum);
        let (Some(of_squares), Some(squared)) = (of_squares, squared) else { return Err(too_long()) };
        let dividend = of_squares.checked_sub(squared).ok_or_else(too_long)?;
        let divisor = wide(count).wrapping_mul(wide(if of_sample { count - 1 } else { count }));
        let result = if is_deviation {
            self.root(dividend, divisor)
        } else {
            shifted(dividend, i32::from(SPREAD_SCALE) - 2 * i32::from(self.scale), divisor)
                .and_then(|(dividend, divisor)| divide_wide(dividend, divisor))
        };
        result.filter(|value| fits(*value, DIGITS_MAX)).map(Some).ok_or_else(too_long)
    }

    /// The square root of a quotient, from as many digits of it as there is room for.
    fn root(&self, dividend: i256, divisor: i256) -> Option<i128> {
        let whole = 2 * i32::from(SPREAD_SCALE);
        let mut places = whole;
        let quotient = loop {
            if let Some((dividend, divisor)) = shifted(dividend, places - 2 * i32::from(self.scale), divisor) {
                break dividend.checked_div(divisor)?;
            }
            places -= 1;
            if places < 0 {
                return None;
            }
        };
        let (quotient, divisor) = shifted(quotient, whole - places, i256::ONE)?;
        debug_assert_eq!(divisor, i256::ONE);
        let root = square_root(quotient);
        // Rounded: the rest is more than the root where the next half is passed.
        let rest = quotient.wrapping_sub(root.wrapping_mul(root));
        let rounded = if rest > root { root.wrapping_add(i256::ONE) } else { root };
        rounded.to_i128()
    }
}

/// A fraction whose dividend has `places` more digits, or whose divisor has, if they are fewer.
fn shifted(dividend: i256, places: i32, divisor: i256) -> Option<(i256, i256)> {
    let ten = i256::from_i128(10);
    let (mut dividend, mut divisor) = (dividend, divisor);
    for _ in 0..places.unsigned_abs() {
        if places > 0 {
            dividend = dividend.checked_mul(ten)?;
        } else {
            divisor = divisor.checked_mul(ten)?;
        }
    }
    Some((dividend, divisor))
}

/// The largest whole number whose square is not more.
fn square_root(value: i256) -> i256 {
    if value <= i256::ZERO {
        return i256::ZERO;
    }
    // Newton's method falls to the root from above; a double gives the place to begin.
    let near = value.to_string().parse::<f64>().unwrap_or(0.0).sqrt() * 1.000_001;
    let mut root = i256::from_string(&format!("{near:.0}")).unwrap_or(value).wrapping_add(i256::ONE);
    loop {
        let next = root.wrapping_add(value.wrapping_div(root)).wrapping_div(i256::from_i128(2));
        if next >= root {
            return root;
        }
        root = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_are_whole() {
        for value in [0_i128, 1, 2, 3, 4, 99, 100, 101, 10_i128.pow(30), 10_i128.pow(38) - 1] {
            let root = square_root(i256::from_i128(value)).to_i128().expect("fits");
            assert!(
                root * root <= value && (root + 1).checked_mul(root + 1).is_none_or(|next| next > value),
                "{value}"
            );
        }
    }
}
