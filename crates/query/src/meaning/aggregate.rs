//! `sum`, `avg`, variances and standard deviations with PostgreSQL's types.

use std::{collections::HashSet, mem::size_of_val, sync::Arc};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray},
        datatypes::{DataType, Field, FieldRef},
    },
    common::{Result, ScalarValue, exec_err, plan_err, utils::SingleRowListArrayBuilder},
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, Signature, Volatility,
        function::{AccumulatorArgs, StateFieldsArgs},
        utils::format_state_name,
    },
};

use super::{
    decimal::{exact, quotient_type},
    spreads::{ExactSpread, FloatSpread, SPREAD_SCALE, Spread},
    sums::{ExactSum, FloatSum, IntervalSum},
    totals::{Kept, Many, One},
    types::{INTERVAL, canonical, name},
};

/// One of the aggregates.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Aggregate {
    name: &'static str,
    of: Of,
    signature: Signature,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Of {
    Sum,
    Spread(Spread),
}

/// All of them.
pub(super) fn functions() -> Vec<AggregateUDF> {
    let spread = |name, spread| (name, Of::Spread(spread));
    let all = [
        ("sum", Of::Sum),
        spread("avg", Spread::Average),
        spread("variance", Spread::Variance { of_sample: true }),
        spread("var_samp", Spread::Variance { of_sample: true }),
        spread("var_pop", Spread::Variance { of_sample: false }),
        spread("stddev", Spread::Deviation { of_sample: true }),
        spread("stddev_samp", Spread::Deviation { of_sample: true }),
        spread("stddev_pop", Spread::Deviation { of_sample: false }),
    ];
    let one = |(name, of)| {
        let signature = Signature::user_defined(Volatility::Immutable);
        AggregateUDF::new_from_impl(Aggregate { name, of, signature })
    };
    all.map(one).into()
}

/// How values of a type are added up.
enum How {
    Exact(ExactSum),
    Float(FloatSum),
    Interval,
    FloatSpread(FloatSpread),
    ExactSpread(ExactSpread),
}

impl Aggregate {
    /// The type in which values are taken, or PostgreSQL's error.
    fn taken(&self, kind: &DataType) -> Result<DataType> {
        let kind = match canonical(kind) {
            DataType::Null => DataType::Int64,
            other => other,
        };
        let is_known = exact(&kind).is_some()
            || matches!(kind, DataType::Float32 | DataType::Float64)
            || (kind == INTERVAL && self.of == Of::Sum);
        if is_known { Ok(kind) } else { plan_err!("function {}({}) does not exist", self.name, name(&kind)) }
    }

    fn result(&self, kind: &DataType) -> Result<DataType> {
        Ok(match (self.of, kind) {
            (Of::Sum, DataType::Int16 | DataType::Int32) => DataType::Int64,
            (Of::Sum, DataType::Int64) => DataType::Decimal128(38, 0),
            (Of::Sum, DataType::Decimal128(_, scale)) => DataType::Decimal128(38, *scale),
            (Of::Sum, other) => other.clone(),
            (Of::Spread(_), DataType::Float32 | DataType::Float64) => DataType::Float64,
            (Of::Spread(Spread::Average), other) => match exact(other) {
                Some(of_values) => {
                    let (digits, scale) = quotient_type(of_values, (1, 0));
                    DataType::Decimal128(digits, scale)
                }
                None => return exec_err!("no average of {}", name(other)),
            },
            (Of::Spread(_), _) => DataType::Decimal128(38, SPREAD_SCALE),
        })
    }

    fn how(&self, kind: &DataType) -> Result<How> {
        let scale = exact(kind).map(|(_, scale)| scale);
        Ok(match (self.of, scale, kind) {
            (Of::Sum, Some(scale), _) => How::Exact(ExactSum { scale, kind: self.result(kind)?, is_average: false }),
            (Of::Spread(Spread::Average), Some(scale), _) => {
                How::Exact(ExactSum { scale, kind: self.result(kind)?, is_average: true })
            }
            (Of::Spread(spread), Some(scale), _) => How::ExactSpread(ExactSpread { spread, scale }),
            (Of::Sum, None, DataType::Float32) => How::Float(FloatSum { is_short: true }),
            (Of::Sum, None, DataType::Float64) => How::Float(FloatSum { is_short: false }),
            (Of::Sum, None, &INTERVAL) => How::Interval,
            (Of::Spread(spread), None, DataType::Float32 | DataType::Float64) => How::FloatSpread(FloatSpread(spread)),
            (_, None, other) => return exec_err!("function {}({}) does not exist", self.name, name(other)),
        })
    }
}

