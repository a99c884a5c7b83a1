//! Rules for catalogue questions, beside those of the library: for what PostgreSQL has and the
//! planner has not.

use std::{collections::HashSet, ops::ControlFlow};

use datafusion::sql::sqlparser::ast::{
    AccessExpr, Array, ArrayElemTypeDef, BinaryOperator, DataType, Expr, Function, FunctionArguments, Ident,
    JoinOperator, ObjectName, ObjectNamePart, Query, Select, SelectItem, SetExpr, Statement, TableFactor,
    TableWithJoins, Value, ValueWithSpan, Visit, VisitMut, Visitor, VisitorMut,
};

use super::{
    expressions::{called, column, is_text_type, is_written, null_texts, subscript, type_name, unnested},
    functions::system_relation,
    relations::OWN_RELATIONS,
};
use crate::syntax::{call, cast, folded, name_only_column, null, number, text, value};

/// A catalogue question with these rules applied.
pub(super) fn apply(mut statement: Statement) -> Statement {
    // Nothing breaks off.
    let _ = VisitMut::visit(&mut statement, &mut Rules);
    statement
}

struct Rules;

/// The columns whose values are vectors: written as text here, counted from 0.
fn is_vector(expression: &Expr) -> bool {
    let name = column(expression).unwrap_or_default().to_lowercase();
    ["indkey", "indclass", "indoption", "indcollation", "proargtypes"].iter().any(|vector| name.ends_with(vector))
}

/// An array, of a vector too.
fn as_array(expression: &Expr) -> Expr {
    if is_vector(expression) { call("rollcall_vector", vec![expression.clone()]) } else { expression.clone() }
}

fn is_text(expression: &Expr, text: &str) -> bool {
    matches!(expression, Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(known), .. }) if known == text)
}

fn called_with(expression: &Expr) -> Option<Expr> {
    if let Expr::Function(Function { name, args: FunctionArguments::Subquery(_), .. }) = expression {
        // Roles and options that nothing here has.
        return name.to_string().eq_ignore_ascii_case("array").then(null_texts);
    }
    let (name, arguments) = called(expression)?;
    match (name.as_str(), arguments.as_slice()) {
        ("unnest", [array]) if is_vector(array) => Some(call("unnest", vec![as_array(array)])),
        ("generate_subscripts", [array, ..]) => {
            let from = number(if is_vector(array) { 0 } else { 1 });
            Some(call("unnest", vec![call("rollcall_subscripts", vec![as_array(array), from])]))
        }
        ("_pg_expandarray", [array]) => Some(call("unnest", vec![call("rollcall_places", vec![as_array(array)])])),
        ("current_setting", [name]) if is_text(name, "default_table_access_method") => Some(text("heap".to_owned())),
        // Texts in the library's tables; nobody was granted or set anything.
        ("array_to_string", [list, ..])
            if column(list).is_some_and(|name| name.ends_with("acl") || name == "setconfig") =>
        {
            Some(null(DataType::Text))
        }
        _ => None,
    }
}

/// `(f(array)).n`, `(row).x` and `vector[place]`.
fn accessed(root: &Expr, chain: &[AccessExpr]) -> Option<Expr> {
    if let Some((array, index)) = subscript(root, chain) {
        let place = Expr::BinaryOp {
            left: Box::new(Expr::Nested(Box::new(index.clone()))),
            op: BinaryOperator::Plus,
            right: Box::new(number(1)),
        };
        return is_vector(&array).then(|| call("array_element", vec![as_array(&array), place]));
    }
    let [AccessExpr::Dot(Expr::Identifier(field))] = chain else { return None };
    let row = unnested(root);
    if let Some(("unnest", [places])) = called(row).as_ref().map(|(name, of)| (name.as_str(), of.as_slice()))
        && let Some(("rollcall_places", [array])) =
            called(places).as_ref().map(|(name, of)| (name.as_str(), of.as_slice()))
    {
        let values = match field.value.to_lowercase().as_str() {
            "n" => call("rollcall_subscripts", vec![(*array).clone(), number(1)]),
            _ => call("rollcall_vector", vec![(*array).clone()]),
        };
        return Some(call("unnest", vec![values]));
    }
    column(row)?;
    let field = Value::SingleQuotedString(field.value.to_lowercase());
    Some(call("get_field", vec![row.clone(), value(field)]))
}

/// The name of what a number of this kind stands for.
fn name_of(kind: &str, number: &Expr) -> Option<Expr> {
    Some(match kind {
        "regclass" => call("rollcall_regclass_name", vec![number.clone()]),
        "regnamespace" => call("rollcall_regnamespace_name", vec![number.clone()]),
        "regtype" => call("format_type", vec![number.clone(), null(DataType::Integer(None))]),
        "regrole" => call("pg_get_userbyid", vec![number.clone()]),
        _ => return None,
    })
}

