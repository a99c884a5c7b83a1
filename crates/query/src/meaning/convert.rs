//! Values of one type as values of another, as PostgreSQL casts them.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{
            Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array,
            Float64Array, IntervalMonthDayNanoArray, ListArray, PrimitiveArray, StringArray, Time64MicrosecondArray,
            TimestampMicrosecondArray, timezone::Tz,
        },
        compute::{CastOptions, cast_with_options},
        datatypes::{
            DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int64Type, IntervalMonthDayNanoType,
            Time64MicrosecondType, TimestampMicrosecondType,
        },
    },
    common::{Result, exec_datafusion_err, exec_err},
};

use super::{
    calendar::{DAY, SECOND, moment, to_local, to_utc},
    date_text,
    decimal::{Number, fits, rescale},
    interval,
    moments::of_micros,
    numbers::{decimals_to_doubles, out_of_range},
    text::{boolean, bounds, bytes, bytes_text, decimal_text, float, float_text, integer},
    types::{INTERVAL, More, TIME, TIMESTAMP, canonical, is_text, name},
};

/// What values become.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Target {
    pub(super) kind: DataType,
    pub(super) more: More,
}

fn strictly(array: &ArrayRef, kind: &DataType) -> Result<ArrayRef> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    Ok(cast_with_options(array, kind, &options)?)
}

/// The column as one of `target`'s type; moments are shown in, and read as of, `zone`.
pub(super) fn convert(array: &ArrayRef, target: &Target, zone: &Tz) -> Result<ArrayRef> {
    let kind = canonical(array.data_type());
    if kind == DataType::Null {
        return strictly(array, &target.kind);
    }
    if let (DataType::List(_), DataType::List(item)) = (&kind, &target.kind) {
        let list = array.as_list::<i32>();
        let of_items = Target { kind: item.data_type().clone(), more: More::of(item) };
        let values = convert(list.values(), &of_items, zone)?;
        let converted = ListArray::try_new(Arc::clone(item), list.offsets().clone(), values, list.nulls().cloned())?;
        return Ok(Arc::new(converted));
    }
    let array = if *array.data_type() == kind { array.clone() } else { strictly(array, &kind)? };
    let converted = match canonical(&target.kind) {
        DataType::Boolean => to_boolean(&array)?,
        to @ (DataType::Int16 | DataType::Int32 | DataType::Int64) => to_integer(&array, &to)?,
        DataType::Decimal128(digits, scale) => {
            to_decimal(&array, digits, scale, matches!(target.more, More::AnyScale))?
        }
        to @ (DataType::Float32 | DataType::Float64) => to_float(&array, &to)?,
        DataType::Utf8 => to_text(&array, target.more, zone)?,
        DataType::Binary => to_bytes(&array)?,
        DataType::Date32 => to_date(&array, zone)?,
        TIME => to_time(&array, target.more, zone)?,
        INTERVAL => to_interval(&array)?,
        to @ DataType::Timestamp(..) => to_moment(&array, &to, target.more, zone)?,
        _ => return cannot(&kind, &target.kind),
    };
    if *converted.data_type() == target.kind { Ok(converted) } else { strictly(&converted, &target.kind) }
}

fn cannot<T>(from: &DataType, to: &DataType) -> Result<T> {
    exec_err!("cannot cast type {} to {}", name(from), name(to))
}

/// Whether there is such a cast; what cannot be known of nested types is left to the cast itself.
pub(super) fn is_known(from: &DataType, to: &DataType) -> bool {
    use DataType::{Binary, Boolean, Date32, Decimal128, Float32, Float64, Int16, Int32, Int64, Timestamp, Utf8};
    let (from, to) = (canonical(from), canonical(to));
    if from == to || from == DataType::Null || from == Utf8 || to == Utf8 {
        return true;
    }
    let is_number = |kind: &DataType| matches!(kind, Int16 | Int32 | Int64 | Decimal128(..) | Float32 | Float64);
    match (&from, &to) {
        (Boolean, Int32) | (Int32, Boolean) => true,
        (Boolean | Binary, _) | (_, Boolean | Binary) => false,
        (one, other) if is_number(one) || is_number(other) => is_number(one) && is_number(other),
        (Timestamp(..), Date32 | Timestamp(..) | &TIME) | (Date32, Timestamp(..)) => true,
        (&TIME, &INTERVAL) | (&INTERVAL, &TIME) => true,
        (Date32 | Timestamp(..) | &TIME | &INTERVAL, Date32 | Timestamp(..) | &TIME | &INTERVAL) => false,
        _ => true,
    }
}

