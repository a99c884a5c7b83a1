//! One connection's life: hello, then batches out and confirmations in, until something ends it.

mod manifests;
mod talk;
mod welcome;

use std::{collections::BTreeMap, net::SocketAddr, path::Path, time::Duration};

use rand::Rng;
use rollcall_capture::{
    CaptureError, JOURNAL_BYTES_MAX, KEPT_CONFIRMED, LoadProgress, PruneLimits, Registration, Source, TableSpec,
};
use rollcall_types::{Epoch, Seq};
use rollcall_wire::{
    batch::Encoder,
    proto::{Attempts, Goodbye, HqControl, SiteControl, site_control::Message as ToHq},
};
use tokio::{sync::mpsc, time::Instant};
use tonic::{Streaming, transport::Channel};

pub(crate) use self::talk::disk_free;
use self::welcome::want_epoch;
pub(crate) use self::welcome::{in_time, turned_away};

use crate::{
    error::SiteError,
    feed::Feed,
    keeper::{self, KnownHealth},
    line::DataLine,
    nudge::Nudges,
    outbox::Outbox,
    published::{Shelf, Updates},
    settings::Behaviour,
    state::{Notes, Position, StateDirectory},
    status::StatusFile,
};

/// How a session ended without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The agent is to stop.
    Stopped,
    /// A person wants the database left alone.
    Paused,
    /// The connection had its time.
    Old,
}

/// Under which name the journal is noted that was sent last.
pub(crate) const JOURNAL_ID: &str = "journal_id";
/// Under which name it is noted that HQ once accepted to be older than what it confirmed.
pub(crate) const ACCEPTS_OLDER_LAKE: &str = "accept_older_lake";
/// Under which name it is noted that everything is to be stated again before anything of this epoch
/// is sent.
pub(crate) const RELOAD_WANTED: &str = "reload_wanted";
/// A goodbye has so long to leave before the connection goes.
pub(crate) const GOODBYE_TIME: Duration = Duration::from_millis(200);
/// A connection is replaced after this long, so that a moved name is noticed.
const AGE_MAX: Duration = Duration::from_secs(3600);
/// … and within so many beacons where HQ wants the site to believe in another authority: not all
/// sites at once.
const RENEWAL_BEACONS: u32 = 10;
/// How often the file is looked at for changes while the store is busy …
const POLL_BUSY: Duration = Duration::from_millis(50);
/// … while it is not …
const POLL_IDLE: Duration = Duration::from_millis(500);
/// … and while it is not, and the system tells of changes.
const POLL_TOLD: Duration = Duration::from_secs(5);
/// A store that changed something this recently is busy.
const BUSY_FOR: Duration = Duration::from_secs(3);
/// How often capture is checked, the journal pruned, the status written, if the file looks changed
/// or HQ confirmed something.
const CARE_EVERY: Duration = Duration::from_secs(2);
/// The same, and a look at the journal, even if nothing seems to have happened.
const LOOK_ANYWAY: Duration = Duration::from_secs(15);
/// Loading waits while this many changes are unconfirmed.
const LOAD_BACKLOG_MAX: u64 = 20_000;
/// HQ's tables are compared with what was applied once in so many beacons: every five minutes as a
/// rule.
const CHECK_BEACONS: u32 = 10;
/// Nothing heard from HQ for this long ends the connection.
const SILENT_HQ: Duration = Duration::from_secs(120);
/// … where it speaks more seldom, for so many of its intervals.
const SILENT_HQ_BEACONS: u32 = 4;

/// How often notes that triggers left over are cleared.
const NOTES_EVERY: Duration = Duration::from_secs(300);

