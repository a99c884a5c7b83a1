//! JSON in texts: what PostgreSQL's type `json` does, which keeps what was written.

use datafusion::common::{Result, exec_err};
use serde::de::IgnoredAny;

use super::{
    function::Call,
    value::{Value, text},
};

fn checked(json: &str) -> Result<&str> {
    match serde_json::from_str::<IgnoredAny>(json) {
        Ok(_) => Ok(json.trim()),
        Err(_) => exec_err!("invalid input syntax for type json"),
    }
}

/// The value that a text begins with, and what is behind it. The text was checked.
fn split(json: &str) -> (&str, &str) {
    let bytes = json.as_bytes();
    let (mut depth, mut in_text, mut place) = (0usize, false, 0);
    while let Some(byte) = bytes.get(place) {
        match (in_text, byte) {
            (true, b'\\') => place += 1,
            (_, b'"') => in_text = !in_text,
            (false, b'{' | b'[') => depth += 1,
            (false, b'}' | b']') if depth == 0 => break,
            (false, b'}' | b']') => depth -= 1,
            (false, b',' | b':') if depth == 0 => break,
            _ => {}
        }
        place += 1;
    }
    let (value, rest) = json.split_at(place.min(json.len()));
    (value.trim(), rest)
}

/// The members of an object, by name, or none if it is no object.
fn members(json: &str) -> Option<Vec<(String, &str)>> {
    let mut rest = json.strip_prefix('{')?;
    let mut members = Vec::new();
    loop {
        let (name, behind) = split(rest);
        let Some(behind) = behind.strip_prefix(':') else { return Some(members) };
        let (value, behind) = split(behind);
        members.push((serde_json::from_str(name).ok()?, value));
        rest = behind.strip_prefix([',', '}']).unwrap_or("");
    }
}

fn items(json: &str) -> Option<Vec<&str>> {
    let mut rest = json.strip_prefix('[')?;
    let mut items = Vec::new();
    loop {
        let (value, behind) = split(rest);
        if value.is_empty() {
            return Some(items);
        }
        items.push(value);
        rest = behind.strip_prefix([',', ']']).unwrap_or("");
    }
}

fn item(json: &str, place: i64) -> Option<&str> {
    let items = items(json)?;
    let place = if place < 0 { place + items.len() as i64 } else { place };
    items.get(usize::try_from(place).ok()?).copied()
}

fn member<'a>(json: &'a str, name: &str) -> Option<&'a str> {
    // Of two members of one name the later counts.
    members(json)?.into_iter().rev().find(|(known, _)| known == name).map(|(_, value)| value)
}

fn as_text(json: &str) -> Option<String> {
    match json {
        "null" => None,
        json if json.starts_with('"') => serde_json::from_str(json).ok(),
        json => Some(json.to_owned()),
    }
}

fn found<'a>(json: Option<&str>, is_text: bool) -> Value<'a> {
    match json {
        None => Value::Null,
        Some(json) if is_text => as_text(json).map_or(Value::Null, text),
        Some(json) => text(json.to_owned()),
    }
}

fn got<'a>(arguments: &[Value<'a>], is_text: bool) -> Result<Value<'a>> {
    let json = checked(arguments[0].str()?)?;
    let value = match &arguments[1] {
        Value::Int(place) => item(json, *place),
        name => member(json, name.str()?),
    };
    Ok(found(value, is_text))
}

pub(super) fn get<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    got(arguments, false)
}

pub(super) fn get_text<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    got(arguments, true)
}

/// The steps of a path: an array's items, or the text of one, `{a,0,"b c"}`.
fn path(steps: &Value<'_>) -> Result<Option<Vec<String>>> {
    if let Value::List(steps) = steps {
        return steps
            .iter()
            .map(|step| if step.is_null() { Ok(None) } else { Ok(Some(step.str()?.to_owned())) })
            .collect();
    }
    let Some(inner) = steps.str()?.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
        return exec_err!("malformed array literal: \"{}\"", steps.str()?);
    };
    let (mut steps, mut step, mut in_quotes, mut letters) = (Vec::new(), String::new(), false, inner.chars());
    while let Some(letter) = letters.next() {
        match letter {
            '"' => in_quotes = !in_quotes,
            '\\' => step.extend(letters.next()),
            ',' if !in_quotes => steps.push(std::mem::take(&mut step)),
            letter => step.push(letter),
        }
    }
    if !inner.is_empty() {
        steps.push(step);
    }
    Ok(Some(steps))
}

fn walked<'a>(arguments: &[Value<'a>], is_text: bool) -> Result<Value<'a>> {
    let mut json = checked(arguments[0].str()?)?;
    let Some(steps) = path(&arguments[1])? else { return Ok(Value::Null) };
    for step in steps {
        let next = if json.starts_with('[') {
            step.trim().parse().ok().and_then(|place| item(json, place))
        } else {
            member(json, &step)
        };
        let Some(next) = next else { return Ok(Value::Null) };
        json = next;
    }
    Ok(found(Some(json), is_text))
}

pub(super) fn get_path<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    walked(arguments, false)
}

pub(super) fn get_path_text<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    walked(arguments, true)
}

pub(super) fn array_length<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let json = checked(arguments[0].str()?)?;
    match items(json) {
        Some(items) => Ok(Value::Int(items.len() as i64)),
        None if json.starts_with('{') => exec_err!("cannot get array length of a non-array"),
        None => exec_err!("cannot get array length of a scalar"),
    }
}

pub(super) fn kind<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(text(match checked(arguments[0].str()?)?.as_bytes().first() {
        Some(b'{') => "object",
        Some(b'[') => "array",
        Some(b'"') => "string",
        Some(b't' | b'f') => "boolean",
        Some(b'n') => "null",
        _ => "number",
    }))
}
