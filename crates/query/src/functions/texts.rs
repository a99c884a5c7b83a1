//! Functions of texts: they count letters, not bytes.

use datafusion::common::{Result, exec_err};

use super::{
    function::Call,
    value::{Kind, Value, text},
};

fn of<'a>(arguments: &'a [Value<'_>], place: usize) -> Result<&'a str> {
    arguments.get(place).map_or(Ok(""), |argument| argument.str())
}

pub(super) fn length<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::Int(of(arguments, 0)?.chars().count() as i64))
}

fn bytes_len(value: &Value<'_>) -> Result<i64> {
    match value {
        Value::Bytes(bytes) => Ok(bytes.len() as i64),
        text => Ok(text.str()?.len() as i64),
    }
}

pub(super) fn octet_length<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::Int(bytes_len(&arguments[0])?))
}

pub(super) fn bit_length<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::Int(bytes_len(&arguments[0])? * 8))
}

/// One letter for one: `ß` has no capital.
fn capital(letter: char) -> char {
    let mut letters = letter.to_uppercase();
    match (letters.next(), letters.next()) {
        (Some(capital), None) => capital,
        _ => letter,
    }
}

fn small(letter: char) -> char {
    let mut letters = letter.to_lowercase();
    match (letters.next(), letters.next()) {
        (Some(small), None) => small,
        _ => letter,
    }
}

pub(super) fn upper<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(text(of(arguments, 0)?.chars().map(capital).collect::<String>()))
}

pub(super) fn lower<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(text(of(arguments, 0)?.chars().map(small).collect::<String>()))
}

pub(super) fn initcap<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let mut in_word = false;
    let cased = of(arguments, 0)?.chars().map(|letter| {
        let cased = if in_word { small(letter) } else { capital(letter) };
        in_word = letter.is_alphanumeric();
        cased
    });
    Ok(text(cased.collect::<String>()))
}

/// How many of `count` letters a number means: a negative one means all but so many.
fn kept(count: usize, number: i64) -> usize {
    match usize::try_from(number) {
        Ok(number) => number.min(count),
        Err(_) => count.saturating_sub(number.unsigned_abs() as usize),
    }
}

fn byte_of(text: &str, letter: usize) -> usize {
    text.char_indices().nth(letter).map_or(text.len(), |(place, _)| place)
}

pub(super) fn left<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let whole = of(arguments, 0)?;
    let end = byte_of(whole, kept(whole.chars().count(), arguments[1].int()?));
    Ok(text(whole[..end].to_owned()))
}

pub(super) fn right<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let whole = of(arguments, 0)?;
    let count = whole.chars().count();
    let start = byte_of(whole, count - kept(count, arguments[1].int()?));
    Ok(text(whole[start..].to_owned()))
}

/// From and to which of the letters or bytes, counted from 0, a start counted from 1 and a length
/// mean.
fn span(arguments: &[Value<'_>]) -> Result<(usize, usize)> {
    let start = arguments[1].int()?;
    let end = match arguments.get(2).map(Value::int).transpose()? {
        Some(length) if length < 0 => return exec_err!("negative substring length not allowed"),
        Some(length) => start.saturating_add(length),
        None => i64::MAX,
    };
    let place = |number: i64| usize::try_from(number - 1).unwrap_or(0);
    Ok((place(start.max(1)), place(end.max(1))))
}

pub(super) fn substr<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let (start, end) = span(arguments)?;
    if let Value::Bytes(bytes) = &arguments[0] {
        let part = &bytes[start.min(bytes.len())..end.min(bytes.len()).max(start.min(bytes.len()))];
        return Ok(Value::Bytes(part.to_vec().into()));
    }
    let letters = of(arguments, 0)?.chars().skip(start).take(end.saturating_sub(start));
    Ok(text(letters.collect::<String>()))
}

/// `overlay(text, new, start [, length])`.
pub(super) fn overlay<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let (whole, new) = (of(arguments, 0)?, of(arguments, 1)?);
    let start = arguments[2].int()?;
    let length = match arguments.get(3) {
        Some(length) => length.int()?,
        None => new.chars().count() as i64,
    };
    if start <= 0 {
        return exec_err!("negative substring length not allowed");
    }
    let before: String = whole.chars().take((start - 1) as usize).collect();
    let behind = usize::try_from(start.saturating_add(length).max(1) - 1).unwrap_or(0);
    let behind: String = whole.chars().skip(behind).collect();
    Ok(text(format!("{before}{new}{behind}")))
}

fn padding(call: &Call<'_>, arguments: &[Value<'_>]) -> Result<Result<String, String>> {
    let (whole, width) = (of(arguments, 0)?, usize::try_from(arguments[1].int()?).unwrap_or(0));
    let fill = if arguments.len() > 2 { of(arguments, 2)? } else { " " };
    let count = whole.chars().count();
    if width <= count {
        return Ok(Err(whole.chars().take(width).collect()));
    }
    if fill.is_empty() {
        return Ok(Err(whole.to_owned()));
    }
    call.room.check(width)?;
    let padding: String = fill.chars().cycle().take(width - count).collect();
    call.room.check(padding.len() + whole.len())?;
    Ok(Ok(padding))
}

