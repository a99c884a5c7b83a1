//! Single values in their binary form.

use bytes::BytesMut;
use pgwire::api::Type;
use postgres_types::Kind;

use super::{
    super::{
        ValueError,
        datetime::{self, DAY_MICROS, EPOCH_DAYS, EPOCH_MICROS, push_offset, push_time},
        interval::Interval,
        number::{Float, put_float},
        text::Text,
        types::is_object_number,
        zone::Zone,
    },
    hex, utf8,
};

/// The days PostgreSQL's dates reach to, counted from 2000-01-01: 4713 BC and 5874897 AD.
const DATE_DAYS: std::ops::Range<i32> = -2_451_545..2_145_031_949;
/// The microseconds its timestamps reach to, counted alike: 4713 BC and 294276 AD.
const TIMESTAMP_MICROS: std::ops::Range<i64> = -211_813_488_000_000_000..9_223_371_331_200_000_000;
const TIMETZ_SECONDS_MAX: u32 = 16 * 3600;
const NUMERIC_SCALE_MAX: u16 = 0x3fff;

/// The text of a value of the declared type.
pub(super) fn decode(bytes: &[u8], declared: &Type) -> Result<String, ValueError> {
    Ok(match *declared {
        Type::BOOL => {
            let [value] = exactly(bytes, declared)?;
            if value == 0 { "f" } else { "t" }.to_owned()
        }
        Type::INT2 => i16::from_be_bytes(exactly(bytes, declared)?).to_string(),
        Type::INT4 => i32::from_be_bytes(exactly(bytes, declared)?).to_string(),
        Type::INT8 => i64::from_be_bytes(exactly(bytes, declared)?).to_string(),
        _ if is_object_number(declared) => u32::from_be_bytes(exactly(bytes, declared)?).to_string(),
        Type::FLOAT4 => float(f32::from_be_bytes(exactly(bytes, declared)?)),
        Type::FLOAT8 => float(f64::from_be_bytes(exactly(bytes, declared)?)),
        Type::NUMERIC => numeric(bytes)?,
        Type::TEXT
        | Type::VARCHAR
        | Type::BPCHAR
        | Type::NAME
        | Type::UNKNOWN
        | Type::CSTRING
        | Type::JSON
        | Type::XML => utf8(bytes)?.to_owned(),
        Type::JSONB => match bytes {
            [1, text @ ..] => utf8(text)?.to_owned(),
            _ => return Err(ValueError::new("22P03", "unsupported jsonb version number")),
        },
        Type::BYTEA => hex(bytes),
        Type::CHAR => one_byte(exactly(bytes, declared)?),
        Type::DATE => date(i32::from_be_bytes(exactly(bytes, declared)?))?,
        Type::TIME => written(|text| {
            push_time(text, time_of_day(i64::from_be_bytes(exactly(bytes, declared)?))?);
            Ok(())
        })?,
        Type::TIMETZ => time_with_zone(exactly(bytes, declared)?)?,
        Type::TIMESTAMP => timestamp(i64::from_be_bytes(exactly(bytes, declared)?), None)?,
        Type::TIMESTAMPTZ => timestamp(i64::from_be_bytes(exactly(bytes, declared)?), Some(&Zone::utc()))?,
        Type::INTERVAL => interval(exactly(bytes, declared)?),
        Type::UUID => uuid(exactly(bytes, declared)?),
        _ => other(bytes, declared)?,
    })
}

/// Types that a server may define for itself.
fn other(bytes: &[u8], declared: &Type) -> Result<String, ValueError> {
    match declared.kind() {
        Kind::Enum(_) => utf8(bytes).map(str::to_owned),
        Kind::Domain(base) => decode(bytes, base),
        _ if declared.name() == "citext" => utf8(bytes).map(str::to_owned),
        _ => {
            let name = declared.name();
            let message = format!("parameters of type {name} are taken as text only, not in binary");
            Err(ValueError::unsupported(message))
        }
    }
}

/// The bytes if they are as many as the type has.
pub(super) fn exactly<const N: usize>(bytes: &[u8], declared: &Type) -> Result<[u8; N], ValueError> {
    bytes.try_into().map_err(|_| {
        let message = format!(
            "incorrect binary data format in a parameter of type {}: {} bytes instead of {N}",
            declared.name(),
            bytes.len()
        );
        ValueError::new("22P03", message)
    })
}

fn written(write: impl FnOnce(&mut Text) -> Result<(), ValueError>) -> Result<String, ValueError> {
    let mut text = Text::new();
    write(&mut text)?;
    Ok(String::from_utf8_lossy(text.as_bytes()).into_owned())
}

fn put(write: impl FnOnce(&mut BytesMut)) -> String {
    let mut out = BytesMut::new();
    write(&mut out);
    String::from_utf8_lossy(&out).into_owned()
}

fn float<F: Float>(value: F) -> String {
    put(|out| put_float(out, value))
}

