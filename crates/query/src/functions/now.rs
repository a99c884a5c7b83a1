//! The time of a question: the same wherever it is asked for.

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::{DataType, Field, FieldRef},
    common::{Result, ScalarValue, exec_err},
    logical_expr::{
        ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature,
        Volatility,
        simplify::{ExprSimplifyResult, SimplifyContext},
    },
};

use super::{
    calendar::DAY,
    columns::column,
    value::{Kind, Value},
    zone::Zone,
};

/// `now()` and its likes, by what they give.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Now {
    name: &'static str,
    kind: NowKind,
    signature: Signature,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum NowKind {
    Moment,
    Local,
    LocalTime,
    Today,
}

impl Now {
    pub(super) fn udf(name: &'static str, kind: NowKind) -> ScalarUDF {
        let forms = vec![TypeSignature::Nullary, TypeSignature::Any(1)];
        let signature = Signature::one_of(forms, Volatility::Stable);
        ScalarUDF::new_from_impl(Self { name, kind, signature })
    }

    fn kind(&self) -> Kind {
        match self.kind {
            NowKind::Moment => Kind::Timestamptz,
            NowKind::Local => Kind::Timestamp,
            NowKind::LocalTime => Kind::Time,
            NowKind::Today => Kind::Date,
        }
    }

    fn value(&self, utc: i64, digits: u32, zone: &Zone) -> Result<ScalarValue> {
        let size = 10i64.pow(6 - digits.min(6));
        let rounded = |micros: i64| (micros + size / 2).div_euclid(size) * size;
        let local = zone.to_local(utc);
        let value = match self.kind {
            NowKind::Moment => Value::Timestamptz(rounded(utc)),
            NowKind::Local => Value::Timestamp(rounded(local)),
            NowKind::LocalTime => Value::Time(rounded(local.rem_euclid(DAY))),
            NowKind::Today => Value::Date(local.div_euclid(DAY) as i32),
        };
        ScalarValue::try_from_array(&column(&[value], &self.kind().data_type())?, 0)
    }
}

impl ScalarUDFImpl for Now {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.kind().data_type())
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(self.name, self.kind().data_type(), false)))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        exec_err!("{} is not known before the question is planned", self.name)
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let digits = match args.first() {
            None => 6,
            Some(Expr::Literal(ScalarValue::Int64(Some(digits)), _)) => u32::try_from(*digits).unwrap_or(6),
            Some(Expr::Literal(ScalarValue::Int32(Some(digits)), _)) => u32::try_from(*digits).unwrap_or(6),
            Some(_) => return exec_err!("the precision of {} must be a number", self.name),
        };
        let Some(now) = info.query_execution_start_time() else { return Ok(ExprSimplifyResult::Original(args)) };
        let zone = Zone::of_session(info.config_options().execution.time_zone.as_deref())?;
        let value = self.value(now.timestamp_micros(), digits, &zone)?;
        Ok(ExprSimplifyResult::Simplified(Expr::Literal(value, None)))
    }
}

/// `clock_timestamp()`: the time at which it is evaluated.
pub(super) fn clock<'a>(_: &super::function::Call<'_>, _: &[Value<'a>]) -> Result<Value<'a>> {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Ok(Value::Timestamptz(i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX)))
}
