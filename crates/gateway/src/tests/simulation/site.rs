//! A store that sends rows to whichever node it reaches, in order or not.

use futures::channel::mpsc as replies;
use rollcall_wire::proto::{DataReply, data_reply::Message as Reply};
use tokio::sync::mpsc;
use tonic::Status;

use super::{super::*, node::Node, world::World};
use crate::data_stream::{InFlight, answer, submit};

pub(super) const TABLES: [&str; 2] = ["sales", "stock"];

/// Longer than any node needs that lives.
const PATIENCE: Duration = Duration::from_secs(20);

/// A store, its journal, and its connection.
pub(super) struct Store {
    world: Arc<World>,
    peer: Arc<Peer>,
    number: SiteNumber,
    /// The journal's end. The row at each position is of one of [`TABLES`], in turn.
    head: u64,
    /// Where the next batch begins behind.
    sent: u64,
    /// The last position that was ever sent.
    reached: u64,
    confirmed: u64,
    epoch: u32,
    line: Option<Line>,
}

struct Line {
    parts: Arc<GatewayParts>,
    session: Arc<Session>,
    queue: mpsc::Sender<InFlight>,
    replies: replies::Receiver<Result<DataReply, Status>>,
}

impl Store {
    /// A new store on the roster.
    pub(super) async fn join(world: &Arc<World>, node: &Node, number: usize) -> Self {
        let name = format!("store-{number}");
        let visitor = loop {
            // A reply that is lost says nothing: who does not know asks again.
            match visitor_of(&node.parts, &name).await {
                Ok(visitor) => break visitor,
                Err(error) => world.log(format_args!("{name} joins: {}", rollcall_types::describe(&error))),
            }
        };
        let (peer, number) = (visitor.peer, visitor.number);
        Self { world: world.clone(), peer, number, head: 0, sent: 0, reached: 0, confirmed: 0, epoch: 0, line: None }
    }

    pub(super) fn id(&self) -> &SiteId {
        &self.peer.site
    }

    /// The positions of a table's rows.
    pub(super) fn rows_of(&self, table: &str) -> Vec<u64> {
        (1..=self.head).filter(|seq| table_at(*seq) == table).collect()
    }

    /// Does one thing, by `what`: at this node, if it is up.
    pub(super) async fn step(&mut self, node: Option<&Node>, what: u32) {
        self.head += u64::from(self.world.below(12));
        self.take_replies();
        if self.line.is_none() {
            match node {
                Some(node) => self.connect(node).await,
                None => return,
            }
        }
        match what {
            // A router is tripped over.
            0 => self.line = None,
            // It begins again behind what is confirmed, as after a line that broke.
            1 if self.sent > self.confirmed => {
                self.world.met("rows are sent twice");
                self.sent = self.confirmed;
                self.send(self.sent).await;
            }
            // Something is lost in between.
            2 if self.head > self.sent + 2 => self.send(self.sent + 2).await,
            _ => self.send(self.sent).await,
        }
        self.take_replies();
    }

    /// Sends until all is confirmed.
    pub(super) async fn finish(&mut self, node: &Node) {
        for _ in 0..1000 {
            if self.line.is_none() {
                self.connect(node).await;
            }
            self.send(self.sent).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            self.take_replies();
            if self.confirmed == self.head {
                return;
            }
            if self.sent == self.head {
                self.sent = self.confirmed;
            }
        }
        panic!("{} has {} of {} confirmed", self.id(), self.confirmed, self.head);
    }