pub(super) fn lpad<'a>(call: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(text(match padding(call, arguments)? {
        Ok(padding) => padding + of(arguments, 0)?,
        Err(cut) => cut,
    }))
}

pub(super) fn rpad<'a>(call: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(text(match padding(call, arguments)? {
        Ok(padding) => of(arguments, 0)?.to_owned() + &padding,
        Err(cut) => cut,
    }))
}

pub(super) fn repeat<'a>(call: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let (whole, times) = (of(arguments, 0)?, usize::try_from(arguments[1].int()?).unwrap_or(0));
    call.room.check(whole.len().saturating_mul(times))?;
    Ok(text(whole.repeat(if whole.is_empty() { 0 } else { times })))
}

pub(super) fn replace<'a>(call: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let (whole, old, new) = (of(arguments, 0)?, of(arguments, 1)?, of(arguments, 2)?);
    if old.is_empty() {
        return Ok(text(whole.to_owned()));
    }
    if new.len() > old.len() {
        let grown = whole.matches(old).count().saturating_mul(new.len() - old.len());
        call.room.check(whole.len().saturating_add(grown))?;
    }
    Ok(text(whole.replace(old, new)))
}

/// `translate(text, from, to)`: letters that `to` has no letter for go.
pub(super) fn translate<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let from: Vec<char> = of(arguments, 1)?.chars().collect();
    let to: Vec<char> = of(arguments, 2)?.chars().collect();
    let letters = of(arguments, 0)?.chars().filter_map(|letter| match from.iter().position(|old| *old == letter) {
        Some(place) => to.get(place).copied(),
        None => Some(letter),
    });
    Ok(text(letters.collect::<String>()))
}

pub(super) fn reverse<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(text(of(arguments, 0)?.chars().rev().collect::<String>()))
}

fn trimmed<'a>(arguments: &'a [Value<'_>], at_start: bool, at_end: bool) -> Result<&'a str> {
    let set: Vec<char> = if arguments.len() > 1 { of(arguments, 1)?.chars().collect() } else { vec![' '] };
    let mut whole = of(arguments, 0)?;
    if at_start {
        whole = whole.trim_start_matches(|letter| set.contains(&letter));
    }
    if at_end {
        whole = whole.trim_end_matches(|letter| set.contains(&letter));
    }
    Ok(whole)
}

pub(super) fn btrim<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(text(trimmed(arguments, true, true)?.to_owned()))
}

pub(super) fn ltrim<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(text(trimmed(arguments, true, false)?.to_owned()))
}

pub(super) fn rtrim<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(text(trimmed(arguments, false, true)?.to_owned()))
}

pub(super) fn strpos<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let (whole, part) = (of(arguments, 0)?, of(arguments, 1)?);
    Ok(Value::Int(whole.find(part).map_or(0, |place| whole[..place].chars().count() as i64 + 1)))
}

pub(super) fn starts_with<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::Bool(of(arguments, 0)?.starts_with(of(arguments, 1)?)))
}

pub(super) fn split_part<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let (whole, delimiter, number) = (of(arguments, 0)?, of(arguments, 1)?, arguments[2].int()?);
    if number == 0 {
        return exec_err!("field position must not be zero");
    }
    if delimiter.is_empty() {
        return Ok(text(if matches!(number, 1 | -1) { whole.to_owned() } else { String::new() }));
    }
    let place = usize::try_from(number.unsigned_abs() - 1).unwrap_or(usize::MAX);
    let part = if number > 0 {
        whole.split(delimiter).nth(place)
    } else {
        let parts: Vec<&str> = whole.split(delimiter).collect();
        parts.len().checked_sub(place + 1).map(|place| parts[place])
    };
    Ok(text(part.unwrap_or_default().to_owned()))
}

pub(super) fn ascii<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::Int(of(arguments, 0)?.chars().next().map_or(0, |letter| i64::from(u32::from(letter)))))
}

pub(super) fn chr<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let number = arguments[0].int()?;
    match u32::try_from(number).ok().filter(|number| *number != 0).and_then(char::from_u32) {
        Some(letter) => Ok(text(letter.to_string())),
        None if number == 0 => exec_err!("null character not permitted"),
        None => exec_err!("requested character not valid for encoding: {number}"),
    }
}

pub(super) fn to_hex<'a>(call: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let number = arguments[0].int()?;
    Ok(text(match call.kinds.first() {
        Some(Kind::Int8) => format!("{number:x}"),
        _ => format!("{:x}", number as i32),
    }))
}

pub(super) fn concat<'a>(call: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let mut out = String::new();
    for place in 0..arguments.len() {
        out.push_str(&call.shown(arguments, place).unwrap_or_default());
        call.room.check(out.len())?;
    }
    Ok(text(out))
}

pub(super) fn concat_ws<'a>(call: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    if arguments[0].is_null() {
        return Ok(Value::Null);
    }
    let (between, mut out, mut is_first) = (of(arguments, 0)?, String::new(), true);
    for place in 1..arguments.len() {
        let Some(shown) = call.shown(arguments, place) else { continue };
        if !std::mem::replace(&mut is_first, false) {
            out.push_str(between);
        }
        out.push_str(&shown);
        call.room.check(out.len())?;
    }
    Ok(text(out))
}
