//! Arithmetic on columns of numbers.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{
            Array, ArrayRef, ArrowPrimitiveType, AsArray, Datum, Decimal128Array, PrimitiveArray, Scalar,
            new_null_array,
        },
        compute::{
            CastOptions, binary, cast, cast_with_options,
            kernels::numeric::{add, div, mul, rem, sub},
            try_binary,
        },
        datatypes::{DataType, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type},
        error::ArrowError,
    },
    common::{DataFusionError, Result, ScalarValue, exec_datafusion_err, exec_err},
    logical_expr::ColumnarValue,
};

use super::{
    decimal::{DIGITS_MAX, divide, exact, fits, multiply, rescale},
    operator::Operation,
    types::name,
};

const ZERO: &str = "division by zero";
const TOO_LONG: &str = "numeric value out of range: more than 38 digits";

/// One side of an operator: a column, or the same value for each row.
enum Side<T: ArrowPrimitiveType> {
    Column(PrimitiveArray<T>),
    One(Option<T::Native>),
}

impl<T: ArrowPrimitiveType> Side<T> {
    fn of(value: &ColumnarValue, kind: &DataType) -> Result<Self> {
        Ok(match value {
            ColumnarValue::Array(array) => Self::Column(as_kind(array, kind)?.as_primitive::<T>().clone()),
            ColumnarValue::Scalar(value) => {
                let array = as_kind(&value.to_array()?, kind)?;
                let array = array.as_primitive::<T>();
                Self::One(array.is_valid(0).then(|| array.value(0)))
            }
        })
    }
}

fn as_kind(array: &ArrayRef, kind: &DataType) -> Result<ArrayRef> {
    if array.data_type() == kind {
        return Ok(array.clone());
    }
    let strictly = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(array, kind, &strictly).map_err(|_| out_of_range(kind))
}

/// A value for each row, or one for all, by `value` of both sides.
fn combine<T: ArrowPrimitiveType>(
    left: Side<T>,
    right: Side<T>,
    kind: &DataType,
    value: impl Fn(T::Native, T::Native) -> Result<T::Native, ArrowError>,
) -> Result<ColumnarValue> {
    let of_kind = |array: PrimitiveArray<T>| array.with_data_type(kind.clone());
    Ok(ColumnarValue::Array(match (left, right) {
        (Side::Column(left), Side::Column(right)) => {
            Arc::new(of_kind(try_binary(&left, &right, value).map_err(plain)?))
        }
        (Side::Column(left), Side::One(Some(right))) => {
            Arc::new(of_kind(left.try_unary(|left| value(left, right)).map_err(plain)?))
        }
        (Side::One(Some(left)), Side::Column(right)) => {
            Arc::new(of_kind(right.try_unary(|right| value(left, right)).map_err(plain)?))
        }
        (Side::Column(column), Side::One(None)) | (Side::One(None), Side::Column(column)) => {
            new_null_array(kind, column.len())
        }
        (Side::One(left), Side::One(right)) => {
            let value = match (left, right) {
                (Some(left), Some(right)) => Some(value(left, right).map_err(plain)?),
                _ => None,
            };
            let one = of_kind(PrimitiveArray::<T>::from_iter([value]));
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&one, 0)?));
        }
    }))
}

fn plain(error: ArrowError) -> DataFusionError {
    match error {
        ArrowError::ComputeError(text) => DataFusionError::Execution(text),
        ArrowError::DivideByZero => DataFusionError::Execution(ZERO.to_owned()),
        other => other.into(),
    }
}

fn wrong(text: impl Into<String>) -> ArrowError {
    ArrowError::ComputeError(text.into())
}

/// Arithmetic of integers.
pub(super) fn integers(
    operation: Operation,
    left: &ColumnarValue,
    right: &ColumnarValue,
    kind: &DataType,
) -> Result<ColumnarValue> {
    if !matches!(
        operation,
        Operation::Add | Operation::Subtract | Operation::Multiply | Operation::Divide | Operation::Rest
    ) {
        return bits(operation, left, right, kind);
    }
    let (left, right) = (whole(left, kind)?, whole(right, kind)?);
    let (of_left, of_right): (&dyn Datum, &dyn Datum) = (left.datum(), right.datum());
    let result = match operation {
        Operation::Add => add(of_left, of_right),
        Operation::Subtract => sub(of_left, of_right),
        Operation::Multiply => mul(of_left, of_right),
        Operation::Divide => div(of_left, of_right),
        _ => rest_of_integers(of_left, of_right),
    };
    let result = result.map_err(|error| match error {
        ArrowError::DivideByZero => exec_datafusion_err!("{ZERO}"),
        ArrowError::ArithmeticOverflow(_) => out_of_range(kind),
        other => other.into(),
    })?;
    match (&left, &right) {
        (Whole::One(_), Whole::One(_)) => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?)),
        _ => Ok(ColumnarValue::Array(result)),
    }
}

