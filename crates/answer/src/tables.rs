//! What HQ knows, as tables for SQL.

use std::{collections::BTreeMap, sync::Arc};

use arrow_array::{
    Array, ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use rollcall_lake::Lake;
use rollcall_roll::Incident;
use rollcall_types::{Cause, Coverage, HQ_SITE, SiteId, SiteNumber, TableName, Timestamp};

use rollcall_books::{captured::Captured, definitions::Arrived, manifests::Reconciled};
use rollcall_publish::arrivals::Arrival;
use rollcall_registry::{RollEntry, Sites, roster::Ruling};

use crate::restated::Restated;

/// Builds a table column by column.
#[derive(Default)]
struct Columns {
    fields: Vec<Field>,
    arrays: Vec<ArrayRef>,
}

impl Columns {
    fn text<T: AsRef<str>>(mut self, name: &str, values: impl Iterator<Item = Option<T>>) -> Self {
        self.fields.push(Field::new(name, DataType::Utf8, true));
        self.arrays.push(Arc::new(values.collect::<StringArray>()));
        self
    }

    fn long(self, name: &str, values: impl Iterator<Item = i64>) -> Self {
        self.maybe_long(name, values.map(Some))
    }

    fn maybe_long(mut self, name: &str, values: impl Iterator<Item = Option<i64>>) -> Self {
        self.fields.push(Field::new(name, DataType::Int64, true));
        self.arrays.push(Arc::new(values.collect::<Int64Array>()));
        self
    }

    fn maybe_float(mut self, name: &str, values: impl Iterator<Item = Option<f64>>) -> Self {
        self.fields.push(Field::new(name, DataType::Float64, true));
        self.arrays.push(Arc::new(values.collect::<Float64Array>()));
        self
    }

    fn time(mut self, name: &str, values: impl Iterator<Item = Option<Timestamp>>) -> Self {
        self.fields.push(Field::new(name, DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true));
        let values = values.map(|time| time.map(Timestamp::as_micros));
        self.arrays.push(Arc::new(values.collect::<TimestampMicrosecondArray>().with_timezone("UTC")));
        self
    }

    fn finish(self) -> RecordBatch {
        let rows = self.arrays.first().map_or(0, |array| array.len());
        let schema = Arc::new(Schema::new(self.fields));
        RecordBatch::try_new(schema.clone(), self.arrays).unwrap_or_else(|error| {
            // All columns are made from the same list, so their lengths cannot differ.
            tracing::error!(%error, rows, "a table of HQ's own could not be built");
            RecordBatch::new_empty(schema)
        })
    }
}

/// `sites`: id, every attribute as a column, and when it was enrolled and retired.
pub fn sites(roster: &Sites) -> RecordBatch {
    let mut names: Vec<&str> = roster.values().flat_map(|record| record.attributes.names()).collect();
    names.sort();
    names.dedup();
    let mut columns = Columns::default().text("id", roster.keys().map(|site| Some(site.as_str())));
    for name in names {
        columns = columns.text(name, roster.values().map(|record| record.attributes.get(name)));
    }
    columns
        .time("enrolled_at", roster.values().map(|record| record.enrolled_at))
        .time("retired_at", roster.values().map(|record| record.retired.as_ref().map(|retired| retired.at)))
        .text("retired_reason", roster.values().map(|record| record.retired.as_ref().map(|retired| &retired.reason)))
        .finish()
}

/// `rollcall.roll`: the roll, now.
pub fn roll(roll: &[RollEntry]) -> RecordBatch {
    Columns::default()
        .text("site", roll.iter().map(|entry| Some(entry.site.as_str())))
        .text("state", roll.iter().map(|entry| Some(entry.state.to_string())))
        .time("since", roll.iter().map(|entry| entry.since))
        .text("cause", roll.iter().map(|entry| entry.cause.map(|cause| cause.to_string())))
        .time("last_heard", roll.iter().map(|entry| entry.last_heard))
        .time("complete_through", roll.iter().map(|entry| entry.complete_through))
        .long("unconfirmed_rows", roll.iter().map(|entry| entry.unconfirmed_rows as i64))
        .text("detail", roll.iter().map(|entry| Some(&entry.detail)))
        .finish()
}

/// `rollcall.incidents`: open ones, and those that ended in the last week.
pub fn incidents(incidents: &[Incident]) -> RecordBatch {
    let members = |incident: &Incident| {
        let sites: Vec<&str> = incident.members.keys().map(SiteId::as_str).collect();
        sites.join(" ")
    };
    Columns::default()
        .long("id", incidents.iter().map(|incident| incident.id as i64))
        .text("kind", incidents.iter().map(|incident| Some(incident.kind.to_string())))
        .text("stream", incidents.iter().map(|incident| incident.stream.as_ref()))
        .text("sites", incidents.iter().map(|incident| Some(members(incident))))
        .text("cause", incidents.iter().map(|incident| incident.cause.map(|cause| cause.to_string())))
        .text("evidence", incidents.iter().map(|incident| Some(&incident.evidence)))
        .long("level", incidents.iter().map(|incident| i64::from(incident.level)))
        .time("since", incidents.iter().map(|incident| Some(incident.since)))
        .time("opened_at", incidents.iter().map(|incident| Some(incident.opened_at)))
        .time("closed_at", incidents.iter().map(|incident| incident.closed_at))
        .text("acknowledged_by", incidents.iter().map(|incident| incident.lease.as_ref().map(|lease| &lease.by)))
        .finish()
}

/// `rollcall.coverage`: the sites that an answer about everything would miss now.
pub fn coverage(coverage: &Coverage) -> RecordBatch {
    let missing = &coverage.missing;
    Columns::default()
        .text("site", missing.iter().map(|entry| Some(entry.site.as_str())))
        .text("state", missing.iter().map(|entry| Some(entry.state.to_string())))
        .time("since", missing.iter().map(|entry| entry.since))
        .text("cause", missing.iter().map(|entry| entry.cause.map(|cause| cause.to_string())))
        .maybe_long("expected_rows", missing.iter().map(|entry| entry.expected_rows.map(|rows| rows as i64)))
        .maybe_float("expected_amount", missing.iter().map(|entry| entry.expected_amount))
        .finish()
}

/// `rollcall.manifests`: what each site said last that it captured of each table, and how many of
/// these rows are here.
pub fn manifests(all: &BTreeMap<(SiteId, String), Reconciled>) -> RecordBatch {
    Columns::default()
        .text("site", all.keys().map(|(site, _)| Some(site.as_str())))
        .text("table_name", all.keys().map(|(_, table)| Some(table)))
        .long("after", all.values().map(|reconciled| reconciled.after.0 as i64))
        .long("through", all.values().map(|reconciled| reconciled.through.0 as i64))
        .long("rows_stated", all.values().map(|reconciled| reconciled.stated.rows as i64))
        .maybe_long("rows_here", all.values().map(|reconciled| reconciled.found.map(|found| found as i64)))
        .maybe_long("last_key", all.values().map(|reconciled| reconciled.stated.last_key))
        .time("received_at", all.values().map(|reconciled| Some(reconciled.at)))
        .finish()
}

/// `rollcall.uncaptured`: tables that a store has and that are not captured there, and columns of
/// captured tables that are gone or left out.
pub fn uncaptured(lake: &Lake, captured: &Captured) -> RecordBatch {
    // A store has HQ's tables from HQ.
    let is_stores = |table: &&TableName| lake.table(table).is_none_or(|table| !table.is_published());
    let mut sites: Vec<_> = captured.iter().collect();
    sites.sort_unstable_by_key(|(site, _)| *site);
    type Lacking<'a> = (&'a SiteId, &'a TableName, Option<&'a String>, Cause);
    let mut rows: Vec<Lacking<'_>> = Vec::new();
    for (site, known) in sites {
        rows.extend(
            known.names.uncaptured.iter().filter(is_stores).map(|table| (site, table, None, Cause::NotCaptured)),
        );
        for (columns, why) in [(&known.names.gone, Cause::ColumnGone), (&known.names.left_out, Cause::ColumnLeftOut)] {
            let columns = columns.iter().flat_map(|(table, columns)| columns.iter().map(move |column| (table, column)));
            rows.extend(columns.map(|(table, column)| (site, table, Some(column), why)));
        }
    }
    Columns::default()
        .text("site", rows.iter().map(|(site, ..)| Some(site.as_str())))
        .text("table_name", rows.iter().map(|(_, table, ..)| Some(table.as_str())))
        .text("column_name", rows.iter().map(|(_, _, column, _)| *column))
        .text("why", rows.iter().map(|(.., why)| Some(why.to_string())))
        .finish()
}

