//! Functions of numbers. Exact numbers stay exact; what PostgreSQL works out of them to digits that
//! depend on their size is refused, and a double is to be asked for.

use datafusion::{
    arrow::datatypes::DataType,
    common::{Result, exec_err, plan_err},
};

use super::{
    function::{Call, Form, Given, form},
    value::{
        Decimal,
        Kind::{Float8, Int4, Int8, Numeric},
        Value,
    },
};

/// How many digits an exact argument has behind the point.
fn scale(given: &Given<'_>, place: usize) -> i8 {
    match given.kinds.get(place) {
        Some(
            DataType::Decimal32(_, scale)
            | DataType::Decimal64(_, scale)
            | DataType::Decimal128(_, scale)
            | DataType::Decimal256(_, scale),
        ) => (*scale).max(0),
        _ => 0,
    }
}

/// As many digits as the first two arguments have at most.
fn widest(given: &Given<'_>) -> Result<DataType> {
    Ok(DataType::Decimal128(38, scale(given, 0).max(scale(given, 1))))
}

fn whole(_: &Given<'_>) -> Result<DataType> {
    Ok(DataType::Decimal128(38, 0))
}

/// As many digits as are asked for, where that is written out.
fn asked(given: &Given<'_>) -> Result<DataType> {
    let digits = given.int(1).map_or(scale(given, 0), |digits| digits.clamp(0, 30) as i8);
    Ok(DataType::Decimal128(38, digits))
}

/// The form of a function for exact numbers that is not available.
fn refused(count: usize) -> Form {
    form(&vec![Numeric; count], Float8, |_, _| Ok(Value::Null))
        .giving(|_| plan_err!("this function of numeric values is not available here; cast them to double precision"))
}

fn of_float(argument: f64, result: f64) -> Result<Value<'static>> {
    if result.is_nan() && !argument.is_nan() {
        return exec_err!("input is out of range");
    }
    Ok(Value::Float(result))
}

macro_rules! doubles {
    ($($name:literal: $function:expr),+ $(,)?) => {
        /// Functions of one double, by name.
        pub(super) fn doubles() -> Vec<(&'static str, Vec<Form>)> {
            vec![$(($name, vec![form(&[Float8], Float8, |_, arguments| {
                let argument = arguments[0].float()?;
                let function: fn(f64) -> f64 = $function;
                of_float(argument, function(argument))
            })])),+]
        }
    };
}

doubles! {
    "acos": f64::acos, "acosh": f64::acosh, "asin": f64::asin, "asinh": f64::asinh, "atan": f64::atan,
    "atanh": f64::atanh, "cbrt": f64::cbrt, "cos": f64::cos, "cosh": f64::cosh, "cot": |x| 1.0 / x.tan(),
    "degrees": |x| x / (std::f64::consts::PI / 180.0), "radians": |x| x * (std::f64::consts::PI / 180.0),
    "sin": f64::sin, "sinh": f64::sinh, "tan": f64::tan, "tanh": f64::tanh,
}

fn logarithm<'a>(argument: f64, of: fn(f64) -> f64) -> Result<Value<'a>> {
    if argument == 0.0 {
        return exec_err!("cannot take logarithm of zero");
    }
    if argument < 0.0 {
        return exec_err!("cannot take logarithm of a negative number");
    }
    Ok(Value::Float(of(argument)))
}

