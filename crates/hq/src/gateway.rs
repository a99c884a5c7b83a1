//! The port sites connect to: enrolment and the control stream; the data stream is in
//! [`crate::data_stream`].

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{SinkExt, channel::mpsc};
use rollcall_lake::Lake;
use rollcall_roll::Condition;
use rollcall_types::{Cause, Epoch, Seq, SiteId, SiteNumber, TableName, Timestamp, columns, describe};
use rollcall_wire::{
    PROTOCOL, PROTOCOL_MIN, Refusal,
    proto::{
        self, Ask, Attempt, Checked, Cursor, DataFrame, DataReply, EnrolRequest, FetchReply, FetchRequest, Hello,
        HqControl, Identity, Published, Refused, RenewRequest, Settings, SiteControl, Welcome,
        enrolment_server::Enrolment, hq_control::Message as ToSite, site_control::Message as FromSite,
        sites_server::Sites,
    },
};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    access::IN_DOUBT,
    authority::{Authority, Peer},
    data_stream, digest,
    error::HqError,
    facts::{Fact, Welcomed},
    lanes::Lanes,
    node::Shared,
    published::{self, arrivals::Applied},
    restate,
    roster::{LeftOut, NewLife, Resend, SiteRecord},
    sessions::Session,
    sites_port::Caller,
    texts,
    watching::Heard,
};

/// Bytes a site may have in flight before anything is confirmed.
const CREDIT_BYTES: u64 = 4 * 1024 * 1024;
/// Tables, and columns of each, that a store may leave out.
const COLUMNS_LEFT_OUT_MAX: usize = 500;
/// A site that comes with more changes than this catches up; see [`crate::ingest`].
pub(crate) const BACKLOG_MIN: u64 = 1000;
/// The first message must come within this time.
pub(crate) const HELLO_TIMEOUT: Duration = Duration::from_secs(15);

/// Implements the protocol's services.
#[derive(Clone)]
pub(crate) struct Gateway(pub(crate) Arc<Shared>);

pub(crate) fn status_of(error: HqError) -> Status {
    match error {
        HqError::Invalid(_) | HqError::NotFound(_) => Status::permission_denied(error.to_string()),
        other => {
            tracing::error!(error = %describe(&other), "a site's request failed");
            Status::unavailable("HQ cannot do this now; try again")
        }
    }
}

#[tonic::async_trait]
impl Enrolment for Gateway {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<Identity>, Status> {
        let request = request.into_inner();
        let shared = &self.0;
        if shared.lake.doubt().is_some() {
            return Err(Status::unavailable(IN_DOUBT));
        }
        let key_hash = Authority::request_key_hash(&request.csr_pem).map_err(status_of)?;
        let left_out = left_out(request.left_out);
        let site = match shared.roster.enrol(&request.token, &key_hash, left_out, shared.now()).await {
            Ok(site) => site,
            Err(error) => return Err(self.uninvited(error)),
        };
        // Whoever speaks for the site now does so with the key that was just replaced.
        shared.sessions.cut(&site);
        tracing::info!(%site, "enrolled");
        self.identity(&site, &request.csr_pem)
    }

    async fn check(&self, request: Request<EnrolRequest>) -> Result<Response<Checked>, Status> {
        let request = request.into_inner();
        let shared = &self.0;
        let key_hash = match request.csr_pem.is_empty() {
            true => None,
            false => Some(Authority::request_key_hash(&request.csr_pem).map_err(status_of)?),
        };
        // Another node may have made the invitation a moment ago.
        shared.lake.follow().await.map_err(|error| status_of(error.into()))?;
        let now = shared.now();
        match shared.roster.check_invitation(&request.token, key_hash.as_deref(), now) {
            Ok(usable) => Ok(Response::new(Checked {
                site: usable.invitation.site.to_string(),
                now_micros: now.as_micros(),
                expires_micros: usable.invitation.expires_at.as_micros(),
                enrolled_micros: usable.record.enrolled_at.map_or(0, Timestamp::as_micros),
                left_out: usable.record.left_out.into_iter().map(as_told).collect(),
            })),
            Err(error) => Err(self.uninvited(error)),
        }
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<Identity>, Status> {
        let request = request.into_inner();
        let site = SiteId::new(&request.site).map_err(|error| Status::invalid_argument(error.to_string()))?;
        // The request is signed with the site's own key, which is all that counts: its certificate
        // may have expired.
        let key_hash = Authority::request_key_hash(&request.csr_pem).map_err(status_of)?;
        let record = self.0.roster.get(&site);
        let known = record.and_then(|record| record.key_hash.clone());
        if known.as_deref() != Some(key_hash.as_str()) {
            self.0.ledger.unknown_sender(site.as_str(), self.0.now());
            return Err(Status::permission_denied("this key is not on the roster; ask HQ for an invitation"));
        }
        tracing::info!(%site, "certificate renewed");
        self.identity(&site, &request.csr_pem)
    }
}

/// What a database says that it leaves out, no more of it than a store can mean.
fn left_out(said: Vec<proto::LeftOut>) -> Vec<LeftOut> {
    let of_table = |told: proto::LeftOut| LeftOut {
        table: texts::name(&told.table),
        columns: told.columns.iter().take(COLUMNS_LEFT_OUT_MAX).map(|column| texts::name(column)).collect(),
    };
    said.into_iter().take(COLUMNS_LEFT_OUT_MAX).map(of_table).collect()
}

fn as_told(left_out: LeftOut) -> proto::LeftOut {
    proto::LeftOut { table: left_out.table, columns: left_out.columns }
}

impl Gateway {
    /// Whoever comes with an invitation that does not hold is noted.
    fn uninvited(&self, error: HqError) -> Status {
        self.0.ledger.unknown_sender("(enrolment with an invalid invitation)", self.0.now());
        status_of(error)
    }