fn one_byte([byte]: [u8; 1]) -> String {
    match byte {
        0 => String::new(),
        1..0x80 => char::from(byte).to_string(),
        _ => format!("\\{byte:03o}"),
    }
}

fn date(days: i32) -> Result<String, ValueError> {
    match days {
        i32::MAX => Ok("infinity".to_owned()),
        i32::MIN => Ok("-infinity".to_owned()),
        _ if DATE_DAYS.contains(&days) => Ok(put(|out| datetime::put_date(out, i64::from(days) + EPOCH_DAYS))),
        _ => Err(ValueError::out_of_range("date")),
    }
}

fn timestamp(micros: i64, zone: Option<&Zone>) -> Result<String, ValueError> {
    match micros {
        i64::MAX => return Ok("infinity".to_owned()),
        i64::MIN => return Ok("-infinity".to_owned()),
        _ if TIMESTAMP_MICROS.contains(&micros) => {}
        _ => return Err(ValueError::out_of_range("timestamp")),
    }
    // The latest timestamps, counted from 1970, are beyond 64 bits of microseconds by 30 years.
    let since_1970 = micros.checked_add(EPOCH_MICROS).ok_or_else(|| ValueError::out_of_range("timestamp"))?;
    let mut out = BytesMut::new();
    datetime::put_timestamp(&mut out, since_1970, zone)?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

fn time_of_day(micros: i64) -> Result<i64, ValueError> {
    if !(0..=DAY_MICROS).contains(&micros) {
        return Err(ValueError::out_of_range("time"));
    }
    Ok(micros)
}

/// Microseconds, and the seconds of the zone counted west.
fn time_with_zone(bytes: [u8; 12]) -> Result<String, ValueError> {
    let (micros, west) = bytes.split_at(8);
    let micros = i64::from_be_bytes(exactly(micros, &Type::TIMETZ)?);
    let west = i32::from_be_bytes(exactly(west, &Type::TIMETZ)?);
    if west.unsigned_abs() >= TIMETZ_SECONDS_MAX {
        return Err(ValueError::new("22009", "time zone displacement out of range"));
    }
    written(|text| {
        push_time(text, time_of_day(micros)?);
        push_offset(text, -west);
        Ok(())
    })
}

fn interval(bytes: [u8; 16]) -> String {
    let whole = i128::from_be_bytes(bytes);
    // Each cast takes a part out by its width.
    let (micros, days, months) = ((whole >> 64) as i64, (whole >> 32) as i32, whole as i32);
    Interval { months, days, micros }.literal()
}

fn uuid(bytes: [u8; 16]) -> String {
    let digits = format!("{:032x}", u128::from_be_bytes(bytes));
    let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    parts.join("-")
}

/// A numeric with the digits behind its point that its sender meant to show. One with a weight as
/// large as the format allows has 131,072 digits, which bounds the text.
fn numeric(bytes: &[u8]) -> Result<String, ValueError> {
    let invalid = |what: &str| ValueError::new("22P03", format!("invalid {what} in external \"numeric\" value"));
    let (head, digits) = bytes.split_at_checked(8).ok_or_else(|| invalid("length"))?;
    let head: [u16; 4] = std::array::from_fn(|part| u16::from_be_bytes([head[2 * part], head[2 * part + 1]]));
    let [digit_count, weight, sign, scale] = head;
    if digits.len() != usize::from(digit_count) * 2 {
        return Err(invalid("length"));
    }
    if scale > NUMERIC_SCALE_MAX {
        return Err(invalid("scale"));
    }
    let digits: Vec<u16> = digits.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
    if digits.iter().any(|digit| *digit > 9999) {
        return Err(invalid("digit"));
    }
    let is_negative = match sign {
        0 => false,
        0x4000 => true,
        0xc000 => return Ok("NaN".to_owned()),
        0xd000 => return Ok("Infinity".to_owned()),
        0xf000 => return Ok("-Infinity".to_owned()),
        _ => return Err(invalid("sign")),
    };
    let weight = i32::from(weight.cast_signed());
    let group = |place: i32| {
        let index = usize::try_from(weight - place).ok();
        index.and_then(|index| digits.get(index)).copied().unwrap_or(0)
    };
    let mut text = String::new();
    for place in (0..=weight.max(0)).rev() {
        text.push_str(&format!("{:04}", group(place)));
    }
    let whole = text.trim_start_matches('0');
    let mut text = if whole.is_empty() { "0".to_owned() } else { whole.to_owned() };
    let scale = usize::from(scale);
    if scale > 0 {
        let point = text.len();
        text.push('.');
        for place in 1..=i32::try_from(scale.div_ceil(4)).unwrap_or(0) {
            text.push_str(&format!("{:04}", group(-place)));
        }
        text.truncate(point + 1 + scale);
    }
    let is_zero = !text.bytes().any(|byte| (b'1'..=b'9').contains(&byte));
    Ok(if is_negative && !is_zero { format!("-{text}") } else { text })
}
