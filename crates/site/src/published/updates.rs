//! Brings HQ's tables as HQ wants them, and compares them now and then.

use std::time::Duration;

use rollcall_capture::{AppliedTable, CaptureError, Fingerprint, IncomingTable, Report, Staged, Standing};
use rollcall_types::{Seq, describe};
use rollcall_wire::{
    proto::{
        Applied, FetchBegin, FetchRequest, WantedTable, fetch_reply::Message as Fetched, sites_client::SitesClient,
    },
    published::decode,
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep_until},
};
use tonic::transport::Channel;

use super::Shelf;

use crate::{error::SiteError, settings::Pace};

/// Keeps HQ's tables up to date while a connection lasts.
#[derive(Debug)]
pub(crate) struct Updates {
    wanted: watch::Sender<Vec<WantedTable>>,
    applied: watch::Receiver<Vec<Applied>>,
    task: JoinHandle<()>,
}

impl Updates {
    /// Begins; whether tables are what was applied is looked at every `check_every`.
    pub(crate) fn start(
        client: SitesClient<Channel>,
        shelf: Shelf,
        applied: Vec<Applied>,
        check_every: Duration,
        pace: Pace,
    ) -> Self {
        let (wanted, hears_wanted) = watch::channel(Vec::new());
        let (tells_applied, applied) = watch::channel(applied);
        let (seen, refused_again) = (None, Instant::now() + check_every * REFUSED_CHECKS);
        let task = Task {
            client,
            shelf,
            wanted: hears_wanted,
            applied: tells_applied,
            check_every,
            pace,
            seen,
            refused_again,
        };
        Self { wanted, applied, task: tokio::spawn(task.run()) }
    }

    /// What HQ says the site should have.
    pub(crate) fn want(&self, tables: Vec<WantedTable>) {
        // The task ends with this.
        let _ = self.wanted.send(tables);
    }

    /// Returns when something was applied, or could not be.
    pub(crate) async fn changed(&mut self) {
        if self.applied.changed().await.is_err() {
            // It can only have failed; the connection goes on without it.
            std::future::pending::<()>().await;
        }
    }

    /// What the site has.
    pub(crate) fn applied(&self) -> Vec<Applied> {
        self.applied.borrow().clone()
    }
}

impl Drop for Updates {
    fn drop(&mut self) {
        // What is being applied is applied to its end: only waiting is given up.
        self.task.abort();
    }
}

pub(super) struct Task {
    client: SitesClient<Channel>,
    shelf: Shelf,
    wanted: watch::Receiver<Vec<WantedTable>>,
    applied: watch::Sender<Vec<Applied>>,
    check_every: Duration,
    pace: Pace,
    /// The store's file as it was when all tables were what was applied.
    seen: Option<Fingerprint>,
    /// When rows that the store refused are tried again.
    refused_again: Instant,
}

/// What could not be done is tried again after so long.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(15);

/// Rows that the store refused are tried again every so many checks, where its file changed since.
pub(super) const REFUSED_CHECKS: u32 = 12;

/// Looking whether tables are what was applied may take so much of a processor, one part in so
/// many.
pub(super) const CHECK_SHARE: u32 = 200;

/// Whether the version that the site has is one that HQ lost with a restored backup.
pub(super) fn is_disowned(wanted: &WantedTable, known: &AppliedTable) -> bool {
    wanted.disowned != 0 && known.published_at == wanted.disowned
}

/// Whether what the site has is what HQ wants it to have.
pub(super) fn is_wanted(wanted: &WantedTable, known: &AppliedTable) -> bool {
    known.audience == wanted.audience
        && !is_disowned(wanted, known)
        && (wanted.version..=wanted.newest).contains(&known.version.0)
}

/// Why a table is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// HQ has a newer version, or one for another audience.
    Newer,
    /// Its rows were changed here, and are put right.
    Changed,
    /// HQ has a newer version, and rows that it changed or not were changed here: it is fetched
    /// whole.
    Edited,
    /// Its rows were changed here, and are left so: it is fetched to find which.
    Compared,
    /// Rows that the store refused are tried once more.
    Refused,
}

