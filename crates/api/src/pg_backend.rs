//! What the PostgreSQL port asks of this node.

use std::{net::IpAddr, sync::Arc};

use arrow_array::RecordBatch;
use async_trait::async_trait;
use rollcall_pg::{Backend, ChangeFailure, PgUser};
use rollcall_query::{Engine, Extras, QueryError, datafusion::sql::sqlparser::ast::Statement};
use rollcall_types::{Coverage, describe};
use rustls::ServerConfig;

use rollcall_answer::tables;
use rollcall_gateway::IN_DOUBT;
use rollcall_publish::sql;
use rollcall_registry::{Act, HqError};

use crate::{access::Role, audit, caller::App, callers::Proof};

/// The node, as the port sees it.
pub struct PgBackend(pub App);

#[async_trait]
impl Backend for PgBackend {
    fn engine(&self) -> &Engine {
        &self.0.answers.engine
    }

    fn tls(&self) -> Arc<ServerConfig> {
        self.0.authority.pg_tls()
    }

    fn scram(&self, user: &str) -> Result<(Vec<u8>, Vec<u8>), String> {
        self.0.credentials.scram(user).map_err(|failure| describe(&failure))
    }

    fn may_try(&self, user: &str, from: IpAddr) -> Result<(), String> {
        if self.0.registry.lake.doubt().is_some() {
            return Err(IN_DOUBT.to_owned());
        }
        match self.0.guesses.wait(user, from, self.0.registry.now()) {
            Some(wait) => Err(format!("too many wrong passwords; try again in {} s", wait.as_secs() + 1)),
            None => Ok(()),
        }
    }

    fn tried(&self, user: &str, from: IpAddr, is_right: bool) {
        match is_right {
            true => self.0.callers.came(user, Some(from), Proof::Postgres, self.0.registry.now()),
            false => tracing::warn!(user, address = %from, "a wrong password on the PostgreSQL port"),
        }
        self.0.guesses.tried(user, from, is_right, self.0.registry.now());
    }

    fn turned_away(&self, from: IpAddr) {
        self.0.doors.turned_away("the PostgreSQL port", from);
    }

    fn user(&self, name: &str) -> Option<PgUser> {
        if self.0.registry.lake.doubt().is_some() {
            return None;
        }
        let user = self.0.credentials.user(name)?;
        let may_change = user.role >= Role::Operator && user.sees.is_empty();
        let why = format!("user {name} may not change tables: it takes an operator who sees all sites");
        Some(PgUser { is_strict: user.strict, may_not_change: (!may_change).then_some(why) })
    }

    fn context(&self, user: &str) -> Option<Extras> {
        let user = self.0.credentials.user(user)?;
        Some(self.0.answers.extras(&user.sees))
    }

    fn coverage_rows(&self, coverage: &Coverage) -> RecordBatch {
        tables::coverage(coverage)
    }

    async fn record_untold(&self, user: &str, statement: &str, summary: &str) -> Result<(), String> {
        let row = tables::untold(self.0.registry.now(), user, statement, summary);
        self.0.registry.lake.untold().append_rows(row).await.map_err(|failure| describe(&failure))
    }

    async fn change(&self, statement: &Statement, user: &str) -> Result<(&'static str, usize), ChangeFailure> {
        let before = self.0.registry.lake.state().view();
        let changed =
            sql::change(&self.0.publisher, statement, user, || self.0.answers.extras(&Default::default())).await;
        let (before, after) = audit::changed(&before, &self.0.registry.lake.state().view(), user);
        let outcome = match &changed {
            Ok((_, rows)) => format!("{rows} rows"),
            Err(error) => describe(error),
        };
        let (at, by, from) = (self.0.registry.now(), user.to_owned(), "postgresql".to_owned());
        let act = Act { at, by, from, what: statement.to_string(), outcome, before, after };
        let recorded = act.record(&self.0.registry.lake).await;
        self.0.registry.health.note("record what people do", &recorded);
        changed.map_err(|failure| match &failure {
            HqError::Exists(text) => ChangeFailure { code: "23505", text: text.clone() },
            HqError::Outdated => ChangeFailure { code: "40001", text: failure.to_string() },
            HqError::Invalid(text) | HqError::NotFound(text) => ChangeFailure { code: "42000", text: text.clone() },
            HqError::Query(failure) => {
                let known = failure.downcast_ref::<QueryError>();
                ChangeFailure { code: known.map_or("58000", QueryError::sqlstate), text: describe(failure.as_ref()) }
            }
            _ => ChangeFailure { code: "58000", text: describe(&failure) },
        })
    }
}
