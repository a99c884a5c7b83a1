//! `rollcall lake check` and `repair`: what is wrong with a lake, what is done about it, and which sites state rows again for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use futures::TryStreamExt;
use object_store::{ObjectStore, path::Path};
use rollcall_lake::{CheckReport, Damage, DurableDirectory, Finding, Lake, LakeError, LakeOptions, StateView, check};
use rollcall_types::{Epoch, SiteId, SiteNumber, TableName, Timestamp};
use serde::Serialize;

use crate::{
    error::HqError,
    maintenance,
    restate::{self, Wish},
    roster::{SiteRecord, sites},
};

/// Where a lake is.
#[derive(Debug, Clone)]
pub struct LakePlace {
    /// HQ's data directory.
    pub data: PathBuf,
    /// The object store that holds the lake, if that is not the directory.
    pub store: Option<String>,
}

/// Rounds of a repair: what lies behind a damage shows in the next.
const ROUNDS_MAX: usize = 10;
/// A node that was heard this lately runs.
const ALIVE: Duration = Duration::from_secs(60);

impl LakePlace {
    fn store(&self) -> Result<Arc<dyn ObjectStore>, HqError> {
        match &self.store {
            Some(address) => Ok(rollcall_lake::store_at(address)?),
            None => {
                let failed = |source: std::io::Error| HqError::Io {
                    doing: format!("reading {}; is this HQ's data directory?", self.data.display()),
                    source,
                };
                std::fs::metadata(self.data.join("rollcall")).map_err(failed)?;
                let directory = DurableDirectory::new(&self.data);
                Ok(Arc::new(directory.map_err(|source| failed(std::io::Error::other(source)))?))
            }
        }
    }

    async fn open(&self) -> Result<Lake, HqError> {
        Ok(match &self.store {
            Some(address) => Lake::open_shared(address, LakeOptions::default()).await?,
            None => Lake::open_directory(&self.data, LakeOptions::default()).await?,
        })
    }
}

/// Looks at everything in a lake; HQ may run meanwhile. `progress` hears how many data files of how many were read.
pub async fn check_lake(place: &LakePlace, progress: impl FnMut(usize, usize)) -> Result<CheckReport, HqError> {
    Ok(check(&place.store()?, progress).await?)
}

/// What was done about one finding.
#[derive(Debug, Serialize)]
pub struct Mended {
    /// What was wrong.
    #[serde(flatten)]
    pub finding: Finding,
    /// Why it could not be mended.
    pub error: Option<String>,
    /// Sites that state rows of the table again.
    pub asked: Vec<SiteId>,
    /// Rows that nobody can state again, in words.
    pub gone: Vec<String>,
}

/// What a finding takes from whom.
struct Affected {
    table: Option<TableName>,
    sites: Vec<SiteNumber>,
}

/// Mends what `report` found. HQ must not run.
pub async fn repair_lake(place: &LakePlace, report: CheckReport) -> Result<Vec<Mended>, HqError> {
    if place.store.is_some() {
        refuse_while_nodes_run(place.store()?.as_ref()).await?;
    }
    let (mut mended, mut report) = (Vec::new(), report);
    for _ in 0..ROUNDS_MAX {
        let by_hand = |finding: &Finding| matches!(finding.damage, Damage::ByHand { .. });
        let (left, findings): (Vec<_>, Vec<_>) = report.findings.into_iter().partition(by_hand);
        if findings.is_empty() {
            let error = |finding: &Finding| Some(format!("this is for a person: {}", finding.remedy()));
            mended.extend(left.into_iter().map(|finding| Mended {
                error: error(&finding),
                finding,
                asked: Vec::new(),
                gone: Vec::new(),
            }));
            break;
        }
        mended.extend(mend_all(place, findings).await?);
        // What lay behind a damaged log shows once that is mended.
        report = check(&place.store()?, |_, _| {}).await?;
    }
    place.open().await?.note_heads().await?;
    Ok(mended)
}

/// Mends what can be, and has the sites that lose rows by it state them again.
async fn mend_all(place: &LakePlace, findings: Vec<Finding>) -> Result<Vec<Mended>, HqError> {
    let lake = place.open().await?;
    let (mut mended, mut affected) = (Vec::new(), Vec::new());
    for finding in findings {
        affected.push(affected_by(&lake, &finding));
        let error = lake.mend(&finding).await.err().map(|error| rollcall_types::describe(&error));
        mended.push(Mended { finding, error, asked: Vec::new(), gone: Vec::new() });
    }
    // What was mended is seen by who opens the lake then.
    drop(lake);
    let lake = place.open().await?;
    for (mended, affected) in mended.iter_mut().zip(affected).filter(|(mended, _)| mended.error.is_none()) {
        ask(&lake, mended, affected).await?;
    }
    Ok(mended)
}

