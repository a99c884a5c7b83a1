//! Functions of arrays. An array's first item is number 1; an array without items has no length.

use datafusion::{
    arrow::datatypes::{DataType, Field},
    common::{Result, exec_err},
};

use super::{
    function::{Call, Given},
    value::{Kind, Value, text},
};

/// The type of an array that is given back, by the place of the one that was taken.
fn same_type(given: &Given<'_>, array: usize, item: usize) -> DataType {
    match given.kinds.get(array) {
        Some(
            DataType::List(of) | DataType::LargeList(of) | DataType::FixedSizeList(of, _) | DataType::ListView(of),
        ) => {
            let of = match (of.data_type(), given.kinds.get(item)) {
                (DataType::Null, Some(item))
                    if Kind::of(item) != Kind::Null && !matches!(Kind::of(item), Kind::List(_)) =>
                {
                    item.clone()
                }
                (of, _) => of.clone(),
            };
            DataType::List(Field::new_list_field(of, true).into())
        }
        _ => match given.kinds.get(item) {
            Some(list @ DataType::List(_)) => list.clone(),
            Some(of) => DataType::List(Field::new_list_field(of.clone(), true).into()),
            None => DataType::List(Field::new_list_field(DataType::Utf8, true).into()),
        },
    }
}

pub(super) fn as_first(given: &Given<'_>) -> Result<DataType> {
    Ok(same_type(given, 0, 1))
}

pub(super) fn as_second(given: &Given<'_>) -> Result<DataType> {
    Ok(same_type(given, 1, 0))
}

pub(super) fn of_first(given: &Given<'_>) -> Result<DataType> {
    let of = given.kinds.first().cloned().unwrap_or(DataType::Utf8);
    Ok(DataType::List(Field::new_list_field(of, true).into()))
}

/// Whether two items are the same; NULLs are.
fn same(one: &Value<'_>, other: &Value<'_>) -> bool {
    match (one, other) {
        (Value::Numeric(one), Value::Numeric(other)) => {
            let scale = one.scale.max(other.scale);
            matches!((one.rescaled(scale), other.rescaled(scale)), (Ok(one), Ok(other)) if one == other)
        }
        (Value::Int(int), Value::Float(float)) | (Value::Float(float), Value::Int(int)) => *int as f64 == *float,
        (Value::Int(int), Value::Numeric(number)) | (Value::Numeric(number), Value::Int(int)) => {
            number.rescaled(0).is_ok_and(|whole| {
                whole.unscaled == i128::from(*int) && whole.rescaled(number.scale).is_ok_and(|back| back == *number)
            })
        }
        (one, other) => one == other,
    }
}

/// The lengths of an array's dimensions.
fn dimensions(items: &[Value<'_>]) -> Vec<i64> {
    let mut lengths = vec![items.len() as i64];
    if let Some(Value::List(inner)) = items.first() {
        lengths.extend(dimensions(inner));
    }
    if lengths.contains(&0) { Vec::new() } else { lengths }
}

fn dimension(arguments: &[Value<'_>]) -> Result<Option<i64>> {
    let place = usize::try_from(arguments[1].int()? - 1);
    Ok(place.ok().and_then(|place| dimensions(arguments[0].list().ok()?).get(place).copied()))
}

pub(super) fn array_length<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(dimension(arguments)?.map_or(Value::Null, Value::Int))
}

pub(super) fn array_lower<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(dimension(arguments)?.map_or(Value::Null, |_| Value::Int(1)))
}

pub(super) fn array_ndims<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(match dimensions(arguments[0].list()?).len() {
        0 => Value::Null,
        count => Value::Int(count as i64),
    })
}

pub(super) fn array_dims<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let lengths = dimensions(arguments[0].list()?);
    if lengths.is_empty() {
        return Ok(Value::Null);
    }
    Ok(text(lengths.iter().map(|length| format!("[1:{length}]")).collect::<String>()))
}

pub(super) fn cardinality<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let lengths = dimensions(arguments[0].list()?);
    Ok(Value::Int(if lengths.is_empty() { 0 } else { lengths.iter().product() }))
}

pub(super) fn array_position<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let (Value::List(items), wanted) = (&arguments[0], &arguments[1]) else { return Ok(Value::Null) };
    let start = match arguments.get(2) {
        Some(Value::Null) => return exec_err!("initial position must not be null"),
        Some(start) => usize::try_from(start.int()?.max(1) - 1).unwrap_or(0),
        None => 0,
    };
    let place = items.iter().enumerate().skip(start).find(|(_, item)| same(item, wanted));
    Ok(place.map_or(Value::Null, |(place, _)| Value::Int(place as i64 + 1)))
}

