//! What casts and operators are rewritten to, and the names of types.

use datafusion::common::{Result, exec_err};

use super::{
    function::Call,
    value::{Kind, Value, text},
};

/// `x::varchar(n)`: cut off behind n letters.
pub(super) fn varchar<'a>(call: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let Value::Int(most) = arguments[1] else { return exec_err!("a length must be a number") };
    let Ok(most @ 1..) = usize::try_from(most) else { return exec_err!("length for type varchar must be at least 1") };
    let shown = match call.shown(arguments, 0) {
        Some(shown) if call.kinds.first() == Some(&Kind::Bool) => {
            if shown == "t" { "true" } else { "false" }.to_owned()
        }
        Some(shown) => shown,
        None => return Ok(Value::Null),
    };
    let end = shown.char_indices().nth(most).map_or(shown.len(), |(end, _)| end);
    Ok(text(shown[..end].to_owned()))
}

/// `pg_typeof`.
pub(super) fn pg_typeof<'a>(call: &Call<'_>, _: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(text(call.kinds.first().map_or("unknown".to_owned(), |kind| kind.name().into_owned())))
}

/// The regular expression that a pattern of `SIMILAR TO` stands for.
pub(super) fn similar_to_escape<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    if arguments[0].is_null() {
        return Ok(Value::Null);
    }
    let escape = match arguments.get(1) {
        None => Some('\\'),
        Some(Value::Null) => return Ok(Value::Null),
        Some(escape) => {
            let mut letters = escape.str()?.chars();
            let escape = letters.next();
            if letters.next().is_some() {
                return exec_err!("invalid escape string");
            }
            escape
        }
    };
    Ok(text(similar(arguments[0].str()?, escape)?))
}

fn similar(pattern: &str, escape: Option<char>) -> Result<String> {
    let (mut out, mut in_class, mut first_in_class) = ("^(?:".to_owned(), false, false);
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        if Some(letter) == escape {
            match letters.next() {
                Some('"') => return exec_err!("SQL regular expression with separators is not available here"),
                Some(next) => out.extend(['\\', next]),
                None => return exec_err!("invalid regular expression: it ends with its escape character"),
            }
            continue;
        }
        if in_class {
            if letter == '[' && letters.as_str().starts_with([':', '.', '=']) {
                let Some(end) = letters.as_str().find(":]") else {
                    return exec_err!("invalid regular expression: brackets not balanced");
                };
                out.push('[');
                out.push_str(&letters.as_str()[..end + 2]);
                letters = letters.as_str()[end + 2..].chars();
                first_in_class = false;
                continue;
            }
            if letter == '\\' {
                out.push('\\');
            }
            out.push(letter);
            in_class = letter != ']' || first_in_class;
            first_in_class = first_in_class && letter == '^';
            continue;
        }
        match letter {
            '%' => out.push_str(".*"),
            '_' => out.push('.'),
            '(' => out.push_str("(?:"),
            '\\' | '.' | '^' | '$' => out.extend(['\\', letter]),
            '[' => {
                (in_class, first_in_class) = (true, true);
                out.push('[');
            }
            letter => out.push(letter),
        }
    }
    out.push_str(")$");
    Ok(out)
}
