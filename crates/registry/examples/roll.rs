//! A roster of two sites, one of which is heard: the roll says which is not.
//!
//! `cargo run -p rollcall-registry --example roll`

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rollcall_lake::{BootClock, Lake, LakeOptions};
use rollcall_registry::{Heard, HqClock, Registry, RegistryParts, SiteFact};
use rollcall_types::{Epoch, Seq, SiteId, TableName};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let lake = Lake::open_directory(directory.path(), LakeOptions::default()).await?;
    let registry = Registry::new(RegistryParts {
        lake: Arc::new(lake),
        clock: HqClock::new(BootClock::default(), None),
        health: Arc::default(),
        address: String::new(),
        behind_after: Duration::from_secs(120),
        tasks: tokio_util::task::TaskTracker::new(),
        stop: tokio_util::sync::CancellationToken::new(),
    });
    for id in ["berlin-01", "seattle-01"] {
        let attributes = BTreeMap::from([("region".to_owned(), "all".to_owned())]);
        registry.roster.invite(&SiteId::new(id)?, &attributes, "fingerprint", 600, "ada", registry.now()).await?;
    }
    // What a connection says: it is there, and its journal was empty when HQ asked.
    let (heard, asked_at) = (SiteId::new("berlin-01")?, registry.now());
    registry.record_heard(&heard, Heard::Contact);
    let heads = vec![(TableName::new("sales")?, Seq(0))];
    registry.record(&heard, SiteFact::Heads { time: asked_at, epoch: Epoch(1), heads });
    registry.ledger.advance_all(&registry.lake, &registry.roster.all());
    // The watch's verdict would go here; without one, a site is as it was listed.
    for entry in registry.roll(|_| None) {
        let through = entry.complete_through.map_or_else(|| "nothing".to_owned(), |at| at.to_string());
        println!("{}: {}, complete through {through}", entry.site, entry.state);
    }
    Ok(())
}