/// Functions of doubles that some values are no arguments of.
pub(super) fn bounded() -> Vec<(&'static str, Vec<Form>)> {
    let log10 =
        || vec![form(&[Float8], Float8, |_, arguments| logarithm(arguments[0].float()?, f64::log10)), refused(1)];
    let mut log = log10();
    log.push(refused(2));
    let power = || vec![form(&[Float8, Float8], Float8, power), refused(2)];
    vec![
        ("ln", vec![form(&[Float8], Float8, |_, arguments| logarithm(arguments[0].float()?, f64::ln)), refused(1)]),
        ("log", log),
        ("log10", log10()),
        (
            "exp",
            vec![
                form(&[Float8], Float8, |call, arguments| {
                    let argument = arguments[0].float()?;
                    let result = argument.exp();
                    if result == 0.0 && argument.is_finite() {
                        return exec_err!("value out of range: underflow");
                    }
                    if result.is_infinite() && argument.is_finite() {
                        return exec_err!("value out of range: overflow in {}", call.name);
                    }
                    Ok(Value::Float(result))
                }),
                refused(1),
            ],
        ),
        (
            "sqrt",
            vec![
                form(&[Float8], Float8, |_, arguments| match arguments[0].float()? {
                    negative if negative < 0.0 => exec_err!("cannot take square root of a negative number"),
                    number => Ok(Value::Float(number.sqrt())),
                }),
                refused(1),
            ],
        ),
        ("power", power()),
        ("pow", power()),
        (
            "atan2",
            vec![form(&[Float8, Float8], Float8, |_, arguments| {
                Ok(Value::Float(arguments[0].float()?.atan2(arguments[1].float()?)))
            })],
        ),
        ("pi", vec![form(&[], Float8, |_, _| Ok(Value::Float(std::f64::consts::PI)))]),
    ]
}

fn power<'a>(call: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let (base, exponent) = (arguments[0].float()?, arguments[1].float()?);
    if base == 0.0 && exponent < 0.0 {
        return exec_err!("zero raised to a negative power is undefined");
    }
    if base < 0.0 && exponent.is_finite() && exponent.fract() != 0.0 {
        return exec_err!("a negative number raised to a non-integer power yields a complex result");
    }
    let result = base.powf(exponent);
    if result.is_infinite() && base.is_finite() && exponent.is_finite() {
        return exec_err!("value out of range: overflow in {}", call.name);
    }
    if result == 0.0 && base != 0.0 && base.is_finite() && exponent.is_finite() {
        return exec_err!("value out of range: underflow");
    }
    Ok(Value::Float(result))
}

/// Rounding, dividing and the like, which exact numbers stay exact in.
pub(super) fn exact() -> Vec<(&'static str, Vec<Form>)> {
    let both = |of_exact, of_double| {
        vec![form(&[Numeric], Numeric, of_exact).giving(whole), form(&[Float8], Float8, of_double)]
    };
    let up = || {
        both(
            |_, arguments| {
                let number = arguments[0].numeric()?;
                let cut = number.truncated(0)?;
                let more = number.unscaled > 0 && cut.rescaled(number.scale)? != number;
                Ok(Value::Numeric(Decimal::new(cut.unscaled + i128::from(more), 0)))
            },
            |_, arguments| Ok(Value::Float(arguments[0].float()?.ceil())),
        )
    };
    let down = both(
        |_, arguments| {
            let number = arguments[0].numeric()?;
            let cut = number.truncated(0)?;
            let less = number.unscaled < 0 && cut.rescaled(number.scale)? != number;
            Ok(Value::Numeric(Decimal::new(cut.unscaled - i128::from(less), 0)))
        },
        |_, arguments| Ok(Value::Float(arguments[0].float()?.floor())),
    );
    let mut round = both(
        |_, arguments| Ok(Value::Numeric(arguments[0].numeric()?.rescaled(0)?)),
        |_, arguments| Ok(Value::Float(arguments[0].float()?.round_ties_even())),
    );
    round.push(form(&[Numeric, Int4], Numeric, |_, arguments| to_digits(arguments, Decimal::rescaled)).giving(asked));
    let mut trunc = both(
        |_, arguments| Ok(Value::Numeric(arguments[0].numeric()?.truncated(0)?)),
        |_, arguments| Ok(Value::Float(arguments[0].float()?.trunc())),
    );
    trunc.push(form(&[Numeric, Int4], Numeric, |_, arguments| to_digits(arguments, Decimal::truncated)).giving(asked));
    let sign = both(
        |_, arguments| Ok(Value::Numeric(Decimal::new(arguments[0].numeric()?.unscaled.signum(), 0))),
        |_, arguments| {
            let number = arguments[0].float()?;
            Ok(Value::Float(if number == 0.0 || number.is_nan() { number } else { number.signum() }))
        },
    );
    vec![
        ("ceil", up()),
        ("ceiling", up()),
        ("floor", down),
        ("round", round),
        ("trunc", trunc),
        ("sign", sign),
        (
            "mod",
            vec![
                form(&[Int4, Int4], Int4, int_mod),
                form(&[Int8, Int8], Int8, int_mod),
                form(&[Numeric, Numeric], Numeric, numeric_mod).giving(widest),
            ],
        ),
        ("div", vec![form(&[Numeric, Numeric], Numeric, div).giving(whole)]),
        ("factorial", vec![form(&[Int8], Numeric, factorial).giving(whole)]),
        ("width_bucket", vec![form(&[Float8, Float8, Float8, Int4], Int4, width_bucket)]),
    ]
}