/// `rollcall.restated`: tables that sites stated again because rows of them may have been missing,
/// doubled or stale here.
pub fn restated(all: &[Restated]) -> RecordBatch {
    Columns::default()
        .text("site", all.iter().map(|of| Some(of.site.as_str())))
        .text("table_name", all.iter().map(|of| Some(&of.table)))
        .text("reason", all.iter().map(|of| Some(&of.reason)))
        .time("began_at", all.iter().map(|of| Some(of.began_at)))
        .time("completed_at", all.iter().map(|of| of.completed_at))
        .maybe_long("rows_before", all.iter().map(|of| of.rows_before))
        .maybe_long("rows_after", all.iter().map(|of| of.rows_after))
        .finish()
}

/// `rollcall.lives`: lives of sites' journals that may lack what was confirmed before, and what
/// became of them.
pub fn lives(roster: &Sites) -> RecordBatch {
    let all = || roster.iter().flat_map(|(site, record)| record.contested.iter().map(move |life| (site, record, life)));
    let ruling = |text: fn(&Ruling) -> &String| all().map(move |(_, _, life)| life.ruling.as_ref().map(text));
    Columns::default()
        .text("site", all().map(|(site, _, _)| Some(site.as_str())))
        .long("epoch", all().map(|(_, _, life)| i64::from(life.epoch.0)))
        .long("before", all().map(|(_, _, life)| i64::from(life.before.0)))
        .maybe_long("current", all().map(|(_, record, _)| record.current_life().map(|epoch| i64::from(epoch.0))))
        .time("began_at", all().map(|(_, _, life)| Some(life.began_at)))
        .text("reason", all().map(|(_, _, life)| Some(&life.reason)))
        .text("state", all().map(|(_, _, life)| Some(life.state())))
        .time("ruled_at", all().map(|(_, _, life)| life.ruling.as_ref().map(|ruling| ruling.at)))
        .text("ruled_by", ruling(|ruling| &ruling.by))
        .text("ruling", ruling(|ruling| &ruling.reason))
        .finish()
}

