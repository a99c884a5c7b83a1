//! One connection's life: hello, then batches out and confirmations in, until something ends it.

mod manifests;

use std::{collections::BTreeMap, net::SocketAddr, path::Path, time::Duration};

use rand::Rng;
use rollcall_capture::{
    Anchor, CaptureError, JOURNAL_BYTES_MAX, JournalState, KEPT_CONFIRMED, LoadProgress, PruneLimits, Registration,
    Source, TableSpec, fingerprint as look_at,
};
use rollcall_types::{Cause, ChainHash, Epoch, Seq, columns};
use rollcall_wire::{
    PROTOCOL, PROTOCOL_MIN, Refusal,
    batch::{Encoded, Encoder},
    framing::frames,
    proto::{
        self, Attempts, Beacon, EpochWanted, Goodbye, Heads, Hello, HqControl, Refused, SiteControl, SiteRefuses,
        TableHead, Welcome, data_reply::Message as Reply, hq_control::Message as FromHq, site_control::Message as ToHq,
        sites_client::SitesClient,
    },
};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

use crate::{
    enrol::refused,
    error::SiteError,
    feed::{Feed, parts},
    keeper::{self, KnownHealth},
    line::DataLine,
    nudge::Nudges,
    outbox::Outbox,
    published::{Shelf, Updates},
    settings::Behaviour,
    state::{Begun, Notes, Position, StateDirectory},
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
/// HQ must answer hello within this time.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(20);
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

pub(crate) fn turned_away(refusal: Refused) -> SiteError {
    match Refusal::of(&refusal.code).is_some_and(Refusal::is_of_this_node_only) {
        true => SiteError::Ended(refusal.message),
        false => SiteError::Refused { code: refusal.code, message: refusal.message },
    }
}

/// HQ may keep a connection alive and never answer a call.
pub(crate) async fn in_time<T>(call: impl Future<Output = T>) -> Result<T, SiteError> {
    let answer = tokio::time::timeout(WELCOME_TIMEOUT, call).await;
    answer.map_err(|_| SiteError::Ended("HQ did not answer in time".to_owned()))
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

    async fn open(&mut self, channel: Channel) -> Result<Open, SiteError> {
        let position = self.notes.position()?;
        let hello = self.hello(&position).await?;
        let applied = hello.applied.clone();
        let head = Seq(hello.head);
        let (control, outgoing) = mpsc::channel(16);
        let hello = SiteControl { message: Some(ToHq::Hello(hello)) };
        control.send(hello).await.map_err(|_| SiteError::Ended("before hello".to_owned()))?;
        let mut client = SitesClient::new(channel).max_decoding_message_size(1 << 20);
        let opened = in_time(client.control(ReceiverStream::new(outgoing))).await?;
        let mut from_control = opened.map_err(|status| refused(self.address, &status))?.into_inner();
        let first = tokio::time::timeout(WELCOME_TIMEOUT, from_control.message()).await;
        let first = first.map_err(|_| SiteError::Ended("HQ did not answer hello".to_owned()))?;
        let welcome = match first.map_err(|status| refused(self.address, &status))?.and_then(|message| message.message)
        {
            Some(FromHq::Welcome(welcome)) => welcome,
            Some(FromHq::Refused(refusal)) => return Err(turned_away(refusal)),
            _ => return Err(SiteError::Ended("HQ did not welcome this site".to_owned())),
        };
        self.take_time(&welcome);
        let position = self.take_welcome(position, &welcome, head, &control).await?;
        self.status.connected(self.address);
        let data = DataLine::new(client.clone(), welcome.session);
        let settings = welcome.settings.unwrap_or_default();
        let outbox = Outbox::new(
            position.epoch,
            Anchor { seq: position.confirmed, digest: position.row_digest },
            position.confirmed_hash,
            position.tables,
            welcome.credit_bytes,
        );
        self.status.held(&settings.held);
        self.behaviour.take(settings, self.feed, self.notes).await?;
        unless_busy(self.capture_edits().await)?;
        let check_every = self.behaviour.beacon_every() * CHECK_BEACONS;
        let pace = self.behaviour.pace.clone();
        let updates = Updates::start(client, self.shelf.clone(), applied, check_every, pace);
        Ok(Open { control, from_control, data, outbox, updates, epoch: position.epoch, lake_id: welcome.lake_id })
    }

    /// HQ's clock is the one that counts.
    fn take_time(&mut self, welcome: &Welcome) {
        const OFF_MICROS: u64 = 300_000_000;
        let offset = welcome.now_micros.saturating_sub(Source::clock_micros());
        if offset.abs_diff(*self.hq_clock_offset) > OFF_MICROS / 10 && offset.unsigned_abs() > OFF_MICROS {
            tracing::warn!(minutes = offset / 60_000_000, "this machine's clock is off by so much from HQ's");
        }
        *self.hq_clock_offset = offset;
    }

    async fn hello(&self, position: &Position) -> Result<Hello, SiteError> {
        let (head, oldest, journal_id) =
            self.feed.call(|source| Ok((source.heads()?.head, source.oldest()?, source.journal_id()?))).await?;
        Ok(Hello {
            protocol: PROTOCOL,
            protocol_min: PROTOCOL_MIN,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: self.instance.to_owned(),
            journal_id,
            lake_id: position.lake_id.clone(),
            epoch: position.epoch.0,
            head: head.0,
            confirmed: position.confirmed.0,
            oldest: oldest.0,
            clock_micros: Source::clock_micros(),
            accept_older_lake: self.notes.text(ACCEPTS_OLDER_LAKE)?.is_some(),
            states_manifests: true,
            takes_published: true,
            applied: self.shelf.applied().await?,
            event_times: self.event_times.clone().into_iter().collect(),
            called: self.address.to_owned(),
            resolved: self.resolved.map_or_else(String::new, |resolved| resolved.ip().to_string()),
            blind: false,
            authorities: self.authorities.clone(),
        })
    }

    /// Checks that this is the lake we know and that it remembers what we sent; starts a new epoch
    /// if HQ says so.
    async fn take_welcome(
        &mut self,
        mut position: Position,
        welcome: &Welcome,
        head: Seq,
        control: &mpsc::Sender<SiteControl>,
    ) -> Result<Position, SiteError> {
        if !position.lake_id.is_empty() && position.lake_id != welcome.lake_id {
            return Err(SiteError::NotOurHq {
                address: self.address.to_owned(),
                reason: format!("its lake is {}, this site belongs to {}", welcome.lake_id, position.lake_id),
            });
        }
        position.lake_id.clone_from(&welcome.lake_id);
        if position.epoch.0 != welcome.epoch {
            let is_first = position.epoch.0 == 0 && position.confirmed == Seq(0);
            if !is_first {
                tracing::warn!(epoch = welcome.epoch, reason = welcome.epoch_reason, "HQ starts a new epoch");
            }
            let is_told = welcome.older_lake || self.notes.text(ACCEPTS_OLDER_LAKE)?.is_some();
            if is_told {
                self.shelf.distrust().await?;
            }
            let journal_id = self.feed.call(Source::journal_id).await?;
            let is_same_journal = self.notes.text(JOURNAL_ID)?.is_some_and(|known| known == journal_id);
            let oldest = self.feed.call(|source| source.oldest()).await?;
            position = Position {
                epoch: Epoch(welcome.epoch),
                lake_id: position.lake_id,
                confirmed: Seq(oldest.0.saturating_sub(1)),
                ..Position::default()
            };
            let begun = Begun {
                position: &position,
                journal_id: &journal_id,
                rewound_at: (!is_first && !is_told && is_same_journal).then(|| self.hq_now()),
                reload: !(is_first && oldest.0 <= 1),
            };
            // At once, and before the file is written to: where that is busy, the next hello is of
            // this epoch, not of another one.
            self.notes.begin_epoch(&begun)?;
            self.reload_if_wanted().await?;
            return Ok(position);
        }
        // What this site sent under the name of a table that HQ publishes is in quarantine there,
        // and HQ has no position of it.
        position.tables.retain(|table, _| !welcome.published.iter().any(|published| same_table(published, table)));
        for (table, confirmed) in &position.tables {
            let cursor =
                welcome.cursors.iter().find(|cursor| cursor.table == *table || same_table(&cursor.table, table));
            // An older HQ says nothing of the log.
            let is_told = cursor.is_some() || table != columns::LOG_TABLE;
            if cursor.map_or(0, |cursor| cursor.seq) < confirmed.0 && is_told {
                let message = format!(
                    "HQ confirmed table {table:?} up to {confirmed} and now has less of it: was it restored from a backup? \
                     If so, run `rollcall roster resend --refused` at HQ, or `rollcall-site resend` here"
                );
                refuse(control, &message).await;
                return Err(SiteError::Refused { code: Refusal::OlderLake.code().to_owned(), message });
            }
        }
        if let Some(reason) = self.at_odds(&position, welcome, head).await? {
            want_epoch(control, &reason).await;
            return Err(CaptureError::Rewound(reason).into());
        }
        self.notes.set_position(&position)?;
        self.reload_if_wanted().await?;
        Ok(position)
    }

    /// Has everything stated again if that is still to be done in this epoch; what the journal
    /// still holds is sent as well, so history stays whole.
    async fn reload_if_wanted(&self) -> Result<(), SiteError> {
        if self.notes.text(RELOAD_WANTED)?.is_some() {
            self.feed.call(Source::reload_all).await?;
            self.notes.clear(RELOAD_WANTED)?;
        }
        Ok(())
    }

    /// Why HQ and this journal do not remember the same changes, if they do not.
    async fn at_odds(&self, position: &Position, welcome: &Welcome, head: Seq) -> Result<Option<String>, SiteError> {
        let confirmed = position.confirmed;
        let anchor = Anchor { seq: confirmed, digest: position.row_digest.clone() };
        match self.feed.call(move |source| source.check_anchor(&anchor)).await {
            Err(SiteError::Capture(CaptureError::Rewound(reason))) => return Ok(Some(reason)),
            other => other?,
        }
        // A batch sent again after a crash may end where an earlier one did, with another chain:
        // both were sent.
        for cursor in welcome.cursors.iter().filter(|cursor| cursor.seq > 0 && cursor.seq >= confirmed.0) {
            let known = self.notes.was_sent(Seq(cursor.seq), ChainHash::new(cursor.hash))?;
            if cursor.seq > head.0 || !known {
                return Ok(Some(format!(
                    "HQ has a batch up to {} of table {} that this site did not send in this life of its journal",
                    cursor.seq, cursor.table
                )));
            }
        }
        Ok(None)
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
                    let seen = look_at(self.database);
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
            let capture = move |source: &mut Source| {
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

    /// Sends the next batch; false when there is nothing to send.
    async fn send_next(&mut self, open: &mut Open, encoder: &mut Encoder) -> Result<bool, SiteError> {
        let read = self.feed.next(open.outbox.sent_anchor(), self.behaviour.pace.batch_bytes()).await;
        let changes = match read {
            Err(SiteError::Capture(error)) if error.is_busy() => return Ok(true),
            other => other?,
        };
        let Some(changes) = changes else { return Ok(false) };
        let digest = changes.digest.clone();
        let batch = open.outbox.batch(changes.last, parts(changes));
        let encoded: Encoded = encoder.encode(&batch).map_err(|error| SiteError::state("encoding a batch", error))?;
        let sending = open.outbox.sending(&encoded, digest);
        self.notes.note_sent(sending.last, sending.hash)?;
        self.behaviour.pace.pay(encoded.payload.len());
        for frame in frames(&encoded) {
            open.data.send(frame).await.map_err(|status| refused(self.address, &status))?;
        }
        Ok(true)
    }

    /// Takes a reply; true when there is something to send again.
    fn take_reply(&mut self, open: &mut Open, reply: Reply) -> Result<bool, SiteError> {
        match reply {
            Reply::Confirmed(confirmed) => {
                if confirmed.lake_id != open.lake_id || confirmed.epoch != open.epoch.0 {
                    let reason = "it confirmed for another lake or epoch".to_owned();
                    return Err(SiteError::NotOurHq { address: self.address.to_owned(), reason });
                }
                if Seq(confirmed.through) > open.outbox.sent_through() {
                    let reason = "it confirmed what was never sent".to_owned();
                    return Err(SiteError::NotOurHq { address: self.address.to_owned(), reason });
                }
                open.outbox.confirm(Seq(confirmed.through));
                self.status.confirmed(Seq(confirmed.through));
                Ok(false)
            }
            Reply::Credit(credit) => {
                open.outbox.add_credit(credit.bytes);
                Ok(true)
            }
            Reply::AskAgain(again) => {
                let confirmed = open.outbox.confirmed_tables().get(&again.table).copied().unwrap_or_default();
                if again.cursor < confirmed.0 {
                    // To send again from the confirmed position would be asked again for ever. The
                    // next hello sorts it out.
                    let text =
                        format!("HQ has table {:?} up to {}, and confirmed {confirmed}", again.table, again.cursor);
                    return Err(SiteError::Ended(text));
                }
                tracing::warn!(table = again.table, cursor = again.cursor, "HQ asks again from the confirmed position");
                open.outbox.rewind();
                Ok(true)
            }
            Reply::Quarantined(batch) => {
                tracing::error!(
                    first = batch.first,
                    last = batch.last,
                    reason = batch.reason,
                    "HQ could not take all of a batch and keeps it in quarantine"
                );
                Ok(false)
            }
        }
    }

    async fn take_control(&mut self, open: &mut Open, message: FromHq) -> Result<(), SiteError> {
        match message {
            FromHq::Ask(ask) => {
                let answered = self.answer(open, ask.time_micros).await;
                self.unless_locked(answered)
            }
            FromHq::Refused(refusal) => Err(turned_away(refusal)),
            FromHq::Settings(settings) => {
                self.status.held(&settings.held);
                self.behaviour.take(settings, self.feed, self.notes).await?;
                let said = self.send_beacon(open).await;
                self.unless_locked(said)
            }
            FromHq::Published(published) => {
                open.updates.want(published.tables);
                Ok(())
            }
            FromHq::Welcome(_) => Err(SiteError::Ended("HQ welcomed twice".to_owned())),
        }
    }

    /// Answers how far this site is. The snapshot is opened after HQ's time arrived: that is what
    /// makes the answer mean something. While capture is broken there is no true answer, and none
    /// is given.
    async fn answer(&mut self, open: &Open, time_micros: i64) -> Result<(), SiteError> {
        let (health, heads) = self.feed.call(|source| Ok((source.check()?, source.heads()?.clone()))).await?;
        self.health.set(health.clone());
        self.status.health(&health);
        if health.is_blind() {
            return Ok(());
        }
        let mut tables: Vec<TableHead> =
            heads.tables.iter().map(|(table, head)| TableHead { table: table.clone(), head: head.0 }).collect();
        // A table that is still being loaded, or is not captured truly, is not complete, whatever
        // its head.
        let broken = health.problems.iter().filter_map(|problem| problem.table.as_ref());
        let open_ended: Vec<&String> = heads.loading.iter().chain(broken).collect();
        tables.retain(|head| !open_ended.contains(&&head.table));
        tables.extend(open_ended.iter().map(|table| TableHead { table: (*table).clone(), head: u64::MAX }));
        open.say(ToHq::Heads(Heads { time_micros, epoch: open.epoch.0, tables })).await
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

    async fn send_beacon(&mut self, open: &mut Open) -> Result<(), SiteError> {
        let confirmed = open.outbox.confirmed().0;
        let JournalState { head, oldest_waits: age, bytes: journal_bytes } =
            self.feed.call(move |source| source.journal_state(confirmed)).await?;
        self.status.journal(head);
        let health = self.health.get();
        self.status.health(&health);
        let problem = health.summary().unwrap_or_default();
        let mut applied = open.updates.applied();
        self.status.published(&applied);
        self.behaviour.try_again(self.feed, self.notes).await?;
        self.status.wanted_version(self.behaviour.wanted_version());
        applied.extend(self.behaviour.applied());
        open.say(ToHq::Beacon(Beacon {
            head: head.0,
            confirmed: confirmed.0,
            oldest_unconfirmed_age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            clock_micros: Source::clock_micros(),
            capture_ok: problem.is_empty(),
            capture_problem: problem,
            journal_bytes,
            disk_free_bytes: disk_free(self.database),
            applied,
            capture_cause: proto::Cause::from(Cause::CaptureStuck).into(),
        }))
        .await
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
                    source.forget_notes()?;
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

/// Tells HQ that this journal is not the one it knows. The connection ends now either way; the next
/// one learns the new epoch.
async fn want_epoch(control: &mpsc::Sender<SiteControl>, reason: &str) {
    part_with(control, ToHq::EpochWanted(EpochWanted { reason: reason.to_owned() })).await;
}

/// Tells HQ why the site does not go on with it: else HQ would see one that comes and goes.
async fn refuse(control: &mpsc::Sender<SiteControl>, reason: &str) {
    part_with(control, ToHq::Refuses(SiteRefuses { reason: reason.to_owned() })).await;
}

async fn part_with(control: &mpsc::Sender<SiteControl>, last: ToHq) {
    // Where HQ is gone there is nobody to tell.
    let _ = control.send(SiteControl { message: Some(last) }).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
}

/// Bytes free to this program where the database is; none where the system does not tell.
#[cfg(unix)]
pub(crate) fn disk_free(database: &Path) -> Option<u64> {
    rustix::fs::statvfs(database).ok().map(|space| space.f_bavail.saturating_mul(space.f_frsize))
}

/// See above.
#[cfg(not(unix))]
pub(crate) fn disk_free(_: &Path) -> Option<u64> {
    None
}

/// A store that holds its file locked is no trouble with HQ: what could not be read now is read
/// next time.
fn unless_busy(result: Result<(), SiteError>) -> Result<(), SiteError> {
    match result {
        Err(SiteError::Capture(error)) if error.is_busy() => Ok(()),
        other => other,
    }
}

/// Whether HQ's name of a table is that of the store's.
fn same_table(at_hq: &str, at_site: &str) -> bool {
    rollcall_types::TableName::at_hq(at_site).is_ok_and(|name| name.as_str() == at_hq)
}

impl Open {
    async fn say(&self, message: ToHq) -> Result<(), SiteError> {
        let message = SiteControl { message: Some(message) };
        self.control.send(message).await.map_err(|_| SiteError::Ended("the control stream closed".to_owned()))
    }
}
