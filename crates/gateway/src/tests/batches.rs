//! Batches on their way into the lake.

use futures::{StreamExt, channel::mpsc as replies};
use rollcall_lake::PartOutcome;
use rollcall_registry::Lane;
use rollcall_types::TableName;
use rollcall_wire::proto::{DataReply, data_reply::Message as Reply};
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use super::*;
use crate::data_stream::{InFlight, answer, submit};

type Replies = replies::Receiver<Result<DataReply, Status>>;

/// What answers the batches of a session, with both ends.
fn answering(port: &Port, session: &Arc<Session>) -> (mpsc::Sender<InFlight>, Replies) {
    let ((queue, in_flight), (mut sender, replies)) = (mpsc::channel(16), replies::channel(64));
    let (registry, session) = (port.parts.registry.clone(), session.clone());
    rollcall_runtime::spawn(async move { answer(&registry, &session, in_flight, &mut sender).await });
    (queue, replies)
}

async fn next(replies: &mut Replies) -> Reply {
    let reply = tokio::time::timeout(Duration::from_secs(20), replies.next()).await.expect("in time");
    reply.expect("a reply").expect("no error").message.expect("a message")
}

/// A batch with one part, of which a test says what becomes.
fn in_flight(first: u64, last: u64) -> (InFlight, oneshot::Sender<PartOutcome>) {
    let (outcome, part) = oneshot::channel();
    let (first, last) = (Seq(first), Seq(last));
    let parts = vec![("sales".to_owned(), part)];
    (InFlight { first, last, bytes: 10, lane: Lane::Live, parts, quarantined: None }, outcome)
}

async fn session_of(visitor: &Visitor) -> Arc<Session> {
    visitor.welcome(&hello("a")).await.expect("comes").0
}