    async fn connect(&mut self, node: &Node) {
        let (parts, peer) = (node.parts.clone(), self.peer.clone());
        let visitor = Visitor { parts: parts.clone(), peer, number: self.number, address: None };
        let instance = format!("agent of {}", self.id());
        let clock_micros = parts.registry.now().as_micros();
        let hello = Hello { clock_micros, ..hello_again(&instance, self.epoch, self.confirmed, self.head) };
        let welcomed = tokio::time::timeout(PATIENCE, visitor.welcome(&hello)).await;
        let (session, welcome) = match welcomed {
            Ok(Ok(welcomed)) => welcomed,
            Ok(Err(rejection)) => return self.world.log(format_args!("{} turned away: {rejection:?}", self.id())),
            Err(_) => return self.world.log(format_args!("{} waits in vain", self.id())),
        };
        self.world.log(format_args!("{} welcomed: epoch {}, {:?}", self.id(), welcome.epoch, welcome.cursors));
        assert_eq!(welcome.epoch, 1, "the journal never went back: {}", welcome.epoch_reason);
        self.epoch = welcome.epoch;
        self.sent = self.confirmed;
        let ((queue, in_flight), (mut sender, replies)) = (mpsc::channel(16), replies::channel(64));
        let (registry, of_session) = (parts.registry.clone(), session.clone());
        rollcall_runtime::spawn(async move { answer(&registry, &of_session, in_flight, &mut sender).await });
        self.line = Some(Line { parts, session, queue, replies });
    }

    /// Sends some rows behind `after`.
    async fn send(&mut self, after: u64) {
        let Some(line) = self.line.as_ref().filter(|_| self.head > after) else { return };
        let (first, last) = (after + 1, self.head.min(after + 1 + u64::from(self.world.below(30))));
        let encoded = encoded(self.epoch, first, last);
        self.reached = self.reached.max(last);
        let handed = async {
            let in_flight = submit(&line.parts, &line.session, encoded).await.map_err(|error| error.to_string())?;
            line.queue.send(in_flight).await.map_err(|_| "nobody answers".to_owned())
        };
        match tokio::time::timeout(PATIENCE, handed).await {
            Ok(Ok(())) => self.sent = last,
            Ok(Err(why)) => self.hang_up(&why),
            Err(_) => self.hang_up("waits in vain"),
        }
    }

    fn hang_up(&mut self, why: &str) {
        self.world.met("a session is over");
        self.world.log(format_args!("{}: {why}", self.id()));
        self.line = None;
    }

    fn take_replies(&mut self) {
        while let Some(line) = &mut self.line {
            match line.replies.try_recv() {
                Ok(Ok(DataReply { message: Some(reply) })) => self.take(reply),
                Ok(Ok(DataReply { message: None })) => panic!("an empty reply"),
                Ok(Err(status)) => self.hang_up(status.message()),
                Err(error) if error.is_closed() => self.hang_up("the line is closed"),
                Err(_) => return,
            }
        }
    }

    fn take(&mut self, reply: Reply) {
        self.world.log(format_args!("{} is told {reply:?}", self.id()));
        match reply {
            Reply::Confirmed(told) => {
                assert!(told.through <= self.reached && told.epoch == self.epoch, "what was never sent: {told:?}");
                self.confirmed = self.confirmed.max(told.through);
            }
            Reply::AskAgain(told) => {
                assert!(told.cursor <= self.reached, "it has what was never sent: {told:?}");
                self.world.met("a gap is asked for");
                self.sent = self.confirmed;
            }
            Reply::Credit(_) => {}
            Reply::Quarantined(told) => panic!("sound rows are refused: {told:?}"),
        }
    }
}

fn table_at(seq: u64) -> &'static str {
    TABLES[(seq % 2) as usize]
}

/// The rows from `first` through `last`, by tables.
fn encoded(epoch: u32, first: u64, last: u64) -> Encoded {
    let parts = TABLES.iter().filter_map(|table| {
        let seqs: Vec<i64> = (first..=last).filter(|seq| table_at(*seq) == *table).map(|seq| seq as i64).collect();
        let previous = (0..first).rev().find(|seq| *seq == 0 || table_at(*seq) == *table).unwrap_or_default();
        let rows = (!seqs.is_empty()).then(|| rows(&seqs))?;
        Some(Part { table: (*table).to_owned(), previous: Seq(previous), rows, marks: Vec::new() })
    });
    let (first, last, parts) = (Seq(first), Seq(last), parts.collect());
    let batch = Batch { epoch: Epoch(epoch), first, last, previous_hash: ChainHash::default(), parts };
    Encoder::new().and_then(|mut encoder| encoder.encode(&batch)).expect("encodes")
}
