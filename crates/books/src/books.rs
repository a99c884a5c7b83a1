//! The part as a whole.

use std::sync::Arc;

use rollcall_registry::Registry;

use crate::{
    captured::CapturedBoard, manifests::Reconciliation, misfits::MisfitBoard, quarantine::Quarantine, quotas::Quotas,
    table_settings::Proposed, worth::Worths,
};

/// What is known of the rows of each site beside the rows themselves.
#[derive(Debug)]
pub struct Books {
    /// What was reconciled last.
    pub reconciliation: Reconciliation,
    /// What sites capture.
    pub captured: Arc<CapturedBoard>,
    /// Values that fit no column.
    pub misfits: MisfitBoard,
    /// Batches of which not everything could be taken.
    pub quarantine: Quarantine,
    /// How much a site may have HQ keep.
    pub quotas: Arc<Quotas>,
    /// What rows are worth.
    pub worths: Worths,
    /// Event times that sites declared.
    pub proposed: Proposed,
}

impl Books {
    /// The books of a registry's lake. What waits in quarantine is known after the first
    /// [`Quarantine::look`].
    pub fn new(registry: &Arc<Registry>) -> Self {
        let captured = Arc::new(CapturedBoard::restore(registry));
        Self {
            quarantine: Quarantine::new(registry.clone(), captured.clone()),
            reconciliation: Reconciliation::default(),
            captured,
            misfits: MisfitBoard::default(),
            quotas: Arc::new(Quotas::new(registry.lake.clone())),
            worths: Worths::default(),
            proposed: Proposed::default(),
        }
    }
}
