//! The sites' log: what sites journal about their journals, as rows at HQ.

use std::collections::BTreeMap;

use arrow_array::{
    Array, RecordBatch,
    cast::AsArray,
    types::{Int32Type, Int64Type, TimestampMicrosecondType},
};
use rollcall_types::{Epoch, Manifest, Seq, SiteId, TEXT_BYTES_MAX, Timestamp, columns, plain};

use crate::error::HqError;

/// A manifest as HQ received it.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) epoch: Epoch,
    pub(crate) seq: Seq,
    pub(crate) at: Timestamp,
    pub(crate) manifest: Manifest,
}

/// A row of the sites' log.
pub(crate) struct Entry<'a> {
    pub(crate) site: &'a str,
    pub(crate) epoch: Epoch,
    pub(crate) seq: Seq,
    pub(crate) op: &'a str,
    pub(crate) at: Timestamp,
    /// What it says, by its kind.
    pub(crate) texts: [Option<&'a str>; 3],
}

pub(crate) fn entries(rows: &RecordBatch) -> Result<impl Iterator<Item = Entry<'_>>, HqError> {
    let column = |name: &str| {
        let column = rows.column_by_name(name);
        column.ok_or_else(|| HqError::Invalid(format!("the sites' log has no column {name}")))
    };
    let (sites, ops) = (column("_site")?.as_string::<i32>(), column(columns::OP)?.as_string::<i32>());
    let epochs = column("_epoch")?.as_primitive::<Int32Type>();
    let seqs = column(columns::SEQ)?.as_primitive::<Int64Type>();
    let times = column("_received_at")?.as_primitive::<TimestampMicrosecondType>();
    let texts = [column("a")?, column("b")?, column("c")?].map(|column| column.as_string::<i32>());
    Ok((0..rows.num_rows()).map(move |row| Entry {
        site: sites.value(row),
        epoch: Epoch(epochs.value(row).unsigned_abs()),
        seq: Seq(seqs.value(row).unsigned_abs()),
        op: ops.value(row),
        at: Timestamp::from_micros(times.value(row)),
        texts: texts.map(|text| text.is_valid(row).then(|| text.value(row))),
    }))
}

/// Changes that sites lost for ever: when HQ heard of it last, and what was said.
pub(crate) type Losses = BTreeMap<SiteId, (Timestamp, String)>;

pub(crate) fn note_loss(losses: &mut Losses, entry: &Entry<'_>) {
    let Ok(site) = SiteId::new(entry.site) else { return };
    let [from, to, why] = entry.texts.map(Option::unwrap_or_default);
    let said = format!("changes {from} to {to} are lost for ever: {why}");
    let (at, text) = losses.entry(site).or_default();
    *at = entry.at.max(*at);
    text.push_str(if text.is_empty() { "" } else { "; " });
    text.push_str(&said);
}

/// Marks of loads, in the order in which sites made them.
pub(crate) type Loads = BTreeMap<(SiteId, Epoch, Seq), Load>;

pub(crate) enum Load {
    Begun { table: String, reason: String, at: Timestamp },
    Complete { table: String, begin: Seq },
}

pub(crate) fn note_load(loads: &mut Loads, entry: &Entry<'_>) {
    let (Ok(site), [Some(table), second, _]) = (SiteId::new(entry.site), entry.texts) else { return };
    let table = table.to_owned();
    let load = match entry.op {
        "B" => Load::Begun { table, reason: second.unwrap_or_default().to_owned(), at: entry.at },
        _ => {
            let Some(begin) = second.and_then(|text| text.parse().ok()) else { return };
            Load::Complete { table, begin: Seq(begin) }
        }
    };
    loads.insert((site, entry.epoch, entry.seq), load);
}

pub(crate) fn manifest(entry: &Entry<'_>) -> Option<(SiteId, Received)> {
    let [after, through, tables] = entry.texts;
    let seq = |text: Option<&str>| Some(Seq(text?.parse().ok()?));
    let mut manifest = Manifest::parse(seq(after)?, seq(through)?, tables?).ok()?;
    for stated in &mut manifest.tables {
        stated.table = plain(&stated.table, TEXT_BYTES_MAX);
    }
    let received = Received { epoch: entry.epoch, seq: entry.seq, at: entry.at, manifest };
    Some((SiteId::new(entry.site).ok()?, received))
}
