//! Names of the columns and schema metadata that travel with a site's rows.

/// Position in the journal, `Int64`.
pub const SEQ: &str = "_seq";
/// One ASCII letter as `UInt8`: `I`, `U`, `D`, or `S` for a row stated by a load.
pub const OP: &str = "_op";
/// Statement time by the site's clock, `Int64` microseconds since the Unix epoch.
pub const CHANGED_AT: &str = "_changed_at";
/// JSON object with the values that did not fit their column, `Utf8`, null for most rows; may be
/// absent.
pub const MISFIT: &str = "_misfit";
/// The key of a table that declares none: SQLite's own row number, `Int64`.
pub const ROWID: &str = "_rowid";
/// The row's key in a form that is one-to-one, `Utf8`: a JSON list of the store's own values. Null
/// where the key columns themselves are that, as they nearly always are; may be absent.
pub const EXACT_KEY: &str = "_exact_key";
/// Schema metadata: the key columns, as a JSON list.
pub const METADATA_KEY: &str = "rollcall.key";
/// Field metadata: the type declared at the site.
pub const METADATA_DECLARED: &str = "rollcall.declared";
/// The table under which a site's journal carries its own entries: loads begun and completed,
/// losses.
pub const LOG_TABLE: &str = "_rollcall_log";

/// Names of HQ's own in a table of sites' rows; a store's column of such a name gets another one
/// there.
const RESERVED: [&str; 8] = ["_site", "_epoch", SEQ, OP, CHANGED_AT, "_received_at", MISFIT, EXACT_KEY];

/// The name at HQ of a site's column. Names that differ only in case or in what Delta forbids meet
/// in one name; the agent refuses a table in which they do.
pub fn at_hq(name: &str) -> String {
    let folded = if name == ROWID { name.to_owned() } else { crate::hq_identifier(name) };
    if RESERVED.contains(&folded.as_str()) { format!("{folded}_") } else { folded }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stores_column_never_passes_for_one_of_ours() {
        for (name, expected) in
            [("Price", "price"), ("unit price", "unit_price"), ("_SEQ", "_seq_"), ("_misfit", "_misfit_")]
        {
            assert_eq!(at_hq(name), expected);
        }
        assert_eq!(at_hq(ROWID), ROWID);
    }
}