/// Casts to the types of the catalogue.
fn casted(inner: &Expr, data_type: &DataType) -> Option<Expr> {
    let name = type_name(data_type);
    match name.as_str() {
        name if is_text_type(name) => {
            if let Expr::Cast { expr: number, data_type: kind, .. } = unnested(inner)
                && let Some(name) = name_of(&type_name(kind), number)
            {
                return Some(name);
            }
            if called(inner).is_some_and(|(name, _)| name == "rollcall_regclass") {
                return name_of("regclass", inner);
            }
            (name == "name").then(|| cast(inner.clone(), DataType::Text))
        }
        "char" | "sql_identifier" | "character_data" | "yes_or_no" => Some(cast(inner.clone(), DataType::Text)),
        "cardinal_number" | "xid" | "cid" => Some(cast(inner.clone(), DataType::Integer(None))),
        "regclass" if is_written(inner) => Some(call("rollcall_regclass", vec![inner.clone()])),
        "regtype" if is_written(inner) => Some(call("to_regtype", vec![inner.clone()])),
        "regnamespace" if is_written(inner) => Some(call("to_regnamespace", vec![inner.clone()])),
        "regproc" | "regprocedure" => match inner {
            // Functions are told by their names here.
            Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(name), .. }) => {
                let name = name.strip_prefix("pg_catalog.").unwrap_or(name);
                Some(text(name.to_owned()))
            }
            _ => None,
        },
        _ => None,
    }
}

/// Functions are told by their names here: `p.oid = t.typreceive` compares names, `typreceive <> 0`
/// with none. And flags are compared with the texts `t` and `f`.
fn compared(left: &Expr, right: &Expr) -> Option<(Expr, Expr)> {
    const FUNCTIONS: [&str; 7] =
        ["typinput", "typoutput", "typreceive", "typsend", "typmodin", "typmodout", "typsubscript"];
    let is_function = |expression| column(expression).is_some_and(|name| FUNCTIONS.contains(&name));
    let named = |expression: &Expr| match expression {
        Expr::CompoundIdentifier(idents) if idents.last().is_some_and(|last| last.value == "oid") => {
            let mut idents = idents.clone();
            idents.pop();
            idents.push(Ident::new("proname"));
            Some(Expr::CompoundIdentifier(idents))
        }
        Expr::Value(ValueWithSpan { value: Value::Number(number, _), .. }) if number == "0" => {
            Some(text("-".to_owned()))
        }
        _ => None,
    };
    let starts = ["indis", "atthas", "attnot", "attis", "relhas", "relis", "condef", "rol", "dat"];
    let is_flag =
        |expression: &Expr| column(expression).is_some_and(|name| starts.iter().any(|start| name.starts_with(start)));
    let flag = |expression: &Expr| match () {
        () if is_text(expression, "t") => Some(value(Value::Boolean(true))),
        () if is_text(expression, "f") => Some(value(Value::Boolean(false))),
        () => None,
    };
    // The columns of a key, as an array that is written out.
    if matches!(column(left), Some("conkey" | "confkey"))
        && let Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(written), .. }) = right
    {
        let numbers = written.trim_matches(['{', '}']).split(',').filter(|digits| !digits.trim().is_empty());
        let elem = numbers.map(|digits| number(digits.trim())).collect();
        let array = Expr::Array(Array { elem, named: true });
        let kind = DataType::Array(ArrayElemTypeDef::SquareBracket(Box::new(DataType::SmallInt(None)), None));
        return Some((left.clone(), cast(array, kind)));
    }
    match (is_function(left), is_function(right)) {
        (true, false) => Some((left.clone(), named(right)?)),
        (false, true) => Some((named(left)?, right.clone())),
        _ if is_flag(left) => Some((left.clone(), flag(right)?)),
        _ if is_flag(right) => Some((flag(left)?, right.clone())),
        _ => None,
    }
}

/// `LIKE pattern ESCAPE '/'` with the one escape that the planner knows.
fn with_backslash(pattern: &Expr, escape: &str) -> Expr {
    struct Texts<'a>(&'a str);
    impl VisitorMut for Texts<'_> {
        type Break = ();

        fn post_visit_expr(&mut self, expression: &mut Expr) -> ControlFlow<()> {
            if let Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. }) = expression {
                *text = text.replace('\\', "\\\\").replace(self.0, "\\");
            }
            ControlFlow::Continue(())
        }
    }
    let mut pattern = pattern.clone();
    let _ = VisitMut::visit(&mut pattern, &mut Texts(escape));
    pattern
}

/// `EXISTS` among what is selected: more than no row.
struct Counted;