/// Several nodes may have the lake open; each knows a state that a repair would change behind its back.
async fn refuse_while_nodes_run(store: &dyn ObjectStore) -> Result<(), HqError> {
    let failed = |source| LakeError::Store { doing: "looking for nodes that run".to_owned(), source };
    let told: Vec<_> = store.list(Some(&Path::from("rollcall/relay"))).try_collect().await.map_err(failed)?;
    let alive = chrono::Utc::now() - ALIVE;
    match told.iter().find(|object| object.last_modified > alive) {
        None => Ok(()),
        Some(_) => Err(HqError::Invalid("a node of this HQ runs; stop all nodes for a minute, then repair".to_owned())),
    }
}

fn roster_of(lake: &Lake) -> BTreeMap<SiteId, SiteRecord> {
    sites(&lake.state().view()).collect()
}

/// Whose rows a mend takes away, by what is known before it.
fn affected_by(lake: &Lake, finding: &Finding) -> Affected {
    let (root, bounds, lost) = match &finding.damage {
        Damage::Log { table, lost, .. } => (table, None, lost.as_slice()),
        Damage::File { table, sites, .. } => (table, sites.as_ref(), [].as_slice()),
        _ => return Affected { table: None, sites: Vec::new() },
    };
    let name = root.strip_prefix("tables/").and_then(|name| TableName::new(name).ok());
    let roster = roster_of(lake);
    let numbers = |is_in: &dyn Fn(&str) -> bool| -> Vec<SiteNumber> {
        let known = roster.iter().filter(|(site, _)| is_in(site.as_str()));
        known.map(|(_, record)| SiteNumber(record.number)).collect()
    };
    let within = |site: &str| bounds.is_none_or(|(min, max)| (min.as_str()..=max.as_str()).contains(&site));
    let sites = match (&name, root.as_str()) {
        (Some(name), _) => {
            let of_table = lake.table(name).map(|table| table.snapshot());
            let cursors: Vec<(SiteNumber, Epoch)> =
                of_table.iter().flat_map(|table| table.cursors()).map(|(site, epoch, _)| (site, epoch)).collect();
            let mut sites: BTreeSet<SiteNumber> = cursors.into_iter().map(|(site, _)| site).collect();
            let may_be = numbers(&within);
            sites.retain(|site| may_be.contains(site));
            sites.extend(lost.iter().map(|range| SiteNumber(range.site)));
            sites.into_iter().collect()
        }
        // What sites said of themselves there goes back as well, and with it what they know to be confirmed.
        (None, "rollcall/site_log") => numbers(&|_| true),
        // What waited there is nowhere else in the lake.
        (None, "rollcall/quarantine") => numbers(&within),
        _ => Vec::new(),
    };
    Affected { table: name, sites }
}

/// Has the sites state the table again, and says what cannot be stated again.
async fn ask(lake: &Lake, mended: &mut Mended, affected: Affected) -> Result<(), HqError> {
    if affected.sites.is_empty() {
        return Ok(());
    }
    let roster = roster_of(lake);
    let by_number: BTreeMap<u32, &SiteId> = roster.iter().map(|(site, record)| (record.number, site)).collect();
    let now: Timestamp = chrono::Utc::now().into();
    let tables = affected.table.as_ref().map(|name| BTreeSet::from([name.to_string()]));
    let of = affected.table.as_ref().map_or_else(|| "any table".to_owned(), ToString::to_string);
    let mut wishes = Vec::new();
    for number in &affected.sites {
        let Some(site) = by_number.get(&number.0) else {
            mended.gone.push(format!("rows of {of} of a site that is not on the roster (number {number})"));
            continue;
        };
        let record = &roster[*site];
        if record.retired.is_some() {
            mended.gone.push(format!("rows of {of} of {site}, which was retired"));
            continue;
        }
        let reason = format!("a repair of the lake took rows of it: {}", mended.finding.what);
        let wish = Wish::new(lake, record, tables.clone(), true, reason);
        // A table that went back knows less than the site remembers to be confirmed.
        let wish = if matches!(mended.finding.damage, Damage::Log { .. }) { wish.in_new_life() } else { wish };
        wishes.push(((*site).clone(), wish));
        mended.asked.push((*site).clone());
    }
    if let Damage::File { rows, seqs: Some((first, last)), .. } = &mended.finding.damage {
        mended.gone.push(format!(
            "what {rows} rows with positions {first} to {last} were before later changes; the sites state only what is so now"
        ));
    }
    let update = |view: &StateView| {
        let mut records = Vec::new();
        for (site, wish) in &wishes {
            let open = roster.get(site).and_then(|record| restate::open(lake, view, site, record));
            records.push(wish.clone().with(open.map(|(_, wish)| wish)).record(view, site, now, "hq")?);
            records.extend(maintenance::forget_completeness(view, site, now)?);
        }
        Ok::<_, LakeError>((records, ()))
    };
    Ok(lake.state().update(update).await?)
}