/// Rounded or cut off to so many digits, which may be fewer than none.
fn to_digits<'a>(arguments: &[Value<'a>], to: fn(Decimal, u32) -> Result<Decimal>) -> Result<Value<'a>> {
    let (number, digits) = (arguments[0].numeric()?, arguments[1].int()?);
    if digits >= 0 {
        return Ok(Value::Numeric(to(number, u32::try_from(digits.min(30)).unwrap_or(30))?));
    }
    let places = u32::try_from(digits.unsigned_abs().min(60)).unwrap_or(60);
    // The number of units of ten, of a hundred, …
    let units = to(Decimal::new(number.unscaled, number.scale + places), 0)?;
    if units.unscaled == 0 {
        return Ok(Value::Numeric(units));
    }
    Ok(Value::Numeric(Decimal::new(units.rescaled(places)?.unscaled, 0)))
}

fn int_mod<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    match arguments[1].int()? {
        0 => exec_err!("division by zero"),
        by => Ok(Value::Int(arguments[0].int()?.wrapping_rem(by))),
    }
}

/// Both with the same digits behind the point.
fn aligned(arguments: &[Value<'_>]) -> Result<(Decimal, Decimal)> {
    let (one, other) = (arguments[0].numeric()?, arguments[1].numeric()?);
    let scale = one.scale.max(other.scale);
    if other.unscaled == 0 {
        return exec_err!("division by zero");
    }
    Ok((one.rescaled(scale)?, other.rescaled(scale)?))
}

fn numeric_mod<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let (number, by) = aligned(arguments)?;
    Ok(Value::Numeric(Decimal::new(number.unscaled % by.unscaled, number.scale)))
}

fn div<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let (number, by) = aligned(arguments)?;
    Ok(Value::Numeric(Decimal::new(number.unscaled / by.unscaled, 0)))
}

fn factorial<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let number = arguments[0].int()?;
    if number < 0 {
        return exec_err!("factorial of a negative number is undefined");
    }
    if number > 33 {
        return exec_err!("value overflows numeric format");
    }
    Ok(Value::Numeric(Decimal::new((1..=i128::from(number)).product(), 0)))
}

fn width_bucket<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let (number, low, high) = (arguments[0].float()?, arguments[1].float()?, arguments[2].float()?);
    let count = arguments[3].int()?;
    if count <= 0 {
        return exec_err!("count must be greater than zero");
    }
    if !low.is_finite() || !high.is_finite() || number.is_nan() {
        return exec_err!("operand, lower bound, and upper bound cannot be NaN");
    }
    let (before, behind, part) = if low < high {
        (number < low, number >= high, (number - low) / (high - low))
    } else if low > high {
        (number > low, number <= high, (low - number) / (low - high))
    } else {
        return exec_err!("lower bound cannot equal upper bound");
    };
    Ok(Value::Int(match (before, behind) {
        (true, _) => 0,
        (_, true) => count + 1,
        _ => (part * count as f64) as i64 + 1,
    }))
}
