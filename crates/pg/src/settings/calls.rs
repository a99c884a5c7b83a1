//! What is selected and does something: `SELECT set_config(…)`, alone or beside
//! `current_setting(…)`, and `SELECT pg_cancel_backend(…)`. The session does it itself: a cancel
//! that waited for the threads of questions would wait for what it is to stop.

use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema, SchemaRef};
use pgwire::{api::Type, error::PgWireResult};
use rollcall_query::{
    datafusion::sql::sqlparser::ast::{
        Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, SelectItem, SetExpr, Statement,
    },
    folded,
};

use crate::{control::text_of, error::error};

/// What a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Does {
    /// Says what is set.
    Say,
    Set,
    /// Stops what runs on a connection.
    Cancel,
}

/// One of these functions with its arguments.
pub(crate) struct Call<'a> {
    pub(crate) does: Does,
    pub(crate) arguments: &'a [FunctionArg],
    column: String,
}

impl Call<'_> {
    /// The types of the arguments.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = Type> {
        let kinds: &[Type] = match self.does {
            Does::Say => &[Type::TEXT, Type::BOOL],
            Does::Set => &[Type::TEXT, Type::TEXT, Type::BOOL],
            Does::Cancel => &[Type::INT4],
        };
        kinds.iter().cloned()
    }

    pub(crate) fn text(&self, place: usize) -> Option<String> {
        match self.arguments.get(place)? {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Cast { expr, .. })) => text_of(expr),
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => text_of(expr),
            _ => None,
        }
    }

    pub(crate) fn is_true(&self, place: usize) -> bool {
        matches!(self.text(place).as_deref(), Some("on" | "true" | "t"))
    }

    pub(crate) fn number(&self) -> PgWireResult<i32> {
        let number = self.text(0).and_then(|text| text.parse().ok());
        number.ok_or_else(|| error("22023", "the number of a connection must be written out"))
    }

    pub(crate) fn name(&self) -> PgWireResult<String> {
        self.text(0).ok_or_else(|| error("22023", "the name of a setting must be written out"))
    }
}

/// The calls that a statement selects, if it selects nothing else and at least one does something.
pub(crate) fn setting_calls(statement: &Statement) -> Option<Vec<Call<'_>>> {
    let Statement::Query(query) = statement else { return None };
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    if !select.from.is_empty() || select.selection.is_some() {
        return None;
    }
    let called = select.projection.iter().map(call).collect::<Option<Vec<_>>>()?;
    called.iter().any(|call| call.does != Does::Say).then_some(called)
}

fn call(item: &SelectItem) -> Option<Call<'_>> {
    let (expr, alias) = match item {
        SelectItem::UnnamedExpr(expr) => (expr, None),
        SelectItem::ExprWithAlias { expr, alias } => (expr, Some(folded(alias))),
        _ => return None,
    };
    let Expr::Function(Function { name, args: FunctionArguments::List(list), .. }) = expr else { return None };
    let name = name.0.last()?.as_ident()?.value.to_ascii_lowercase();
    let arguments = list.args.as_slice();
    let does = match (name.as_str(), arguments.len()) {
        ("set_config", 3) => Does::Set,
        ("current_setting", 1 | 2) => Does::Say,
        ("pg_cancel_backend", 1) => Does::Cancel,
        _ => return None,
    };
    Some(Call { does, arguments, column: alias.unwrap_or(name) })
}

/// The columns of the answer.
pub(crate) fn columns_of(called: &[Call<'_>]) -> SchemaRef {
    let fields: Vec<Field> = called
        .iter()
        .map(|call| {
            let kind = if call.does == Does::Cancel { DataType::Boolean } else { DataType::Utf8 };
            Field::new(&call.column, kind, true)
        })
        .collect();
    Arc::new(Schema::new(fields))
}