/// The smallest number divided by -1 leaves no rest, although its quotient is no number.
fn rest_of_integers(left: &dyn Datum, right: &dyn Datum) -> Result<ArrayRef, ArrowError> {
    match rem(left, right) {
        Err(ArrowError::ArithmeticOverflow(_)) => {
            let wide = DataType::Decimal128(DIGITS_MAX, 0);
            let widened = |side: &dyn Datum| cast(side.get().0, &wide);
            let (of_left, of_right) = (widened(left)?, widened(right)?);
            let kind = left.get().0.data_type().clone();
            let rest = match (left.get().1, right.get().1) {
                (false, false) => rem(&of_left, &of_right),
                (true, false) => rem(&Scalar::new(of_left), &of_right),
                (false, true) => rem(&of_left, &Scalar::new(of_right)),
                (true, true) => rem(&Scalar::new(of_left), &Scalar::new(of_right)),
            }?;
            cast(&rest, &kind)
        }
        other => other,
    }
}

/// What PostgreSQL says of an integer that is too large for its type.
pub(super) fn out_of_range(kind: &DataType) -> DataFusionError {
    exec_datafusion_err!("{} out of range", name(kind))
}

enum Whole {
    Column(ArrayRef),
    One(Scalar<ArrayRef>),
}

impl Whole {
    fn datum(&self) -> &dyn Datum {
        match self {
            Self::Column(column) => column,
            Self::One(value) => value,
        }
    }
}

fn whole(value: &ColumnarValue, kind: &DataType) -> Result<Whole> {
    Ok(match value {
        ColumnarValue::Array(array) => Whole::Column(as_kind(array, kind)?),
        ColumnarValue::Scalar(value) => Whole::One(Scalar::new(as_kind(&value.to_array()?, kind)?)),
    })
}

macro_rules! bits_of {
    ($of:ty, $operation:expr, $left:expr, $right:expr, $kind:expr) => {{
        let (left, right) = (Side::<$of>::of($left, $kind)?, Side::<$of>::of($right, $kind)?);
        combine(left, right, $kind, |left, right| {
            Ok(match $operation {
                Operation::And => left & right,
                Operation::Or => left | right,
                Operation::Xor => left ^ right,
                Operation::ShiftLeft => left.wrapping_shl(right as u32),
                _ => left.wrapping_shr(right as u32),
            })
        })
    }};
}

fn bits(operation: Operation, left: &ColumnarValue, right: &ColumnarValue, kind: &DataType) -> Result<ColumnarValue> {
    match kind {
        // PostgreSQL shifts a short as an int: what is shifted out is gone all the same.
        DataType::Int16 if matches!(operation, Operation::ShiftLeft | Operation::ShiftRight) => {
            let wide = bits(operation, left, right, &DataType::Int32)?;
            let cut = |value: i32| value as i16;
            Ok(match wide {
                ColumnarValue::Array(array) => {
                    let cut: PrimitiveArray<Int16Type> = array.as_primitive::<Int32Type>().unary(cut);
                    ColumnarValue::Array(Arc::new(cut))
                }
                ColumnarValue::Scalar(ScalarValue::Int32(value)) => ColumnarValue::Scalar(value.map(cut).into()),
                other => other,
            })
        }
        DataType::Int16 => bits_of!(Int16Type, operation, left, right, kind),
        DataType::Int32 => bits_of!(Int32Type, operation, left, right, kind),
        _ => bits_of!(Int64Type, operation, left, right, kind),
    }
}

/// A side as exact numbers of its own scale.
fn exactly(value: &ColumnarValue) -> Result<(Side<Decimal128Type>, (u8, i8))> {
    let kind = value.data_type();
    let Some((digits, scale)) = exact(&kind) else { return exec_err!("{} is no exact number", name(&kind)) };
    Ok((Side::of(value, &DataType::Decimal128(digits, scale))?, (digits, scale)))
}

/// Arithmetic of exact numbers, some of which may be integers.
pub(super) fn decimals(
    operation: Operation,
    left: &ColumnarValue,
    right: &ColumnarValue,
    (digits, scale): (u8, i8),
) -> Result<ColumnarValue> {
    let kind = DataType::Decimal128(digits, scale);
    let (left, of_left) = exactly(left)?;
    let (right, of_right) = exactly(right)?;
    let cannot_overflow = of_left.0.saturating_add(of_right.0) <= DIGITS_MAX && scale == of_left.1 + of_right.1;
    if let (Operation::Multiply, true, Side::Column(left), Side::Column(right)) =
        (operation, cannot_overflow, &left, &right)
    {
        let product: Decimal128Array = binary(left, right, i128::wrapping_mul)?;
        return Ok(ColumnarValue::Array(Arc::new(product.with_data_type(kind))));
    }
    let too_long = || wrong(TOO_LONG);
    let bounded = |value: Option<i128>| value.filter(|value| fits(*value, digits)).ok_or_else(too_long);
    let to_scale = |value: i128, from: i8| if from == scale { Some(value) } else { rescale(value, from, scale) };
    combine(left, right, &kind, |left, right| match operation {
        Operation::Multiply => {
            let product = multiply((left, of_left.1), (right, of_right.1), scale);
            product.ok_or_else(|| wrong(format!("{TOO_LONG} in a product; round its factors")))
        }
        Operation::Divide | Operation::Rest if right == 0 => Err(wrong(ZERO)),
        Operation::Divide => bounded(divide((left, of_left.1), (right, of_right.1), scale)),
        _ => {
            let left = to_scale(left, of_left.1).ok_or_else(too_long)?;
            let right = to_scale(right, of_right.1).ok_or_else(too_long)?;
            bounded(match operation {
                Operation::Add => left.checked_add(right),
                Operation::Subtract => left.checked_sub(right),
                _ => left.checked_rem(right),
            })
        }
    })
}

