//! The first words of a connection: what site and HQ know of each other, and whether it is the
//! same.

use std::time::Duration;

use rollcall_capture::{Anchor, CaptureError, clock_micros};
use rollcall_types::{ChainHash, Epoch, Seq, columns};
use rollcall_wire::{
    PROTOCOL, PROTOCOL_MIN, Refusal,
    proto::{
        EpochWanted, Hello, Refused, SiteControl, SiteRefuses, Welcome, hq_control::Message as FromHq,
        site_control::Message as ToHq, sites_client::SitesClient,
    },
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::{ACCEPTS_OLDER_LAKE, CHECK_BEACONS, JOURNAL_ID, Open, RELOAD_WANTED, Session, unless_busy};

use crate::{
    enrol::refused,
    error::SiteError,
    line::DataLine,
    outbox::Outbox,
    published::Updates,
    state::{Begun, Position},
};

/// HQ must answer hello within this time.
pub(super) const WELCOME_TIMEOUT: Duration = Duration::from_secs(20);

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

impl Session<'_> {
    pub(super) async fn open(&mut self, channel: Channel) -> Result<Open, SiteError> {
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
    pub(super) fn take_time(&mut self, welcome: &Welcome) {
        const OFF_MICROS: u64 = 300_000_000;
        let offset = welcome.now_micros.saturating_sub(clock_micros());
        if offset.abs_diff(*self.hq_clock_offset) > OFF_MICROS / 10 && offset.unsigned_abs() > OFF_MICROS {
            tracing::warn!(minutes = offset / 60_000_000, "this machine's clock is off by so much from HQ's");
        }
        *self.hq_clock_offset = offset;
    }

    pub(super) async fn hello(&self, position: &Position) -> Result<Hello, SiteError> {
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
            clock_micros: clock_micros(),
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
    pub(super) async fn take_welcome(
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
            let journal_id = self.feed.call(|source| source.journal_id()).await?;
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
    pub(super) async fn reload_if_wanted(&self) -> Result<(), SiteError> {
        if self.notes.text(RELOAD_WANTED)?.is_some() {
            self.feed.call(|source| source.reload_all()).await?;
            self.notes.clear(RELOAD_WANTED)?;
        }
        Ok(())
    }

    /// Why HQ and this journal do not remember the same changes, if they do not.
    pub(super) async fn at_odds(
        &self,
        position: &Position,
        welcome: &Welcome,
        head: Seq,
    ) -> Result<Option<String>, SiteError> {
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
}

/// Tells HQ that this journal is not the one it knows. The connection ends now either way; the next
/// one learns the new epoch.
pub(super) async fn want_epoch(control: &mpsc::Sender<SiteControl>, reason: &str) {
    part_with(control, ToHq::EpochWanted(EpochWanted { reason: reason.to_owned() })).await;
}

/// Tells HQ why the site does not go on with it: else HQ would see one that comes and goes.
pub(super) async fn refuse(control: &mpsc::Sender<SiteControl>, reason: &str) {
    part_with(control, ToHq::Refuses(SiteRefuses { reason: reason.to_owned() })).await;
}

pub(super) async fn part_with(control: &mpsc::Sender<SiteControl>, last: ToHq) {
    // Where HQ is gone there is nobody to tell.
    let _ = control.send(SiteControl { message: Some(last) }).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
}

/// Whether HQ's name of a table is that of the store's.
pub(super) fn same_table(at_hq: &str, at_site: &str) -> bool {
    rollcall_types::TableName::at_hq(at_site).is_ok_and(|name| name.as_str() == at_hq)
}
