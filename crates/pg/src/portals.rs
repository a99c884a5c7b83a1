//! Portals: statements that were bound, executed in one go or some rows at a time.

use std::sync::{Arc, Weak};

use futures::{Sink, SinkExt, StreamExt};
use pgwire::{
    api::{
        portal::{Portal, PortalExecutionState},
        results::{QueryResponse, Tag},
        store::PortalStore,
    },
    error::{PgWireError, PgWireResult},
    messages::{PgWireBackendMessage, extendedquery::PortalSuspended},
};
use rollcall_query::{datafusion::sql::sqlparser::ast::Statement, folded, only_moves};

use super::{
    answer::Reply,
    control::{Talks, is_question},
    cursor::{Going, forward_only},
    error::error,
    prepared::{Prepared, bound},
    protocol::{Client, complete},
    rows::{Rows, data_rows, fields},
};

impl Client {
    /// Carries out a portal, or goes on where it was suspended.
    pub(super) async fn run_portal<C: Talks>(
        &self,
        client: &mut C,
        portal: &Portal<Prepared>,
        rows_max: usize,
    ) -> PgWireResult<()>
    where
        C::PortalStore: PortalStore,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let state = portal.state();
        let mut state = state.lock().await;
        let mut response = match std::mem::replace(&mut *state, PortalExecutionState::Finished) {
            PortalExecutionState::Suspended(response) => response,
            PortalExecutionState::Finished => return complete(client, "SELECT", 0).await,
            PortalExecutionState::Initial => match self.execute(client, &bound(portal)?).await? {
                Reply::Done(tag) => {
                    client.feed(PgWireBackendMessage::CommandComplete(tag.into())).await?;
                    return Ok(());
                }
                Reply::Copy(rows, form) => return self.copy_out(client, rows, &form).await,
                Reply::Rows(rows) => self.response(portal, rows)?,
            },
        };
        let (command, mut count) = (response.command_tag().to_owned(), 0);
        while rows_max == 0 || count < rows_max {
            let Some(row) = response.data_rows().next().await else {
                return complete(client, &command, count).await;
            };
            client.feed(PgWireBackendMessage::DataRow(row?)).await?;
            count += 1;
        }
        *state = PortalExecutionState::Suspended(response);
        client.feed(PgWireBackendMessage::PortalSuspended(PortalSuspended::new())).await?;
        Ok(())
    }

    fn response(&self, portal: &Portal<Prepared>, rows: Rows) -> PgWireResult<QueryResponse> {
        let command = rows.command;
        let rows = match &portal.statement.statement.columns {
            Some(told) => rows.conforming_to(told)?,
            None => rows,
        };
        let fields = fields(&rows.schema, &portal.result_column_format)?;
        let zone = self.asking.session.state().settings.zone();
        let messages = data_rows(rows.batches, &fields, zone);
        let mut response = QueryResponse::new(Arc::new(fields), messages);
        response.set_command_tag(command);
        Ok(response)
    }

    /// Goes on in a portal that the client bound and moves in by its name, as asyncpg does; none if
    /// the statement does not.
    pub(super) async fn move_portal<C: Talks>(
        &self,
        client: &mut C,
        statement: &Statement,
    ) -> PgWireResult<Option<Reply>>
    where
        C::PortalStore: PortalStore,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let Statement::Fetch { name, direction, .. } = statement else { return Ok(None) };
        let name = folded(name);
        let bound_as = {
            let state = self.asking.session.state();
            if state.cursors.contains_key(&name) { None } else { state.portals.get(&name).and_then(Weak::upgrade) }
        };
        let is_asked = |portal: &Arc<Portal<Prepared>>| is_question(&portal.statement.statement.statement);
        let Some(portal) = bound_as.filter(|portal| only_moves(statement) && is_asked(portal)) else {
            return Ok(None);
        };
        let Going::Forward(rows_max) = Going::of(direction)? else { return Err(forward_only()) };
        let state = portal.state();
        let busy = || error("55006", format!("portal \"{name}\" is at work"));
        let mut state = state.try_lock().map_err(|_| busy())?;
        let response = match std::mem::replace(&mut *state, PortalExecutionState::Finished) {
            PortalExecutionState::Suspended(response) => Some(response),
            PortalExecutionState::Finished => None,
            PortalExecutionState::Initial => match Box::pin(self.execute(client, &bound(&portal)?)).await? {
                Reply::Rows(rows) => Some(self.response(&portal, rows)?),
                Reply::Done(_) | Reply::Copy(..) => return Err(busy()),
            },
        };
        let mut count = 0;
        if let Some(mut response) = response {
            while count < rows_max
                && let Some(row) = response.data_rows().next().await
            {
                row?;
                count += 1;
            }
            *state = PortalExecutionState::Suspended(response);
        }
        Ok(Some(Reply::Done(Tag::new("MOVE").with_rows(count))))
    }
}
