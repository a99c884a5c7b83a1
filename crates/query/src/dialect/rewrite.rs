//! What PostgreSQL writes in one way and the planner in another.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, CharacterLength, DataType, Expr, Fetch, Function, FunctionArg, FunctionArgExpr,
    FunctionArguments, LimitClause, ObjectNamePart, Query, Select, SelectItem, Statement, TableAlias, TableFactor,
    UnaryOperator, Value, VisitMut, VisitorMut,
};

use super::{
    arrays::{self, Element},
    type_calls::{self, type_call},
};
use crate::{
    error::QueryError,
    syntax::{self, call, catalogue_type, folded, number, text},
};

/// Rewrites a statement in place; an error names what would otherwise be ignored.
pub(super) fn rewrite(statement: &mut Statement) -> Result<(), QueryError> {
    match statement.visit(&mut Rewrite) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Rewrite;

fn refused<T>(text: &str) -> ControlFlow<QueryError, T> {
    ControlFlow::Break(QueryError::Unsupported(text.to_owned()))
}

impl VisitorMut for Rewrite {
    type Break = QueryError;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<QueryError> {
        if !query.locks.is_empty() {
            return refused("FOR UPDATE and FOR SHARE lock rows, and nothing here is locked; leave it out");
        }
        match query.fetch.take() {
            None => ControlFlow::Continue(()),
            Some(Fetch { with_ties: true, .. }) => refused("FETCH … WITH TIES is not supported; use LIMIT or rank()"),
            Some(Fetch { percent: true, .. }) => refused("FETCH … PERCENT is not supported"),
            Some(Fetch { quantity, .. }) => {
                let limit = Some(quantity.unwrap_or_else(|| number("1")));
                match &mut query.limit_clause {
                    Some(LimitClause::LimitOffset { limit: known @ None, .. }) => *known = limit,
                    Some(_) => return refused("LIMIT and FETCH cannot be given together"),
                    none => *none = Some(LimitClause::LimitOffset { limit, offset: None, limit_by: Vec::new() }),
                }
                ControlFlow::Continue(())
            }
        }
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<QueryError> {
        if select.projection.is_empty() {
            return refused("SELECT needs a column here");
        }
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item
                && shows_regclass(expr)
            {
                // PostgreSQL shows the name.
                *expr = syntax::cast(take(expr), DataType::Text);
            }
            type_calls::name(item);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<QueryError> {
        match factor {
            TableFactor::Table { sample: Some(_), .. } | TableFactor::Derived { sample: Some(_), .. } => {
                refused("TABLESAMPLE is not supported; WHERE random() < 0.1 takes about a tenth of the rows")
            }
            TableFactor::UNNEST { alias: Some(alias), array_exprs, with_ordinality: false, .. } => {
                syntax::name_only_column(alias, array_exprs.len());
                ControlFlow::Continue(())
            }
            TableFactor::Table { name, alias, args: Some(_), .. } => {
                // The functions of tables have no schemas here.
                if name.0.len() == 2 {
                    name.0.remove(0);
                }
                // Programs write functions in capitals; a name without quotes is in small letters.
                for part in &mut name.0 {
                    if let ObjectNamePart::Identifier(part) = part {
                        part.value = folded(part);
                    }
                }
                if let [ObjectNamePart::Identifier(part)] = name.0.as_slice()
                    && part.value == "generate_series"
                {
                    let alias = alias.get_or_insert_with(|| TableAlias {
                        explicit: true,
                        name: part.clone(),
                        columns: Vec::new(),
                        at: None,
                    });
                    syntax::name_only_column(alias, 1);
                }
                ControlFlow::Continue(())
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<QueryError> {
        match rewritten(expr) {
            Ok(Some(new)) => {
                *expr = new;
                ControlFlow::Continue(())
            }
            Ok(None) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

/// What an expression is in the planner's words; none if it is so already. Its parts have been
/// rewritten.
fn rewritten(expr: &mut Expr) -> Result<Option<Expr>, QueryError> {
    Ok(match expr {
        Expr::AtTimeZone { timestamp, time_zone } => Some(call("timezone", [take(time_zone), take(timestamp)])),
        Expr::SimilarTo { negated, expr, pattern, escape_char } => {
            let escape = escape_char.take().map(Expr::Value);
            let pattern = call("similar_to_escape", std::iter::once(take(pattern)).chain(escape));
            let op = if *negated { BinaryOperator::PGRegexNotMatch } else { BinaryOperator::PGRegexMatch };
            Some(Expr::BinaryOp { left: Box::new(take(expr)), op, right: Box::new(pattern) })
        }
        Expr::BinaryOp { left, op, right } => binary(left, op, right)?,
        Expr::Cast { kind: CastKind::Cast | CastKind::DoubleColon, expr, data_type, .. } => cast(expr, data_type)?,
        Expr::TypedString(typed) if typed.data_type == DataType::Bytea => {
            Some(call("byteain", [Expr::Value(typed.value.clone())]))
        }
        Expr::AnyOp { left, compare_op, right, .. } => match elements(right)? {
            Some(all) if !is_volatile(left) => Some(quantified(take(left), compare_op, all, Quantifier::Any)),
            _ => None,
        },
        Expr::AllOp { left, compare_op, right } => match elements(right)? {
            Some(all) if !is_volatile(left) => Some(quantified(take(left), compare_op, all, Quantifier::All)),
            _ => None,
        },
        Expr::Function(function) => match function_call(function)? {
            None => counted(expr),
            call => call,
        },
        Expr::Collate { expr, collation } => {
            // Texts are ordered by their bytes.
            let name = collation.to_string().replace('"', "").to_lowercase();
            match name.trim_start_matches("pg_catalog.") {
                "c" | "posix" | "default" | "ucs_basic" => Some(take(expr)),
                _ => {
                    return Err(QueryError::Unsupported(format!(
                        "COLLATE {collation} is not supported; texts are ordered by their bytes"
                    )));
                }
            }
        }
        Expr::Value(value) => match value.value {
            Value::HexStringLiteral(_) | Value::SingleQuotedByteStringLiteral(_) => {
                let text = "bit strings are not supported; '\\x…'::bytea is bytes".to_owned();
                return Err(QueryError::Unsupported(text));
            }
            _ => None,
        },
        _ => None,
    })
}

fn function_call(function: &mut Function) -> Result<Option<Expr>, QueryError> {
    let is_catalogue =
        |part: &ObjectNamePart| part.as_ident().is_some_and(|name| name.value.eq_ignore_ascii_case("pg_catalog"));
    if function.name.0.len() == 2 && function.name.0.first().is_some_and(is_catalogue) {
        function.name.0.remove(0);
    }
    let [name] = function.name.0.as_slice() else { return Ok(None) };
    let Some(name) = name.as_ident().map(|name| name.value.to_ascii_lowercase()) else { return Ok(None) };
    if matches!(name.as_str(), "first_value" | "last_value" | "nth_value") && function.over.is_none() {
        // Which row is the first would be chance.
        return Err(QueryError::Sql(format!("window function {name} requires an OVER clause")));
    }
    if let ("pg_typeof" | "to_hex", Some([argument])) = (name.as_str(), arguments(function).as_deref_mut()) {
        let is_negative =
            |expr: &Expr| matches!(expr, Expr::UnaryOp { op: UnaryOperator::Minus, expr } if is_whole(expr));
        if name == "pg_typeof" && is_open_literal(argument) {
            let text = "pg_typeof tells types of columns: a literal's type here may be wider than PostgreSQL's";
            return Err(QueryError::Unsupported(text.to_owned()));
        }
        if name == "to_hex" && is_negative(argument) {
            // So many digits as its type has.
            **argument = syntax::cast(take(argument), DataType::Integer(None));
        }
    }
    if let (Some((_, data_type)), Some([argument])) = (type_call(function), arguments(function).as_deref_mut()) {
        return Ok(Some(syntax::cast(take(argument), data_type)));
    }
    if name == "make_interval" {
        in_their_places(function)?;
    }
    let is_who = matches!(name.as_str(), "current_user" | "current_role" | "user" | "session_user");
    Ok((is_who && matches!(function.args, FunctionArguments::None)).then(|| call("session_user", [])))
}

/// The spans of `make_interval`, in the order in which it takes them without names.
const SPANS: [&str; 7] = ["years", "months", "weeks", "days", "hours", "mins", "secs"];

/// Arguments of `make_interval` that were given by name.
fn in_their_places(function: &mut Function) -> Result<(), QueryError> {
    let FunctionArguments::List(list) = &mut function.args else { return Ok(()) };
    let name_of = |argument: &FunctionArg| match argument {
        FunctionArg::Named { name, .. } | FunctionArg::ExprNamed { name: Expr::Identifier(name), .. } => {
            Some(folded(name))
        }
        _ => None,
    };
    if list.args.iter().all(|argument| name_of(argument).is_none()) {
        return Ok(());
    }
    let mut places: Vec<Option<FunctionArgExpr>> = vec![None; SPANS.len()];
    for (place, argument) in std::mem::take(&mut list.args).into_iter().enumerate() {
        let place = match name_of(&argument) {
            Some(name) => SPANS
                .iter()
                .position(|span| *span == name)
                .ok_or_else(|| QueryError::Sql(format!("make_interval has no argument {name}")))?,
            None => place,
        };
        let (FunctionArg::Named { arg: value, .. }
        | FunctionArg::ExprNamed { arg: value, .. }
        | FunctionArg::Unnamed(value)) = argument;
        match places.get_mut(place) {
            Some(free @ None) => *free = Some(value),
            _ => return Err(QueryError::Sql("make_interval is given an argument twice, or too many".to_owned())),
        }
    }
    let zero = || FunctionArgExpr::Expr(Expr::Value(Value::Number("0".to_owned(), false).into()));
    list.args = places.into_iter().map(|value| FunctionArg::Unnamed(value.unwrap_or_else(zero))).collect();
    Ok(())
}

/// What counts rows, as a number of PostgreSQL's type for it: the engine's has no sign.
fn counted(expr: &mut Expr) -> Option<Expr> {
    let Expr::Function(function) = &*expr else { return None };
    let [ObjectNamePart::Identifier(name)] = function.name.0.as_slice() else { return None };
    let kind = match (folded(name).as_str(), function.over.is_some()) {
        ("row_number" | "rank" | "dense_rank", true) | ("regr_count", _) => DataType::BigInt(None),
        ("ntile", true) => DataType::Integer(None),
        _ => return None,
    };
    Some(syntax::cast(take(expr), kind))
}

/// Whether an expression is a literal whose type here is not PostgreSQL's: a whole number is a
/// bigint, and a text without a type is a text.
fn is_open_literal(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) | Expr::UnaryOp { expr: inner, .. } => is_open_literal(inner),
        Expr::Value(value) => match &value.value {
            Value::Number(digits, _) => digits.parse::<i32>().is_ok(),
            Value::SingleQuotedString(_) | Value::EscapedStringLiteral(_) => true,
            _ => false,
        },
        Expr::Array(array) => array.elem.iter().all(is_whole),
        // A cast to varchar(n) by now.
        Expr::Function(function) => function.name.to_string() == "rollcall_varchar",
        Expr::Cast { data_type, .. } => {
            matches!(data_type, DataType::Varchar(_) | DataType::CharacterVarying(_) | DataType::CharVarying(_))
        }
        _ => false,
    }
}

fn is_whole(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(value) if matches!(&value.value, Value::Number(digits, _) if digits.parse::<i32>().is_ok()))
}

/// The arguments of a call, if there is nothing else in it.
fn arguments(function: &mut Function) -> Option<Vec<&mut Expr>> {
    let FunctionArguments::List(list) = &mut function.args else { return None };
    let plain = list.args.iter_mut().map(|argument| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    });
    plain.collect()
}

fn binary(left: &mut Expr, op: &BinaryOperator, right: &mut Expr) -> Result<Option<Expr>, QueryError> {
    let json = match op {
        BinaryOperator::Arrow => "json_get",
        BinaryOperator::LongArrow => "json_get_text",
        BinaryOperator::HashArrow => "json_get_path",
        BinaryOperator::HashLongArrow => "json_get_path_text",
        BinaryOperator::Overlaps => {
            let (Expr::Tuple(first), Expr::Tuple(second)) = (left, right) else { return Ok(None) };
            let ([_, _], [_, _]) = (first.as_slice(), second.as_slice()) else { return Ok(None) };
            return Ok(Some(call("overlaps", first.drain(..).chain(second.drain(..)))));
        }
        // An untyped NULL is an array without elements there.
        BinaryOperator::StringConcat if is_array(left) && is_null(right) => return Ok(Some(take(left))),
        BinaryOperator::StringConcat if is_null(left) && is_array(right) => return Ok(Some(take(right))),
        _ => return Ok(None),
    };
    let document = match take(left) {
        // The document is text here; a cast to JSON only says that it is one.
        Expr::Cast { expr, data_type: DataType::JSON | DataType::JSONB, .. } => *expr,
        other => other,
    };
    Ok(Some(call(json, [document, take(right)])))
}

fn is_null(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(value) if matches!(value.value, Value::Null))
}

fn is_array(expr: &Expr) -> bool {
    matches!(expr, Expr::Array(_) | Expr::Cast { data_type: DataType::Array(_), .. })
}

fn cast(expr: &mut Expr, data_type: &mut DataType) -> Result<Option<Expr>, QueryError> {
    let length = |length: &Option<CharacterLength>| match length {
        Some(CharacterLength::IntegerLength { length, .. }) => Some(length.to_string()),
        _ => None,
    };
    let is_text = matches!(
        data_type,
        DataType::Text | DataType::Varchar(None) | DataType::CharacterVarying(None) | DataType::CharVarying(None)
    );
    if is_regclass(expr) && (is_text || catalogue_type(data_type).as_deref() == Some("name")) {
        return Ok(Some(call("rollcall_regclass_name", [take(expr)])));
    }
    match data_type {
        DataType::Varchar(size) | DataType::CharacterVarying(size) | DataType::CharVarying(size) => {
            Ok(length(size).map(|size| call("rollcall_varchar", [take(expr), number(size)])))
        }
        DataType::Char(_) | DataType::Character(_) => Err(QueryError::Unsupported(
            "character(n) pads with blanks that comparisons ignore, and is not supported; use varchar(n) or text"
                .to_owned(),
        )),
        DataType::Bytea if text_of(expr).is_some() => Ok(Some(call("byteain", [take(expr)]))),
        DataType::Array(_) => {
            let Some(text) = text_of(expr) else { return Ok(None) };
            let elements = arrays::parse(text).map_err(QueryError::Syntax)?;
            Ok(Some(syntax::cast(array_of(elements), data_type.clone())))
        }
        _ => match catalogue_type(data_type).as_deref() {
            Some("regclass") if text_of(expr).is_some() => Ok(Some(call(REGCLASS, [take(expr)]))),
            Some(name @ ("regclass" | "regproc" | "regprocedure")) => {
                let text = match name {
                    "regclass" => "regclass is had of a written name only, such as 'sales'::regclass",
                    _ => "the functions are built in here, and the catalogue has no numbers for them",
                };
                Err(QueryError::Unsupported(text.to_owned()))
            }
            _ => Ok(None),
        },
    }
}

/// The number of a relation by its name.
pub(crate) const REGCLASS: &str = "rollcall_regclass";

/// The same, and NULL where there is none.
pub(crate) const TO_REGCLASS: &str = "to_regclass";

/// What is selected as a relation's number, before it is rewritten.
fn shows_regclass(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) => shows_regclass(inner),
        Expr::Cast { data_type, .. } => catalogue_type(data_type).as_deref() == Some("regclass"),
        other => is_regclass(other),
    }
}

fn is_regclass(expr: &Expr) -> bool {
    let function = match expr {
        Expr::Nested(inner) => return is_regclass(inner),
        Expr::Function(function) => function,
        _ => return false,
    };
    let name = function.name.0.last().and_then(ObjectNamePart::as_ident);
    name.is_some_and(|name| [REGCLASS, TO_REGCLASS].contains(&folded(name).as_str()))
}

fn array_of(elements: Vec<Element>) -> Expr {
    let element = |element| match element {
        Element::Null => Expr::Value(Value::Null.into()),
        Element::Value(value) => text(value),
        Element::Array(elements) => array_of(elements),
    };
    let elem = elements.into_iter().map(element).collect();
    Expr::Array(datafusion::sql::sqlparser::ast::Array { elem, named: true })
}

fn text_of(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => Some(text),
            _ => None,
        },
        Expr::Nested(inner) => text_of(inner),
        _ => None,
    }
}

