//! What a site says it journalled, so that HQ can count the same rows again.

use serde::{Deserialize, Serialize};

use crate::Seq;

/// The changes journalled behind `after`, up to and including `through`. Zero is a statement,
/// absence is not: every captured table is in it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Manifest {
    /// The end of the manifest before.
    pub after: Seq,
    /// The end of this one.
    pub through: Seq,
    /// Per captured table.
    pub tables: Vec<Stated>,
    /// Tables of the store's that are not captured. Earlier agents state none.
    pub uncaptured: Vec<String>,
}

impl Manifest {
    /// What it says of tables, as JSON: how it travels in the journal.
    pub fn tables_json(&self) -> serde_json::Result<String> {
        let uncaptured = self
            .uncaptured
            .iter()
            .map(|table| Entry { stated: Stated { table: table.clone(), ..Stated::default() }, is_captured: false });
        let captured = self.tables.iter().map(|stated| Entry { stated: stated.clone(), is_captured: true });
        serde_json::to_string(&captured.chain(uncaptured).collect::<Vec<_>>())
    }

    /// A manifest from its ends and from what [`Self::tables_json`] gave.
    pub fn parse(after: Seq, through: Seq, tables: &str) -> serde_json::Result<Self> {
        let entries: Vec<Entry> = serde_json::from_str(tables)?;
        let (captured, uncaptured): (Vec<Entry>, Vec<Entry>) = entries.into_iter().partition(|entry| entry.is_captured);
        let tables = captured.into_iter().map(|entry| entry.stated).collect();
        let uncaptured = uncaptured.into_iter().map(|entry| entry.stated.table).collect();
        Ok(Self { after, through, tables, uncaptured })
    }
}

/// A table in the journal's form of a manifest.
#[derive(Serialize, Deserialize)]
struct Entry {
    #[serde(flatten)]
    stated: Stated,
    #[serde(default = "yes", skip_serializing_if = "is_yes", rename = "captured")]
    is_captured: bool,
}

fn yes() -> bool {
    true
}

fn is_yes(is_captured: &bool) -> bool {
    *is_captured
}

/// One table's part of a [`Manifest`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Stated {
    /// Its name in the store's database.
    pub table: String,
    /// Changes journalled.
    pub rows: u64,
    /// The largest row number in the table itself, journalled or not: when it moves and nothing was
    /// journalled, capture is gone. None for a table without row numbers, or an empty one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_key: Option<i64>,
    /// Columns that the table had when it was captured before and has no more, and that nobody
    /// asked to leave out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<String>,
    /// Columns that the store or HQ asked to leave out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_comes_back_as_it_went_and_an_older_one_states_no_tables_that_are_not_captured() {
        let stated = Stated {
            table: "stock".to_owned(),
            rows: 3,
            last_key: Some(9),
            gone: vec!["on_hand".to_owned()],
            left_out: vec!["cost".to_owned()],
        };
        let uncaptured = vec!["employees".to_owned()];
        let manifest = Manifest { after: Seq(1), through: Seq(4), tables: vec![stated], uncaptured };
        let text = manifest.tables_json().expect("writes");
        assert_eq!(Manifest::parse(Seq(1), Seq(4), &text).expect("reads"), manifest);
        let old = Manifest::parse(Seq(0), Seq(1), r#"[{"table":"sales","rows":2}]"#).expect("reads");
        assert_eq!((old.tables[0].rows, old.uncaptured.len()), (2, 0));
    }
}