    fn identity(&self, site: &SiteId, csr_pem: &str) -> Result<Response<Identity>, Status> {
        let certificate = self.0.authority.sign_site(site, csr_pem, self.0.now()).map_err(status_of)?;
        Ok(Response::new(Identity {
            site: site.to_string(),
            certificate_pem: certificate.pem,
            ca_pem: certificate.ca_pem,
            not_after_micros: certificate.not_after.as_micros(),
        }))
    }

    /// Who calls: a valid certificate is not enough, the key must be the one on the roster now.
    async fn caller<T>(&self, request: &Request<T>) -> Result<(Arc<Peer>, SiteNumber), Status> {
        let peer = Caller::of(request).and_then(|caller| caller.peer.clone());
        let peer = peer.ok_or_else(|| Status::unauthenticated("a site's certificate is needed"))?;
        let is_known = |record: &Arc<SiteRecord>| record.key_hash.as_deref() == Some(peer.key_hash.as_str());
        let mut record = self.0.roster.get(&peer.site);
        if !record.as_ref().is_some_and(is_known) {
            // It may have enrolled at another node a moment ago.
            self.0.lake.follow().await.map_err(|error| status_of(error.into()))?;
            record = self.0.roster.get(&peer.site);
        }
        match record {
            Some(record) if is_known(&record) => Ok((peer, SiteNumber(record.number))),
            Some(record) if record.retired.is_some() => Err(Status::permission_denied("this site was retired")),
            _ => {
                self.0.ledger.unknown_sender(peer.site.as_str(), self.0.now());
                Err(Status::permission_denied("this site's key is not on the roster; ask HQ for an invitation"))
            }
        }
    }
}

/// Messages to a site. Of all channels this kind takes the least while it is empty, and there is
/// one for each of tens of thousands of sites; tokio's has room for 32 messages from the start.
pub(crate) type Outgoing<T> = mpsc::Sender<Result<T, Status>>;
type Waiting<T> = mpsc::Receiver<Result<T, Status>>;

#[tonic::async_trait]
impl Sites for Gateway {
    type ControlStream = Waiting<HqControl>;
    type DataStream = Waiting<DataReply>;
    type FetchStream = Waiting<FetchReply>;

    async fn fetch(&self, request: Request<FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let (peer, _) = self.caller(&request).await?;
        let (shared, site, request) = (self.0.clone(), peer.site.clone(), request.into_inner());
        // What is made for many sites is worth a thread of its own.
        let made = tokio::task::spawn_blocking(move || shared.fetch(&site, &request)).await;
        let made = made.map_err(|error| Status::internal(error.to_string()))?.map_err(status_of)?;
        let (mut sender, replies) = mpsc::channel(2);
        let (shared, site) = (self.0.clone(), peer.site.clone());
        self.0.tasks.spawn(async move {
            for reply in made.iter() {
                if sender.send(Ok(reply.clone())).await.is_err() {
                    return;
                }
                shared.heard(&site, Heard::Contact);
            }
        });
        Ok(Response::new(replies))
    }

    async fn control(&self, request: Request<Streaming<SiteControl>>) -> Result<Response<Self::ControlStream>, Status> {
        let (peer, number) = self.caller(&request).await?;
        let address = Caller::of(&request).map(|caller| caller.address);
        let (sender, messages) = mpsc::channel(16);
        let control =
            Control { shared: self.0.clone(), peer, number, address, incoming: request.into_inner(), outgoing: sender };
        self.0.tasks.spawn(control.run());
        Ok(Response::new(messages))
    }

