//! One connection's life: hello, then batches out and confirmations in, until something ends it.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, time::Duration};

use rollcall_capture::{Health, LoadProgress, PruneLimits, Source, TableSpec, fingerprint as look_at};
use rollcall_types::{ChainHash, Epoch, Seq, columns};
use rollcall_wire::{
    PROTOCOL, PROTOCOL_MIN,
    batch::{Encoded, Encoder},
    framing::frames,
    proto::{
        Attempts, Beacon, EpochWanted, Goodbye, Heads, Hello, HqControl, Refused, SiteControl, TableHead, Welcome,
        data_reply::Message as Reply, hq_control::Message as FromHq, site_control::Message as ToHq,
        sites_client::SitesClient,
    },
};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

use crate::{
    agent::Ended,
    enrol::refused,
    error::SiteError,
    feed::{Feed, parts},
    line::DataLine,
    nudge::Nudges,
    outbox::Outbox,
    published::{Shelf, Updates},
    settings::Behaviour,
    state::{Notes, Position},
    status::StatusFile,
};

/// HQ must answer hello within this time.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(20);
/// A connection is replaced after this long, so that a moved name is noticed.
const AGE_MAX: Duration = Duration::from_secs(3600);
/// How often the file is looked at for changes while the store is busy …
const POLL_BUSY: Duration = Duration::from_millis(50);
/// … while it is not …
const POLL_IDLE: Duration = Duration::from_millis(500);
/// … and while it is not, and the system tells of changes.
const POLL_TOLD: Duration = Duration::from_secs(5);
/// A store that changed something this recently is busy.
const BUSY_FOR: Duration = Duration::from_secs(3);
/// How often capture is checked, the journal pruned, the status written, if the file looks changed or HQ confirmed something.
const CARE_EVERY: Duration = Duration::from_secs(2);
/// The same, and a look at the journal, even if nothing seems to have happened.
const LOOK_ANYWAY: Duration = Duration::from_secs(15);
/// Loading waits while this many changes are unconfirmed.
const LOAD_BACKLOG_MAX: u64 = 20_000;
/// HQ's tables are compared with what was applied once in so many beacons: every five minutes as a rule.
const CHECK_BEACONS: u32 = 10;
/// Nothing heard from HQ for this long ends the connection.
const SILENT_HQ: Duration = Duration::from_secs(120);
/// … where it speaks more seldom, for so many of its intervals.
const SILENT_HQ_BEACONS: u32 = 4;

/// How often rows that bypassed the triggers are looked for.
const BYPASS_EVERY: Duration = Duration::from_secs(300);

pub(crate) struct Session<'a> {
    pub(crate) bypass_looked: Option<Instant>,
    pub(crate) manifest_stated: Option<Instant>,
    pub(crate) database: &'a Path,
    pub(crate) feed: &'a Feed,
    pub(crate) shelf: &'a Shelf,
    pub(crate) notes: &'a Notes,
    pub(crate) status: &'a mut StatusFile,
    pub(crate) instance: &'a str,
    pub(crate) address: &'a str,
    /// What the address resolved to.
    pub(crate) resolved: Option<SocketAddr>,
    pub(crate) behaviour: &'a mut Behaviour,
    pub(crate) event_times: &'a BTreeMap<String, String>,
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

/// Why a node sends a site away although nothing is wrong with it.
const GO_ELSEWHERE: [&str; 2] = ["stopping", "full"];

fn turned_away(refusal: Refused) -> SiteError {
    match GO_ELSEWHERE.contains(&refusal.code.as_str()) {
        true => SiteError::Ended(refusal.message),
        false => SiteError::Refused { code: refusal.code, message: refusal.message },
    }
}

/// HQ may keep a connection alive and never answer a call.
async fn in_time<T>(call: impl Future<Output = T>) -> Result<T, SiteError> {
    let answer = tokio::time::timeout(WELCOME_TIMEOUT, call).await;
    answer.map_err(|_| SiteError::Ended("HQ did not answer in time".to_owned()))
}