impl Task {
    async fn run(mut self) {
        let mut check_at = Instant::now() + self.check_every;
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            self.shelf.problems().retain(|table, _| wanted.iter().any(|wanted| wanted.table == *table));
            let mut retry_at = None;
            if let Err(error) = self.shelf.schedule(&wanted).await {
                tracing::warn!(error = %describe(&error), "what takes effect later could not be noted");
                retry_at = Some(Instant::now() + RETRY_AFTER);
            }
            for table in &wanted {
                match self.bring(table).await {
                    Ok(()) => drop(self.shelf.problems().remove(&table.table)),
                    Err(error) => {
                        self.note(table, &error);
                        retry_at = Some(Instant::now() + RETRY_AFTER);
                    }
                }
                self.tell().await;
            }
            self.shelf.scheduled.notify_one();
            if Instant::now() >= check_at {
                let began = Instant::now();
                self.check_all(&wanted).await;
                self.tell().await;
                check_at = Instant::now() + self.check_every.max(began.elapsed() * CHECK_SHARE);
            }
            tokio::select! {
                changed = self.wanted.changed() => if changed.is_err() { return },
                () = sleep_until(retry_at.map_or(check_at, |retry| check_at.min(retry))) => {}
            }
        }
    }

    fn note(&mut self, table: &WantedTable, error: &SiteError) {
        tracing::warn!(table = table.table, error = %describe(error), "HQ's table could not be brought up to date");
        let problem = match error {
            // The connection broke, or HQ could not: that is no trouble with the store. Nor is a
            // store that is busy.
            SiteError::Ended(_) => return,
            SiteError::Capture(error) if error.is_busy() => return,
            error => describe(error),
        };
        self.shelf.problems().insert(table.table.clone(), problem);
    }

    async fn tell(&self) {
        if let Ok(now) = self.shelf.applied().await {
            self.applied.send_if_modified(|before| {
                let is_new = *before != now;
                *before = now;
                is_new
            });
        }
    }

    /// Brings a table up to date, and lets HQ's decisions on the store's edits take effect.
    async fn bring(&mut self, wanted: &WantedTable) -> Result<(), SiteError> {
        self.bring_rows(wanted).await?;
        if wanted.leaves {
            let name = wanted.table.clone();
            if self.shelf.call(move |incoming| incoming.leave(&name)).await? {
                tracing::info!(table = wanted.table, "HQ's table is for this site no more");
            }
        }
        if wanted.decided > 0 {
            let (name, decided) = (wanted.table.clone(), wanted.decided);
            self.shelf.call(move |incoming| incoming.settle(&name, decided)).await?;
        }
        Ok(())
    }

    /// Fetches and applies a table, unless it is what HQ wants.
    async fn bring_rows(&mut self, wanted: &WantedTable) -> Result<(), SiteError> {
        let name = wanted.table.clone();
        let applied = self.shelf.call(|incoming| incoming.applied()).await?;
        let applied = applied.get(&name);
        if wanted.leaves && applied.is_none() {
            return Ok(());
        }
        if applied.is_some_and(|known| is_wanted(wanted, known)) {
            return Ok(());
        }
        // A change is one of rows as HQ has them. Where edits are left, the table may not be that.
        let is_left = applied.is_some_and(|known| !known.mends && known.audience == wanted.audience);
        if is_left && !self.shelf.call(move |incoming| incoming.is_as_applied(&name)).await? {
            return self.fetch(wanted, applied, Why::Edited).await;
        }
        self.fetch(wanted, applied, Why::Newer).await
    }

    /// Looks whether all tables are what was applied, unless the store's file is as it was when
    /// they were.
    async fn check_all(&mut self, wanted: &[WantedTable]) {
        let now = self.shelf.database.fingerprint();
        if self.seen == Some(now) {
            return;
        }
        let tries_refused = Instant::now() >= self.refused_again;
        if tries_refused {
            self.refused_again = Instant::now() + self.check_every * REFUSED_CHECKS;
        }
        let mut are_as_applied = true;
        for table in wanted {
            are_as_applied &= match self.check(table, tries_refused).await {
                Ok(is_as_applied) => is_as_applied,
                Err(error) => {
                    self.note(table, &error);
                    false
                }
            };
        }
        self.seen = are_as_applied.then_some(now);
    }

    /// Looks whether a table is what was applied, and puts it right if that is wanted; true if it
    /// was, or if what differs is known.
    async fn check(&mut self, wanted: &WantedTable, tries_refused: bool) -> Result<bool, SiteError> {
        let name = wanted.table.clone();
        let (applied, standing) =
            self.shelf.call(move |incoming| Ok((incoming.applied()?.remove(&name), incoming.standing(&name)?))).await?;
        let Some(applied) = applied else { return Ok(true) };
        let why = match standing {
            Standing::AsApplied if tries_refused && applied.differing > 0 => Why::Refused,
            Standing::AsApplied | Standing::AsFound => return Ok(true),
            // What is noted of a shared table is no matter of taste.
            Standing::Changed if applied.mends || applied.shared => Why::Changed,
            // What HQ changed since is no edit of the store's: it is compared once that is here.
            Standing::Changed if !is_wanted(wanted, &applied) => return Ok(false),
            Standing::Changed => Why::Compared,
        };
        if why != Why::Refused {
            tracing::warn!(table = wanted.table, "rows of HQ's were changed here");
        }
        self.fetch(wanted, Some(&applied), why).await?;
        Ok(why == Why::Refused)
    }

    async fn fetch(&mut self, wanted: &WantedTable, applied: Option<&AppliedTable>, why: Why) -> Result<(), SiteError> {
        let table = wanted.table.clone();
        let staged = self.shelf.call(move |incoming| incoming.staged(&table)).await?;
        let is_change = |known: &&AppliedTable| {
            let is_hqs = known.version.0 <= wanted.newest && !is_disowned(wanted, known);
            why == Why::Newer && known.audience == wanted.audience && is_hqs
        };
        let (after, whole) = match (staged, applied.filter(is_change)) {
            (Some(Staged { audience, through, whole: true, .. }), _) if audience == wanted.audience => (through, true),
            (Some(Staged { audience, through, whole: false, base }), Some(known))
                if audience == wanted.audience && base == known.version =>
            {
                (through, false)
            }
            (_, Some(known)) => (known.version, false),
            (_, None) => (Seq(0), true),
        };
        let request = FetchRequest { table: wanted.table.clone(), audience: wanted.audience, after: after.0, whole };
        let ended = |status: tonic::Status| SiteError::Ended(status.message().to_owned());
        let mut stream = self.client.fetch(request).await.map_err(ended)?.into_inner();
        while let Some(reply) = stream.message().await.map_err(ended)? {
            let name = wanted.table.clone();
            match reply.message {
                Some(Fetched::Begin(begin)) => self.begin(name, begin).await?,
                Some(Fetched::Rows(rows)) => {
                    self.pace.pay(prost::Message::encoded_len(&rows));
                    let through = Seq(rows.through);
                    let rows = decode(&rows).map_err(|error| SiteError::state("reading rows of HQ's", error))?;
                    self.shelf.call(move |incoming| incoming.stage(&name, &rows, through)).await?;
                    if let Some(free_at) = self.pace.free_at() {
                        sleep_until(free_at).await;
                    }
                }
                Some(Fetched::End(end)) => {
                    let (version, published_at) = (Seq(end.version), end.published_at);
                    // What came since is no edit of the store's.
                    if why == Why::Compared && end.version <= wanted.newest {
                        return self.shelf.call(move |incoming| incoming.compare(&name)).await;
                    }
                    let mending = why == Why::Changed;
                    let Report { written, removed, locked } =
                        self.shelf.call(move |incoming| incoming.apply(&name, version, published_at, mending)).await?;
                    let table = &wanted.table;
                    tracing::info!(table, %version, written, removed, ?locked, "HQ's table is up to date");
                    self.shelf.problems().remove(table);
                    return Ok(());
                }
                None => {}
            }
        }
        Err(SiteError::Ended("HQ did not send the table to its end".to_owned()))
    }
    /// Makes ready to stage a table that HQ begins to send.
    async fn begin(&self, name: String, begin: FetchBegin) -> Result<(), SiteError> {
        let spec = IncomingTable {
            name: name.clone(),
            columns: begin.columns.into_iter().map(|column| (column.name, column.r#type)).collect(),
            key: begin.key,
            audience: begin.audience,
            mends: begin.mends,
            shared: begin.shared,
            keeps_referenced: begin.keeps_referenced,
            rewritten: begin.rewritten,
        };
        let (after, whole) = (Seq(begin.after), begin.whole);
        let Err(error) = self.shelf.call(move |incoming| incoming.begin(&spec, after, whole)).await else {
            return Ok(());
        };
        // The next attempt begins anew.
        self.shelf.call(move |incoming| incoming.clear(&name)).await?;
        Err(match error {
            SiteError::Capture(CaptureError::Damaged(text)) => SiteError::Ended(text),
            other => other,
        })
    }
}