fn value_kind<'a>(args: &'a AccumulatorArgs<'_>) -> Result<&'a DataType> {
    match args.expr_fields {
        [field] => Ok(field.data_type()),
        _ => exec_err!("the aggregate is of one value"),
    }
}

impl AggregateUDFImpl for Aggregate {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        match kinds {
            [kind] => Ok(vec![self.taken(kind)?]),
            _ => plan_err!("function {} takes one value", self.name),
        }
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        match kinds {
            [kind] => self.result(&self.taken(kind)?),
            _ => plan_err!("function {} takes one value", self.name),
        }
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let kind = value_kind(&args)?;
        let how = self.how(kind)?;
        if args.is_distinct {
            let inner = one(how);
            return Ok(Box::new(Distinct { kind: kind.clone(), values: HashSet::new(), inner }));
        }
        Ok(one(how))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            return exec_err!("DISTINCT is not implemented for window functions");
        }
        Ok(match self.how(value_kind(&args)?)? {
            How::Float(sum) => Box::new(Kept::new(sum)),
            How::FloatSpread(spread) => Box::new(Kept::new(spread)),
            other => one(other),
        })
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let [input] = args.input_fields else { return exec_err!("the aggregate is of one value") };
        let kind = input.data_type();
        let field = |what: &str, kind: DataType| Arc::new(Field::new(format_state_name(args.name, what), kind, true));
        if args.is_distinct {
            let list = DataType::List(Arc::new(Field::new_list_field(kind.clone(), true)));
            return Ok(vec![field("values", list)]);
        }
        let states = match self.how(kind)? {
            How::Exact(sum) => vec![DataType::Decimal128(38, sum.scale)],
            How::Float(_) => vec![DataType::Float64],
            How::Interval => vec![INTERVAL],
            How::FloatSpread(_) => vec![DataType::Float64, DataType::Float64],
            How::ExactSpread(_) => vec![DataType::Decimal128(38, 0), DataType::Decimal256(76, 0)],
        };
        let mut fields: Vec<FieldRef> =
            states.into_iter().enumerate().map(|(place, kind)| field(&format!("state{place}"), kind)).collect();
        fields.push(field("count", DataType::Int64));
        Ok(fields)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        !args.is_distinct
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(match self.how(value_kind(&args)?)? {
            How::Exact(sum) => Box::new(Many::new(sum)),
            How::Float(sum) => Box::new(Many::new(sum)),
            How::Interval => Box::new(Many::new(IntervalSum)),
            How::FloatSpread(spread) => Box::new(Many::new(spread)),
            How::ExactSpread(spread) => Box::new(Many::new(spread)),
        })
    }
}

fn one(how: How) -> Box<dyn Accumulator> {
    match how {
        How::Exact(sum) => Box::new(One::new(sum)),
        How::Float(sum) => Box::new(One::new(sum)),
        How::Interval => Box::new(One::new(IntervalSum)),
        How::FloatSpread(spread) => Box::new(One::new(spread)),
        How::ExactSpread(spread) => Box::new(One::new(spread)),
    }
}

/// Each value once.
#[derive(Debug)]
struct Distinct {
    kind: DataType,
    values: HashSet<ScalarValue>,
    inner: Box<dyn Accumulator>,
}

impl Distinct {
    fn take(&mut self, values: &ArrayRef) -> Result<()> {
        for row in 0..values.len() {
            if values.is_valid(row) {
                self.values.insert(ScalarValue::try_from_array(values, row)?);
            }
        }
        Ok(())
    }

    /// The values in their order, so that a sum of floating-point numbers is the same each time.
    fn sorted(&self) -> Result<ArrayRef> {
        let mut values: Vec<&ScalarValue> = self.values.iter().collect();
        values.sort_by(|one, other| one.partial_cmp(other).unwrap_or(std::cmp::Ordering::Equal));
        if values.is_empty() {
            return Ok(datafusion::arrow::array::new_empty_array(&self.kind));
        }
        ScalarValue::iter_to_array(values.into_iter().cloned())
    }
}

impl Accumulator for Distinct {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.take(&values[0])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let values = self.sorted()?;
        self.inner.update_batch(&[values])?;
        self.inner.evaluate()
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.iter().map(ScalarValue::size).sum::<usize>() + self.inner.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values = self.sorted()?;
        Ok(vec![SingleRowListArrayBuilder::new(values).build_list_scalar()])
    }

    fn merge_batch(&mut self, columns: &[ArrayRef]) -> Result<()> {
        for values in columns[0].as_list::<i32>().iter().flatten() {
            self.take(&values)?;
        }
        Ok(())
    }
}
