//! Arithmetic that means what PostgreSQL's does: exact, and an error where there is no result.

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::{DataType, Field, FieldRef},
    common::{Result, ScalarValue, exec_err, plan_err},
    logical_expr::{
        ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
        expr::ScalarFunction,
    },
};

use super::{
    decimal::{exact, product_type, quotient_type, rest_type, sum_type},
    moments,
    numbers::{decimals, floats, integers},
    types::{INTERVAL, TIME, TIMESTAMP, canonical, name, timestamptz},
};

/// An operator on two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
    Rest,
    And,
    Or,
    Xor,
    ShiftLeft,
    ShiftRight,
    Power,
}

impl Operation {
    /// As it is written.
    pub(super) fn sign(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Rest => "%",
            Self::And => "&",
            Self::Or => "|",
            Self::Xor => "#",
            Self::ShiftLeft => "<<",
            Self::ShiftRight => ">>",
            Self::Power => "^",
        }
    }

    fn of_bits(self) -> bool {
        matches!(self, Self::And | Self::Or | Self::Xor | Self::ShiftLeft | Self::ShiftRight)
    }

    /// The type of the result, or PostgreSQL's error.
    pub(super) fn result(self, left: &DataType, right: &DataType) -> Result<DataType> {
        let (left, right) = (canonical(left), canonical(right));
        // A null has the type of what it meets.
        let (left, right) = match (left, right) {
            (DataType::Null, DataType::Null) => return Ok(DataType::Null),
            (DataType::Null, other) => (self.beside(&other, true), other),
            (other, DataType::Null) => (other.clone(), self.beside(&other, false)),
            both => both,
        };
        let result = if let (Some(of_left), Some(of_right)) = (rank(&left), rank(&right)) {
            self.of_numbers((&left, of_left), (&right, of_right))
        } else {
            self.of_moments(&left, &right)
        };
        match result {
            Some(kind) => Ok(kind),
            None => plan_err!("operator does not exist: {} {} {}", name(&left), self.sign(), name(&right)),
        }
    }

    /// What a value of unknown type is taken for beside a known one.
    pub(super) fn beside(self, known: &DataType, is_left: bool) -> DataType {
        match (canonical(known), self) {
            (DataType::Timestamp(..) | TIME, Self::Add) => INTERVAL,
            (INTERVAL, Self::Multiply | Self::Divide) if !is_left => DataType::Float64,
            (DataType::Date32, Self::Add) => DataType::Int32,
            (_, Self::ShiftLeft | Self::ShiftRight) if !is_left => DataType::Int32,
            (kind, _) => kind,
        }
    }

    fn of_numbers(self, left: (&DataType, u8), right: (&DataType, u8)) -> Option<DataType> {
        let are_integers = left.1 <= INTEGER && right.1 <= INTEGER;
        match self {
            Self::ShiftLeft | Self::ShiftRight => {
                return (are_integers && right.1 < INTEGER).then(|| left.0.clone());
            }
            Self::Power => {
                // An exact power is of any length: only that of doubles is known here.
                let are_plain = left.1 != EXACT && right.1 != EXACT;
                let has_double = left.1 > EXACT || right.1 > EXACT;
                return (are_plain || has_double).then_some(DataType::Float64);
            }
            _ if self.of_bits() && !are_integers => return None,
            _ => {}
        }
        if are_integers {
            return Some(if left.1 >= right.1 { left.0.clone() } else { right.0.clone() });
        }
        if left.1 > EXACT || right.1 > EXACT {
            let both_short = left.0 == right.0 && *left.0 == DataType::Float32;
            let kind = if both_short { DataType::Float32 } else { DataType::Float64 };
            return (self != Self::Rest).then_some(kind);
        }
        let (left, right) = (exact(left.0)?, exact(right.0)?);
        let (digits, scale) = match self {
            Self::Add | Self::Subtract => sum_type(left, right),
            Self::Multiply => product_type(left, right),
            Self::Divide => quotient_type(left, right),
            _ => rest_type(left, right),
        };
        Some(DataType::Decimal128(digits, scale))
    }

    fn of_moments(self, left: &DataType, right: &DataType) -> Option<DataType> {
        use DataType::{Date32, Int16, Int32, Timestamp};
        let is_number = |kind: &DataType| rank(kind).is_some();
        Some(match (left, self, right) {
            (Date32, Self::Add | Self::Subtract, Int16 | Int32) | (Int16 | Int32, Self::Add, Date32) => Date32,
            (Date32, Self::Subtract, Date32) => Int32,
            (Date32, Self::Add, &TIME) | (&TIME, Self::Add, Date32) => TIMESTAMP,
            (Date32, Self::Add | Self::Subtract, &INTERVAL) | (&INTERVAL, Self::Add, Date32) => TIMESTAMP,
            (Timestamp(_, None), Self::Add | Self::Subtract, &INTERVAL)
            | (&INTERVAL, Self::Add, Timestamp(_, None)) => TIMESTAMP,
            (Timestamp(_, Some(_)), Self::Add | Self::Subtract, &INTERVAL)
            | (&INTERVAL, Self::Add, Timestamp(_, Some(_))) => timestamptz(),
            (Timestamp(..) | Date32, Self::Subtract, Timestamp(..)) | (Timestamp(..), Self::Subtract, Date32) => {
                INTERVAL
            }
            (&TIME, Self::Subtract, &TIME) => INTERVAL,
            (&TIME, Self::Add | Self::Subtract, &INTERVAL) | (&INTERVAL, Self::Add, &TIME) => TIME,
            (&INTERVAL, Self::Add | Self::Subtract, &INTERVAL) => INTERVAL,
            (&INTERVAL, Self::Multiply | Self::Divide, number) if is_number(number) => INTERVAL,
            (number, Self::Multiply, &INTERVAL) if is_number(number) => INTERVAL,
            _ => return None,
        })
    }
}

