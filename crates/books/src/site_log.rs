//! The sites' log: what sites journal about their journals, as rows at HQ.

use std::collections::BTreeMap;

use arrow_array::{
    Array, RecordBatch,
    cast::AsArray,
    types::{Int32Type, Int64Type, TimestampMicrosecondType},
};
use rollcall_types::{Epoch, Manifest, Seq, SiteId, TEXT_BYTES_MAX, Timestamp, columns, plain};

use rollcall_registry::HqError;

/// A manifest as HQ received it.
#[derive(Debug, Clone)]
pub struct Received {
    /// The life of the site's journal that it is of.
    pub epoch: Epoch,
    /// Its own position in the journal.
    pub seq: Seq,
    /// When HQ received it.
    pub at: Timestamp,
    /// What it states.
    pub manifest: Manifest,
}

/// A row of the sites' log.
pub struct Entry<'a> {
    /// The id of the site that journalled it.
    pub site: &'a str,
    /// The life of the site's journal.
    pub epoch: Epoch,
    /// Its position in the journal.
    pub seq: Seq,
    /// Its kind: `B` a load begun, `C` a load complete, `L` a loss, `M` a manifest.
    pub op: &'a str,
    /// When HQ received it.
    pub at: Timestamp,
    /// What it says, by its kind.
    pub texts: [Option<&'a str>; 3],
}

/// Reads rows of the sites' log; fails if they lack a column.
pub fn entries(rows: &RecordBatch) -> Result<impl Iterator<Item = Entry<'_>>, HqError> {
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
pub type Losses = BTreeMap<SiteId, (Timestamp, String)>;

/// Adds what the entry of a loss says to what is known of its site.
pub fn note_loss(losses: &mut Losses, entry: &Entry<'_>) {
    let Ok(site) = SiteId::new(entry.site) else { return };
    let [from, to, why] = entry.texts.map(Option::unwrap_or_default);
    let said = format!("changes {from} to {to} are lost for ever: {why}");
    let (at, text) = losses.entry(site).or_default();
    *at = entry.at.max(*at);
    text.push_str(if text.is_empty() { "" } else { "; " });
    text.push_str(&said);
}

/// Marks of loads, in the order in which sites made them.
pub type Loads = BTreeMap<(SiteId, Epoch, Seq), Load>;

/// A mark of a load.
pub enum Load {
    /// A load began.
    Begun {
        /// The table, as the store calls it.
        table: String,
        /// Why the site stated it, as a `LoadReason` is written.
        reason: String,
        /// When HQ received the mark.
        at: Timestamp,
    },
    /// A load's last row was sent.
    Complete {
        /// The table, as the store calls it.
        table: String,
        /// The position at which the load began.
        begin: Seq,
    },
}

/// Takes the entry of a load's mark; one that cannot be understood is left out.
pub fn note_load(loads: &mut Loads, entry: &Entry<'_>) {
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

/// The manifest that an entry carries, and whose it is; none if it cannot be read.
pub fn manifest(entry: &Entry<'_>) -> Option<(SiteId, Received)> {
    let [after, through, tables] = entry.texts;
    let seq = |text: Option<&str>| Some(Seq(text?.parse().ok()?));
    let mut manifest = Manifest::parse(seq(after)?, seq(through)?, tables?).ok()?;
    for stated in &mut manifest.tables {
        stated.table = plain(&stated.table, TEXT_BYTES_MAX);
    }
    let received = Received { epoch: entry.epoch, seq: entry.seq, at: entry.at, manifest };
    Some((SiteId::new(entry.site).ok()?, received))
}