pub(crate) struct Session<'a> {
    pub(crate) notes_cleared: Option<Instant>,
    pub(crate) manifest_stated: Option<Instant>,
    /// What was captured then, and the tables that were not.
    pub(crate) manifest_of: Option<(Registration, Vec<String>)>,
    /// When the store's file was read last: another program may hold it locked.
    pub(crate) read: Instant,
    pub(crate) database: &'a Path,
    pub(crate) directory: &'a StateDirectory,
    pub(crate) feed: &'a Feed,
    pub(crate) shelf: &'a Shelf,
    pub(crate) notes: &'a Notes,
    pub(crate) status: &'a mut StatusFile,
    pub(crate) health: &'a KnownHealth,
    pub(crate) instance: &'a str,
    pub(crate) address: &'a str,
    /// What the address resolved to.
    pub(crate) resolved: Option<SocketAddr>,
    pub(crate) behaviour: &'a mut Behaviour,
    /// Whom the site believes.
    pub(crate) authorities: Vec<String>,
    pub(crate) event_times: &'a BTreeMap<String, String>,
    /// HQ's clock less this machine's, microseconds.
    pub(crate) hq_clock_offset: &'a mut i64,
}

/// The streams of an open session and what they carry.
struct Open {
    control: mpsc::Sender<SiteControl>,
    from_control: Streaming<HqControl>,
    data: DataLine,
    outbox: Outbox,
    /// HQ's tables on their way here.
    updates: Updates,
    epoch: Epoch,
    lake_id: String,
}

pub(crate) fn ended(status: tonic::Status) -> SiteError {
    SiteError::Ended(status.message().to_owned())
}