    async fn data(&self, request: Request<Streaming<DataFrame>>) -> Result<Response<Self::DataStream>, Status> {
        let (peer, _) = self.caller(&request).await?;
        let (mut sender, replies) = mpsc::channel(64);
        let shared = self.0.clone();
        self.0.tasks.spawn(async move {
            if let Err(status) = data_stream::receive(shared, &peer.site, request.into_inner(), sender.clone()).await {
                let _ = sender.send(Err(status)).await;
            }
        });
        Ok(Response::new(replies))
    }
}

struct Control {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    number: SiteNumber,
    address: Option<SocketAddr>,
    incoming: Streaming<SiteControl>,
    outgoing: Outgoing<HqControl>,
}

impl Control {
    async fn run(mut self) {
        // In boxes of their own are all that is rarely under way: this task stays as long as the
        // site, and there are many.
        let Some(session) = Box::pin(self.begin()).await else { return };
        self.serve(&session).await;
        self.shared.sessions.close(&session);
        tracing::info!(site = %session.site, "disconnected");
    }

    /// Hears who calls and why; none if there is no session.
    async fn begin(&mut self) -> Option<Arc<Session>> {
        let hello = tokio::time::timeout(HELLO_TIMEOUT, self.incoming.message()).await;
        let Ok(Ok(Some(SiteControl { message: Some(FromSite::Hello(mut hello)) }))) = hello else {
            self.fail(Status::invalid_argument("the first message must be Hello")).await;
            return None;
        };
        if let Err(problem) = texts::clean_hello(&mut hello) {
            self.fail(Status::invalid_argument(problem)).await;
            return None;
        }
        self.shared.heard(&self.peer.site, Heard::Contact);
        match self.welcome(&hello).await {
            Ok(session) => {
                tracing::info!(site = %session.site, epoch = %session.epoch, address = self.address_text(), agent = hello.agent_version, "connected");
                Some(session)
            }
            Err(Turned::Away { code, cause, message }) => {
                tracing::warn!(site = %self.peer.site, code = code.code(), message, "turned away");
                if let Some(cause) = cause {
                    self.shared.learned(
                        &self.peer.site,
                        Fact::Refused { cause, detail: message.clone(), is_lake_older: code == Refusal::OlderLake },
                    );
                    let condition = match cause {
                        Cause::CloneOrRewind => Condition::CloneOrRewind,
                        _ => Condition::Refused,
                    };
                    self.shared.heard(&self.peer.site, Heard::Condition(condition, Some(message.clone())));
                }
                self.send(ToSite::Refused(Refused { code: code.code().to_owned(), message })).await;
                None
            }
            Err(Turned::Failed(error)) => {
                self.fail(status_of(error)).await;
                None
            }
        }
    }

    /// Tells whether the site's clock is off, when a session begins and when that changes.
    fn judge_clock(&self, session: &Session) {
        let (site, offset) = (&session.site, session.clock_off.load(Ordering::Relaxed));
        let clock = self.shared.clock.off_in_words(site, offset);
        if session.is_clock_off.swap(clock.is_some(), Ordering::Relaxed) || clock.is_some() {
            self.shared.heard(site, Heard::Condition(Condition::Clock, clock));
        }
    }

    fn address_text(&self) -> String {
        self.address.map_or_else(String::new, |address| address.to_string())
    }

    async fn send(&mut self, message: ToSite) {
        // A closed stream is noticed where the site is read from.
        let _ = self.outgoing.send(Ok(HqControl { message: Some(message) })).await;
    }

    async fn fail(&mut self, status: Status) {
        let _ = self.outgoing.send(Err(status)).await;
    }

    /// Checks the site's journal against the lake and opens a session.
    async fn welcome(&mut self, hello: &Hello) -> Result<Arc<Session>, Turned> {
        let now = self.shared.now();
        if hello.protocol < PROTOCOL_MIN || hello.protocol_min > PROTOCOL {
            let message = format!(
                "HQ speaks protocol {PROTOCOL_MIN} to {PROTOCOL}, the agent {} to {}; update the older one",
                hello.protocol_min, hello.protocol
            );
            return Err(Turned::Away { code: Refusal::Protocol, cause: Some(Cause::HqRefuses), message });
        }
        if self.shared.sessions.count() >= self.shared.capacity {
            let message =
                format!("this node holds {} sites, all it has open files for; call another", self.shared.capacity);
            return Err(Turned::Away { code: Refusal::Full, cause: None, message });
        }
        if self.shared.sessions.is_clone(&self.peer.site, &hello.instance, now) {
            let message = "two running copies of this site take turns; stop one, then invite the site anew".to_owned();
            return Err(Turned::Away { code: Refusal::Clone, cause: Some(Cause::CloneOrRewind), message });
        }
        // Another node may have taken this site's changes until a moment ago.
        self.shared.lake.follow().await.map_err(HqError::from)?;
        self.refuse_while_aside(hello)?;
        let (epoch, reason) = self.epoch_for(hello).await?;
        self.open(hello, epoch, reason, now).await
    }

