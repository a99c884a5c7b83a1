//! The protocol's services: enrolment, and the streams of sites that are enrolled.

use std::{sync::Arc, time::Duration};

use futures::SinkExt;
use futures::channel::mpsc;
use rollcall_registry::{Heard, HqError, Peer, SiteFact, SiteRecord, roster::LeftOut};
use rollcall_roll::Condition;
use rollcall_types::{Cause, SiteId, SiteNumber, Timestamp, describe};
use rollcall_wire::proto::{
    self, Checked, DataFrame, DataReply, EnrolRequest, FetchReply, FetchRequest, HqControl, Identity, RenewRequest,
    SiteControl, enrolment_server::Enrolment, sites_server::Sites,
};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    IN_DOUBT, authority::Authority, control::Control, data_stream, gateway::Gateway, sites_port::Caller, texts,
    welcome::Visitor,
};

/// Tables, and columns of each, that a store may leave out.
const COLUMNS_LEFT_OUT_MAX: usize = 500;
/// The first message must come within this time.
pub(crate) const HELLO_TIMEOUT: Duration = Duration::from_secs(15);

/// How a site is told that its request failed.
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
        let registry = &self.0.registry;
        if registry.lake.doubt().is_some() {
            return Err(Status::unavailable(IN_DOUBT));
        }
        let key_hash = Authority::request_key_hash(&request.csr_pem).map_err(status_of)?;
        let left_out = left_out(request.left_out);
        let site = match registry.roster.enrol(&request.token, &key_hash, left_out, registry.now()).await {
            Ok(site) => site,
            Err(error) => return Err(self.uninvited(error)),
        };
        // Whoever speaks for the site now does so with the key that was just replaced.
        registry.sessions.cut(&site);
        tracing::info!(%site, "enrolled");
        self.identity(&site, &request.csr_pem)
    }

    async fn check(&self, request: Request<EnrolRequest>) -> Result<Response<Checked>, Status> {
        let request = request.into_inner();
        let registry = &self.0.registry;
        let key_hash = match request.csr_pem.is_empty() {
            true => None,
            false => Some(Authority::request_key_hash(&request.csr_pem).map_err(status_of)?),
        };
        // Another node may have made the invitation a moment ago.
        registry.lake.follow().await.map_err(|error| status_of(error.into()))?;
        let now = registry.now();
        match registry.roster.check_invitation(&request.token, key_hash.as_deref(), now) {
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
        let record = self.0.registry.roster.get(&site);
        let known = record.and_then(|record| record.key_hash.clone());
        if known.as_deref() != Some(key_hash.as_str()) {
            // Whoever asks has not shown that it ever was this site: it is noted, and no more.
            self.0.registry.ledger.unknown_sender(site.as_str(), self.0.registry.now());
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
        self.0.registry.ledger.unknown_sender("(enrolment with an invalid invitation)", self.0.registry.now());
        status_of(error)
    }

    /// A machine has a certificate of a site's, and another key than the one on the roster. Where
    /// the site is missed, that may be why.
    pub(crate) fn note_unknown_key(&self, site: &SiteId, is_listed: bool) {
        let (registry, now) = (&self.0.registry, self.0.registry.now());
        registry.ledger.unknown_sender(site.as_str(), now);
        // Sites may say something as seldom as every third beacon.
        let within = registry.behind_after() * 2;
        if !is_listed || registry.ledger.is_refused(site) || !registry.ledger.is_missed(site, now, within) {
            return;
        }
        let detail = format!(
            "a machine calls as {site} with a key that HQ does not know: an old machine that still runs, or the store itself, if it was \
             retired and reinstated, or HQ was restored to a time before it joined. If it is the store: `rollcall roster invite {site}`, \
             and join it again there"
        );
        tracing::warn!(%site, "turned away: its key is not on the roster");
        let fact = SiteFact::Refused { cause: Cause::HqRefuses, detail: detail.clone(), is_lake_older: false };
        registry.record(site, fact);
        registry.record_heard(site, Heard::Condition(Condition::Refused, Some(detail)));
    }

    fn identity(&self, site: &SiteId, csr_pem: &str) -> Result<Response<Identity>, Status> {
        let certificate = self.0.authority.sign_site(site, csr_pem, self.0.registry.now()).map_err(status_of)?;
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
        let mut record = self.0.registry.roster.get(&peer.site);
        if !record.as_ref().is_some_and(is_known) {
            // It may have enrolled at another node a moment ago.
            self.0.registry.lake.follow().await.map_err(|error| status_of(error.into()))?;
            record = self.0.registry.roster.get(&peer.site);
        }
        match record {
            Some(record) if is_known(&record) => Ok((peer, SiteNumber(record.number))),
            Some(record) if record.retired.is_some() => Err(Status::permission_denied("this site was retired")),
            _ => {
                self.note_unknown_key(&peer.site, record.is_some());
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
        let (publications, site, request) = (self.0.publications.clone(), peer.site.clone(), request.into_inner());
        // What is made for many sites is worth a thread of its own.
        let made = rollcall_runtime::blocking(move || publications.fetch(&site, &request)).await;
        let made = made.map_err(|error| Status::internal(error.to_string()))?.map_err(status_of)?;
        let (mut sender, replies) = mpsc::channel(2);
        let (registry, site) = (self.0.registry.clone(), peer.site.clone());
        self.0.registry.tasks.spawn(async move {
            for reply in made.iter() {
                if sender.send(Ok(reply.clone())).await.is_err() {
                    return;
                }
                registry.record_heard(&site, Heard::Contact);
            }
        });
        Ok(Response::new(replies))
    }

    async fn control(&self, request: Request<Streaming<SiteControl>>) -> Result<Response<Self::ControlStream>, Status> {
        let (peer, number) = self.caller(&request).await?;
        let address = Caller::of(&request).map(|caller| caller.address);
        let (sender, messages) = mpsc::channel(16);
        let visitor = Visitor { parts: self.0.clone(), peer, number, address };
        let control = Control { visitor, incoming: request.into_inner(), outgoing: sender };
        self.0.registry.tasks.spawn(control.run());
        Ok(Response::new(messages))
    }

    async fn data(&self, request: Request<Streaming<DataFrame>>) -> Result<Response<Self::DataStream>, Status> {
        let (peer, _) = self.caller(&request).await?;
        let (mut sender, replies) = mpsc::channel(64);
        let parts = self.0.clone();
        self.0.registry.tasks.spawn(async move {
            if let Err(status) = data_stream::receive(parts, &peer.site, request.into_inner(), sender.clone()).await {
                let _ = sender.send(Err(status)).await;
            }
        });
        Ok(Response::new(replies))
    }
}
