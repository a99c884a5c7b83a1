//! Values that did not fit their column, and what type would take them.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType, BooleanArray, PrimitiveArray, RecordBatch, StringArray,
    cast::AsArray,
    types::{Decimal128Type, Float64Type, Int64Type},
};
use arrow_schema::DataType;
use rollcall_types::{columns::at_hq, parse_decimal};
use serde_json::{Map, Value};

use crate::{
    error::{Doing, LakeError},
    schema::{ColumnType, our_columns},
};

/// A misfit as text; none for bytes, and for values of which only the length is known.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// Takes misfits out of `_misfit` and into their columns where these can hold them exactly; `kind`
/// says of a column whether it is one to look at, and its type. Nothing else of the rows changes.
pub(crate) fn take_in(rows: RecordBatch, kind: impl Fn(&str) -> Option<ColumnType>) -> Result<RecordBatch, LakeError> {
    let Some((place, _)) = rows.schema_ref().column_with_name(our_columns::MISFIT) else { return Ok(rows) };
    let misfits = rows.column(place).as_string_opt::<i32>();
    let Some(misfits) = misfits.filter(|misfits| misfits.null_count() < misfits.len()) else { return Ok(rows) };
    let mut objects: Vec<Option<Map<String, Value>>> =
        misfits.iter().map(|text| text.and_then(|text| serde_json::from_str(text).ok())).collect();
    let mut arrays = rows.columns().to_vec();
    let mut is_changed = false;
    for (index, field) in rows.schema_ref().fields().iter().enumerate() {
        let Some(kind) = kind(field.name()).filter(|kind| kind.arrow() == *field.data_type()) else { continue };
        let mut taken: Vec<Option<String>> = vec![None; rows.num_rows()];
        for (row, object) in objects.iter_mut().enumerate().filter(|(row, _)| arrays[index].is_null(*row)) {
            let Some(object) = object else { continue };
            let Some(name) = object.keys().find(|name| at_hq(name) == *field.name()).cloned() else { continue };
            let fits = object.get(&name).and_then(|value| text_of(value).filter(|text| holds(kind, value, text)));
            if fits.is_some() {
                object.remove(&name);
                (taken[row], is_changed) = (fits, true);
            }
        }
        if taken.iter().any(Option::is_some) {
            arrays[index] = with(&arrays[index], kind, &taken);
        }
    }
    if !is_changed {
        return Ok(rows);
    }
    let left = objects.iter().zip(misfits.iter()).map(|(object, text)| match object {
        Some(object) => (!object.is_empty()).then(|| Value::Object(object.clone()).to_string()),
        None => text.map(str::to_owned),
    });
    arrays[place] = Arc::new(left.collect::<StringArray>());
    RecordBatch::try_new(rows.schema(), arrays).doing("taking misfits in")
}

/// Whether a column of this type can hold a value exactly. A text is no number unless it comes back
/// the same: `007` is none, nor is `NaN`, which would make every sum NaN.
fn holds(kind: ColumnType, value: &Value, text: &str) -> bool {
    let is_same = |again: String| value.is_number() || again == text;
    match kind {
        ColumnType::String => true,
        ColumnType::Long => text.parse::<i64>().is_ok_and(|number| is_same(number.to_string())),
        ColumnType::Double => text.parse::<f64>().is_ok_and(|number| number.is_finite() && number.to_string() == text),
        ColumnType::Decimal { digits, fraction } => {
            let digits_of = text.trim_start_matches('-');
            let is_plain = !digits_of.starts_with('+') && (!digits_of.starts_with('0') || digits_of.starts_with("0."));
            (value.is_number() || is_plain || text == "0") && parse_decimal(text, digits, fraction).is_some()
        }
        _ => false,
    }
}

/// The column with these values where it has none.
fn with(column: &ArrayRef, kind: ColumnType, taken: &[Option<String>]) -> ArrayRef {
    match kind {
        ColumnType::String => {
            let both = column.as_string::<i32>().iter().zip(taken);
            Arc::new(both.map(|(known, text)| known.or(text.as_deref())).collect::<StringArray>())
        }
        ColumnType::Long => Arc::new(filled::<Int64Type>(column, taken, |text| text.parse().ok())),
        ColumnType::Double => Arc::new(filled::<Float64Type>(column, taken, |text| text.parse().ok())),
        ColumnType::Decimal { digits, fraction } => {
            let filled = filled::<Decimal128Type>(column, taken, |text| parse_decimal(text, digits, fraction));
            Arc::new(filled.with_data_type(kind.arrow()))
        }
        _ => column.clone(),
    }
}