fn texts(array: &ArrayRef) -> impl Iterator<Item = Option<&str>> {
    array.as_string::<i32>().iter()
}

fn each<'a, T, V>(texts: impl Iterator<Item = Option<&'a str>>, read: impl Fn(&str) -> Result<V>) -> Result<T>
where
    T: FromIterator<Option<V>>,
{
    texts.map(|text| text.map(&read).transpose()).collect()
}

fn to_boolean(array: &ArrayRef) -> Result<ArrayRef> {
    match array.data_type() {
        DataType::Utf8 => Ok(Arc::new(each::<BooleanArray, _>(texts(array), boolean)?)),
        DataType::Boolean => Ok(array.clone()),
        DataType::Int32 => strictly(array, &DataType::Boolean),
        other => cannot(other, &DataType::Boolean),
    }
}

/// The nearest whole number, halves to the even one.
fn whole(value: f64, kind: &DataType) -> Result<i64> {
    let value = value.round_ties_even();
    let bounds = bounds(kind);
    // The upper bound of 64 bits is no double: the next one is out of range.
    let is_within = value >= *bounds.start() as f64 && value < *bounds.end() as f64 + 1.0;
    if is_within && (value as i64 != i64::MAX || *bounds.end() != i64::MAX) {
        Ok(value as i64)
    } else {
        Err(out_of_range(kind))
    }
}

fn to_integer(array: &ArrayRef, kind: &DataType) -> Result<ArrayRef> {
    let wide: PrimitiveArray<Int64Type> = match array.data_type() {
        DataType::Utf8 => each(texts(array), |text| integer(text, kind))?,
        DataType::Int16 | DataType::Int32 | DataType::Int64 => {
            return strictly(array, kind).map_err(|_| out_of_range(kind));
        }
        DataType::Decimal128(_, scale) => {
            let scale = *scale;
            let bounds = bounds(kind);
            array.as_primitive::<Decimal128Type>().try_unary::<_, Int64Type, _>(|value| {
                rescale(value, scale, 0)
                    .and_then(|value| i64::try_from(value).ok())
                    .filter(|value| bounds.contains(value))
                    .ok_or_else(|| out_of_range(kind))
            })?
        }
        DataType::Float32 | DataType::Float64 => {
            let doubles = strictly(array, &DataType::Float64)?;
            doubles.as_primitive::<Float64Type>().try_unary::<_, Int64Type, _>(|value| whole(value, kind))?
        }
        DataType::Boolean if *kind == DataType::Int32 => return strictly(array, kind),
        other => return cannot(other, kind),
    };
    let wide: ArrayRef = Arc::new(wide);
    if *kind == DataType::Int64 { Ok(wide) } else { strictly(&wide, kind).map_err(|_| out_of_range(kind)) }
}

fn to_decimal(array: &ArrayRef, digits: u8, scale: i8, any_scale: bool) -> Result<ArrayRef> {
    let kind = DataType::Decimal128(digits, scale);
    let overflow = || match any_scale {
        true => {
            exec_datafusion_err!("value overflows numeric format of {} digits before the point", digits as i8 - scale)
        }
        false => exec_datafusion_err!("numeric field overflow"),
    };
    // Where `numeric` names no scale, no digit may be lost.
    let place = |value: i128, from: i8| {
        let placed = rescale(value, from, scale).filter(|placed| fits(*placed, digits)).ok_or_else(overflow)?;
        if any_scale && from > scale && rescale(placed, scale, from) != Some(value) {
            return exec_err!("more than {scale} digits behind the point cannot be represented here; name a scale");
        }
        Ok(placed)
    };
    let read = |text: &str| {
        let number = Number::parse(text)?;
        place(number.value, number.scale)
    };
    let exact: Decimal128Array = match array.data_type() {
        DataType::Utf8 => each(texts(array), read)?,
        DataType::Int16 | DataType::Int32 | DataType::Int64 => {
            let wide = strictly(array, &DataType::Int64)?;
            wide.as_primitive::<Int64Type>().try_unary::<_, Decimal128Type, _>(|value| place(i128::from(value), 0))?
        }
        DataType::Decimal128(_, from) => {
            let from = *from;
            array.as_primitive::<Decimal128Type>().try_unary::<_, Decimal128Type, _>(|value| place(value, from))?
        }
        DataType::Float64 => {
            array.as_primitive::<Float64Type>().try_unary::<_, Decimal128Type, _>(|value| read(&rounded(value, 15)))?
        }
        DataType::Float32 => array
            .as_primitive::<Float32Type>()
            .try_unary::<_, Decimal128Type, _>(|value| read(&rounded(f64::from(value), 6)))?,
        other => return cannot(other, &kind),
    };
    Ok(Arc::new(exact.with_data_type(kind)))
}