    /// Turns a site away as long as a table that it fills is set aside: what was confirmed cannot
    /// be told, and nothing of it could be taken. That is HQ's trouble, and told as such.
    fn refuse_while_aside(&self, hello: &Hello) -> Result<(), Turned> {
        let lake = &self.shared.lake;
        let tables = lake.tables();
        let own = [lake.site_log(), lake.quarantine()].into_iter().filter(|table| table.set_aside().is_some());
        let aside = own.chain(tables.values().filter(|table| table.is_aside_for(self.number))).next();
        // One that has no confirmation has nothing that HQ could lack.
        let Some(table) = aside.filter(|_| hello.confirmed > 0) else { return Ok(()) };
        let root = table.root();
        let message = format!(
            "HQ's {root} is damaged and set aside; what this site has waits there until it is repaired (`rollcall lake repair`)"
        );
        Err(Turned::Away { code: Refusal::Damaged, cause: None, message })
    }

    async fn open(
        &mut self,
        hello: &Hello,
        epoch: Epoch,
        reason: String,
        now: Timestamp,
    ) -> Result<Arc<Session>, Turned> {
        let site = &self.peer.site.clone();
        let cursors = cursors(&self.shared.lake, self.number, epoch);
        let named = cursors.iter().map(|(table, cursor)| (table.as_str(), cursor));
        let log = self.shared.lake.site_log().cursor(self.number, epoch);
        let same_epoch = Epoch(hello.epoch) == epoch;
        let confirmed = if same_epoch { Seq(hello.confirmed) } else { Seq(hello.oldest.saturating_sub(1)) };
        let session = Arc::new(Session {
            id: self.shared.sessions.next_id(),
            site: site.clone(),
            number: self.number,
            peer: self.peer.clone(),
            epoch,
            lane: Lanes::new(if hello.head.saturating_sub(confirmed.0) > BACKLOG_MIN {
                Seq(hello.head)
            } else {
                confirmed
            }),
            confirmed_through: AtomicU64::new(confirmed.0),
            opened_at: now,
            clock_offset_micros: now.as_micros().saturating_sub(hello.clock_micros),
            clock_off: AtomicI64::new(now.as_micros().saturating_sub(hello.clock_micros)),
            is_clock_off: AtomicBool::new(true),
            has_data: AtomicBool::new(false),
            is_taken: AtomicBool::new(false),
            over: self.shared.stop.child_token(),
        });
        self.shared.sessions.open(session.clone());
        let record = self.shared.roster.get(site);
        let key_hash = record.as_ref().and_then(|record| record.key_hash.as_deref());
        if key_hash != Some(self.peer.key_hash.as_str()) {
            // It was retired or enrolled anew while this one said hello.
            self.shared.sessions.close(&session);
            let message = "this site was retired or enrolled anew".to_owned();
            return Err(Turned::Away { code: Refusal::NotOnRoster, cause: None, message });
        }
        let detail = format!("agent {} at {}", hello.agent_version, self.address_text());
        self.shared.learned(
            site,
            Fact::Welcomed(Welcomed {
                is_new_epoch: !same_epoch,
                head: Seq(hello.head),
                confirmed,
                instance: hello.instance.clone(),
                authority: self.shared.authority.shown(self.peer.authority, &hello.authorities),
                detail,
                agent_version: hello.agent_version.chars().take(80).collect(),
                states_manifests: hello.states_manifests,
                takes_published: hello.takes_published,
                clock_off_micros: session.clock_offset_micros,
                is_blind: hello.blind,
                applied: applied(&hello.applied),
            }),
        );
        self.shared.proposed.take(site, &hello.event_times, &self.shared.lake);
        let seen = seen_of(hello, self.address);
        self.shared.heard(site, Heard::Welcomed { seen, states_manifests: hello.states_manifests });
        if !hello.blind {
            self.shared.heard(site, Heard::Condition(Condition::CloneOrRewind, None));
        }
        self.judge_clock(&session);
        self.send(ToSite::Welcome(Welcome {
            protocol: hello.protocol.min(PROTOCOL),
            session: session.id,
            lake_id: self.shared.lake.id().to_owned(),
            epoch: epoch.0,
            cursors: named
                .chain(log.as_ref().map(|cursor| (columns::LOG_TABLE, cursor)))
                .map(|(table, cursor)| Cursor { table: table.to_owned(), seq: cursor.seq.0, hash: cursor.hash.get() })
                .collect(),
            now_micros: now.as_micros(),
            credit_bytes: CREDIT_BYTES,
            settings: Some(self.shared.settings_of(site)),
            epoch_reason: reason,
            older_lake: hello.epoch != epoch.0 && self.is_resend(epoch),
            published: published_names(&self.shared.lake)
                .into_iter()
                .chain(self.shared.quarantine.never_taken(site))
                .collect(),
        }))
        .await;
        Ok(session)
    }

