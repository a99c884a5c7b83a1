//! What was sent and not confirmed yet: a pure state machine, used by the agent and by simulated
//! sites alike.

use std::collections::{HashMap, VecDeque};

use rollcall_capture::Anchor;
use rollcall_types::{ChainHash, Epoch, Seq};
use rollcall_wire::batch::{Batch, Encoded, Part};

/// Batches in flight at most, whatever the credit.
const IN_FLIGHT_MAX: usize = 32;

/// A batch on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sending {
    /// Its end.
    pub last: Seq,
    /// The chain after it.
    pub hash: ChainHash,
    /// A digest of its last change, as it was read; empty if that is not known.
    pub digest: String,
    /// Tables it touches.
    pub tables: Vec<String>,
}

/// A position in the journal: how far, with which chain, and for each table the last batch that
/// touched it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Mark {
    seq: Seq,
    hash: ChainHash,
    digest: String,
    tables: HashMap<String, Seq>,
}

/// The state of sending within one session.
#[derive(Debug, Clone)]
pub struct Outbox {
    epoch: Epoch,
    confirmed: Mark,
    sent: Mark,
    in_flight: VecDeque<Sending>,
    credit: i64,
}

impl Outbox {
    /// Continues behind what is confirmed.
    pub fn new(
        epoch: Epoch,
        confirmed: Anchor,
        confirmed_hash: ChainHash,
        tables: HashMap<String, Seq>,
        credit_bytes: u64,
    ) -> Self {
        let mark = Mark { seq: confirmed.seq, hash: confirmed_hash, digest: confirmed.digest, tables };
        let credit = i64::try_from(credit_bytes).unwrap_or(i64::MAX);
        Self { epoch, confirmed: mark.clone(), sent: mark, in_flight: VecDeque::new(), credit }
    }

    /// Whether HQ takes another batch now. The last batch may overdraw the credit, so that any size
    /// gets through.
    pub fn may_send(&self) -> bool {
        self.credit > 0 && self.in_flight.len() < IN_FLIGHT_MAX
    }

    /// How far was sent.
    pub fn sent_through(&self) -> Seq {
        self.sent.seq
    }

    /// The journal is to be read behind this.
    pub fn sent_anchor(&self) -> Anchor {
        Anchor { seq: self.sent.seq, digest: self.sent.digest.clone() }
    }

    /// Confirmed so far.
    pub fn confirmed(&self) -> (Seq, ChainHash) {
        (self.confirmed.seq, self.confirmed.hash)
    }

    /// Digest of the change that is confirmed last, as it was sent.
    pub fn confirmed_digest(&self) -> &str {
        &self.confirmed.digest
    }

    /// Per table the end of the last confirmed batch that touched it.
    pub fn confirmed_tables(&self) -> &HashMap<String, Seq> {
        &self.confirmed.tables
    }

    /// Whether everything sent is confirmed.
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// The batch `..=last` of these parts, with each part's previous position and the chain filled
    /// in.
    pub fn batch(&self, last: Seq, mut parts: Vec<Part>) -> Batch {
        for part in &mut parts {
            part.previous = self.sent.tables.get(&part.table).copied().unwrap_or_default();
        }
        Batch { epoch: self.epoch, first: Seq(self.sent.seq.0 + 1), last, previous_hash: self.sent.hash, parts }
    }

    /// Takes note that a batch made by [`Self::batch`] is about to be sent, whose last change has
    /// this digest.
    pub fn sending(&mut self, encoded: &Encoded, digest: String) -> Sending {
        let header = &encoded.header;
        let sending = Sending {
            last: Seq(header.last),
            hash: ChainHash::new(header.hash),
            digest,
            tables: header.parts.iter().map(|part| part.table.clone()).collect(),
        };
        self.sent.advance(&sending);
        self.in_flight.push_back(sending.clone());
        self.credit -= i64::try_from(encoded.payload.len()).unwrap_or(i64::MAX);
        sending
    }

    /// HQ confirmed everything up to `through`. Returns whether that was news.
    pub fn confirm(&mut self, through: Seq) -> bool {
        let before = self.confirmed.seq;
        while self.in_flight.front().is_some_and(|sending| sending.last <= through) {
            if let Some(sending) = self.in_flight.pop_front() {
                self.confirmed.advance(&sending);
            }
        }
        self.confirmed.seq > before
    }

    /// HQ gave back credit.
    pub fn add_credit(&mut self, bytes: u64) {
        self.credit = self.credit.saturating_add(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// HQ asked again: everything behind the confirmed position is sent anew.
    pub fn rewind(&mut self) {
        self.sent = self.confirmed.clone();
        self.in_flight.clear();
    }
}

impl Mark {
    fn advance(&mut self, sending: &Sending) {
        self.seq = sending.last;
        self.hash = sending.hash;
        self.digest.clone_from(&sending.digest);
        for table in &sending.tables {
            self.tables.insert(table.clone(), sending.last);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use rollcall_wire::proto::{BatchHeader, PartHeader};

    use super::*;

    fn send(outbox: &mut Outbox, last: u64, tables: &[&str]) -> Vec<u64> {
        let rows = arrow_array::RecordBatch::new_empty(std::sync::Arc::new(arrow_schema::Schema::empty()));
        let part =
            |table: &&str| Part { table: (*table).to_owned(), previous: Seq(0), rows: rows.clone(), marks: Vec::new() };
        let batch = outbox.batch(Seq(last), tables.iter().map(part).collect());
        let parts = tables.iter().map(|table| PartHeader { table: (*table).to_owned(), ..PartHeader::default() });
        let header = BatchHeader { last, hash: last * 7, parts: parts.collect(), ..BatchHeader::default() };
        outbox.sending(&Encoded { header, payload: Bytes::from_static(b"0123456789") }, format!("digest of {last}"));
        batch.parts.iter().map(|part| part.previous.0).collect()
    }

    #[test]
    fn previous_positions_follow_each_table_and_a_rewind_takes_them_back() {
        let mut outbox = Outbox::new(Epoch(1), Anchor::default(), ChainHash::default(), HashMap::new(), 25);
        assert_eq!(send(&mut outbox, 10, &["a"]), [0]);
        assert_eq!(send(&mut outbox, 20, &["a", "b"]), [10, 0]);
        assert!(outbox.may_send());
        assert_eq!(send(&mut outbox, 30, &["b"]), [20]);
        assert!(!outbox.may_send(), "the credit is overdrawn");
        outbox.add_credit(10);
        assert!(outbox.may_send());
        assert!(outbox.confirm(Seq(20)));
        assert!(!outbox.confirm(Seq(20)));
        outbox.rewind();
        assert_eq!(outbox.sent_anchor(), Anchor { seq: Seq(20), digest: "digest of 20".to_owned() });
        assert_eq!(send(&mut outbox, 33, &["a", "b", "c"]), [20, 20, 0]);
    }
}