pub(super) fn array_positions<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let Value::List(items) = &arguments[0] else { return Ok(Value::Null) };
    let places = (1..).zip(items).filter(|(_, item)| same(item, &arguments[1]));
    Ok(Value::List(places.map(|(place, _)| Value::Int(place)).collect()))
}

pub(super) fn array_remove<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let Value::List(items) = &arguments[0] else { return Ok(Value::Null) };
    Ok(Value::List(items.iter().filter(|item| !same(item, &arguments[1])).cloned().collect()))
}

pub(super) fn array_replace<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let Value::List(items) = &arguments[0] else { return Ok(Value::Null) };
    let replaced = items.iter().map(|item| if same(item, &arguments[1]) { &arguments[2] } else { item });
    Ok(Value::List(replaced.cloned().collect()))
}

fn joined<'a>(one: &Value<'a>, other: &Value<'a>) -> Value<'a> {
    match (one, other) {
        (Value::List(one), Value::List(other)) => Value::List(one.iter().chain(other).cloned().collect()),
        (Value::Null, list) | (list, _) => list.clone(),
    }
}

pub(super) fn array_append<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(joined(&arguments[0], &Value::List(vec![arguments[1].clone()])))
}

pub(super) fn array_prepend<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(joined(&Value::List(vec![arguments[0].clone()]), &arguments[1]))
}

pub(super) fn array_cat<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(joined(&arguments[0], &arguments[1]))
}

pub(super) fn trim_array<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let items = arguments[0].list()?;
    match usize::try_from(arguments[1].int()?).ok().and_then(|count| items.len().checked_sub(count)) {
        Some(left) => Ok(Value::List(items[..left].to_vec())),
        None => exec_err!("number of elements to trim must be between 0 and {}", items.len()),
    }
}

pub(super) fn array_fill<'a>(call: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let [length] = arguments[1].list()? else { return exec_err!("array_fill makes arrays of one dimension here") };
    let Ok(length) = usize::try_from(length.int()?) else { return exec_err!("array size must not be negative") };
    call.room.check(length.saturating_mul(arguments[0].size().max(8)))?;
    Ok(Value::List(vec![arguments[0].clone(); length]))
}

fn flat<'v, 'a>(items: &'v [Value<'a>], kind: &Kind, out: &mut Vec<(&'v Value<'a>, Kind)>) {
    let of = if let Kind::List(of) = kind { of.as_ref().clone() } else { Kind::Other };
    for item in items {
        match item {
            Value::List(inner) => flat(inner, &of, out),
            item => out.push((item, of.clone())),
        }
    }
}

/// `array_to_string(array, between [, null])`.
pub(super) fn array_to_string<'a>(call: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    if arguments[0].is_null() || arguments[1].is_null() {
        return Ok(Value::Null);
    }
    let (between, mut items) = (arguments[1].str()?, Vec::new());
    flat(arguments[0].list()?, call.kinds.first().unwrap_or(&Kind::Other), &mut items);
    let (mut out, mut is_first) = (String::new(), true);
    for (item, kind) in items {
        let shown = match super::show::shown(item, &kind, &call.zone) {
            Some(shown) => shown,
            None => match arguments.get(2) {
                Some(Value::Text(null)) => null.to_string(),
                _ => continue,
            },
        };
        if !std::mem::replace(&mut is_first, false) {
            out.push_str(between);
        }
        out.push_str(&shown);
        call.room.check(out.len())?;
    }
    Ok(text(out))
}

/// `string_to_array(text, between [, null])`.
pub(super) fn string_to_array<'a>(call: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    if arguments[0].is_null() {
        return Ok(Value::Null);
    }
    let whole = arguments[0].str()?;
    let item = |part: &str| match arguments.get(2) {
        Some(Value::Text(null)) if null == part => Value::Null,
        _ => text(part.to_owned()),
    };
    if whole.is_empty() {
        return Ok(Value::List(Vec::new()));
    }
    // What an item costs besides its letters counts too.
    let bounded = |count: usize| call.room.check(count.saturating_mul(8).max(whole.len()));
    let items = match &arguments[1] {
        Value::Null => {
            bounded(whole.chars().count())?;
            whole.chars().map(|letter| item(letter.encode_utf8(&mut [0; 4]))).collect()
        }
        between if between.str()?.is_empty() => vec![item(whole)],
        between => {
            let between = between.str()?;
            bounded(whole.matches(between).count())?;
            whole.split(between).map(item).collect()
        }
    };
    Ok(Value::List(items))
}