fn ended(status: tonic::Status) -> SiteError {
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
        self.status.connected(self.address);
        let attempts = self.notes.take_attempts()?;
        if !attempts.is_empty() {
            open.say(ToHq::Attempts(Attempts { attempts })).await?;
        }
        let result = self.serve(&mut open, stop).await;
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
        let position = self.take_welcome(position, &welcome, head, &control).await?;
        let data = DataLine::new(client.clone(), welcome.session);
        let settings = welcome.settings.unwrap_or_default();
        let outbox = Outbox::new(
            position.epoch,
            position.confirmed,
            position.confirmed_hash,
            position.tables,
            welcome.credit_bytes,
        );
        self.behaviour.take(settings, self.feed, self.notes).await?;
        unless_busy(self.capture_edits().await)?;
        let check_every = self.behaviour.beacon_every() * CHECK_BEACONS;
        let pace = self.behaviour.pace.clone();
        let updates = Updates::start(client, self.shelf.clone(), applied, check_every, pace);
        Ok(Open { control, from_control, data, outbox, updates, epoch: position.epoch, lake_id: welcome.lake_id })
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
            accept_older_lake: self.notes.text("accept_older_lake")?.is_some(),
            states_manifests: true,
            takes_published: true,
            applied: self.shelf.applied().await?,
            event_times: self.event_times.clone().into_iter().collect(),
            called: self.address.to_owned(),
            resolved: self.resolved.map_or_else(String::new, |resolved| resolved.ip().to_string()),
        })
    }

    /// Checks that this is the lake we know and that it remembers what we sent; starts a new epoch if HQ says so.
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
            if self.notes.text("accept_older_lake")?.is_some() {
                self.shelf.distrust().await?;
            }
            let oldest = self.feed.call(|source| source.oldest()).await?;
            if !(is_first && oldest.0 <= 1) {
                // Everything is stated again; what the journal still holds is sent as well, so history stays whole.
                self.feed.call(|source| source.reload_all()).await?;
            }
            self.notes.forget_sent()?;
            position = Position {
                epoch: Epoch(welcome.epoch),
                lake_id: position.lake_id,
                confirmed: Seq(oldest.0.saturating_sub(1)),
                ..Position::default()
            };
            self.notes.set_position(&position)?;
            self.notes.clear("accept_older_lake")?;
            return Ok(position);
        }
        // What this site sent under the name of a table that HQ publishes is in quarantine there, and HQ has no position of it.
        position.tables.retain(|table, _| !welcome.published.iter().any(|published| same_table(published, table)));
        for (table, confirmed) in &position.tables {
            let cursor =
                welcome.cursors.iter().find(|cursor| cursor.table == *table || same_table(&cursor.table, table));
            // An older HQ says nothing of the log.
            let is_told = cursor.is_some() || table != columns::LOG_TABLE;
            if cursor.map_or(0, |cursor| cursor.seq) < confirmed.0 && is_told {
                let message = format!(
                    "HQ confirmed table {table:?} up to {confirmed} and now has less of it: was it restored from a backup? \
                     If so, run `rollcall-site resend`"
                );
                return Err(SiteError::Refused { code: "older-lake".to_owned(), message });
            }
        }
        if let Some(reason) = self.at_odds(&position, welcome, head).await? {
            let wanted = ToHq::EpochWanted(EpochWanted { reason: reason.clone() });
            // The connection ends now either way; the next one learns the new epoch.
            let _ = control.send(SiteControl { message: Some(wanted) }).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            return Err(SiteError::Ended(reason));
        }
        self.notes.set_position(&position)?;
        Ok(position)
    }

    /// Why HQ and this journal do not remember the same changes, if they do not.
    async fn at_odds(&self, position: &Position, welcome: &Welcome, head: Seq) -> Result<Option<String>, SiteError> {
        let confirmed = position.confirmed;
        let digest = self.feed.call(move |source| source.row_digest(confirmed)).await?;
        if digest.is_some_and(|now| !position.row_digest.is_empty() && now != position.row_digest) {
            return Ok(Some(format!(
                "the change at {confirmed} is not the one HQ confirmed: the database was restored and written on"
            )));
        }
        // A batch sent again after a crash may end where an earlier one did, with another chain: both were sent.
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
        let row_digest = self.feed.call(move |source| source.row_digest(confirmed)).await?.unwrap_or_default();
        self.notes.set_position(&Position {
            epoch: open.epoch,
            lake_id: open.lake_id.clone(),
            confirmed,
            confirmed_hash,
            row_digest,
            tables: open.outbox.confirmed_tables().clone(),
        })
    }

    async fn serve(&mut self, open: &mut Open, stop: &tokio_util::sync::CancellationToken) -> Result<Ended, SiteError> {
        let mut encoder = Encoder::new().map_err(|error| SiteError::state("preparing to send", error))?;
        let timer = |every| {
            let mut timer = tokio::time::interval(every);
            timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            timer
        };
        let (mut beacon, mut care) = (timer(self.behaviour.beacon_every()), timer(CARE_EVERY));
        let born = Instant::now();
        let (mut heard, mut looked) = (Instant::now(), None);
        let (mut fingerprint, mut changed, mut next_look) = (None, Instant::now(), Instant::now());
        let (mut nudges, mut is_told) = (Nudges::of(self.database), false);
        let (mut has_more, mut moved) = (true, true);
        let (mut cared_for, mut cared) = (None, Instant::now());
        // A load: how far the journal goes, when the next chunk may be stated; none while there is nothing to load.
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
                    let head = self.feed.call(|source| Ok(source.heads()?.head)).await?;
                    open.say(ToHq::Goodbye(Goodbye { reason: "the agent was stopped".to_owned(), head: head.0 })).await?;
                    // Give the goodbye a moment to leave before the connection goes.
                    tokio::time::sleep(Duration::from_millis(200)).await;
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
                    if beacon.period() != self.behaviour.beacon_every() {
                        beacon = timer(self.behaviour.beacon_every());
                    }
                }
                _ = beacon.tick() => unless_busy(self.send_beacon(open).await)?,
                () = open.updates.changed() => {
                    unless_busy(self.capture_edits().await)?;
                    unless_busy(self.send_beacon(open).await)?;
                }
                _ = care.tick() => {
                    let happened = moved || cared_for != fingerprint || cared.elapsed() > LOOK_ANYWAY;
                    if happened || self.is_manifest_due() {
                        let seen = fingerprint;
                        match self.care(open, moved).await {
                            Ok(()) => (moved, cared_for, cared) = (false, seen, Instant::now()),
                            // What was not done now is done next time.
                            busy => unless_busy(busy)?,
                        }
                    }
                    let silent_hq = SILENT_HQ.max(self.behaviour.beacon_every() * SILENT_HQ_BEACONS);
                    if heard.elapsed() > silent_hq {
                        return Err(SiteError::Ended(format!("HQ said nothing for {} s", silent_hq.as_secs())));
                    }
                    if open.outbox.is_idle() {
                        if born.elapsed() > AGE_MAX {
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

    /// Journals some rows from before: how far the journal goes now and when the next may follow; none when none are left.
    async fn load(&self) -> Result<Option<(Seq, Instant)>, SiteError> {
        let started = Instant::now();
        let stated = self.feed.call(|source| Ok((source.load_step()?, source.heads()?.head))).await;
        match stated {
            Ok((LoadProgress::Idle, _)) => Ok(None),
            // Half of the time is the store's own.
            Ok((_, head)) => Ok(Some((head, Instant::now() + started.elapsed()))),
            // The store is busy; its own work goes first.
            Err(SiteError::Capture(error)) if error.is_busy() => Ok(Some((Seq(0), Instant::now() + POLL_IDLE))),
            Err(error) => Err(error),
        }
    }

    /// Sends the next batch; false when there is nothing to send.
    async fn send_next(&mut self, open: &mut Open, encoder: &mut Encoder) -> Result<bool, SiteError> {
        let read = self.feed.next(open.outbox.sent_through(), self.behaviour.pace.batch_bytes()).await;
        let changes = match read {
            Err(SiteError::Capture(error)) if error.is_busy() => return Ok(true),
            other => other?,
        };
        let Some(changes) = changes else { return Ok(false) };
        let batch = open.outbox.batch(changes.last, parts(changes));
        let encoded: Encoded = encoder.encode(&batch).map_err(|error| SiteError::state("encoding a batch", error))?;
        let sending = open.outbox.sending(&encoded);
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
                unless_busy(answered)
            }
            FromHq::Refused(refusal) => Err(turned_away(refusal)),
            FromHq::Settings(settings) => {
                self.behaviour.take(settings, self.feed, self.notes).await?;
                unless_busy(self.send_beacon(open).await)
            }
            FromHq::Published(published) => {
                open.updates.want(published.tables);
                Ok(())
            }
            FromHq::Welcome(_) => Err(SiteError::Ended("HQ welcomed twice".to_owned())),
        }
    }

    /// Answers how far this site is. The snapshot is opened after HQ's time arrived: that is what makes the answer mean
    /// something. While capture is broken there is no true answer, and none is given.
    async fn answer(&mut self, open: &Open, time_micros: i64) -> Result<(), SiteError> {
        let (health, heads) = self.feed.call(|source| Ok((source.check()?, source.heads()?.clone()))).await?;
        self.take_health(&health);
        if !health.is_ok() {
            return Ok(());
        }
        if heads.head < open.outbox.confirmed().0 {
            return Err(SiteError::Ended("the database went back in time".to_owned()));
        }
        let mut tables: Vec<TableHead> =
            heads.tables.iter().map(|(table, head)| TableHead { table: table.clone(), head: head.0 }).collect();
        // A table that is still being loaded is not complete, whatever its head.
        tables.retain(|head| !heads.loading.contains(&head.table));
        tables.extend(heads.loading.iter().map(|table| TableHead { table: table.clone(), head: u64::MAX }));
        open.say(ToHq::Heads(Heads { time_micros, epoch: open.epoch.0, tables })).await
    }

    fn take_health(&mut self, health: &Health) {
        for mended in &health.mended {
            tracing::warn!(mended, "capture was mended");
        }
        self.status.health(health);
    }

    async fn send_beacon(&mut self, open: &mut Open) -> Result<(), SiteError> {
        let confirmed = open.outbox.confirmed().0;
        let (head, age, journal_bytes) = self
            .feed
            .call(move |source| {
                let head = source.heads()?.head;
                let age = if head > confirmed { source.age_of(Seq(confirmed.0 + 1))? } else { Duration::ZERO };
                Ok((head, age, source.journal_bytes()?))
            })
            .await?;
        self.status.journal(head);
        let problem = self.status.capture_problem().unwrap_or_default();
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
        }))
        .await
    }

    fn is_manifest_due(&self) -> bool {
        let is_due = |every| self.manifest_stated.is_none_or(|stated| stated.elapsed() >= every);
        self.behaviour.manifest_every().is_some_and(is_due)
    }

    /// Looks after capture, the journal and the status file.
    async fn care(&mut self, open: &Open, moved: bool) -> Result<(), SiteError> {
        if moved {
            self.keep_position(open).await?;
        }
        let confirmed = open.outbox.confirmed().0;
        let look_for_bypassed = self.bypass_looked.is_none_or(|looked| looked.elapsed() > BYPASS_EVERY);
        if look_for_bypassed {
            self.bypass_looked = Some(Instant::now());
        }
        if self.is_manifest_due() {
            self.feed.call(Source::state_manifest).await?;
            self.manifest_stated = Some(Instant::now());
        }
        let (health, head) = self
            .feed
            .call(move |source| {
                let mut health = source.check()?;
                if health.is_ok() && look_for_bypassed {
                    health.mended.extend(source.find_bypassed()?.mended);
                    source.forget_notes()?;
                }
                source.prune(confirmed, PruneLimits::default())?;
                Ok((health, source.heads()?.head))
            })
            .await?;
        self.take_health(&health);
        self.status.journal(head);
        self.status.write()
    }
}

/// Bytes free to this program where the database is; 0 where the system does not tell.
#[cfg(unix)]
fn disk_free(database: &Path) -> u64 {
    rustix::fs::statvfs(database).map_or(0, |space| space.f_bavail.saturating_mul(space.f_frsize))
}

/// See above.
#[cfg(not(unix))]
fn disk_free(_: &Path) -> u64 {
    0
}

/// A store that holds its file locked is no trouble with HQ: what could not be read now is read next time.
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
