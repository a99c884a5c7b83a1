//! Which sites an answer is about, from the query's own optimised plan.
//!
//! For every scan of a site table, the plan is asked which values of `_site` could still change the
//! answer: filters that the optimiser pushed to the scan, and keys of joins whose other side is
//! known without reading a site table. What is not understood restricts nothing, so a scope may be
//! too wide and never too narrow. Nothing of the data is read: a site without a single row is in
//! scope like any other.
//!
//! `walk` carries restrictions down to the scans, `among` finds the sites that satisfy them,
//! `period` the event times, and `grouping` what of the sites the answer is grouped by.

mod among;
mod grouping;
mod named;
mod period;
#[cfg(test)]
mod tests;
mod walk;
mod zone;

use std::{collections::BTreeSet, sync::Arc};

use datafusion::{
    arrow::{
        array::{Array, StringViewArray},
        datatypes::DataType,
    },
    common::Result,
    datasource::{cte_worktable::CteWorkTable, source_as_provider},
    logical_expr::{LogicalPlan, TableScan},
    prelude::SessionContext,
};
use rollcall_types::{SiteId, TableName, Timestamp};

use self::{
    among::{among, evaluate},
    grouping::grouped_by,
    named::add_named,
    period::{EventTime, period},
    walk::{Found, Restriction, walk},
};
use crate::scan::FilesTable;

/// The sites and the time that one scan of a site table is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanScope {
    /// The table.
    pub table: TableName,
    /// For every site of the roster, in order: whether its rows could change the answer.
    pub sites: Vec<bool>,
    /// Rows at or after this event time cannot change the answer; none if the query does not say.
    pub until: Option<Timestamp>,
    /// Nor can rows before this.
    pub from: Option<Timestamp>,
    /// The columns that are read.
    pub columns: Vec<String>,
    /// Of these, the stores' own that are times.
    pub times: Vec<TimeRead>,
}

/// A time of the stores' that a scan reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeRead {
    /// Its column.
    pub column: String,
    /// Rows before this cannot change the answer; none if the query does not say.
    pub from: Option<Timestamp>,
    /// Nor can rows at or after this.
    pub until: Option<Timestamp>,
}

/// What an answer is about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scope {
    /// Every scan of a site table.
    pub scans: Vec<ScanScope>,
    /// Names of the site attributes that the answer is grouped by, if it is grouped by nothing
    /// else; `id` is the site.
    pub grouped_by: Vec<String>,
    /// Ids that the question asks for by name and that no site has.
    pub unlisted: BTreeSet<String>,
}

/// The scope of `plan`, which must be optimised, over these sites. `event_time` names a table's
/// declared event time.
pub(crate) async fn scope(
    context: &SessionContext,
    plan: &LogicalPlan,
    sites: &[SiteId],
    event_time: &(dyn Fn(&TableName) -> Option<String> + Send + Sync),
) -> Result<Scope> {
    let mut found = Vec::new();
    walk(plan, Vec::new(), &mut found)?;
    let session_zone = context.state_ref().read().config_options().execution.time_zone.clone();
    let mut ids = None;
    let mut scans = Vec::new();
    let mut unlisted = BTreeSet::new();
    for scan in found {
        let mut is_in = vec![true; sites.len()];
        for restriction in &scan.restrictions {
            // What cannot be worked out restricts nothing: it may fail for the id of a site without
            // rows, or for rows that the question itself never comes to, and is then none of the
            // question's troubles.
            match restriction {
                Restriction::Satisfies(predicate) => {
                    add_named(predicate.expr(), &mut unlisted);
                    let ids = ids.get_or_insert_with(|| {
                        Arc::new(StringViewArray::from_iter_values(sites.iter().map(SiteId::as_str)))
                    });
                    let Ok(satisfied) = evaluate(context, predicate, ids) else { continue };
                    // Null is not true: such a row does not pass the filter.
                    is_in.iter_mut().enumerate().for_each(|(index, is_in)| {
                        *is_in &= satisfied.is_valid(index) && satisfied.value(index);
                    });
                }
                Restriction::Among { plan, key, .. } => {
                    let Ok(Some(is_among)) = among(context, plan, key, sites).await else { continue };
                    is_in.iter_mut().zip(is_among).for_each(|(is_in, is_among)| *is_in &= is_among);
                }
            }
        }
        let (from, until) = event_time(&scan.table).map_or((None, None), |column| {
            let kind = scan.schema.field_with_name(&column).map(|field| field.data_type());
            kind.map_or((None, None), |kind| {
                period(&scan.filters, &EventTime { column: &column, kind, session: session_zone.as_deref() })
            })
        });
        let times = times_read(&scan, session_zone.as_deref());
        scans.push(ScanScope { table: scan.table, sites: is_in, until, from, columns: scan.columns, times });
    }
    unlisted.retain(|name| sites.binary_search_by(|site| site.as_str().cmp(name)).is_err());
    Ok(Scope { scans, grouped_by: grouped_by(plan)?, unlisted })
}

/// The stores' times that a scan reads, each with what the query asks of it.
fn times_read(scan: &Found, session: Option<&str>) -> Vec<TimeRead> {
    let of_column = |column: &String| {
        let kind = scan.schema.field_with_name(column).ok()?.data_type();
        if column.starts_with('_') || !matches!(kind, DataType::Timestamp(..)) {
            return None;
        }
        let (from, until) = period(&scan.filters, &EventTime { column, kind, session });
        Some(TimeRead { column: column.clone(), from, until })
    };
    scan.columns.iter().filter_map(of_column).collect()
}

/// The site table that a scan reads; none for tables of HQ's own.
fn site_table(scan: &TableScan) -> Option<TableName> {
    let provider = source_as_provider(&scan.source).ok()?;
    let files = provider.downcast_ref::<FilesTable>()?;
    files.site_table().cloned()
}

/// Whether a scan reads what a recursive query found so far.
fn is_work_table(scan: &TableScan) -> bool {
    source_as_provider(&scan.source).is_ok_and(|provider| provider.downcast_ref::<CteWorkTable>().is_some())
}

fn is_roster(scan: &TableScan) -> bool {
    scan.table_name.table() == "sites" && site_table(scan).is_none() && !is_work_table(scan)
}