/// A number with as many digits as its type surely has.
pub(super) fn rounded(value: f64, digits: usize) -> String {
    if value.is_finite() { format!("{:.*e}", digits - 1, value) } else { float_text(value, false) }
}

fn to_float(array: &ArrayRef, kind: &DataType) -> Result<ArrayRef> {
    let doubles: ArrayRef = match array.data_type() {
        DataType::Utf8 => Arc::new(each::<Float64Array, _>(texts(array), |text| float(text, kind))?),
        DataType::Decimal128(_, scale) => decimals_to_doubles(array, *scale)?,
        DataType::Int16 | DataType::Int32 | DataType::Int64 => return strictly(array, kind),
        DataType::Float32 | DataType::Float64 => strictly(array, &DataType::Float64)?,
        other => return cannot(other, kind),
    };
    if *kind == DataType::Float64 {
        return Ok(doubles);
    }
    let short = doubles.as_primitive::<Float64Type>().try_unary::<_, Float32Type, _>(|value| {
        let short = value as f32;
        match (short.is_infinite() && value.is_finite(), short == 0.0 && value != 0.0) {
            (true, _) => exec_err!("value out of range: overflow"),
            (_, true) => exec_err!("value out of range: underflow"),
            _ => Ok(short),
        }
    })?;
    Ok(Arc::new(short) as Arc<Float32Array> as ArrayRef)
}

fn to_text(array: &ArrayRef, more: More, zone: &Tz) -> Result<ArrayRef> {
    let texts: StringArray = match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().clone(),
        DataType::Boolean => array.as_boolean().iter().map(|value| value.map(|value| value.to_string())).collect(),
        DataType::Int16 | DataType::Int32 | DataType::Int64 => {
            strictly(array, &DataType::Utf8)?.as_string::<i32>().clone()
        }
        DataType::Decimal128(_, scale) => {
            let values = array.as_primitive::<Decimal128Type>().iter();
            values.map(|value| value.map(|value| decimal_text(value, *scale))).collect()
        }
        DataType::Float64 => {
            let values = array.as_primitive::<Float64Type>().iter();
            values.map(|value| value.map(|value| float_text(value, false))).collect()
        }
        DataType::Float32 => {
            let values = array.as_primitive::<Float32Type>().iter();
            values.map(|value| value.map(|value| float_text(f64::from(value), true))).collect()
        }
        DataType::Date32 => {
            let values = array.as_primitive::<Date32Type>().iter();
            values.map(|value| value.map(date_text::date_text)).collect()
        }
        DataType::Time64(_) => {
            let values = array.as_primitive::<Time64MicrosecondType>().iter();
            values.map(|value| value.map(date_text::time_text)).collect()
        }
        DataType::Timestamp(_, of_zone) => {
            let text = |value| match of_zone {
                Some(_) => date_text::timestamptz_text(value, zone),
                None => Ok(date_text::timestamp_text(value)),
            };
            let values = array.as_primitive::<TimestampMicrosecondType>().iter();
            values.map(|value| value.map(text).transpose()).collect::<Result<_>>()?
        }
        DataType::Interval(_) => {
            let values = array.as_primitive::<IntervalMonthDayNanoType>().iter();
            values.map(|value| value.map(interval::text)).collect()
        }
        DataType::Binary => {
            let values = array.as_binary::<i32>().iter();
            values.map(|value| value.map(bytes_text)).collect()
        }
        DataType::List(_) => lists_text(array.as_list::<i32>(), zone)?,
        other => return cannot(other, &DataType::Utf8),
    };
    Ok(Arc::new(match more {
        More::Letters(most) => {
            let most = most as usize;
            let cut = |text: &str| match text.char_indices().nth(most) {
                Some((end, _)) => text[..end].to_owned(),
                None => text.to_owned(),
            };
            texts.iter().map(|text| text.map(cut)).collect()
        }
        More::Uuid => each(texts.iter(), uuid)?,
        _ => texts,
    }))
}