/// The elements of an array that is written out; none if it is found only when the question runs.
fn elements(array: &mut Expr) -> Result<Option<Vec<Expr>>, QueryError> {
    if let Some(text) = text_of(array) {
        let mut parsed = array_of(arrays::parse(text).map_err(QueryError::Syntax)?);
        return elements(&mut parsed);
    }
    match array {
        Expr::Nested(inner) => elements(inner),
        Expr::Array(array) => {
            let mut all = Vec::with_capacity(array.elem.len());
            for element in &mut array.elem {
                match element {
                    Expr::Array(_) => match elements(element)? {
                        Some(inner) => all.extend(inner),
                        None => return Ok(None),
                    },
                    other => all.push(other.clone()),
                }
            }
            Ok(Some(all))
        }
        Expr::Cast { expr, data_type: DataType::Array(kind), .. } => {
            use datafusion::sql::sqlparser::ast::ArrayElemTypeDef::SquareBracket;
            let SquareBracket(kind, _) = kind else { return Ok(None) };
            let mut innermost = kind.as_ref();
            while let DataType::Array(SquareBracket(inner, _)) = innermost {
                innermost = inner;
            }
            let Some(inner) = elements(expr)? else { return Ok(None) };
            let mut all = Vec::with_capacity(inner.len());
            for element in inner {
                let mut element = syntax::cast(element, innermost.clone());
                // The element is new, so the rules have not seen it yet.
                if let Some(new) = rewritten(&mut element)? {
                    element = new;
                }
                all.push(element);
            }
            Ok(Some(all))
        }
        _ => Ok(None),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Quantifier {
    Any,
    All,
}

/// A comparison with the elements of an array, one by one: the standard defines ANY and ALL so, for
/// NULL too.
fn quantified(left: Expr, op: &BinaryOperator, all: Vec<Expr>, quantifier: Quantifier) -> Expr {
    let is_any = quantifier == Quantifier::Any;
    if all.is_empty() {
        return Expr::Value(Value::Boolean(!is_any).into());
    }
    let negated = match (quantifier, op) {
        (Quantifier::Any, BinaryOperator::Eq) => Some(false),
        (Quantifier::All, BinaryOperator::NotEq) => Some(true),
        _ => None,
    };
    if let Some(negated) = negated {
        return Expr::InList { expr: Box::new(left), list: all, negated };
    }
    let join = if is_any { BinaryOperator::Or } else { BinaryOperator::And };
    let compared = all.into_iter().map(|element| Expr::BinaryOp {
        left: Box::new(left.clone()),
        op: op.clone(),
        right: Box::new(element),
    });
    let joined = super::bounds::balanced(compared.collect(), &join);
    Expr::Nested(Box::new(joined))
}

/// Whether an expression may give another value the second time; a function may, for all that is
/// known here.
fn is_volatile(expr: &Expr) -> bool {
    use datafusion::sql::sqlparser::ast::visit_expressions;
    let found = visit_expressions(expr, |expr| match expr {
        Expr::Function(_) | Expr::Subquery(_) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    found.is_break()
}

fn take(expr: &mut Expr) -> Expr {
    std::mem::replace(expr, Expr::Value(Value::Null.into()))
}