#[tokio::test]
async fn batches_are_confirmed_in_order_whichever_is_durable_first() {
    let port = Port::open().await;
    let till = port.visitor("till-1").await;
    let session = session_of(&till).await;
    let (queue, mut replies) = answering(&port, &session);
    let ((one, first), (two, second)) = (in_flight(1, 5), in_flight(6, 9));
    queue.send(one).await.expect("takes");
    queue.send(two).await.expect("takes");
    second.send(PartOutcome::Durable { rows: 4 }).expect("waits");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(replies.try_recv().is_err(), "the first one is under way");
    assert_eq!(port.parts.registry.ledger.confirmed_through(&till.peer.site), Seq(0));
    first.send(PartOutcome::Durable { rows: 5 }).expect("waits");
    let mut confirmed = Vec::new();
    while confirmed.len() < 2 {
        match next(&mut replies).await {
            Reply::Confirmed(told) => confirmed.push(told.through),
            Reply::Credit(credit) => assert_eq!(credit.bytes, 10),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(confirmed, [5, 9]);
    assert_eq!(port.parts.registry.ledger.confirmed_through(&till.peer.site), Seq(9));
    let counted = port.heard().into_iter().filter_map(|heard| match heard {
        Heard::Rows { table, count } => Some((table, count)),
        _ => None,
    });
    assert_eq!(counted.collect::<Vec<_>>(), [("sales".to_owned(), 5), ("sales".to_owned(), 4)]);
}

#[tokio::test]
async fn a_gap_is_asked_for_again_and_nothing_behind_it_is_confirmed() {
    let port = Port::open().await;
    let session = session_of(&port.visitor("till-1").await).await;
    let (queue, mut replies) = answering(&port, &session);
    let ((one, first), (two, second)) = (in_flight(1, 5), in_flight(6, 9));
    queue.send(one).await.expect("takes");
    queue.send(two).await.expect("takes");
    first.send(PartOutcome::Gap { cursor: Seq(3) }).expect("waits");
    second.send(PartOutcome::Durable { rows: 4 }).expect("waits");
    assert!(matches!(next(&mut replies).await, Reply::Credit(_)), "it takes no room any more");
    assert!(
        matches!(next(&mut replies).await, Reply::AskAgain(told) if (told.table.as_str(), told.cursor) == ("sales", 3))
    );
    assert!(matches!(next(&mut replies).await, Reply::Credit(_)));
    // What is sent again closes the gap.
    let (again, outcome) = in_flight(1, 9);
    queue.send(again).await.expect("takes");
    outcome.send(PartOutcome::Durable { rows: 9 }).expect("waits");
    assert!(matches!(next(&mut replies).await, Reply::Credit(_)));
    assert!(matches!(next(&mut replies).await, Reply::Confirmed(told) if told.through == 9));
}

#[tokio::test]
async fn a_commit_whose_outcome_is_unknown_ends_the_session_and_confirms_nothing() {
    let port = Port::open().await;
    let till = port.visitor("till-1").await;
    let session = session_of(&till).await;
    let (queue, mut replies) = answering(&port, &session);
    let (one, outcome) = in_flight(1, 5);
    queue.send(one).await.expect("takes");
    drop(outcome);
    let told = replies.next().await.expect("a reply");
    assert!(told.is_err_and(|status| status.code() == tonic::Code::Unavailable));
    tokio::time::timeout(Duration::from_secs(20), session.over.cancelled()).await.expect("is over");
    assert_eq!(port.parts.registry.ledger.confirmed_through(&till.peer.site), Seq(0));
}

#[tokio::test]
async fn a_batch_becomes_rows_of_its_table_and_the_next_welcome_knows() {
    let port = Port::open().await;
    let till = port.visitor("till-1").await;
    let session = session_of(&till).await;
    let (queue, mut replies) = answering(&port, &session);
    let submitted = submit(&port.parts, &session, batch("Sales", 1, 3, 0)).await.expect("is taken");
    queue.send(submitted).await.expect("takes");
    assert!(matches!(next(&mut replies).await, Reply::Credit(_)));
    assert!(matches!(next(&mut replies).await, Reply::Confirmed(told) if (told.epoch, told.through) == (1, 3)));
    let table = port.parts.registry.lake.table(&TableName::new("sales").expect("valid")).expect("was made");
    assert_eq!(table.snapshot().rows(), 3);
    assert_eq!(table.cursor(till.number, Epoch(1)).map(|cursor| cursor.seq), Some(Seq(3)));
    // One that does not continue there is a gap.
    queue.send(submit(&port.parts, &session, batch("Sales", 9, 9, 8)).await.expect("is read")).await.expect("takes");
    assert!(matches!(next(&mut replies).await, Reply::Credit(_)));
    assert!(
        matches!(next(&mut replies).await, Reply::AskAgain(told) if (told.table.as_str(), told.cursor) == ("Sales", 3))
    );
    assert!(port.parts.ingest.is_well());
    let (_, welcome) = till.welcome(&hello_again("a", 1, 3, 3)).await.expect("comes back");
    assert_eq!(
        welcome.cursors.iter().map(|cursor| (cursor.table.as_str(), cursor.seq)).collect::<Vec<_>>(),
        [("sales", 3)]
    );
    // Its journal ends before that: it went back in time.
    let (session, welcome) = till.welcome(&hello_again("a", 1, 2, 2)).await.expect("a new life");
    assert_eq!(session.epoch, Epoch(2));
    assert!(welcome.epoch_reason.contains("changes up to 3, the site's journal ends at 2"));
}

#[tokio::test]
async fn a_batch_that_contradicts_itself_is_kept_whole_and_confirmed_with_the_reason() {
    let port = Port::open().await;
    let till = port.visitor("till-1").await;
    let session = session_of(&till).await;
    let (queue, mut replies) = answering(&port, &session);
    let mut torn = batch("sales", 1, 3, 0);
    torn.header.hash ^= 1;
    queue.send(submit(&port.parts, &session, torn.clone()).await.expect("is kept")).await.expect("takes");
    assert!(matches!(next(&mut replies).await, Reply::Credit(_)));
    assert!(matches!(next(&mut replies).await, Reply::Confirmed(told) if told.through == 3));
    let Reply::Quarantined(told) = next(&mut replies).await else { panic!("says why") };
    assert!((told.first, told.last) == (1, 3) && told.reason.contains("hash"), "{told:?}");
    let (lake, roster) = (&port.parts.registry.lake, port.parts.registry.roster.all());
    assert!(lake.table(&TableName::new("sales").expect("valid")).is_none(), "such a header makes no table");
    let (about, kept) = port.parts.books.quarantine.find("till-1:1:1", &roster).await.expect("is kept");
    assert_eq!((kept, about.kept.tables), (torn, None), "it may be of any table");
}

#[tokio::test]
async fn of_a_batch_with_positions_that_are_not_its_own_nothing_is_taken() {
    let port = Port::open().await;
    let session = session_of(&port.visitor("till-1").await).await;
    let part = Part { table: "sales".to_owned(), previous: Seq(0), rows: rows(&[1, 2, 50]), marks: Vec::new() };
    let (first, last) = (Seq(1), Seq(3));
    let said = Batch { epoch: Epoch(1), first, last, previous_hash: ChainHash::default(), parts: vec![part] };
    let encoded = Encoder::new().and_then(|mut encoder| encoder.encode(&said)).expect("encodes");
    let lake = &port.parts.registry.lake;
    assert_eq!(crate::problems(lake, &encoded, Default::default()).await, ["rows without valid positions"]);
    let submitted = submit(&port.parts, &session, encoded).await.expect("is kept");
    assert!(submitted.quarantined.is_some_and(|reason| reason.contains("positions")));
    let table = lake.table(&TableName::new("sales").expect("valid")).expect("its header is sound");
    assert_eq!(table.snapshot().rows(), 0);
    assert_eq!(crate::problems(lake, &batch("sales", 1, 3, 0), Default::default()).await, [""; 0]);
}

#[tokio::test]
async fn a_batch_of_another_life_is_refused_and_kept_nowhere() {
    let port = Port::open().await;
    let till = port.visitor("till-1").await;
    session_of(&till).await;
    let anew = Hello { journal_id: "another".to_owned(), ..hello("a") };
    let (session, _) = till.welcome(&anew).await.expect("a new life");
    let refused = submit(&port.parts, &session, batch("sales", 1, 3, 0)).await.map(drop);
    assert!(refused.is_err_and(|error| error.to_string().contains("of epoch 1, the session of 2")));
    assert_eq!(port.parts.books.quarantine.bytes_of(&till.peer.site), 0);
}