    /// The epoch this journal belongs to, and why if it is a new one.
    async fn epoch_for(&self, hello: &Hello) -> Result<(Epoch, String), Turned> {
        match self.try_epoch_for(hello).await {
            // Another node allotted one at the same time: with that known, the answer may be
            // another.
            Err(Turned::Failed(HqError::Outdated)) => self.try_epoch_for(hello).await,
            answer => answer,
        }
    }

    async fn try_epoch_for(&self, hello: &Hello) -> Result<(Epoch, String), Turned> {
        let site = &self.peer.site;
        let record = self.shared.roster.get(site).and_then(|record| record.journal.clone());
        if hello.blind {
            // It cannot read its journal, and sends nothing of it.
            return Ok((record.map_or(Epoch(hello.epoch), |journal| journal.epoch), String::new()));
        }
        if let (Some(journal), Some(resend)) = (&record, self.resend_not_begun(hello)) {
            // The site never heard of the epoch that it is to send everything again in.
            return Ok((journal.epoch, resend.as_reason()));
        }
        let (mut is_asked, mut is_resend) = (false, false);
        let reason = match &record {
            None => Some("first contact".to_owned()),
            Some(journal) if journal.id != hello.journal_id => {
                Some("the journal was created anew at the site".to_owned())
            }
            Some(journal) if journal.epoch.0 != hello.epoch && !self.never_began(hello, journal.epoch) => {
                Some(format!(
                    "the site came with epoch {}, HQ knows {}: its database or state was restored",
                    hello.epoch, journal.epoch
                ))
            }
            Some(journal) => {
                let known = self.shared.roster.get(site);
                let asked = known.and_then(|record| restate::new_life(&self.shared.lake, site, &record));
                is_asked = asked.is_some();
                let asked = asked.or_else(|| self.shared.sessions.take_wanted_epoch(site, journal.epoch));
                match (asked, self.shared.roster.get(site).and_then(|known| known.resend.clone())) {
                    (Some(reason), _) => Some(reason),
                    (None, Some(resend)) if resend.epoch.is_none() => {
                        is_resend = true;
                        Some(resend.as_reason())
                    }
                    (None, _) => self.compare(hello, journal.epoch)?,
                }
            }
        };
        match (reason, &record) {
            (None, Some(journal)) => {
                let known = self.shared.roster.get(site);
                if known.is_some_and(|known| known.resend.is_some()) {
                    self.shared.roster.resent(site, journal.epoch, self.shared.now()).await?;
                }
                Ok((journal.epoch, String::new()))
            }
            (reason, _) => {
                let reason = reason.unwrap_or_default();
                let (roster, now) = (&self.shared.roster, self.shared.now());
                // A person said of these that nothing of the life before is to be missed, or that
                // HQ itself went back in time.
                let is_wanted = hello.accept_older_lake || is_resend;
                let is_contested = record.is_some() && !is_wanted;
                if record.is_some() && !is_asked {
                    self.shared.quotas.take_life(site, now).map_err(|message| Turned::Away {
                        code: Refusal::Quota,
                        cause: Some(Cause::HqRefuses),
                        message,
                    })?;
                }
                let new = NewLife { journal_id: &hello.journal_id, reason: &reason, is_contested, is_resend };
                let epoch = roster.new_epoch(site, record.as_ref(), new, now).await?;
                match epoch {
                    Epoch(1) => tracing::info!(%site, "first contact"),
                    epoch if is_contested => {
                        tracing::error!(%site, %epoch, reason, "a new life of the site's journal; it is kept apart until it has all that was confirmed");
                    }
                    epoch => tracing::warn!(%site, %epoch, reason, "a new epoch"),
                }
                Ok((epoch, reason))
            }
        }
    }

    /// Whether this epoch was allotted for the site to send everything again.
    fn is_resend(&self, epoch: Epoch) -> bool {
        let known = self.shared.roster.get(&self.peer.site);
        known.and_then(|known| known.resend.clone()).is_some_and(|resend| resend.epoch == Some(epoch))
    }

    /// What was allotted for the site to send everything again, and reached it not: it comes with
    /// another epoch, and nothing arrived in that one. Once anything did, a site with another epoch
    /// went back in time.
    fn resend_not_begun(&self, hello: &Hello) -> Option<Resend> {
        let known = self.shared.roster.get(&self.peer.site)?;
        let (resend, journal) = (known.resend.clone()?, known.journal.as_ref()?);
        let epoch = resend.epoch.filter(|epoch| *epoch == journal.epoch && epoch.0 != hello.epoch)?;
        (self.has_nothing_of(epoch) && journal.id == hello.journal_id).then_some(resend)
    }

