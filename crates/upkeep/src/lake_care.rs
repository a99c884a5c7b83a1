//! `rollcall lake check` and `repair`: what is wrong with a lake, what is done about it, and which
//! sites state rows again for it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    sync::Arc,
};

use object_store::ObjectStore;
use rollcall_lake::{CheckReport, Damage, DurableDirectory, Finding, Lake, LakeError, LakeOptions, StateView, check};
use rollcall_types::{Epoch, SiteId, SiteNumber, TableName, Timestamp};
use serde::Serialize;

use rollcall_api::rotate_node_key as seal_anew;
use rollcall_books::{
    definitions::definitions,
    restate::{self, Wish},
};
use rollcall_registry::{HqError, SiteRecord, presence::forget_completeness, roster::sites};

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

impl LakePlace {
    pub(crate) fn store(&self) -> Result<Arc<dyn ObjectStore>, HqError> {
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

    /// Opens the lake for this process alone: no node may run.
    pub(crate) async fn open_alone(&self) -> Result<Lake, HqError> {
        if self.store.is_some() {
            refuse_while_nodes_run(self.store()?.as_ref()).await?;
        }
        self.open().await
    }

    async fn open(&self) -> Result<Lake, HqError> {
        Ok(match &self.store {
            Some(address) => Lake::open_shared(address, LakeOptions::default()).await?,
            None => Lake::open_directory(&self.data, LakeOptions::default()).await?,
        })
    }
}

/// Replaces the node's key, with which all secrets in the lake are sealed; no node may run. Gives
/// how many secrets were sealed anew.
pub async fn rotate_node_key(place: &LakePlace) -> Result<usize, HqError> {
    let lake = place.open_alone().await?;
    seal_anew(&place.data, &lake).await
}

/// Looks at everything in a lake; HQ may run meanwhile. `progress` hears how many data files of how
/// many were read.
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

impl Mended {
    fn of(finding: Finding) -> Self {
        Self { finding, error: None, asked: Vec::new(), gone: Vec::new() }
    }
}

/// The table of sites' rows, or of HQ's, at a place.
fn table_name(root: &str) -> Option<TableName> {
    TableName::new(root.strip_prefix("tables/")?).ok()
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
    // A doubt ends only if whoever asks for this was told of it: opening the lake may raise one.
    let may_end = report.findings.iter().any(|finding| finding.damage == Damage::Doubt);
    let (mut mended, mut report) = (Vec::new(), report);
    for round in 0.. {
        let has_failed =
            |finding: &Finding| mended.iter().any(|tried: &Mended| tried.error.is_some() && tried.finding == *finding);
        report.findings.retain(|finding| !has_failed(finding));
        let is_left = |finding: &Finding| {
            matches!(finding.damage, Damage::ByHand { .. }) || finding.damage == Damage::Doubt && !may_end
        };
        let (left, findings): (Vec<_>, Vec<_>) = report.findings.into_iter().partition(is_left);
        if findings.is_empty() || round == ROUNDS_MAX {
            let error = |finding: &Finding| match &finding.damage {
                Damage::Doubt => "this shows only now; look at it, and repair once more".to_owned(),
                _ => format!("this is for a person: {}", finding.remedy()),
            };
            let left = left.into_iter().chain(findings);
            mended.extend(left.map(|finding| Mended { error: Some(error(&finding)), ..Mended::of(finding) }));
            break;
        }
        mended.extend(mend_all(place, findings).await?);
        // What lay behind a damaged log shows once that is mended.
        report = check(&place.store()?, |_, _| {}).await?;
    }
    // What is left for a person must be noticed again.
    if mended.iter().all(|mended| mended.error.is_none()) {
        place.open().await?.note_heads().await?;
    }
    Ok(mended)
}

/// Mends what can be, and has the sites that lose rows by it state them again.
async fn mend_all(place: &LakePlace, findings: Vec<Finding>) -> Result<Vec<Mended>, HqError> {
    let lake = place.open().await?;
    let (mut mended, mut affected) = (Vec::new(), Vec::new());
    let published = definitions(&lake.state().view());
    for finding in findings {
        affected.push(affected_by(&lake, &finding));
        let error = match &finding.damage {
            // Nobody but HQ has these rows.
            Damage::Log { table, .. } if table_name(table).is_some_and(|name| published.contains_key(&name)) => {
                Some(format!("HQ publishes it: put {table} back from a backup"))
            }
            _ => lake.mend(&finding).await.err().map(|error| rollcall_types::describe(&error)),
        };
        mended.push(Mended { error, ..Mended::of(finding) });
    }
    // What was mended is seen by who opens the lake then.
    drop(lake);
    let lake = place.open().await?;
    for (mended, affected) in mended.iter_mut().zip(affected).filter(|(mended, _)| mended.error.is_none()) {
        ask(&lake, mended, affected).await?;
    }
    Ok(mended)
}

/// Several nodes may have the lake open; each knows a state that a repair would change behind its
/// back.
pub(crate) async fn refuse_while_nodes_run(store: &dyn ObjectStore) -> Result<(), HqError> {
    match Lake::runs_elsewhere(store).await? {
        false => Ok(()),
        true => {
            Err(HqError::Invalid("a node of this HQ runs; stop all nodes, wait a minute, and try again".to_owned()))
        }
    }
}

fn roster_of(lake: &Lake) -> BTreeMap<SiteId, SiteRecord> {
    sites(&lake.state().view()).collect()
}

/// Whose rows a mend takes away, by what is known before it.
fn affected_by(lake: &Lake, finding: &Finding) -> Affected {
    let (root, bounds, lost, is_all) = match &finding.damage {
        // Where nothing can be relied on, nobody knows whose rows there were.
        Damage::Log { table, lost, sound, .. } => (table, None, lost.as_slice(), sound.is_none()),
        Damage::File { table, sites, .. } => (table, sites.as_ref(), [].as_slice(), false),
        Damage::OwnLog { table, .. } => (table, None, [].as_slice(), false),
        _ => return Affected { table: None, sites: Vec::new() },
    };
    let name = table_name(root);
    let roster = roster_of(lake);
    let numbers = |is_in: &dyn Fn(&str) -> bool| -> Vec<SiteNumber> {
        let known = roster.iter().filter(|(site, _)| is_in(site.as_str()));
        known.map(|(_, record)| SiteNumber(record.number)).collect()
    };
    let within = |site: &str| bounds.is_none_or(|(min, max)| (min.as_str()..=max.as_str()).contains(&site));
    let sites = match (&name, root.as_str()) {
        (Some(_), _) if is_all => numbers(&|_| true),
        (Some(name), _) => {
            let of_table = lake.table(name).map(|table| table.snapshot());
            let cursors = of_table.iter().flat_map(|table| table.cursors());
            let lives: HashMap<u32, Epoch> =
                roster.values().filter_map(|record| Some((record.number, record.current_life()?))).collect();
            let is_current = |site: SiteNumber, epoch: Epoch| lives.get(&site.0).is_none_or(|life| epoch >= *life);
            // Rows of lives that are over are shown to nobody.
            let current = cursors.filter(|(site, epoch, _)| is_current(*site, *epoch));
            let mut sites: BTreeSet<SiteNumber> = current.map(|(site, ..)| site).collect();
            let may_be = numbers(&within);
            sites.retain(|site| may_be.contains(site));
            sites.extend(lost.iter().map(|range| SiteNumber(range.site)));
            sites.into_iter().collect()
        }
        // What sites said of themselves there goes back as well, and with it what they know to be
        // confirmed.
        (None, "rollcall/site_log") => numbers(&|_| true),
        // What waited there is nowhere else in the lake.
        (None, "rollcall/quarantine") => numbers(&within),
        _ => Vec::new(),
    };
    Affected { table: name, sites }
}

/// Has the sites state the table again, and says what cannot be stated again.
async fn ask(lake: &Lake, mended: &mut Mended, affected: Affected) -> Result<(), HqError> {
    if affected.sites.is_empty() && !matches!(mended.finding.damage, Damage::Log { .. }) {
        return Ok(());
    }
    let roster = roster_of(lake);
    let by_number: BTreeMap<u32, &SiteId> = roster.iter().map(|(site, record)| (record.number, site)).collect();
    let now: Timestamp = rollcall_runtime::now();
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
        if matches!(mended.finding.damage, Damage::Log { .. }) {
            // What was in the entries that cannot be read, and whose, is not known.
            for site in roster.keys().filter(|site| !mended.asked.contains(site)) {
                records.extend(forget_completeness(view, site, now)?);
            }
        }
        for (site, wish) in &wishes {
            let open = roster.get(site).and_then(|record| restate::open(lake, view, site, record));
            records.push(wish.clone().with(open.map(|(_, wish)| wish)).record(view, site, now, "hq")?);
            records.extend(forget_completeness(view, site, now)?);
        }
        Ok::<_, LakeError>((records, ()))
    };
    Ok(lake.state().update(update).await?)
}
