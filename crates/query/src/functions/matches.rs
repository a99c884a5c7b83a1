//! Functions of regular expressions.

use std::sync::Arc;

use datafusion::common::{Result, exec_err};

use super::{
    function::Call,
    regexes::Expression,
    value::{Value, text},
};

/// The expression of a pattern and flags: made once as long as they stay the same.
fn expression(call: &Call<'_>, pattern: &str, flags: &str, allow_global: bool) -> Result<(Arc<Expression>, bool)> {
    let mut kept = call.pattern.borrow_mut();
    match &*kept {
        Some((of, with, expression, global)) if of == pattern && with == flags => Ok((expression.clone(), *global)),
        _ => {
            let (expression, global) = Expression::new(pattern, flags, allow_global, call.name)?;
            let expression = Arc::new(expression);
            *kept = Some((pattern.to_owned(), flags.to_owned(), expression.clone(), global));
            Ok((expression, global))
        }
    }
}

fn letters<'a>(arguments: &'a [Value<'_>], place: usize) -> Result<&'a str> {
    arguments.get(place).map_or(Ok(""), |flags| flags.str())
}

/// A number that must be positive, counted from 1; 1 if it is not given.
fn positive(call: &Call<'_>, arguments: &[Value<'_>], place: usize, what: &str) -> Result<usize> {
    let Some(number) = arguments.get(place) else { return Ok(1) };
    match usize::try_from(number.int()?) {
        Ok(number @ 1..) => Ok(number),
        _ => exec_err!("invalid value for parameter \"{what}\" of {}", call.name),
    }
}

/// Where the letter with this number begins, counted from 1.
fn byte_of(text: &str, letter: usize) -> Option<usize> {
    let ends = std::iter::once(text.len());
    text.char_indices().map(|(place, _)| place).chain(ends).nth(letter - 1)
}

pub(super) fn regexp_like<'a>(call: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let (expression, _) = expression(call, arguments[1].str()?, letters(arguments, 2)?, false)?;
    Ok(Value::Bool(expression.find(arguments[0].str()?, 0)?.is_some()))
}

fn groups<'a>(expression: &Expression, of: &str, found: (usize, usize)) -> Result<Vec<Value<'a>>> {
    if expression.groups_len() == 0 {
        return Ok(vec![text(of[found.0..found.1].to_owned())]);
    }
    let groups = expression.groups(of, found)?;
    let group = |group: Option<regex::Match<'_>>| group.map_or(Value::Null, |found| text(found.as_str().to_owned()));
    Ok(groups.iter().skip(1).map(group).collect())
}

pub(super) fn regexp_match<'a>(call: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let (expression, _) = expression(call, arguments[1].str()?, letters(arguments, 2)?, false)?;
    let of = arguments[0].str()?;
    match expression.find(of, 0)? {
        Some(found) => Ok(Value::List(groups(&expression, of, found)?)),
        None => Ok(Value::Null),
    }
}

/// `substring(text FROM pattern)`: the first group, or the match if there is none.
pub(super) fn substring<'a>(call: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let (expression, _) = expression(call, arguments[1].str()?, "", false)?;
    let of = arguments[0].str()?;
    match expression.find(of, 0)? {
        Some(found) => Ok(groups(&expression, of, found)?.into_iter().next().unwrap_or(Value::Null)),
        None => Ok(Value::Null),
    }
}

pub(super) fn regexp_count<'a>(call: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let (expression, _) = expression(call, arguments[1].str()?, letters(arguments, 3)?, false)?;
    let of = arguments[0].str()?;
    let start = positive(call, arguments, 2, "start")?;
    let Some(from) = byte_of(of, start) else { return Ok(Value::Int(0)) };
    Ok(Value::Int(expression.all(of, from, usize::MAX)?.len() as i64))
}

/// The match with this number, and its groups.
fn nth(
    call: &Call<'_>,
    expression: &Expression,
    of: &str,
    (start, number): (usize, usize),
    group: usize,
) -> Result<Option<(usize, usize)>> {
    let Some(from) = byte_of(of, start) else { return Ok(None) };
    let found = expression.all(of, from, number)?;
    let Some(found) = found.get(number - 1) else { return Ok(None) };
    if group == 0 {
        return Ok(Some(*found));
    }
    if group > expression.groups_len() {
        return Ok(None);
    }
    let _ = call;
    Ok(expression.groups(of, *found)?.get(group).map(|group| (group.start(), group.end())))
}

fn group_of(call: &Call<'_>, arguments: &[Value<'_>], place: usize) -> Result<usize> {
    let Some(group) = arguments.get(place) else { return Ok(0) };
    usize::try_from(group.int()?).or_else(|_| exec_err!("invalid value for parameter \"subexpr\" of {}", call.name))
}