/// `rollcall.publications`: what HQ published, and how many of the sites that should have it do.
pub fn publications(all: &[Arrived]) -> RecordBatch {
    let of = |get: fn(&Arrived) -> u64| all.iter().map(move |arrived| get(arrived) as i64);
    Columns::default()
        .text("table_name", all.iter().map(|arrived| Some(arrived.publication.table.as_str())))
        .long("version", of(|arrived| arrived.publication.version.0))
        .time("published_at", all.iter().map(|arrived| Some(arrived.publication.at)))
        .text("published_by", all.iter().map(|arrived| Some(&arrived.publication.by)))
        .text("note", all.iter().map(|arrived| Some(&arrived.publication.note)))
        .long("inserted", of(|arrived| arrived.publication.counts.inserted))
        .long("updated", of(|arrived| arrived.publication.counts.updated))
        .long("deleted", of(|arrived| arrived.publication.counts.deleted))
        .long("sites", of(|arrived| arrived.audience as u64))
        .long("have", of(|arrived| arrived.have as u64))
        .finish()
}

/// `rollcall.arrivals`: how every published table stands at every site that should have it.
pub fn arrivals(all: &[Arrival]) -> RecordBatch {
    let lack = |arrival: &Arrival| arrival.lacks.as_ref().map(|lack| lack.detail.clone());
    Columns::default()
        .text("site", all.iter().map(|arrival| Some(arrival.site.as_str())))
        .text("table_name", all.iter().map(|arrival| Some(arrival.table.as_str())))
        .long("wanted", all.iter().map(|arrival| arrival.wanted.0 as i64))
        .long("applied", all.iter().map(|arrival| arrival.applied.0 as i64))
        .text("lacks_because", all.iter().map(lack))
        .long("edits", all.iter().map(|arrival| arrival.edits as i64))
        .long("dangling", all.iter().map(|arrival| arrival.dangling as i64))
        .long("differing", all.iter().map(|arrival| arrival.differing as i64))
        .finish()
}

