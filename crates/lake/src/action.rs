//! The Delta log's actions, as far as reader version 1 and writer version 2 need them.
//! Source: the Delta transaction log protocol, "Actions".

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One line of a log entry; exactly one field is set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Action {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) protocol: Option<Protocol>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) meta_data: Option<Box<MetaData>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) add: Option<Box<Add>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remove: Option<Box<Remove>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) txn: Option<Txn>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) commit_info: Option<Box<CommitInfo>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Protocol {
    pub(crate) min_reader_version: i32,
    pub(crate) min_writer_version: i32,
}

impl Protocol {
    /// What every engine can read: no table features.
    pub(crate) const OURS: Self = Self { min_reader_version: 1, min_writer_version: 2 };
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MetaData {
    pub(crate) id: String,
    pub(crate) format: Format,
    /// The schema as JSON text.
    pub(crate) schema_string: String,
    #[serde(default)]
    pub(crate) partition_columns: Vec<String>,
    #[serde(default)]
    pub(crate) configuration: BTreeMap<String, String>,
    pub(crate) created_time: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Format {
    pub(crate) provider: String,
    #[serde(default)]
    pub(crate) options: BTreeMap<String, String>,
}

impl Format {
    pub(crate) fn parquet() -> Self {
        Self { provider: "parquet".to_owned(), options: BTreeMap::new() }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Add {
    pub(crate) path: String,
    #[serde(default)]
    pub(crate) partition_values: BTreeMap<String, String>,
    pub(crate) size: i64,
    pub(crate) modification_time: i64,
    pub(crate) data_change: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stats: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tags: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Remove {
    pub(crate) path: String,
    pub(crate) deletion_timestamp: Option<i64>,
    pub(crate) data_change: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Txn {
    pub(crate) app_id: String,
    pub(crate) version: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CommitInfo {
    pub(crate) timestamp: i64,
    pub(crate) operation: String,
    #[serde(default)]
    pub(crate) engine_info: String,
    /// Our own id of this commit, by which a lost reply is recognised.
    #[serde(default)]
    pub(crate) rollcall_commit: String,
    /// The digest of the entry before, if its writer knew one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rollcall_previous: Option<String>,
}

impl Action {
    pub(crate) fn add(add: Add) -> Self {
        Self { add: Some(Box::new(add)), ..Self::default() }
    }

    pub(crate) fn remove(remove: Remove) -> Self {
        Self { remove: Some(Box::new(remove)), ..Self::default() }
    }

    pub(crate) fn txn(app_id: String, version: i64) -> Self {
        Self { txn: Some(Txn { app_id, version }), ..Self::default() }
    }

    pub(crate) fn meta_data(meta_data: MetaData) -> Self {
        Self { meta_data: Some(Box::new(meta_data)), ..Self::default() }
    }

    pub(crate) fn protocol() -> Self {
        Self { protocol: Some(Protocol::OURS), ..Self::default() }
    }
}