    /// Whether nothing of the site arrived in an epoch.
    fn has_nothing_of(&self, epoch: Epoch) -> bool {
        let log = self.shared.lake.site_log().cursor(self.number, epoch);
        log.is_none() && cursors(&self.shared.lake, self.number, epoch).is_empty()
    }

    /// The site was allotted this epoch and never heard so: it sent nothing in it.
    fn never_began(&self, hello: &Hello, epoch: Epoch) -> bool {
        hello.epoch == 0 && self.has_nothing_of(epoch)
    }

    /// Compares positions within the same epoch; a reason for a new one if they are at odds.
    fn compare(&self, hello: &Hello, epoch: Epoch) -> Result<Option<String>, Turned> {
        let cursors = cursors(&self.shared.lake, self.number, epoch);
        let log = self.shared.lake.site_log().snapshot().cursor(self.number, epoch).unwrap_or_default();
        let newest = cursors.iter().map(|(_, cursor)| cursor.seq.0).max().unwrap_or_default().max(log.seq.0);
        if hello.accept_older_lake {
            return Ok(Some("a person told the site to send again to a lake restored from a backup".to_owned()));
        }
        if newest > hello.head {
            return Ok(Some(format!(
                "HQ has changes up to {newest}, the site's journal ends at {}: its database went back in time",
                hello.head
            )));
        }
        // What the site sends of a table that HQ publishes moves no cursor. Then it alone can tell,
        // table by table.
        if newest < hello.confirmed && published_names(&self.shared.lake).is_empty() {
            let message = format!(
                "this lake holds changes up to {newest}, but the site has a confirmation up to {}: was HQ restored from a \
                 backup? If so, run `rollcall roster resend --refused` at HQ, or `rollcall-site resend` at the site",
                hello.confirmed
            );
            return Err(Turned::Away { code: Refusal::OlderLake, cause: Some(Cause::HqRefuses), message });
        }
        // Whether both remember the same changes is for the site to say: it alone knows every batch
        // it ever sent.
        Ok(None)
    }

    /// Tells the site what it should have of HQ's tables, unless it knows.
    async fn send_wanted(&mut self, session: &Session, told: &mut Told) {
        let site = &session.site;
        if published::is_ahead(&self.shared, site) {
            // It took a version at another node a moment ago.
            if let Err(error) = self.shared.lake.follow().await {
                tracing::error!(error = %describe(&error), "what was published elsewhere cannot be read");
                return;
            }
            published::refresh(&self.shared).await;
        }
        let wanted = Published { tables: published::wanted(&self.shared, session) };
        let news = digest::of_message(&wanted);
        if news != told.published {
            told.published = news;
            self.send(ToSite::Published(wanted)).await;
        }
    }

    /// Tells the site how it is to behave, unless it knows.
    async fn send_settings(&mut self, site: &SiteId, told: &mut Told) {
        let settings = self.shared.settings_of(site);
        if told.take_settings(&settings) {
            self.send(ToSite::Settings(settings)).await;
        }
    }

    /// What is rarely under way is in boxes: this future stays as long as the site, with room for
    /// the largest that it waits for.
    async fn serve(&mut self, session: &Arc<Session>) {
        let mut published = self.shared.published.subscribe();
        let mut told = Told::new(&self.shared.settings_of(&session.site));
        Box::pin(self.send_wanted(session, &mut told)).await;
        loop {
            tokio::select! {
                () = session.over.cancelled() => {
                    let message = if self.shared.stop.is_cancelled() {
                        "HQ is stopping; connect again soon"
                    } else {
                        "another connection speaks for this site, or it was retired"
                    };
                    let code = if self.shared.stop.is_cancelled() { Refusal::Stopping } else { Refusal::Superseded };
                    let refused = Refused { code: code.code().to_owned(), message: message.to_owned() };
                    Box::pin(self.send(ToSite::Refused(refused))).await;
                    return;
                }
                Ok(()) = published.changed() => {
                    Box::pin(self.send_wanted(session, &mut told)).await;
                    Box::pin(self.send_settings(&session.site, &mut told)).await;
                }
                _ = told.ask.tick() => {
                    // A node may have come or gone: when this one goes, the site should know where
                    // else to call.
                    Box::pin(self.send_settings(&session.site, &mut told)).await;
                    let time_micros = self.shared.now().as_micros();
                    Box::pin(self.send(ToSite::Ask(Ask { time_micros }))).await;
                }
                message = self.incoming.message() => match message {
                    Ok(Some(SiteControl { message: Some(message) })) => {
                        if !Box::pin(self.handle(session, message)).await {
                            return;
                        }
                    }
                    Ok(Some(_)) => {}
                    // The stream is over, or was given up at the other end.
                    Ok(None) | Err(_) => return,
                },
            }
        }
    }