/// A row of `rollcall.untold`: a question whose asker did not want to be told what the answer was
/// missing.
pub fn untold(at: Timestamp, user: &str, question: &str, coverage: &str) -> RecordBatch {
    let one = |text| std::iter::once(Some(text));
    Columns::default()
        .time("at", std::iter::once(Some(at)))
        .text("asked_by", one(user))
        .text("question", one(question))
        .text("coverage", one(coverage))
        .finish()
}

/// `rollcall.complete_through`: per site and table.
pub fn complete_through(rows: &[(SiteId, TableName, Timestamp)]) -> RecordBatch {
    Columns::default()
        .text("site", rows.iter().map(|(site, _, _)| Some(site.as_str())))
        .text("table_name", rows.iter().map(|(_, table, _)| Some(table.as_str())))
        .time("complete_through", rows.iter().map(|(_, _, time)| Some(*time)))
        .finish()
}

/// `rollcall.cursors`: where each site's journal stands in each table.
pub fn cursors(lake: &Lake, roster: &Sites) -> RecordBatch {
    let ids: std::collections::HashMap<u32, &SiteId> =
        roster.iter().map(|(site, record)| (record.number, site)).collect();
    let (mut tables, mut sites, mut epochs, mut seqs) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (name, table) in lake.tables() {
        for (number, epoch, cursor) in table.snapshot().cursors() {
            tables.push(name.to_string());
            let of_hq = (number == SiteNumber::HQ).then(|| HQ_SITE.to_owned());
            sites.push(of_hq.or_else(|| ids.get(&number.0).map(|site| site.to_string())));
            epochs.push(epoch.0 as i32);
            seqs.push(cursor.seq.0 as i64);
        }
    }
    let mut columns =
        Columns::default().text("table_name", tables.iter().map(Some)).text("site", sites.iter().map(Option::as_ref));
    columns.fields.push(Field::new("epoch", DataType::Int32, true));
    columns.arrays.push(Arc::new(Int32Array::from(epochs)));
    columns.long("seq", seqs.into_iter()).finish()
}

/// `rollcall.columns`: every column of every site table, and what the first site called it.
pub fn columns(lake: &Lake) -> RecordBatch {
    let (mut tables, mut names, mut kinds, mut at_site) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (name, table) in lake.tables() {
        for column in &table.snapshot().schema().columns {
            tables.push(name.to_string());
            names.push(column.name.clone());
            kinds.push(column.kind.delta());
            at_site.push(column.site_name.clone());
        }
    }
    Columns::default()
        .text("table_name", tables.iter().map(Some))
        .text("column_name", names.iter().map(Some))
        .text("type", kinds.iter().map(Some))
        .text("name_at_site", at_site.iter().map(Option::as_ref))
        .finish()
}