impl VisitorMut for Counted {
    type Break = ();

    fn post_visit_expr(&mut self, expression: &mut Expr) -> ControlFlow<()> {
        if let Expr::Exists { subquery, negated } = expression
            && let SetExpr::Select(select) = subquery.body.as_mut()
        {
            select.projection = vec![SelectItem::UnnamedExpr(call("count", vec![number(1)]))];
            let op = if *negated { BinaryOperator::Eq } else { BinaryOperator::Gt };
            let count = Box::new(Expr::Subquery(subquery.clone()));
            *expression = Expr::BinaryOp { left: count, op, right: Box::new(number(0)) };
        }
        ControlFlow::Continue(())
    }
}

/// The names by which a question reads the catalogue's relations, and PostgreSQL's numbers of
/// these.
fn read_relations(select: &Select) -> Vec<(String, i32)> {
    let named = |factor: &TableFactor| {
        let TableFactor::Table { name, alias, args: None, .. } = factor else { return None };
        let relation = folded(name.0.last()?.as_ident()?);
        let number = system_relation(None, &relation)?;
        Some((alias.as_ref().map_or(relation, |alias| folded(&alias.name)), number))
    };
    // Where a join leaves rows without a partner, there is no number.
    let of = |from: &TableWithJoins| {
        let mut read: Vec<_> = named(&from.relation).into_iter().collect();
        for join in &from.joins {
            match &join.join_operator {
                JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(_) => {
                    read.extend(named(&join.relation));
                }
                JoinOperator::Left(_) | JoinOperator::LeftOuter(_) => {}
                _ => read.clear(),
            }
        }
        read
    };
    select.from.iter().flat_map(of).collect()
}

/// `tableoid`: the number of the relation that a row is from.
struct OfRelations(Vec<(String, i32)>);

impl VisitorMut for OfRelations {
    type Break = ();

    fn post_visit_expr(&mut self, expression: &mut Expr) -> ControlFlow<()> {
        let relation = match &*expression {
            Expr::CompoundIdentifier(idents) => match idents.as_slice() {
                [relation, column] if folded(column) == "tableoid" => {
                    let name = folded(relation);
                    self.0.iter().find(|(known, _)| *known == name)
                }
                _ => None,
            },
            Expr::Identifier(column) if folded(column) == "tableoid" => match self.0.as_slice() {
                [only] => Some(only),
                _ => None,
            },
            _ => None,
        };
        if let Some((_, relation)) = relation {
            *expression = cast(number(relation), DataType::Integer(None));
        }
        ControlFlow::Continue(())
    }
}

impl VisitorMut for Rules {
    type Break = ();