const INTEGER: u8 = 2;
const EXACT: u8 = 3;

/// The order in which one type of numbers gives way to another.
fn rank(kind: &DataType) -> Option<u8> {
    Some(match kind {
        DataType::Int16 => 0,
        DataType::Int32 => 1,
        DataType::Int64 => INTEGER,
        DataType::Decimal128(_, 0..) => EXACT,
        DataType::Float32 => 4,
        DataType::Float64 => 5,
        _ => return None,
    })
}

/// An operator as a function.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Arithmetic {
    operation: Operation,
    signature: Signature,
}

/// `left operation right`.
pub(super) fn apply(operation: Operation, left: Expr, right: Expr) -> Expr {
    // Two literals are one result, with as many digits as PostgreSQL gives it.
    let signature = Signature::any(2, Volatility::Stable);
    let function = ScalarUDF::new_from_impl(Arithmetic { operation, signature });
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(function), vec![left, right]))
}

impl ScalarUDFImpl for Arithmetic {
    fn name(&self) -> &str {
        match self.operation {
            Operation::Add => "rollcall_add",
            Operation::Subtract => "rollcall_subtract",
            Operation::Multiply => "rollcall_multiply",
            Operation::Divide => "rollcall_divide",
            Operation::Rest => "rollcall_rest",
            Operation::And => "rollcall_bit_and",
            Operation::Or => "rollcall_bit_or",
            Operation::Xor => "rollcall_bit_xor",
            Operation::ShiftLeft => "rollcall_shift_left",
            Operation::ShiftRight => "rollcall_shift_right",
            Operation::Power => "rollcall_power",
        }
    }

    fn display_name(&self, args: &[Expr]) -> Result<String> {
        let [left, right] = args else { return plan_err!("an operator has two sides") };
        Ok(format!("({left} {} {right})", self.operation.sign()))
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        let [left, right] = args else { return plan_err!("an operator has two sides") };
        Ok(format!("({} {} {})", left.schema_name(), self.operation.sign(), right.schema_name()))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        let [left, right] = kinds else { return plan_err!("an operator has two sides") };
        self.operation.result(left, right)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let kinds: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        Ok(Arc::new(Field::new(self.name(), self.return_type(&kinds)?, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let kind = args.return_field.data_type();
        let [left, right] = args.args.as_slice() else { return exec_err!("an operator has two sides") };
        let is_null = |value: &ColumnarValue| matches!(value, ColumnarValue::Scalar(value) if value.is_null());
        if is_null(left) || is_null(right) {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_new_null(kind)?));
        }
        let of_moments = [left, right].iter().any(|side| rank(&canonical(&side.data_type())).is_none());
        match kind {
            _ if of_moments => {
                let zone = args.config_options.execution.time_zone.as_deref();
                moments::evaluate(self.operation, left, right, kind, zone, args.number_rows)
            }
            DataType::Int16 | DataType::Int32 | DataType::Int64 => integers(self.operation, left, right, kind),
            DataType::Decimal128(digits, scale) => decimals(self.operation, left, right, (*digits, *scale)),
            DataType::Float32 | DataType::Float64 => floats(self.operation, left, right, kind),
            other => exec_err!("no arithmetic gives {other}"),
        }
    }
}