pub(super) fn regexp_substr<'a>(call: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let (expression, _) = expression(call, arguments[1].str()?, letters(arguments, 4)?, false)?;
    let which = (positive(call, arguments, 2, "start")?, positive(call, arguments, 3, "n")?);
    let of = arguments[0].str()?;
    let found = nth(call, &expression, of, which, group_of(call, arguments, 5)?)?;
    Ok(found.map_or(Value::Null, |(start, end)| text(of[start..end].to_owned())))
}

pub(super) fn regexp_instr<'a>(call: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let (expression, _) = expression(call, arguments[1].str()?, letters(arguments, 5)?, false)?;
    let which = (positive(call, arguments, 2, "start")?, positive(call, arguments, 3, "n")?);
    let at_end = match arguments.get(4).map_or(Ok(0), Value::int)? {
        0 => false,
        1 => true,
        _ => return exec_err!("invalid value for parameter \"endoption\" of regexp_instr"),
    };
    let of = arguments[0].str()?;
    let found = nth(call, &expression, of, which, group_of(call, arguments, 6)?)?;
    let place = found.map_or(0, |(start, end)| of[..if at_end { end } else { start }].chars().count() + 1);
    Ok(Value::Int(place as i64))
}

/// A match's replacement: `\1` is a group, `\&` the match.
fn replaced(
    call: &Call<'_>,
    expression: &Expression,
    of: &str,
    with: &str,
    found: (usize, usize),
    out: &mut String,
) -> Result<()> {
    let (mut rest, mut groups) = (with, None);
    while let Some(place) = rest.find('\\') {
        out.push_str(&rest[..place]);
        let mut letters = rest[place + 1..].chars();
        match letters.next() {
            Some(digit @ '1'..='9') => {
                if groups.is_none() {
                    groups = Some(expression.groups(of, found)?);
                }
                let group = groups.as_ref().and_then(|groups| groups.get(usize::from(digit as u8 - b'0')));
                out.push_str(group.map_or("", |group| group.as_str()));
            }
            Some('&') => out.push_str(&of[found.0..found.1]),
            Some('\\') => out.push('\\'),
            Some(other) => out.extend(['\\', other]),
            None => out.push('\\'),
        }
        rest = letters.as_str();
        call.room.check(out.len())?;
    }
    out.push_str(rest);
    call.room.check(out.len())
}

fn replace<'a>(
    call: &Call<'_>,
    expression: &Expression,
    (of, with): (&str, &str),
    from: usize,
    matches: &[(usize, usize)],
) -> Result<Value<'a>> {
    let mut out = of[..from].to_owned();
    let mut done = from;
    for found in matches {
        out.push_str(&of[done..found.0]);
        replaced(call, expression, of, with, *found, &mut out)?;
        done = found.1;
    }
    out.push_str(&of[done..]);
    Ok(text(out))
}

/// `regexp_replace(text, pattern, replacement [, flags])`.
pub(super) fn regexp_replace<'a>(call: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let (expression, global) = expression(call, arguments[1].str()?, letters(arguments, 3)?, true)?;
    let (of, with) = (arguments[0].str()?, arguments[2].str()?);
    let matches = expression.all(of, 0, if global { usize::MAX } else { 1 })?;
    replace(call, &expression, (of, with), 0, &matches)
}

/// `regexp_replace(text, pattern, replacement, start [, n [, flags]])`.
pub(super) fn regexp_replace_nth<'a>(call: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let (expression, global) = expression(call, arguments[1].str()?, letters(arguments, 5)?, true)?;
    let (of, with) = (arguments[0].str()?, arguments[2].str()?);
    let start = positive(call, arguments, 3, "start")?;
    let number = match arguments.get(4) {
        Some(number) => usize::try_from(number.int()?)
            .or_else(|_| exec_err!("invalid value for parameter \"n\" of regexp_replace"))?,
        None => usize::from(!global),
    };
    let Some(from) = byte_of(of, start) else { return Ok(text(of.to_owned())) };
    let matches = expression.all(of, from, if number == 0 { usize::MAX } else { number })?;
    let chosen = if number == 0 { &matches[..] } else { matches.get(number - 1..).unwrap_or_default() };
    replace(call, &expression, (of, with), from, chosen)
}

pub(super) fn regexp_split_to_array<'a>(call: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let (expression, _) = expression(call, arguments[1].str()?, letters(arguments, 2)?, false)?;
    let of = arguments[0].str()?;
    let (mut parts, mut done) = (Vec::new(), 0);
    // An empty match at the ends, or right behind another, splits nothing off.
    for (start, end) in expression.all(of, 0, usize::MAX)? {
        if start == end && (start == 0 || start == of.len()) {
            continue;
        }
        parts.push(text(of[done..start].to_owned()));
        done = end;
    }
    parts.push(text(of[done..].to_owned()));
    Ok(Value::List(parts))
}
