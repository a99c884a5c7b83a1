//! A cast as a function of its own.

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::{DataType, Field, FieldRef},
    common::{Result, ScalarValue, exec_err, plan_err},
    config::ConfigOptions,
    logical_expr::{
        Cast, ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
        Volatility, expr::ScalarFunction,
    },
};

use super::{
    calendar,
    convert::{Target, convert, is_known, is_plain, rounded},
    decimal::{Number, exact},
    types::{More, canonical, name, timestamptz},
};

/// Digits behind the point of what becomes a `numeric` without a scale, and whose own is not known.
const UNKNOWN_SCALE: i8 = 20;

/// The type of `numeric` without digits or scale, by the type of what becomes one.
pub(super) fn some_numeric(from: &DataType) -> DataType {
    match exact(&canonical(from)) {
        Some((digits, scale)) => DataType::Decimal128(digits, scale),
        None => DataType::Decimal128(38, UNKNOWN_SCALE),
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct CastTo {
    target: Target,
    signature: Signature,
}

impl CastTo {
    fn kind(&self, from: &DataType) -> DataType {
        if self.target.more == More::AnyScale { some_numeric(from) } else { self.target.kind.clone() }
    }
}

impl ScalarUDFImpl for CastTo {
    fn name(&self) -> &str {
        "rollcall_cast"
    }

    fn display_name(&self, args: &[Expr]) -> Result<String> {
        let [value] = args else { return plan_err!("a cast is of one value") };
        Ok(format!("CAST({value} AS {})", name(&self.target.kind)))
    }

    /// Not the name of what is cast: a join may have both among its columns.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        let [value] = args else { return plan_err!("a cast is of one value") };
        Ok(format!("CAST({} AS {})", value.schema_name(), name(&self.target.kind)))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        let [from] = kinds else { return plan_err!("a cast is of one value") };
        Ok(self.kind(from))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let [from] = args.arg_fields else { return plan_err!("a cast is of one value") };
        Ok(Arc::new(Field::new(self.name(), self.kind(from.data_type()), from.is_nullable())))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [value] = args.args.as_slice() else { return exec_err!("a cast is of one value") };
        let zone = calendar::zone(args.config_options.execution.time_zone.as_deref())?;
        let target = Target { kind: args.return_field.data_type().clone(), more: self.target.more };
        Ok(match value {
            ColumnarValue::Array(array) => ColumnarValue::Array(convert(array, &target, &zone)?),
            ColumnarValue::Scalar(one) => {
                let converted = convert(&one.to_array()?, &target, &zone)?;
                ColumnarValue::Scalar(ScalarValue::try_from_array(&converted, 0)?)
            }
        })
    }
}

/// `value`, which is of type `from`, as one of `target`; literals at once.
pub(super) fn cast_to(value: Expr, from: &DataType, mut target: Target, config: &ConfigOptions) -> Result<Expr> {
    if let Some(literal) = literal(&value, from, &target, config)? {
        return Ok(literal);
    }
    let zone = config.execution.time_zone.as_deref();
    if target.more == More::AnyScale && exact(&canonical(from)).is_some() {
        target = Target { kind: some_numeric(from), more: More::Nothing };
    }
    if is_plain(from, &target, calendar::is_utc(zone)) {
        return Ok(if *from == target.kind { value } else { Expr::Cast(Cast::new(Box::new(value), target.kind)) });
    }
    if !is_known(from, &target.kind) {
        return plan_err!("cannot cast type {} to {}", name(from), name(&target.kind));
    }
    // A day by the session's clock, in the form in which filters on it are understood.
    if let (DataType::Timestamp(unit, Some(_)), DataType::Date32, Some(zone)) = (from, &target.kind, zone) {
        let local = Cast::new(Box::new(value), DataType::Timestamp(*unit, Some(zone.into())));
        return Ok(Expr::Cast(Cast::new(Box::new(Expr::Cast(local)), DataType::Date32)));
    }
    let signature = Signature::any(1, Volatility::Stable);
    let function = ScalarUDF::new_from_impl(CastTo { target, signature });
    Ok(Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(function), vec![value])))
}

/// The cast of a literal, with as many digits as it has; none if it is none, or waits for the rows.
fn literal(value: &Expr, from: &DataType, target: &Target, config: &ConfigOptions) -> Result<Option<Expr>> {
    let Expr::Literal(value, metadata) = value else { return Ok(None) };
    if value.is_null() || matches!(target.kind, DataType::List(_)) {
        return Ok(None);
    }
    // An integer in a question is an int4 where it can be one, also where it is kept as a wider
    // one.
    let value = match value {
        ScalarValue::Int64(Some(long)) if target.kind == DataType::Boolean => match i32::try_from(*long) {
            Ok(short) => &ScalarValue::Int32(Some(short)),
            Err(_) => value,
        },
        other => other,
    };
    if !is_known(&value.data_type(), &target.kind) {
        return plan_err!("cannot cast type {} to {}", name(from), name(&target.kind));
    }
    let mut target = target.clone();
    if target.more == More::AnyScale {
        let number = match value {
            ScalarValue::Float64(Some(float)) => Some(Number::parse(&without_zeros(&rounded(*float, 15)))?),
            ScalarValue::Float32(Some(float)) => Some(Number::parse(&without_zeros(&rounded(f64::from(*float), 6)))?),
            _ => match value.try_as_str() {
                Some(Some(text)) => Some(Number::parse(text)?),
                _ => Number::of(value),
            },
        };
        if let Some(number) = number {
            target.kind = number.literal().data_type();
        }
    }
    let zone = calendar::zone(config.execution.time_zone.as_deref())?;
    let converted = convert(&value.to_array()?, &target, &zone)?;
    Ok(Some(Expr::Literal(ScalarValue::try_from_array(&converted, 0)?, metadata.clone())))
}

/// `1.50000e2` without the zeros that say nothing.
fn without_zeros(text: &str) -> String {
    let Some((mantissa, exponent)) = text.split_once('e') else { return text.to_owned() };
    let mantissa = if mantissa.contains('.') { mantissa.trim_end_matches('0').trim_end_matches('.') } else { mantissa };
    format!("{mantissa}e{exponent}")
}

/// Whether a literal's meaning is left open: PostgreSQL's `unknown`.
pub(super) fn is_open(value: &Expr) -> bool {
    match value {
        Expr::Literal(literal, _) => matches!(literal, ScalarValue::Utf8(_) | ScalarValue::Null),
        Expr::Placeholder(placeholder) => placeholder.field.is_none(),
        _ => false,
    }
}

/// The type of an open literal beside a known one.
pub(super) fn closed(value: Expr, kind: &DataType, config: &ConfigOptions) -> Result<Expr> {
    let kind = match canonical(kind) {
        DataType::Timestamp(_, Some(_)) => timestamptz(),
        other => other,
    };
    match value {
        Expr::Placeholder(mut placeholder) => {
            placeholder.field = Some(Arc::new(Field::new("", kind, true)));
            Ok(Expr::Placeholder(placeholder))
        }
        Expr::Literal(ScalarValue::Null, metadata) => Ok(Expr::Literal(ScalarValue::try_new_null(&kind)?, metadata)),
        Expr::Literal(ScalarValue::Utf8(None), metadata) => {
            Ok(Expr::Literal(ScalarValue::try_new_null(&kind)?, metadata))
        }
        value => {
            let more = if exact(&kind).is_some() && matches!(kind, DataType::Decimal128(..)) {
                More::AnyScale
            } else {
                More::Nothing
            };
            cast_to(value, &DataType::Utf8, Target { kind, more }, config)
        }
    }
}
