//! `format` and quotes.

use datafusion::common::{Result, exec_err};

use super::{
    function::Call,
    value::{Value, text},
};

/// Words that a name must not be without quotes.
const RESERVED: [&str; 97] = [
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "authorization",
    "between",
    "bigint",
    "binary",
    "bit",
    "boolean",
    "both",
    "case",
    "cast",
    "char",
    "character",
    "check",
    "coalesce",
    "collate",
    "collation",
    "column",
    "concurrently",
    "constraint",
    "create",
    "cross",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "dec",
    "decimal",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "exists",
    "extract",
    "false",
    "fetch",
    "float",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "grant",
    "greatest",
    "group",
    "grouping",
    "having",
    "ilike",
    "in",
    "initially",
    "inner",
    "inout",
    "int",
    "integer",
    "intersect",
    "interval",
    "into",
    "is",
    "isnull",
    "join",
    "lateral",
    "leading",
    "least",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "national",
    "natural",
    "nchar",
    "none",
    "normalize",
    "not",
    "notnull",
    "null",
    "nullif",
    "numeric",
    "offset",
    "on",
    "only",
    "or",
    "order",
];
const RESERVED_TOO: [&str; 54] = [
    "out",
    "outer",
    "overlaps",
    "overlay",
    "placing",
    "position",
    "precision",
    "primary",
    "real",
    "references",
    "returning",
    "right",
    "row",
    "select",
    "session_user",
    "setof",
    "similar",
    "smallint",
    "some",
    "substring",
    "symmetric",
    "table",
    "tablesample",
    "then",
    "time",
    "timestamp",
    "to",
    "trailing",
    "treat",
    "trim",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "values",
    "varchar",
    "variadic",
    "verbose",
    "when",
    "where",
    "window",
    "with",
    "xmlattributes",
    "xmlconcat",
    "xmlelement",
    "xmlexists",
    "xmlforest",
    "xmlnamespaces",
    "xmlparse",
    "xmlpi",
    "xmlroot",
    "xmlserialize",
    "xmltable",
];

fn ident(name: &str) -> String {
    let plain = name.starts_with(|letter: char| letter.is_ascii_lowercase() || letter == '_')
        && name.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_')
        && !RESERVED.contains(&name)
        && !RESERVED_TOO.contains(&name);
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

fn literal(value: &str) -> String {
    let quoted = value.replace('\'', "''");
    if value.contains('\\') { format!(" E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

pub(super) fn quote_ident<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(text(ident(arguments[0].str()?)))
}

pub(super) fn quote_literal<'a>(call: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(call.shown(arguments, 0).map_or(Value::Null, |shown| text(unspaced(literal(&shown)))))
}

pub(super) fn quote_nullable<'a>(call: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(text(call.shown(arguments, 0).map_or("NULL".to_owned(), |shown| unspaced(literal(&shown)))))
}

/// `format` has a space before an `E'…'`; the others do not.
fn unspaced(literal: String) -> String {
    literal.trim_start().to_owned()
}

/// What stands between `%` and the kind: which argument, and how wide.
#[derive(Default)]
struct Spec {
    argument: Option<usize>,
    left: bool,
    width: usize,
}

/// `format(text, …)` with `%s`, `%I`, `%L`, places (`%2$s`) and widths (`%-10s`, `%*s`).
pub(super) fn format<'a>(call: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    if arguments[0].is_null() {
        return Ok(Value::Null);
    }
    let mut rest = arguments[0].str()?;
    let (mut out, mut next) = (String::new(), 1);
    while let Some(place) = rest.find('%') {
        out.push_str(&rest[..place]);
        rest = &rest[place + 1..];
        if let Some(behind) = rest.strip_prefix('%') {
            out.push('%');
            rest = behind;
            continue;
        }
        let spec = spec(&mut rest, arguments, &mut next)?;
        let Some(kind) = rest.chars().next() else { return exec_err!("unterminated format() type specifier") };
        rest = &rest[kind.len_utf8()..];
        let argument = spec.argument.unwrap_or(next);
        next = argument + 1;
        if argument >= arguments.len() {
            return exec_err!("too few arguments for format()");
        }
        let shown = call.shown(arguments, argument);
        let piece = match (kind, shown) {
            ('s', shown) => shown.unwrap_or_default(),
            ('I', Some(name)) => ident(&name),
            ('I', None) => return exec_err!("null values cannot be formatted as an SQL identifier"),
            ('L', Some(value)) => unspaced(literal(&value)),
            ('L', None) => "NULL".to_owned(),
            (other, _) => return exec_err!("unrecognized format() type specifier \"{other}\""),
        };
        call.room.check(out.len().saturating_add(piece.len()).saturating_add(spec.width))?;
        let padding = " ".repeat(spec.width.saturating_sub(piece.chars().count()));
        if spec.left {
            out.extend([piece, padding]);
        } else {
            out.extend([padding, piece]);
        }
    }
    out.push_str(rest);
    Ok(text(out))
}

fn spec(rest: &mut &str, arguments: &[Value<'_>], next: &mut usize) -> Result<Spec> {
    let mut spec = Spec::default();
    let number = |rest: &mut &str| {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number = rest[..digits].parse::<usize>().ok();
        *rest = &rest[digits..];
        number
    };
    let mut behind = *rest;
    if let Some(place) = number(&mut behind)
        && let Some(behind) = behind.strip_prefix('$')
    {
        if place == 0 {
            return exec_err!("format specifies argument 0, but arguments are numbered from 1");
        }
        spec.argument = Some(place);
        *rest = behind;
    }
    while let Some(behind) = rest.strip_prefix('-') {
        spec.left = true;
        *rest = behind;
    }
    if let Some(behind_star) = rest.strip_prefix('*') {
        *rest = behind_star;
        let mut digits = behind_star;
        let place = match number(&mut digits).zip(digits.strip_prefix('$')) {
            Some((place, behind)) => {
                *rest = behind;
                place
            }
            None => *next,
        };
        *next = place + 1;
        let width = match arguments.get(place) {
            Some(Value::Null) => 0,
            Some(Value::Int(width)) => *width,
            Some(_) => return exec_err!("a width in format() must be a number"),
            None => return exec_err!("too few arguments for format()"),
        };
        spec.left |= width < 0;
        spec.width = usize::try_from(width.unsigned_abs()).unwrap_or(usize::MAX);
    } else if let Some(width) = number(rest) {
        spec.width = width;
    }
    Ok(spec)
}