impl Session<'_> {
    /// Runs until the connection ends, `stop` is asked for, or the connection is old.
    pub(crate) async fn run(
        &mut self,
        channel: Channel,
        stop: &tokio_util::sync::CancellationToken,
    ) -> Result<Ended, SiteError> {
        let mut open = self.open(channel).await?;
        let attempts = self.notes.take_attempts()?;
        if !attempts.is_empty() {
            open.say(ToHq::Attempts(Attempts { attempts })).await?;
        }
        let result = self.serve(&mut open, stop).await;
        if let Err(SiteError::Capture(CaptureError::Rewound(reason))) = &result {
            // What was confirmed is of the journal's other life, and is known to be.
            want_epoch(&open.control, reason).await;
        }
        self.keep_position(&open).await?;
        result
    }

    async fn keep_position(&mut self, open: &Open) -> Result<(), SiteError> {
        let (confirmed, confirmed_hash) = open.outbox.confirmed();
        self.notes.note_confirmed(self.hq_now(), confirmed)?;
        self.notes.set_position(&Position {
            epoch: open.epoch,
            lake_id: open.lake_id.clone(),
            confirmed,
            confirmed_hash,
            row_digest: open.outbox.confirmed_digest().to_owned(),
            tables: open.outbox.confirmed_tables().clone(),
        })
    }

    fn hq_now(&self) -> i64 {
        keeper::hq_now(*self.hq_clock_offset)
    }

    async fn serve(&mut self, open: &mut Open, stop: &tokio_util::sync::CancellationToken) -> Result<Ended, SiteError> {
        let mut encoder = Encoder::new().map_err(|error| SiteError::state("preparing to send", error))?;
        let timer = |every| {
            let mut timer = tokio::time::interval(every);
            timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            timer
        };
        let (mut beacon, mut care) = (timer(self.behaviour.beacon_every()), timer(CARE_EVERY));
        let (born, mut end) = (Instant::now(), None);
        let (mut heard, mut looked) = (Instant::now(), None);
        let (mut fingerprint, mut changed, mut next_look) = (None, Instant::now(), Instant::now());
        let (mut nudges, mut is_told) = (Nudges::of(self.database), false);
        let (mut has_more, mut moved) = (true, true);
        let (mut cared_for, mut cared) = (None, Instant::now());
        // A load: how far the journal goes, when the next chunk may be stated; none while there is
        // nothing to load.
        let mut load = Some((Seq(0), Instant::now()));
        loop {
            if has_more && open.outbox.may_send() && self.behaviour.pace.free_at().is_none() {
                has_more = self.send_next(open, &mut encoder).await?;
                looked = Some(Instant::now());
            }
            let free_at = self.behaviour.pace.free_at().filter(|_| has_more && open.outbox.may_send());
            let busy = has_more && open.outbox.may_send() && free_at.is_none();
            let is_quiet = changed.elapsed() >= BUSY_FOR;
            let confirmed = open.outbox.confirmed().0;
            let load_at =
                load.filter(|(head, _)| head.0.saturating_sub(confirmed.0) < LOAD_BACKLOG_MAX).map(|(_, at)| at);
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    let head = self.feed.call(|source| Ok(source.heads()?.head)).await.unwrap_or(open.outbox.sent_through());
                    open.say(ToHq::Goodbye(Goodbye { reason: "the agent was stopped".to_owned(), head: head.0 })).await?;
                    tokio::time::sleep(GOODBYE_TIME).await;
                    return Ok(Ended::Stopped);
                }
                message = open.data.reply() => {
                    let Some(message) = message.map_err(ended)? else { return Err(SiteError::Ended("HQ closed the data stream".to_owned())) };
                    heard = Instant::now();
                    let again = self.take_reply(open, message)?;
                    has_more |= again;
                    moved = true;
                }
                message = open.from_control.message() => {
                    let message = message.map_err(ended)?.and_then(|message| message.message);
                    let Some(message) = message else { return Err(SiteError::Ended("HQ closed the control stream".to_owned())) };
                    heard = Instant::now();
                    self.take_control(open, message).await?;
                    if self.behaviour.take_stopped() {
                        // HQ waits for no rows any more that were withheld meanwhile.
                        end = Some(Instant::now());
                    }
                    if beacon.period() != self.behaviour.beacon_every() {
                        beacon = timer(self.behaviour.beacon_every());
                    }
                }
                _ = beacon.tick() => {
                    let said = self.send_beacon(open).await;
                    self.unless_locked(said)?;
                }
                () = open.updates.changed() => {
                    unless_busy(self.capture_edits().await)?;
                    let said = self.send_beacon(open).await;
                    self.unless_locked(said)?;
                }
                _ = care.tick() => {
                    if self.directory.paused_until().is_some() {
                        let reason = "a person has the agent pause".to_owned();
                        open.say(ToHq::Goodbye(Goodbye { reason, head: open.outbox.sent_through().0 })).await?;
                        tokio::time::sleep(GOODBYE_TIME).await;
                        return Ok(Ended::Paused);
                    }
                    let happened = moved || cared_for != fingerprint || cared.elapsed() > LOOK_ANYWAY;
                    if happened || self.is_manifest_due() {
                        let seen = fingerprint;
                        match self.care(open, moved).await {
                            Ok(()) => (moved, cared_for, cared) = (false, seen, Instant::now()),
                            // What was not done now is done next time.
                            busy => self.unless_locked(busy)?,
                        }
                    }
                    let silent_hq = SILENT_HQ.max(self.behaviour.beacon_every() * SILENT_HQ_BEACONS);
                    if heard.elapsed() > silent_hq {
                        return Err(SiteError::Ended(format!("HQ said nothing for {} s", silent_hq.as_secs())));
                    }
                    if open.outbox.is_idle() {
                        if self.behaviour.wants_others(&self.authorities) {
                            end.get_or_insert(Instant::now() + self.behaviour.beacon_every() * rand::rng().random_range(0..RENEWAL_BEACONS));
                        }
                        if end.is_some_and(|end| end <= Instant::now()) || born.elapsed() > AGE_MAX {
                            return Ok(Ended::Old);
                        }
                        open.data.rest().await.map_err(ended)?;
                    }
                }
                // While the store is busy its file is looked at often enough.
                () = nudges.changed(), if !busy && is_quiet => (next_look, is_told) = (Instant::now(), true),
                // A fixed time, not a pause: other messages must not put it off for ever.
                () = tokio::time::sleep_until(next_look), if !busy => {
                    let seen = self.feed.fingerprint();
                    let due = looked.is_none_or(|looked: Instant| looked.elapsed() > LOOK_ANYWAY);
                    let is_changed = Some(seen) != fingerprint;
                    if is_changed && fingerprint.is_some() && is_quiet && !is_told {
                        nudges.distrust();
                    }
                    is_told = false;
                    if is_changed {
                        fingerprint = Some(seen);
                        changed = Instant::now();
                    }
                    if is_changed || due {
                        has_more = true;
                        load.get_or_insert((Seq(0), Instant::now()));
                    }
                    next_look = Instant::now()
                        + match (changed.elapsed() < BUSY_FOR, nudges.are_told()) {
                            (true, _) => POLL_BUSY,
                            (false, false) => POLL_IDLE,
                            (false, true) => POLL_TOLD,
                        };
                }
                () = tokio::time::sleep_until(load_at.unwrap_or(next_look)), if load_at.is_some() && !busy => {
                    load = self.load().await?;
                    has_more = true;
                }
                () = tokio::time::sleep_until(free_at.unwrap_or(next_look)), if free_at.is_some() => {}
                () = std::future::ready(()), if busy => {}
            }
        }
    }

    /// Captures what the store's programs change in tables that are HQ's as well.
    async fn capture_edits(&self) -> Result<(), SiteError> {
        for table in self.shelf.edit_tables().await? {
            let capture = move |source: &mut dyn Source| {
                if source.excluded(&table)?.is_none() {
                    source.capture(&TableSpec { table: table.clone(), excluded: Vec::new() })?;
                }
                Ok(())
            };
            self.feed.call(capture).await?;
        }
        Ok(())
    }

    /// Journals some rows from before: how far the journal goes now and when the next may follow;
    /// none when none are left.
    async fn load(&self) -> Result<Option<(Seq, Instant)>, SiteError> {
        let started = Instant::now();
        let stated = self.feed.call(|source| Ok((source.load_step()?, source.heads()?.head))).await;
        match stated {
            Ok((LoadProgress::Idle, _)) => Ok(None),
            Ok((LoadProgress::Failed, head)) => Ok(Some((head, Instant::now() + POLL_TOLD))),
            // Half of the time is the store's own.
            Ok((_, head)) => Ok(Some((head, Instant::now() + started.elapsed()))),
            // The store is busy; its own work goes first.
            Err(SiteError::Capture(error)) if error.is_busy() => Ok(Some((Seq(0), Instant::now() + POLL_IDLE))),
            Err(error) => Err(error),
        }
    }

    /// [`unless_busy`], for what is done again and again. Where it stays busy the session ends with
    /// that: the next one reads nothing, and says so to HQ.
    fn unless_locked(&mut self, result: Result<(), SiteError>) -> Result<(), SiteError> {
        match result {
            Err(SiteError::Capture(error)) if error.is_busy() => {
                if self.read.elapsed() < keeper::LOCKED_FOR {
                    Ok(())
                } else {
                    Err(error.into())
                }
            }
            other => {
                self.read = Instant::now();
                other
            }
        }
    }

    /// Looks after capture, the journal and the status file.
    async fn care(&mut self, open: &Open, moved: bool) -> Result<(), SiteError> {
        if moved {
            self.keep_position(open).await?;
        }
        let confirmed = open.outbox.confirmed().0;
        let clear_notes = self.notes_cleared.is_none_or(|cleared| cleared.elapsed() > NOTES_EVERY);
        self.state_manifest().await?;
        let kept = i64::try_from(KEPT_CONFIRMED.as_micros()).unwrap_or(i64::MAX);
        let through = self.notes.confirmed_before(self.hq_now().saturating_sub(kept))?;
        let (head, to_load) = self
            .feed
            .call(move |source| {
                if clear_notes {
                    source.tidy_up()?;
                }
                source.prune(confirmed, PruneLimits { through, bytes: JOURNAL_BYTES_MAX })?;
                Ok((source.heads()?.head, source.rows_to_load()?))
            })
            .await?;
        if clear_notes {
            self.notes_cleared = Some(Instant::now());
        }
        self.status.health(&self.health.get());
        self.status.journal(head);
        self.status.catching_up(confirmed, to_load);
        if let Err(error) = self.status.write() {
            tracing::warn!(error = %rollcall_types::describe(&error), "the status could not be written");
        }
        Ok(())
    }
}

/// A store that holds its file locked is no trouble with HQ: what could not be read now is read
/// next time.
fn unless_busy(result: Result<(), SiteError>) -> Result<(), SiteError> {
    match result {
        Err(SiteError::Capture(error)) if error.is_busy() => Ok(()),
        other => other,
    }
}

impl Open {
    async fn say(&self, message: ToHq) -> Result<(), SiteError> {
        let message = SiteControl { message: Some(message) };
        self.control.send(message).await.map_err(|_| SiteError::Ended("the control stream closed".to_owned()))
    }
}