    /// Takes one message; false ends the session.
    async fn handle(&mut self, session: &Session, message: FromSite) -> bool {
        let site = &session.site;
        self.shared.heard(site, Heard::Contact);
        let Some(message) = texts::clean_message(message) else { return true };
        match message {
            FromSite::Beacon(beacon) => {
                // Only now both have taken each other.
                if !session.is_taken.swap(true, Ordering::Relaxed) {
                    self.shared.heard(site, Heard::Condition(Condition::Refused, None));
                }
                let problem = (!beacon.capture_ok).then(|| beacon.capture_problem.clone());
                let full = full_disk(site, beacon.disk_free_bytes);
                let (capture, disk) = match beacon.capture_cause() {
                    proto::Cause::Disk => (None, problem.clone().or(full)),
                    _ => (problem.clone(), full),
                };
                let age = Duration::from_millis(beacon.oldest_unconfirmed_age_ms);
                let clock_off = self.shared.now().as_micros().saturating_sub(beacon.clock_micros);
                session.clock_off.store(clock_off, Ordering::Relaxed);
                self.judge_clock(session);
                let fact = Fact::Beacon {
                    head: Seq(beacon.head),
                    unconfirmed_age: age,
                    capture_problem: problem,
                    clock_off_micros: clock_off,
                    applied: applied(&beacon.applied),
                };
                self.shared.learned(site, fact);
                let rows = beacon.head.saturating_sub(beacon.confirmed);
                self.shared.heard(site, Heard::Backlog { rows, age });
                self.shared.heard(site, Heard::Condition(Condition::Capture, capture));
                self.shared.heard(site, Heard::Condition(Condition::Disk, disk));
            }
            FromSite::Heads(heads) if heads.epoch == session.epoch.0 => {
                let tables = heads.tables.iter();
                let tables = tables.filter_map(|head| Some((TableName::at_hq(&head.table).ok()?, Seq(head.head))));
                let time = Timestamp::from_micros(heads.time_micros).min(self.shared.now());
                self.shared.learned(site, Fact::Heads { time, epoch: session.epoch, heads: tables.collect() });
                self.shared.ledger.advance(&self.shared.lake, site, session.number);
            }
            FromSite::Heads(_) => {}
            FromSite::Goodbye(goodbye) => {
                tracing::info!(%site, reason = goodbye.reason, "goodbye");
                self.shared.learned(site, Fact::Goodbye { head: Seq(goodbye.head), reason: goodbye.reason });
                self.shared.heard(site, Heard::Goodbye);
                return false;
            }
            FromSite::Refuses(refuses) => {
                tracing::warn!(%site, reason = refuses.reason, "the site refuses this HQ");
                let detail = format!("{site} refuses HQ: {}", refuses.reason);
                self.shared.learned(
                    site,
                    Fact::Refused { cause: Cause::HqRefuses, detail: detail.clone(), is_lake_older: true },
                );
                self.shared.heard(site, Heard::Condition(Condition::Refused, Some(detail)));
                return false;
            }
            FromSite::EpochWanted(wanted) => {
                // The site connects again; its hello gets the new epoch.
                self.shared.learned(site, Fact::EpochWanted { epoch: session.epoch, reason: wanted.reason });
                return false;
            }
            FromSite::Attempts(attempts) => {
                for told in afterwards(site, &attempts.attempts) {
                    self.shared.heard(site, told);
                }
            }
            FromSite::Hello(_) => {
                self.fail(Status::invalid_argument("Hello comes once")).await;
                return false;
            }
        }
        true
    }
}

/// What a site was told last.
struct Told {
    /// Digests of it.
    published: u64,
    settings: u64,
    /// When it is told HQ's time.
    ask: tokio::time::Interval,
}

impl Told {
    /// These settings, and that it should have nothing of HQ's tables.
    fn new(settings: &Settings) -> Self {
        let (published, told) = (digest::of_message(&Published::default()), digest::of_message(settings));
        Self { published, settings: told, ask: asking(settings) }
    }

