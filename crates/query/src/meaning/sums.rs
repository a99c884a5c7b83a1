//! Sums and averages.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{
            Array, ArrayRef, AsArray, Decimal128Array, Float32Array, Float64Array, Int64Array,
            IntervalMonthDayNanoArray,
        },
        datatypes::{
            DataType, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, IntervalMonthDayNano,
            IntervalMonthDayNanoType,
        },
    },
    common::{Result, exec_datafusion_err, exec_err},
};

use super::{
    decimal::{DIGITS_MAX, divide, fits},
    moments::{signed, sum},
    numbers::out_of_range,
    totals::Total,
};

/// Calls `add` with each value of a column of integers or exact numbers.
pub(super) fn each_exact(values: &ArrayRef, mut add: impl FnMut(usize, i128) -> Result<()>) -> Result<()> {
    macro_rules! each {
        ($of:ty) => {{
            let values = values.as_primitive::<$of>();
            if values.null_count() == 0 {
                for (row, value) in values.values().iter().enumerate() {
                    add(row, i128::from(*value))?;
                }
            } else {
                for row in values.nulls().into_iter().flat_map(|nulls| nulls.valid_indices()) {
                    add(row, i128::from(values.value(row)))?;
                }
            }
        }};
    }
    match values.data_type() {
        DataType::Int16 => each!(Int16Type),
        DataType::Int32 => each!(Int32Type),
        DataType::Int64 => each!(Int64Type),
        DataType::Decimal128(..) => each!(Decimal128Type),
        other => return exec_err!("{other} is no exact number"),
    }
    Ok(())
}

/// Calls `add` with each value of a column of floating-point numbers.
pub(super) fn each_float(values: &ArrayRef, mut add: impl FnMut(usize, f64) -> Result<()>) -> Result<()> {
    match values.data_type() {
        DataType::Float32 => {
            for (row, value) in values.as_primitive::<Float32Type>().iter().enumerate() {
                value.map_or(Ok(()), |value| add(row, f64::from(value)))?;
            }
        }
        DataType::Float64 => {
            for (row, value) in values.as_primitive::<Float64Type>().iter().enumerate() {
                value.map_or(Ok(()), |value| add(row, value))?;
            }
        }
        other => return exec_err!("{other} is no floating-point number"),
    }
    Ok(())
}

/// A sum or an average of integers or exact numbers, itself exact.
#[derive(Debug, Clone)]
pub(super) struct ExactSum {
    /// Digits behind the point of the values.
    pub(super) scale: i8,
    /// Of the result.
    pub(super) kind: DataType,
    pub(super) is_average: bool,
}

impl Total for ExactSum {
    type State = i128;

    fn each(&self, values: &ArrayRef, add: impl FnMut(usize, i128) -> Result<()>) -> Result<()> {
        each_exact(values, add)
    }

    fn add(&self, state: i128, _: i64, value: i128) -> Result<i128> {
        state.checked_add(value).ok_or_else(|| exec_datafusion_err!("numeric value out of range in a sum"))
    }

    fn merge(&self, one: (i128, i64), other: (i128, i64)) -> Result<i128> {
        self.add(one.0, one.1, other.0)
    }

    fn remove(&self, state: i128, value: i128) -> Option<i128> {
        state.checked_sub(value)
    }

    fn pack(&self, states: &[i128]) -> Result<Vec<ArrayRef>> {
        // Digits beyond the type's are no matter: a state is read as it was written.
        let states = Decimal128Array::from_iter_values(states.iter().copied());
        Ok(vec![Arc::new(states.with_data_type(DataType::Decimal128(DIGITS_MAX, self.scale)))])
    }

    fn unpack(&self, columns: &[ArrayRef], row: usize) -> i128 {
        columns[0].as_primitive::<Decimal128Type>().value(row)
    }

