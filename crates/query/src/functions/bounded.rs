//! The library's functions that make much of little, with a look at how much before they are run.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, AsArray},
        compute::cast,
        datatypes::{DataType, FieldRef, Int64Type},
    },
    common::{Result, ScalarValue, exec_err},
    logical_expr::{
        ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
        simplify::{ExprSimplifyResult, SimplifyContext},
    },
    prelude::SessionContext,
};

use super::bounds::{BATCH_BYTES_MAX, VALUE_BYTES_MAX, too_long};

/// Items that one call makes of its whole numbers, in the order of the arguments.
type Items = fn(&[Option<i64>]) -> usize;

/// A function, and how many items it makes.
#[derive(Debug)]
struct Bounded {
    name: String,
    inner: Arc<ScalarUDF>,
    items: Items,
}

impl PartialEq for Bounded {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Bounded {}

impl std::hash::Hash for Bounded {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

fn second(numbers: &[Option<i64>]) -> usize {
    numbers.get(1).copied().flatten().map_or(0, |count| usize::try_from(count).unwrap_or(0))
}

fn range(numbers: &[Option<i64>]) -> usize {
    let (start, stop, step) = match numbers {
        [Some(stop)] => (0, *stop, 1),
        [Some(start), Some(stop)] => (*start, *stop, 1),
        [Some(start), Some(stop), Some(step)] => (*start, *stop, *step),
        // A range of times: each of its moments may be near to the next.
        [_, _, None] => return usize::MAX,
        _ => return 0,
    };
    let items = (i128::from(stop) - i128::from(start)) / i128::from(if step == 0 { 1 } else { step });
    usize::try_from(items.max(0)).unwrap_or(usize::MAX)
}

/// Puts bounds on them.
pub(super) fn install(context: &SessionContext) {
    let known: [(&str, Items); 3] = [("array_repeat", second), ("array_resize", second), ("range", range)];
    for (name, items) in known {
        let inner = context.state().scalar_functions().get(name).cloned();
        if let Some(inner) = inner {
            context.deregister_udf(name);
            for name in std::iter::once(name).chain(inner.aliases().iter().map(String::as_str)) {
                let bounded = Bounded { name: name.to_owned(), inner: inner.clone(), items };
                context.register_udf(ScalarUDF::new_from_impl(bounded));
            }
        }
    }
}

/// A function by another name alone.
pub(super) fn renamed(name: &str, inner: Arc<ScalarUDF>) -> ScalarUDF {
    ScalarUDF::new_from_impl(Bounded { name: name.to_owned(), inner, items: |_| 0 })
}

impl Bounded {
    fn check(&self, args: &ScalarFunctionArgs) -> Result<()> {
        let number = |argument: &ColumnarValue| {
            if !argument.data_type().is_integer() {
                return Ok(None);
            }
            let array = match argument {
                ColumnarValue::Array(array) => array.clone(),
                ColumnarValue::Scalar(scalar) => scalar.to_array()?,
            };
            Ok(Some(cast(&array, &DataType::Int64)?))
        };
        let numbers = args.args.iter().map(number).collect::<Result<Vec<_>>>()?;
        // An item takes as much as the first argument's values do, 8 bytes at least.
        let item = match args.args.first() {
            Some(ColumnarValue::Scalar(scalar)) => scalar.size().saturating_sub(size_of::<ScalarValue>()).max(8),
            Some(ColumnarValue::Array(array)) => (array.get_array_memory_size() / array.len().max(1)).max(8),
            None => 8,
        };
        let rows = numbers.iter().flatten().map(|array| array.len()).max().unwrap_or(1);
        let mut left = BATCH_BYTES_MAX;
        for row in 0..rows {
            let of_row: Vec<Option<i64>> = numbers
                .iter()
                .map(|array| {
                    let array = array.as_ref()?.as_primitive::<Int64Type>();
                    let row = if array.len() == 1 { 0 } else { row };
                    array.is_valid(row).then(|| array.value(row))
                })
                .collect();
            let bytes = (self.items)(&of_row).saturating_mul(item);
            if bytes > VALUE_BYTES_MAX {
                return Err(too_long(&self.name));
            }
            let Some(rest) = left.checked_sub(bytes) else {
                return exec_err!("the results of {} for one batch of rows would be longer than 256 MiB", self.name);
            };
            left = rest;
        }
        Ok(())
    }
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        self.inner.return_type(kinds)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(kinds)
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        self.inner.simplify(args, info)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.check(&args)?;
        self.inner.invoke_with_args(args)
    }
}