/// Arrays as PostgreSQL writes them.
fn lists_text(lists: &ListArray, zone: &Tz) -> Result<StringArray> {
    let target = Target { kind: DataType::Utf8, more: More::Nothing };
    let mut all = Vec::with_capacity(lists.len());
    for list in lists.iter() {
        let Some(list) = list else {
            all.push(None);
            continue;
        };
        let is_nested = matches!(list.data_type(), DataType::List(_));
        let is_truth = *list.data_type() == DataType::Boolean;
        let items = convert(&list, &target, zone)?;
        let item = |item: &str| if is_truth { item[..1].to_owned() } else { quoted(item, is_nested) };
        let items: Vec<String> = texts(&items).map(|text| text.map_or_else(|| "NULL".to_owned(), item)).collect();
        all.push(Some(format!("{{{}}}", items.join(","))));
    }
    Ok(all.into_iter().collect())
}

/// An item of an array, in quotes where it could be taken for something else.
fn quoted(item: &str, is_nested: bool) -> String {
    let needs = item.is_empty()
        || item.eq_ignore_ascii_case("null")
        || item.contains(|letter: char| matches!(letter, '{' | '}' | ',' | '"' | '\\') || letter.is_ascii_whitespace());
    if is_nested || !needs {
        return item.to_owned();
    }
    format!("\"{}\"", item.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A UUID as PostgreSQL writes it.
fn uuid(text: &str) -> Result<String> {
    let wrong = || exec_err!("invalid input syntax for type uuid: \"{text}\"");
    let bare = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(text);
    let digits: String = bare.chars().filter(|letter| *letter != '-').collect::<String>().to_ascii_lowercase();
    let groups_whole = bare.split('-').all(|group| !group.is_empty() && group.len() % 4 == 0);
    if digits.len() != 32 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) || !groups_whole {
        return wrong();
    }
    let part = |range: std::ops::Range<usize>| &digits[range];
    Ok([part(0..8), part(8..12), part(12..16), part(16..20), part(20..32)].join("-"))
}

fn to_bytes(array: &ArrayRef) -> Result<ArrayRef> {
    match array.data_type() {
        DataType::Utf8 => {
            let read = texts(array).map(|text| text.map(bytes).transpose()).collect::<Result<Vec<_>>>()?;
            Ok(Arc::new(read.iter().map(Option::as_deref).collect::<BinaryArray>()))
        }
        DataType::Binary => Ok(array.clone()),
        other => cannot(other, &DataType::Binary),
    }
}

fn to_date(array: &ArrayRef, zone: &Tz) -> Result<ArrayRef> {
    let dates: Date32Array = match array.data_type() {
        DataType::Utf8 => each(texts(array), |text| date_text::date(text, zone))?,
        DataType::Date32 => return Ok(array.clone()),
        DataType::Timestamp(_, of_zone) => {
            let has_zone = of_zone.is_some();
            array.as_primitive::<TimestampMicrosecondType>().try_unary::<_, Date32Type, _>(|micros| {
                let local = if has_zone { to_local(zone, micros)? } else { micros };
                Ok::<_, datafusion::error::DataFusionError>(local.div_euclid(DAY) as i32)
            })?
        }
        other => return cannot(other, &DataType::Date32),
    };
    Ok(Arc::new(dates))
}

fn to_time(array: &ArrayRef, more: More, zone: &Tz) -> Result<ArrayRef> {
    let times: Time64MicrosecondArray = match array.data_type() {
        DataType::Utf8 => each(texts(array), |text| date_text::time(text, zone))?,
        &TIME => array.as_primitive::<Time64MicrosecondType>().clone(),
        DataType::Timestamp(_, of_zone) => {
            let has_zone = of_zone.is_some();
            array.as_primitive::<TimestampMicrosecondType>().try_unary::<_, Time64MicrosecondType, _>(|micros| {
                let local = if has_zone { to_local(zone, micros)? } else { micros };
                Ok::<_, datafusion::error::DataFusionError>(local.rem_euclid(DAY))
            })?
        }
        DataType::Interval(_) => array
            .as_primitive::<IntervalMonthDayNanoType>()
            .unary(|interval| (interval.nanoseconds / 1_000).rem_euclid(DAY)),
        other => return cannot(other, &TIME),
    };
    Ok(Arc::new(times.unary::<_, Time64MicrosecondType>(|micros| to_digits(micros, more))))
}

/// A time to so many digits of a second, halves up.
fn to_digits(micros: i64, more: More) -> i64 {
    let More::SecondDigits(digits) = more else { return micros };
    let unit = SECOND / 10_i64.pow(u32::from(digits));
    let half = unit / 2;
    if micros >= 0 { (micros + half) / unit * unit } else { -((-micros + half) / unit * unit) }
}

fn to_interval(array: &ArrayRef) -> Result<ArrayRef> {
    let intervals: IntervalMonthDayNanoArray = match array.data_type() {
        DataType::Utf8 => each(texts(array), interval::parse)?,
        &INTERVAL => return Ok(array.clone()),
        &TIME => array
            .as_primitive::<Time64MicrosecondType>()
            .try_unary::<_, IntervalMonthDayNanoType, _>(|micros| of_micros(0, 0, micros))?,
        other => return cannot(other, &INTERVAL),
    };
    Ok(Arc::new(intervals))
}

fn to_moment(array: &ArrayRef, kind: &DataType, more: More, zone: &Tz) -> Result<ArrayRef> {
    let to_zone = matches!(kind, DataType::Timestamp(_, Some(_)));
    let moments: TimestampMicrosecondArray = match array.data_type() {
        DataType::Utf8 if to_zone => each(texts(array), |text| date_text::timestamptz(text, zone))?,
        DataType::Utf8 => each(texts(array), |text| date_text::timestamp(text, zone))?,
        DataType::Date32 => array.as_primitive::<Date32Type>().try_unary::<_, TimestampMicrosecondType, _>(|day| {
            let local = i64::from(day) * DAY;
            moment(Some(if to_zone { to_utc(zone, local)? } else { local }))
        })?,
        DataType::Timestamp(_, of_zone) => {
            let from = array.as_primitive::<TimestampMicrosecondType>();
            match (of_zone.is_some(), to_zone) {
                (true, false) => from.try_unary::<_, TimestampMicrosecondType, _>(|utc| to_local(zone, utc))?,
                (false, true) => from.try_unary::<_, TimestampMicrosecondType, _>(|local| to_utc(zone, local))?,
                _ => from.clone(),
            }
        }
        other => return cannot(other, kind),
    };
    let rounded = moments.unary::<_, TimestampMicrosecondType>(|micros| to_digits(micros, more));
    Ok(Arc::new(rounded.with_data_type(if to_zone { kind.clone() } else { TIMESTAMP })))
}

/// Whether a cast between these is Arrow's own: it loses nothing, cannot fail, and statistics see
/// through it.
pub(super) fn is_plain(from: &DataType, target: &Target, zone_is_utc: bool) -> bool {
    use DataType::{Date32, Decimal128, Float32, Float64, Int16, Int32, Int64, Timestamp, Utf8};
    if target.more != More::Nothing {
        return false;
    }
    let to = &target.kind;
    if from == to || *from == DataType::Null {
        return true;
    }
    if is_text(from) && is_text(to) {
        return true;
    }
    let room = |digits: u8, scale: i8, whole: i16| i16::from(digits) - i16::from(scale) >= whole;
    match (from, to) {
        (Int16, Int32 | Int64 | Float32 | Float64 | Utf8) => true,
        (Int32, Int64 | Float64 | Utf8) | (Int64, Float64 | Utf8) | (Float32, Float64) => true,
        (Int16, Decimal128(digits, scale)) => room(*digits, *scale, 5),
        (Int32, Decimal128(digits, scale)) => room(*digits, *scale, 10),
        (Int64, Decimal128(digits, scale)) => room(*digits, *scale, 19),
        (Decimal128(digits, scale), Decimal128(more_digits, more_scale)) => {
            more_scale >= scale && room(*more_digits, *more_scale, i16::from(*digits) - i16::from(*scale))
        }
        (Timestamp(_, None), Timestamp(_, None)) | (Timestamp(_, Some(_)), Timestamp(_, Some(_))) => true,
        (Timestamp(_, None), Date32) | (Date32, Timestamp(_, None)) => true,
        (Timestamp(..), Timestamp(..) | Date32) | (Date32, Timestamp(..)) => zone_is_utc,
        _ => false,
    }
}