fn filled<T: ArrowPrimitiveType>(
    column: &ArrayRef,
    taken: &[Option<String>],
    parse: impl Fn(&str) -> Option<T::Native>,
) -> PrimitiveArray<T> {
    let both = column.as_primitive::<T>().iter().zip(taken);
    both.map(|(known, text)| known.or_else(|| parse(text.as_deref()?))).collect()
}

/// Whether a column of one type can become one of another without any value being another one: what
/// a person may retype.
pub(crate) fn is_wider(from: ColumnType, to: ColumnType) -> bool {
    let decimal_digits = |kind| match kind {
        ColumnType::Integer => Some((10, 0)),
        ColumnType::Long => Some((19, 0)),
        ColumnType::Decimal { digits, fraction } => Some((digits - fraction, fraction)),
        _ => None,
    };
    match (from, to) {
        (from, to) if from == to => false,
        (ColumnType::Integer, ColumnType::Long | ColumnType::Double) => true,
        (ColumnType::Binary, _) => false,
        (_, ColumnType::String) => true,
        (from, to @ ColumnType::Decimal { .. }) => match (decimal_digits(from), decimal_digits(to)) {
            (Some((whole, fraction)), Some((whole_to, fraction_to))) => whole <= whole_to && fraction <= fraction_to,
            _ => false,
        },
        _ => false,
    }
}

/// The narrowest type that holds a column's values and these misfits of it; none if no type does.
pub fn propose_wider<'a>(from: ColumnType, misfits: impl Iterator<Item = &'a Value>) -> Option<ColumnType> {
    let (mut whole, mut fraction) = match from {
        ColumnType::Integer => (10_usize, 0_usize),
        ColumnType::Long => (19, 0),
        ColumnType::Decimal { digits, fraction } => (usize::from(digits - fraction), usize::from(fraction)),
        // Whatever is text is held by text.
        _ => (usize::MAX, 0),
    };
    let mut any = false;
    for misfit in misfits {
        let text = text_of(misfit)?;
        any = true;
        let plain = text.trim_start_matches(['-', '+']);
        let (before, after) = plain.split_once('.').unwrap_or((plain, ""));
        let is_number = !plain.is_empty() && before.bytes().chain(after.bytes()).all(|byte| byte.is_ascii_digit());
        if !is_number || whole == usize::MAX {
            whole = usize::MAX;
            continue;
        }
        whole = whole.max(before.trim_start_matches('0').len());
        fraction = fraction.max(after.trim_end_matches('0').len());
    }
    if !any {
        return None;
    }
    let decimal = whole.checked_add(fraction).filter(|digits| *digits <= 38).and_then(|digits| {
        Some(ColumnType::Decimal { digits: u8::try_from(digits).ok()?, fraction: u8::try_from(fraction).ok()? })
    });
    [decimal, Some(ColumnType::String)].into_iter().flatten().find(|to| is_wider(from, *to))
}

/// Brings a column of rows into a wider type, and takes in what did not fit the narrower one.
pub(crate) fn widen(rows: &RecordBatch, column: &str, kind: ColumnType) -> Result<RecordBatch, LakeError> {
    let doing = "widening a column";
    let schema = rows.schema();
    let Some((place, field)) = schema.column_with_name(column) else { return Ok(rows.clone()) };
    if *field.data_type() == kind.arrow() {
        return Ok(rows.clone());
    }
    let mut arrays = rows.columns().to_vec();
    arrays[place] = match (field.data_type(), kind) {
        (DataType::Timestamp(..), ColumnType::String) => {
            let options =
                arrow_cast::display::FormatOptions::default().with_timestamp_tz_format(Some("%Y-%m-%dT%H:%M:%S%.fZ"));
            let options = arrow_cast::CastOptions { safe: true, format_options: options };
            let instants = arrow_cast::cast_with_options(&arrays[place], &kind.arrow(), &options).doing(doing)?;
            // What the store wrote, as its next rows will be.
            match rows.column_by_name(&format!("{column}_local")).map(|local| (local.data_type().clone(), local)) {
                Some((DataType::Utf8, local)) => {
                    let is_kept: BooleanArray = (0..local.len()).map(|row| Some(local.is_valid(row))).collect();
                    arrow_select::zip::zip(&is_kept, local, &instants).doing(doing)?
                }
                _ => instants,
            }
        }
        _ => arrow_cast::cast(&arrays[place], &kind.arrow()).doing(doing)?,
    };
    let fields = schema.fields().iter().enumerate().map(|(index, field)| match index == place {
        true => field.as_ref().clone().with_data_type(kind.arrow()),
        false => field.as_ref().clone(),
    });
    let schema = Arc::new(arrow_schema::Schema::new(fields.collect::<Vec<_>>()));
    let rows = RecordBatch::try_new(schema, arrays).doing(doing)?;
    take_in(rows, |name| (name == column).then_some(kind))
}