    fn results(&self, states: &[i128], counts: &[i64]) -> Result<ArrayRef> {
        let values = states.iter().zip(counts).map(|(state, count)| (*count > 0).then_some((*state, *count)));
        if self.kind == DataType::Int64 {
            let whole = |(state, _)| i64::try_from(state).map_err(|_| out_of_range(&DataType::Int64));
            let sums = values.map(|value| value.map(whole).transpose()).collect::<Result<Int64Array>>()?;
            return Ok(Arc::new(sums));
        }
        let DataType::Decimal128(digits, scale) = self.kind else { return exec_err!("no sum is {}", self.kind) };
        let result = |(state, count): (i128, i64)| {
            let value = match self.is_average {
                true => divide((state, self.scale), (i128::from(count), 0), scale),
                false => Some(state),
            };
            value
                .filter(|value| fits(*value, digits))
                .ok_or_else(|| exec_datafusion_err!("numeric value out of range: more than 38 digits"))
        };
        let results = values.map(|value| value.map(result).transpose()).collect::<Result<Decimal128Array>>()?;
        Ok(Arc::new(results.with_data_type(self.kind.clone())))
    }
}

/// A sum of floating-point numbers, in the order in which they come.
#[derive(Debug, Clone)]
pub(super) struct FloatSum {
    pub(super) is_short: bool,
}

impl Total for FloatSum {
    type State = f64;

    fn each(&self, values: &ArrayRef, add: impl FnMut(usize, f64) -> Result<()>) -> Result<()> {
        each_float(values, add)
    }

    fn add(&self, state: f64, count: i64, value: f64) -> Result<f64> {
        // The first value is itself: a negative zero stays one.
        let sum = match (count, self.is_short) {
            (0, _) => value,
            (_, true) => f64::from(state as f32 + value as f32),
            (_, false) => state + value,
        };
        if sum.is_infinite() && state.is_finite() && value.is_finite() {
            return exec_err!("value out of range: overflow");
        }
        Ok(sum)
    }

    fn merge(&self, one: (f64, i64), other: (f64, i64)) -> Result<f64> {
        if other.1 == 0 { Ok(one.0) } else { self.add(one.0, one.1, other.0) }
    }

    fn remove(&self, _: f64, _: f64) -> Option<f64> {
        None
    }

    fn pack(&self, states: &[f64]) -> Result<Vec<ArrayRef>> {
        Ok(vec![Arc::new(Float64Array::from(states.to_vec()))])
    }

    fn unpack(&self, columns: &[ArrayRef], row: usize) -> f64 {
        columns[0].as_primitive::<Float64Type>().value(row)
    }

    fn results(&self, states: &[f64], counts: &[i64]) -> Result<ArrayRef> {
        let values = states.iter().zip(counts).map(|(state, count)| (*count > 0).then_some(*state));
        Ok(match self.is_short {
            true => Arc::new(values.map(|value| value.map(|value| value as f32)).collect::<Float32Array>()),
            false => Arc::new(values.collect::<Float64Array>()),
        })
    }
}

/// A sum of intervals, part by part.
#[derive(Debug, Clone)]
pub(super) struct IntervalSum;

impl Total for IntervalSum {
    type State = IntervalMonthDayNano;

    fn each(&self, values: &ArrayRef, mut add: impl FnMut(usize, IntervalMonthDayNano) -> Result<()>) -> Result<()> {
        for (row, value) in values.as_primitive::<IntervalMonthDayNanoType>().iter().enumerate() {
            value.map_or(Ok(()), |value| add(row, value))?;
        }
        Ok(())
    }

    fn add(&self, state: IntervalMonthDayNano, _: i64, value: IntervalMonthDayNano) -> Result<IntervalMonthDayNano> {
        sum(state, value)
    }

    fn merge(
        &self,
        one: (IntervalMonthDayNano, i64),
        other: (IntervalMonthDayNano, i64),
    ) -> Result<IntervalMonthDayNano> {
        sum(one.0, other.0)
    }

    fn remove(&self, state: IntervalMonthDayNano, value: IntervalMonthDayNano) -> Option<IntervalMonthDayNano> {
        sum(state, signed(value, true).ok()?).ok()
    }

    fn pack(&self, states: &[IntervalMonthDayNano]) -> Result<Vec<ArrayRef>> {
        Ok(vec![Arc::new(IntervalMonthDayNanoArray::from(states.to_vec()))])
    }

    fn unpack(&self, columns: &[ArrayRef], row: usize) -> IntervalMonthDayNano {
        columns[0].as_primitive::<IntervalMonthDayNanoType>().value(row)
    }

    fn results(&self, states: &[IntervalMonthDayNano], counts: &[i64]) -> Result<ArrayRef> {
        let values = states.iter().zip(counts).map(|(state, count)| (*count > 0).then_some(*state));
        Ok(Arc::new(values.collect::<IntervalMonthDayNanoArray>()))
    }
}
