//! Aggregates over values in order: `mode` and `percentile_disc`, which give one of the values
//! themselves, and `percentile_cont`, which gives what lies between two of them.

use std::{mem::size_of_val, sync::Arc};

use datafusion::arrow::record_batch::RecordBatch;
use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray},
        datatypes::{DataType, Field, FieldRef},
    },
    common::{Result, ScalarValue, exec_err, plan_err, utils::SingleRowListArrayBuilder},
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, Signature, Volatility,
        function::{AccumulatorArgs, StateFieldsArgs},
        utils::format_state_name,
    },
};

/// Which value is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Wanted {
    /// The most frequent one; of several, the first in order.
    Mode,
    /// The first one that at least this part of all is not behind.
    Percentile,
    /// What lies at this part of the way from the first to the last.
    Between,
}

/// One of these aggregates.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Ordered {
    name: &'static str,
    wanted: Wanted,
    signature: Signature,
}

pub(super) fn aggregates() -> Vec<AggregateUDF> {
    let of = |name, wanted, arguments| {
        let signature = Signature::any(arguments, Volatility::Immutable);
        AggregateUDF::new_from_impl(Ordered { name, wanted, signature })
    };
    vec![
        of("mode", Wanted::Mode, 1),
        of("percentile_disc", Wanted::Percentile, 2),
        of("percentile_cont", Wanted::Between, 2),
    ]
}

impl AggregateUDFImpl for Ordered {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        match kinds.first() {
            Some(kind) if self.wanted == Wanted::Between => match kind.is_numeric() || *kind == DataType::Null {
                true => Ok(DataType::Float64),
                false => plan_err!("percentile_cont needs numbers here, not {}", kind),
            },
            Some(kind) => Ok(kind.clone()),
            None => plan_err!("{} needs WITHIN GROUP (ORDER BY …)", self.name),
        }
    }

    fn supports_within_group_clause(&self) -> bool {
        true
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let of = Field::new_list_field(args.input_fields[0].data_type().clone(), true);
        Ok(vec![Arc::new(Field::new(format_state_name(args.name, self.name), DataType::List(of.into()), true))])
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let part = match (self.wanted, args.exprs.get(1)) {
            (Wanted::Mode, _) => 0.0,
            (_, None) => return plan_err!("{} needs a percentile", args.name),
            (_, Some(part)) => {
                let value = part.evaluate(&RecordBatch::new_empty(Arc::new(args.schema.clone())))?;
                let ColumnarValue::Scalar(value) = value else {
                    return plan_err!("the percentile must be the same for all rows");
                };
                match value.cast_to(&DataType::Float64)? {
                    ScalarValue::Float64(Some(part)) if (0.0..=1.0).contains(&part) => part,
                    _ => return exec_err!("percentile value is not between 0 and 1"),
                }
            }
        };
        let is_descending = args.order_bys.first().is_some_and(|order| order.options.descending);
        let kind = args.expr_fields[0].data_type().clone();
        Ok(Box::new(Kept { wanted: self.wanted, part, is_descending, kind, values: Vec::new(), bytes: 0 }))
    }
}

/// All values, until they are put in order.
#[derive(Debug)]
struct Kept {
    wanted: Wanted,
    part: f64,
    is_descending: bool,
    kind: DataType,
    values: Vec<ScalarValue>,
    bytes: usize,
}

impl Kept {
    fn take(&mut self, values: &ArrayRef) -> Result<()> {
        for row in 0..values.len() {
            if values.is_valid(row) {
                let value = ScalarValue::try_from_array(values, row)?.compacted();
                self.bytes += value.size();
                self.values.push(value);
            }
        }
        Ok(())
    }
}

impl Accumulator for Kept {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.take(&values[0])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for values in states[0].as_list::<i32>().iter().flatten() {
            self.take(&values)?;
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values = if self.values.is_empty() {
            datafusion::arrow::array::new_empty_array(&self.kind)
        } else {
            ScalarValue::iter_to_array(self.values.iter().cloned())?
        };
        Ok(vec![SingleRowListArrayBuilder::new(values).build_list_scalar()])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.values.is_empty() {
            return match self.wanted {
                Wanted::Between => Ok(ScalarValue::Float64(None)),
                Wanted::Mode | Wanted::Percentile => ScalarValue::try_from(&self.kind),
            };
        }
        let mut failed = Ok(());
        self.values.sort_by(|one, other| {
            let order = one.try_cmp(other).unwrap_or_else(|error| {
                failed = Err(error);
                std::cmp::Ordering::Equal
            });
            if self.is_descending { order.reverse() } else { order }
        });
        failed?;
        let place = match self.wanted {
            Wanted::Between => {
                // As the SQL standard has it: between the two rows around this place.
                let place = self.part * (self.values.len() - 1) as f64;
                let of = |place: f64| match self.values[place as usize].cast_to(&DataType::Float64)? {
                    ScalarValue::Float64(Some(value)) => Ok(value),
                    other => exec_err!("{other} is no number"),
                };
                let (low, high) = (of(place.floor())?, of(place.ceil())?);
                // Between infinity and itself there is nothing.
                let between = if low == high { low } else { low + (high - low) * (place - place.floor()) };
                return Ok(ScalarValue::from(between));
            }
            Wanted::Percentile => ((self.part * self.values.len() as f64).ceil() as usize).saturating_sub(1),
            Wanted::Mode => {
                let (mut best, mut most, mut start) = (0, 0, 0);
                for group in self.values.chunk_by(|one, other| one == other) {
                    if group.len() > most {
                        (best, most) = (start, group.len());
                    }
                    start += group.len();
                }
                best
            }
        };
        Ok(self.values[place.min(self.values.len() - 1)].clone())
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.bytes
    }
}