#[cfg(test)]
mod tests {
    use arrow_array::Int64Array;
    use arrow_schema::{Field, Schema};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_wider_column_takes_in_what_did_not_fit() {
        let schema =
            Schema::new(vec![Field::new("_misfit", DataType::Utf8, true), Field::new("price", DataType::Int64, true)]);
        let misfits = StringArray::from(vec![
            Some(r#"{"Price":2.55}"#),
            None,
            Some(r#"{"Price":"many","note":1}"#),
            Some(r#"{"Price":1.005,"note":{"hex":"ff"}}"#),
        ]);
        let prices = Int64Array::from(vec![None, Some(7), None, None]);
        let rows = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(misfits), Arc::new(prices)]).expect("rows");
        let kind = ColumnType::Decimal { digits: 21, fraction: 2 };
        let wide = widen(&rows, "price", kind).expect("widens");
        let prices = wide.column(1).as_primitive::<Decimal128Type>();
        assert_eq!(prices.iter().collect::<Vec<_>>(), [Some(255), Some(700), None, None]);
        let left: Vec<Option<&str>> = wide.column(0).as_string::<i32>().iter().collect();
        assert_eq!(left[..2], [None, None]);
        assert_eq!(left[2], Some(r#"{"Price":"many","note":1}"#));
        assert_eq!(left[3], Some(r#"{"Price":1.005,"note":{"hex":"ff"}}"#), "a third digit is not rounded away");
    }

    #[test]
    fn a_text_is_taken_for_a_number_only_if_it_comes_back_the_same() {
        let long = |value: Value| holds(ColumnType::Long, &value, &text_of(&value).expect("a text"));
        assert_eq!([json!("7"), json!("007"), json!("+7"), json!(7)].map(long), [true, false, false, true]);
        let double = |value: Value| holds(ColumnType::Double, &value, &text_of(&value).expect("a text"));
        let texts = ["NaN", "inf", "Infinity", "1e999", "2.50"].map(|text| json!(text));
        assert_eq!(texts.map(double), [false; 5], "a sum would be NaN for the whole chain");
        assert!(double(json!("2.5")) && double(json!(2.5)));
        let decimal = ColumnType::Decimal { digits: 10, fraction: 2 };
        let decimal = |value: Value| holds(decimal, &value, &text_of(&value).expect("a text"));
        let texts = ["00123", "+1", "0.50", "0", "-0.5"].map(|text| json!(text));
        assert_eq!(texts.map(decimal), [false, false, true, true, true]);
    }

    #[test]
    fn the_text_that_a_store_wrote_is_what_a_time_becomes() {
        let zone = DataType::Timestamp(arrow_schema::TimeUnit::Microsecond, Some("UTC".into()));
        let schema = Schema::new(vec![
            Field::new("_misfit", DataType::Utf8, true),
            Field::new("sold_at", zone, true),
            Field::new("sold_at_local", DataType::Utf8, true),
        ]);
        let times = arrow_array::TimestampMicrosecondArray::from(vec![Some(0), Some(0), None]).with_timezone("UTC");
        let local = StringArray::from(vec![Some("1969-12-31 16:00:00"), None, None]);
        let misfits = StringArray::from(vec![None, None, Some(r#"{"sold_at":"soon"}"#)]);
        let rows = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(misfits), Arc::new(times), Arc::new(local)]);
        let wide = widen(&rows.expect("rows"), "sold_at", ColumnType::String).expect("widens");
        let texts: Vec<Option<&str>> = wide.column(1).as_string::<i32>().iter().collect();
        assert_eq!(texts, [Some("1969-12-31 16:00:00"), Some("1970-01-01T00:00:00Z"), Some("soon")]);
    }

    #[test]
    fn the_narrowest_type_that_holds_all_is_proposed() {
        let of = |from, misfits: &[Value]| propose_wider(from, misfits.iter());
        let decimal = |digits, fraction| Some(ColumnType::Decimal { digits, fraction });
        assert_eq!(of(ColumnType::Long, &[json!(2.55), json!("10.5")]), decimal(21, 2));
        assert_eq!(of(ColumnType::Decimal { digits: 10, fraction: 2 }, &[json!(1.255)]), decimal(11, 3));
        assert_eq!(of(ColumnType::Long, &[json!("many"), json!(2.5)]), Some(ColumnType::String));
        assert_eq!(of(ColumnType::Long, &[json!({"hex": "ff"})]), None);
        assert_eq!(of(ColumnType::Timestamp, &[json!("soon")]), Some(ColumnType::String));
        assert_eq!(of(ColumnType::Long, &[]), None);
    }
}