const OVERFLOW: &str = "value out of range: overflow";
const UNDERFLOW: &str = "value out of range: underflow";

/// A double, or the error that PostgreSQL has where a result is infinite or nothing and its
/// operands are not.
fn checked(operation: Operation, left: f64, right: f64, value: f64) -> Result<f64, ArrowError> {
    if value.is_infinite() && left.is_finite() && right.is_finite() {
        return Err(wrong(OVERFLOW));
    }
    let is_product = matches!(operation, Operation::Multiply | Operation::Divide);
    if value == 0.0 && is_product && left != 0.0 && (right != 0.0 && right.is_finite()) {
        return Err(wrong(UNDERFLOW));
    }
    Ok(value)
}

fn of_doubles(operation: Operation, left: f64, right: f64) -> Result<f64, ArrowError> {
    let value = match operation {
        Operation::Add => left + right,
        Operation::Subtract => left - right,
        Operation::Multiply => left * right,
        Operation::Divide if right == 0.0 && !left.is_nan() => return Err(wrong(ZERO)),
        Operation::Divide => left / right,
        Operation::Power => return power(left, right),
        _ => return Err(wrong("no such operator of double precision")),
    };
    checked(operation, left, right, value)
}

/// `left ^ right`.
pub(super) fn power(left: f64, right: f64) -> Result<f64, ArrowError> {
    if left == 0.0 && right < 0.0 {
        return Err(wrong("zero raised to a negative power is undefined"));
    }
    if left < 0.0 && left.is_finite() && right.is_finite() && right.fract() != 0.0 {
        return Err(wrong("a negative number raised to a non-integer power yields a complex result"));
    }
    let value = left.powf(right);
    if value == 0.0 && left != 0.0 && left.is_finite() && right.is_finite() {
        return Err(wrong(UNDERFLOW));
    }
    checked(Operation::Power, left, right, value)
}

/// Arithmetic of floating-point numbers; exact ones among the operands become such.
pub(super) fn floats(
    operation: Operation,
    left: &ColumnarValue,
    right: &ColumnarValue,
    kind: &DataType,
) -> Result<ColumnarValue> {
    if *kind == DataType::Float32 {
        let (left, right) = (Side::<Float32Type>::of(left, kind)?, Side::<Float32Type>::of(right, kind)?);
        return combine(left, right, kind, |left, right| {
            let value = match operation {
                Operation::Add => left + right,
                Operation::Subtract => left - right,
                Operation::Multiply => left * right,
                Operation::Divide if right == 0.0 && !left.is_nan() => return Err(wrong(ZERO)),
                _ => left / right,
            };
            checked(operation, f64::from(left), f64::from(right), f64::from(value)).map(|_| value)
        });
    }
    let (left, right) = (doubles(left)?, doubles(right)?);
    let (left, right) = (Side::<Float64Type>::of(&left, kind)?, Side::<Float64Type>::of(&right, kind)?);
    combine(left, right, kind, |left, right| of_doubles(operation, left, right))
}

/// Exact numbers as the nearest doubles.
fn doubles(value: &ColumnarValue) -> Result<ColumnarValue> {
    match value.data_type() {
        DataType::Decimal128(_, scale) => match value {
            ColumnarValue::Array(array) => Ok(ColumnarValue::Array(decimals_to_doubles(array, scale)?)),
            ColumnarValue::Scalar(value) => {
                let one = decimals_to_doubles(&value.to_array()?, scale)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&one, 0)?))
            }
        },
        _ => Ok(value.clone()),
    }
}

/// The nearest double of each exact number.
pub(super) fn decimals_to_doubles(array: &ArrayRef, scale: i8) -> Result<ArrayRef> {
    let exact = array.as_primitive::<Decimal128Type>();
    let doubles: PrimitiveArray<Float64Type> = exact.unary(|value| nearest(value, scale));
    Ok(Arc::new(doubles))
}

/// The double nearest to an exact number.
pub(super) fn nearest(value: i128, scale: i8) -> f64 {
    const EXACT_MAX: u128 = 1 << 53;
    let exponent = i32::from(scale);
    // Both are exact then, so that one rounding is all there is.
    if value.unsigned_abs() <= EXACT_MAX && (0..=22).contains(&exponent) {
        return value as f64 / 10_f64.powi(exponent);
    }
    format!("{value}e{}", -exponent).parse().unwrap_or(f64::NAN)
}