    fn post_visit_expr(&mut self, expression: &mut Expr) -> ControlFlow<()> {
        let replacement = match &*expression {
            Expr::Function(_) => called_with(expression),
            Expr::CompoundFieldAccess { root, access_chain } => accessed(root, access_chain),
            Expr::Cast { expr, data_type, .. } => casted(expr, data_type),
            Expr::BinaryOp { left, op: op @ (BinaryOperator::Eq | BinaryOperator::NotEq), right } => {
                compared(left, right).map(|(left, right)| Expr::BinaryOp {
                    left: Box::new(left),
                    op: op.clone(),
                    right: Box::new(right),
                })
            }
            Expr::Like { negated, any, expr, pattern, escape_char: Some(escape) } => match &escape.value {
                Value::SingleQuotedString(escape) if escape != "\\" => Some(Expr::Like {
                    negated: *negated,
                    any: *any,
                    expr: expr.clone(),
                    pattern: Box::new(with_backslash(pattern, escape)),
                    escape_char: None,
                }),
                _ => None,
            },
            // Its name between PostgreSQL 15 and 16.
            Expr::CompoundIdentifier(idents) if column(expression) == Some("colliculocale") => {
                let mut idents = idents.clone();
                idents.pop();
                idents.push(Ident::new("colllocale"));
                Some(Expr::CompoundIdentifier(idents))
            }
            // Kinds of statistics are letters in one text.
            Expr::AnyOp { left, right, .. } if column(right) == Some("stxkind") => {
                let place = call("strpos", vec![unnested(right).clone(), left.as_ref().clone()]);
                Some(Expr::BinaryOp { left: Box::new(place), op: BinaryOperator::Gt, right: Box::new(number(0)) })
            }
            Expr::AnyOp { left, compare_op, right, is_some } if is_vector(right) => Some(Expr::AnyOp {
                left: left.clone(),
                compare_op: compare_op.clone(),
                right: Box::new(as_array(unnested(right))),
                is_some: *is_some,
            }),
            Expr::Subquery(query) => from_outside(query),
            _ => None,
        };
        if let Some(replacement) = replacement {
            *expression = replacement;
        }
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let read = read_relations(select);
        if !read.is_empty() {
            let _ = VisitMut::visit(select, &mut OfRelations(read));
        }
        for item in &mut select.projection {
            let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = &mut *item else { continue };
            let _ = VisitMut::visit(expr, &mut Counted);
            let series = called(expr).is_some_and(|(name, _)| name == "generate_series");
            let named = match &*expr {
                Expr::Cast { expr: number, data_type, .. } => {
                    name_of(&type_name(data_type), number).map(|name| (name, column(number).map(str::to_owned)))
                }
                _ if series => Some((call("unnest", vec![expr.clone()]), Some("generate_series".to_owned()))),
                _ => None,
            };
            let Some((value, name)) = named else { continue };
            match (item, name) {
                (SelectItem::ExprWithAlias { expr, .. }, _) => *expr = value,
                (item, Some(name)) => {
                    *item = SelectItem::ExprWithAlias { expr: value, alias: Ident::with_quote('"', name) };
                }
                (item, None) => *item = SelectItem::UnnamedExpr(value),
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::UNNEST { alias: Some(alias), array_exprs, with_ordinality: false, .. } = factor {
            name_only_column(alias, array_exprs.len());
        }
        if let TableFactor::Table { name, args: None, .. } = factor
            && let [ObjectNamePart::Identifier(ident)] = name.0.as_slice()
            && OWN_RELATIONS.contains(&ident.value.to_lowercase().as_str())
        {
            let schema = ObjectNamePart::Identifier(Ident::new("pg_catalog"));
            *name = ObjectName(vec![schema, ObjectNamePart::Identifier(Ident::new(ident.value.to_lowercase()))]);
        }
        ControlFlow::Continue(())
    }
}

/// What stands for a subquery that reads columns of the query around it, which can be planned only
/// as an aggregate, and only if the two meet in equal columns. Others ask for what nothing here
/// has: defaults, options, members.
fn from_outside(query: &Query) -> Option<Expr> {
    let mut own = Own::default();
    let _ = Visit::visit(query, &mut own);
    let mut outer = Outer { own: own.0, found: false };
    let _ = Visit::visit(query, &mut outer);
    if !outer.found {
        return None;
    }
    let SetExpr::Select(select) = query.body.as_ref() else { return Some(null(DataType::Text)) };
    let [SelectItem::UnnamedExpr(value) | SelectItem::ExprWithAlias { expr: value, .. }] = select.projection.as_slice()
    else {
        return Some(null(DataType::Text));
    };
    let one_table = matches!(select.from.as_slice(), [TableWithJoins { joins, .. }] if joins.is_empty());
    let is_plain = query.with.is_none() && query.limit_clause.is_none() && query.order_by.is_none();
    if one_table && is_plain && column(value).is_some() && select.selection.as_ref().is_some_and(of_equals) {
        let mut query = query.clone();
        if let SetExpr::Select(select) = query.body.as_mut() {
            select.projection = vec![SelectItem::UnnamedExpr(call("max", vec![value.clone()]))];
        }
        return Some(Expr::Subquery(Box::new(query)));
    }
    let is_condition = matches!(value, Expr::BinaryOp { op: BinaryOperator::Eq | BinaryOperator::NotEq, .. });
    Some(null(if is_condition { DataType::Boolean } else { DataType::Text }))
}

fn of_equals(condition: &Expr) -> bool {
    match unnested(condition) {
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => of_equals(left) && of_equals(right),
        Expr::BinaryOp { op: BinaryOperator::Eq, .. } => true,
        _ => false,
    }
}

/// The names under which a query reads relations.
#[derive(Default)]
struct Own(HashSet<String>);

impl Visitor for Own {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        let (name, alias) = match factor {
            TableFactor::Table { name, alias, .. } => (name.0.last().and_then(|part| part.as_ident()), alias),
            TableFactor::Derived { alias, .. } | TableFactor::UNNEST { alias, .. } => (None, alias),
            _ => return ControlFlow::Continue(()),
        };
        let name = alias.as_ref().map(|alias| &alias.name).or(name);
        self.0.extend(name.map(|name| name.value.to_lowercase()));
        ControlFlow::Continue(())
    }
}

/// Whether a query reads columns of others.
struct Outer {
    own: HashSet<String>,
    found: bool,
}

impl Visitor for Outer {
    type Break = ();

    fn pre_visit_expr(&mut self, expression: &Expr) -> ControlFlow<()> {
        if let Expr::CompoundIdentifier(idents) = expression
            && let [.., table, _] = idents.as_slice()
        {
            self.found |= !self.own.contains(&table.value.to_lowercase());
        }
        ControlFlow::Continue(())
    }
}
