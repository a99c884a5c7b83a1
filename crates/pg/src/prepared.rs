//! Statements that are prepared first and run later, with values for their parameters.

use std::{collections::BTreeMap, sync::Arc};

use arrow_schema::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use pgwire::{
    api::{
        ClientInfo, Type,
        portal::{Format, Portal},
        results::FieldInfo,
        stmt::QueryParser,
    },
    error::{PgWireError, PgWireResult},
};
use rollcall_query::{
    Literal, bind,
    datafusion::sql::sqlparser::ast::{CopySource, Statement},
    is_change,
};

use super::{
    answer::{Asking, parameter_type},
    control::is_question,
    error::{error, failed, of_value},
    rows::fields,
    settings::calls::{columns_of, setting_calls},
    value::{self, Parameter, sql_type},
};

/// A statement with what clients are told of it.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    pub(super) statement: Statement,
    pub(super) parameters: Vec<Type>,
    /// None if it has no rows, or they are known only when it runs.
    pub(super) columns: Option<SchemaRef>,
}

/// Reads and describes statements for one session.
pub(super) struct Reader(pub(super) Arc<Asking>);

#[async_trait]
impl QueryParser for Reader {
    type Statement = Prepared;

    async fn parse_sql<C>(&self, client: &C, sql: &str, types: &[Option<Type>]) -> PgWireResult<Option<Prepared>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        let engine = self.0.backend.engine();
        let mut statements = engine.read(sql).await.map_err(|failure| failed(&failure))?;
        let Some(statement) = statements.pop() else { return Ok(None) };
        if !statements.is_empty() {
            return Err(error("42601", "cannot insert multiple commands into a prepared statement"));
        }
        // What `EXECUTE` carries out is described now, and looked up again when it runs.
        let executed = self.0.executed(&statement)?;
        let told: Vec<Option<String>> = types.iter().map(|kind| kind.as_ref().and_then(full_type)).collect();
        // What is described is the question; COPY of it and a cursor over it have its parameters
        // and no columns of their own.
        let question = match &statement {
            Statement::Copy { source: CopySource::Query(query), .. } => Some(Statement::Query(query.clone())),
            Statement::Declare { stmts } => {
                stmts.first().and_then(|declared| declared.for_query.clone()).map(Statement::Query)
            }
            statement if is_question(statement) || is_change(statement) => Some(statement.clone()),
            _ => executed.clone(),
        };
        if let Some(called) = setting_calls(&statement) {
            // It sets, so it is no question.
            let numbered = called.iter().flat_map(|call| call.arguments.iter().zip(call.kinds()));
            let numbered: BTreeMap<String, Type> = numbered
                .map(|(argument, kind)| (argument.to_string(), kind))
                .filter(|(argument, _)| argument.starts_with('$'))
                .collect();
            let columns = Some(columns_of(&called));
            return Ok(Some(Prepared { statement, parameters: numbered.into_values().collect(), columns }));
        }
        let Some(question) = question else {
            let columns = match &statement {
                Statement::ShowVariable { variable } => Some(shown(variable)),
                _ => None,
            };
            return Ok(Some(Prepared { statement, parameters: Vec::new(), columns }));
        };
        let context = self.0.context(client)?;
        let described = engine.describe(&question, &told, context).await.map_err(|failure| failed(&failure))?;
        let parameters = described.parameters.iter().enumerate().map(|(place, inferred)| {
            let told = types.get(place).cloned().flatten().filter(|kind| *kind != Type::UNKNOWN);
            told.unwrap_or_else(|| parameter_type(inferred.as_ref()))
        });
        let columns = is_question(executed.as_ref().unwrap_or(&statement)).then_some(described.columns);
        Ok(Some(Prepared { statement, parameters: parameters.collect(), columns }))
    }

    fn get_parameter_types(&self, prepared: &Prepared) -> PgWireResult<Vec<Type>> {
        Ok(prepared.parameters.clone())
    }

    fn get_result_schema(&self, prepared: &Prepared, format: Option<&Format>) -> PgWireResult<Vec<FieldInfo>> {
        let format = format.unwrap_or(&Format::UnifiedText);
        prepared.columns.as_ref().map_or_else(|| Ok(Vec::new()), |columns| fields(columns, format))
    }
}

/// The column in which `SHOW` answers.
pub(super) fn shown(variable: &[rollcall_query::datafusion::sql::sqlparser::ast::Ident]) -> SchemaRef {
    let name = super::control::variable_name(variable);
    let text = |name: &str| Field::new(name, DataType::Utf8, false);
    Arc::new(match name.as_str() {
        "all" => Schema::new(vec![text("name"), text("setting"), text("description")]),
        name => Schema::new(vec![text(&super::settings::Settings::shown(name))]),
    })
}

/// The name of a type in SQL, for an array too.
pub(super) fn full_type(kind: &Type) -> Option<String> {
    let name = sql_type(kind)?;
    Some(match kind.kind() {
        postgres_types::Kind::Array(_) => format!("{name}[]"),
        _ => name.to_owned(),
    })
}

/// The statement with the values that the client bound.
pub(super) fn bound(portal: &Portal<Prepared>) -> PgWireResult<Statement> {
    let prepared = &portal.statement.statement;
    let (given, wanted) = (portal.parameter_len(), prepared.parameters.len());
    if given != wanted {
        let text = format!("bind message supplies {given} parameters, but the prepared statement requires {wanted}");
        return Err(error("08P01", text));
    }
    if wanted == 0 {
        return Ok(prepared.statement.clone());
    }
    let value = |(place, kind): (usize, &Type)| -> PgWireResult<(Literal, Option<String>)> {
        let bytes = portal.parameters.get(place).and_then(Option::as_deref);
        let is_binary = match &portal.parameter_format {
            Format::Individual(codes) => codes.get(place).copied().unwrap_or_default() == 1,
            format => format.is_binary(place),
        };
        let decoded = value::decode(bytes, is_binary, kind).map_err(of_value)?;
        // An array's elements have the type; where there is no array, NULL has that of the array.
        let of_value = match decoded {
            Parameter::Null => full_type(kind),
            _ => sql_type(kind).map(str::to_owned),
        };
        Ok((literal(decoded), of_value))
    };
    let values = prepared.parameters.iter().enumerate().map(value).collect::<Result<Vec<_>, PgWireError>>()?;
    bind(&prepared.statement, &values).map_err(|failure| failed(&failure))
}

fn literal(parameter: Parameter) -> Literal {
    match parameter {
        Parameter::Null => Literal::Null,
        Parameter::Text(text) => Literal::Text(text),
        Parameter::Array(elements) => Literal::Array(elements.into_iter().map(literal).collect()),
    }
}