    /// True if these settings are others.
    fn take_settings(&mut self, settings: &Settings) -> bool {
        let news = digest::of_message(settings);
        let is_news = news != std::mem::replace(&mut self.settings, news);
        if self.ask.period() != ask_every(settings) {
            self.ask = asking(settings);
        }
        is_news
    }
}

/// How often HQ tells its time to a site with these settings.
fn ask_every(settings: &Settings) -> Duration {
    Duration::from_millis(u64::from(settings.beacon_interval_ms.max(1)))
}

fn asking(settings: &Settings) -> tokio::time::Interval {
    let mut ask = tokio::time::interval(ask_every(settings));
    ask.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ask
}

/// What a connection shows of a site that others may share: names as in
/// [`rollcall_roll::WatchConfig::group_by`].
fn seen_of(hello: &Hello, peer: Option<SocketAddr>) -> BTreeMap<String, String> {
    let block = peer.map_or_else(String::new, |peer| block_of(peer.ip()));
    let seen = [
        ("agent", hello.agent_version.as_str()),
        ("endpoint", hello.called.as_str()),
        ("dns", hello.resolved.as_str()),
        ("block", block.as_str()),
    ];
    seen.map(|(name, value)| (name.to_owned(), value.chars().take(200).collect())).into()
}

/// The network an address is in, as providers give them out: 24 bits of IPv4, 48 of IPv6.
fn block_of(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        IpAddr::V6(address) => {
            let [a, b, c, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}::/48")
        }
    }
}

/// What a site says it has of HQ's tables.
fn applied(told: &[rollcall_wire::proto::Applied]) -> BTreeMap<TableName, Applied> {
    const TABLES_MAX: usize = 1000;
    let of_table = |told: &rollcall_wire::proto::Applied| {
        let problem = (!told.problem.is_empty()).then(|| told.problem.chars().take(1000).collect());
        let applied = Applied {
            version: Seq(told.version),
            audience: told.audience,
            problem,
            edits: told.edits,
            published_at: told.published_at,
            dangling: told.dangling,
            differing: told.differing,
        };
        Some((TableName::new(&told.table).ok()?, applied))
    };
    told.iter().take(TABLES_MAX).filter_map(of_table).collect()
}

/// What a site's own log of its attempts says about its absence: one line for each thing it ran
/// into.
fn afterwards(site: &SiteId, attempts: &[Attempt]) -> Vec<Heard> {
    const KINDS_MAX: usize = 20;
    let mut kinds: BTreeMap<(&str, &str, &str, i32), (i64, i64, usize)> = BTreeMap::new();
    for attempt in attempts.iter().take(10_000) {
        let key = (attempt.address.as_str(), attempt.resolved.as_str(), attempt.error.as_str(), attempt.cause);
        let seen = kinds.entry(key).or_insert((attempt.at_micros, attempt.at_micros, 0));
        *seen = (seen.0.min(attempt.at_micros), seen.1.max(attempt.at_micros), seen.2 + 1);
    }
    let told = kinds.into_iter().take(KINDS_MAX).map(|((address, resolved, error, cause), (first, last, count))| {
        let cause = proto::Cause::try_from(cause).ok().and_then(proto::Cause::known);
        let at = Timestamp::from_micros;
        let resolved = if resolved.is_empty() { "nothing".to_owned() } else { resolved.to_owned() };
        let named = cause.map_or_else(String::new, |cause| format!(" ({cause})"));
        let text = format!(
            "{site} tried {address}, which resolved to {resolved}, {count} times from {} to {}: {error}{named}",
            at(first),
            at(last)
        );
        tracing::info!(%site, text, "what the site could not do");
        // That nothing answered is what a silence is taken for anyway.
        Heard::Afterwards { cause: cause.filter(|cause| *cause != Cause::PowerOrLink), text }
    });
    told.collect()
}

/// What to say of a disk with little space left, or none; not every system tells.
fn full_disk(site: &SiteId, free: Option<u64>) -> Option<String> {
    const FREE_MIN: u64 = 1 << 30;
    let free = free.filter(|free| *free < FREE_MIN)?;
    // Rounded, so that the story is not told anew with every beacon.
    let hundreds = free / 100_000_000;
    Some(format!("less than {} MB are free where {site} has its database", (hundreds + 1) * 100))
}

/// Why a site got no session.
enum Turned {
    Away { code: Refusal, cause: Option<Cause>, message: String },
    Failed(HqError),
}

impl From<HqError> for Turned {
    fn from(error: HqError) -> Self {
        Self::Failed(error)
    }
}

fn cursors(lake: &Lake, site: SiteNumber, epoch: Epoch) -> Vec<(TableName, rollcall_lake::Cursor)> {
    let tables = lake.tables().into_iter();
    // In a table that HQ shares, sites' cursors count edits, not the journal.
    let of_sites = tables.filter(|(_, table)| !table.is_published());
    of_sites.filter_map(|(name, table)| Some((name, table.cursor(site, epoch)?))).collect()
}

/// The tables that sites cannot fill.
fn published_names(lake: &Lake) -> Vec<String> {
    let published = lake.tables().into_iter().filter(|(_, table)| table.is_published());
    published.map(|(name, _)| name.to_string()).collect()
}
