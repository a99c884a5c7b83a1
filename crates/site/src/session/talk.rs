//! What is said while a connection lasts: batches and what HQ replies, heads, beacons.

use std::path::Path;

use rollcall_capture::{JournalState, clock_micros};
use rollcall_types::{Cause, Seq};
use rollcall_wire::{
    batch::{Encoded, Encoder},
    framing::frames,
    proto::{
        self, Beacon, Heads, TableHead, data_reply::Message as Reply, hq_control::Message as FromHq,
        site_control::Message as ToHq,
    },
};

use super::{Open, Session, turned_away};

use crate::{enrol::refused, error::SiteError, feed::parts};

impl Session<'_> {
    /// Sends the next batch; false when there is nothing to send.
    pub(super) async fn send_next(&mut self, open: &mut Open, encoder: &mut Encoder) -> Result<bool, SiteError> {
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
    pub(super) fn take_reply(&mut self, open: &mut Open, reply: Reply) -> Result<bool, SiteError> {
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

    pub(super) async fn take_control(&mut self, open: &mut Open, message: FromHq) -> Result<(), SiteError> {
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
    pub(super) async fn answer(&mut self, open: &Open, time_micros: i64) -> Result<(), SiteError> {
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

    pub(super) async fn send_beacon(&mut self, open: &mut Open) -> Result<(), SiteError> {
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
            clock_micros: clock_micros(),
            capture_ok: problem.is_empty(),
            capture_problem: problem,
            journal_bytes,
            disk_free_bytes: disk_free(self.database),
            applied,
            capture_cause: proto::Cause::from(Cause::CaptureStuck).into(),
        }))
        .await
    }
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
