//! Questions whose rows are fetched some at a time.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use arrow_array::{Array as _, ArrayRef, RecordBatch, UInt64Array};
use arrow_schema::SchemaRef;
use futures::StreamExt;
use pgwire::error::{PgWireError, PgWireResult};
use rollcall_query::datafusion::{
    arrow::compute::take_record_batch,
    sql::sqlparser::ast::{FetchDirection, Value, ValueWithSpan},
};

use super::{
    error::{error, error_with_hint},
    rows::Rows,
    session::Session,
};

/// What the rows of a cursor that goes both ways may take, bytes. One that goes forward keeps none.
const KEPT_BYTES_MAX: usize = 256 << 20;
/// What the rows of all such cursors at a port may take.
const KEPT_BYTES_MAX_OF_ALL: usize = 1 << 30;

/// What all cursors at a port keep, bytes.
pub(super) type KeptOfAll = Arc<AtomicUsize>;

/// Where a cursor goes from where it is, and which rows it gives on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Going {
    /// The next rows, as many as there are up to this.
    Forward(usize),
    /// The rows before, the nearest first.
    Backward(usize),
    /// One row by its place, counted from the first, or from the last if it is negative.
    To(i64),
    /// One row by its place from here.
    By(i64),
}

impl Going {
    /// As `FETCH` and `MOVE` say it.
    pub(super) fn of(direction: &FetchDirection) -> PgWireResult<Self> {
        let count = |value: &ValueWithSpan| match &value.value {
            Value::Number(digits, _) => {
                digits.parse::<i64>().map_err(|_| error("22003", format!("{digits} is no number of rows")))
            }
            other => Err(error("42601", format!("{other} is no number of rows"))),
        };
        let rows = |count: i64| usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
        let forward = |count: i64| match count {
            0 => Self::By(0),
            1.. => Self::Forward(rows(count)),
            _ => Self::Backward(rows(count)),
        };
        Ok(match direction {
            FetchDirection::Next | FetchDirection::Forward { limit: None } => Self::Forward(1),
            FetchDirection::Prior | FetchDirection::Backward { limit: None } => Self::Backward(1),
            FetchDirection::Count { limit } | FetchDirection::Forward { limit: Some(limit) } => forward(count(limit)?),
            FetchDirection::Backward { limit: Some(limit) } => forward(-count(limit)?),
            FetchDirection::All | FetchDirection::ForwardAll => Self::Forward(usize::MAX),
            FetchDirection::BackwardAll => Self::Backward(usize::MAX),
            FetchDirection::First => Self::To(1),
            FetchDirection::Last => Self::To(-1),
            FetchDirection::Absolute { limit } => Self::To(count(limit)?),
            FetchDirection::Relative { limit } => Self::By(count(limit)?),
        })
    }
}

/// A question whose rows are fetched some at a time.
pub(super) struct Cursor {
    pub(super) schema: SchemaRef,
    /// Whether it outlives its transaction.
    pub(super) is_held: bool,
    /// How many savepoints there were when it was opened.
    pub(super) savepoints: usize,
    rows: Rows,
    /// What is left of the batch that was cut; of a cursor that keeps its rows nothing is cut.
    rest: Option<RecordBatch>,
    /// It failed, or was cancelled, among its rows: what would come next is not known.
    is_broken: bool,
    kept: Option<Kept>,
}

/// The rows of a cursor that goes both ways, as far as they were found.
struct Kept {
    of_all: KeptOfAll,
    batches: Vec<RecordBatch>,
    /// For each batch, how many rows there are up to its end.
    ends: Vec<usize>,
    bytes: usize,
    /// Where the cursor is: on a row, counted from one; before all, or after the last of all.
    place: usize,
}

impl std::fmt::Debug for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cursor").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl Cursor {
    /// A cursor before its first row. One that scrolls keeps its rows, and counts them in
    /// `scrolls`.
    pub(super) fn new(rows: Rows, scrolls: Option<KeptOfAll>, is_held: bool, savepoints: usize) -> Self {
        let kept = scrolls.map(Kept::new);
        Self { schema: rows.schema.clone(), is_held, savepoints, rows, rest: None, is_broken: false, kept }
    }

    /// Goes there, and gives the rows on the way to `each`.
    async fn go(
        &mut self,
        going: Going,
        mut each: impl FnMut(RecordBatch) -> PgWireResult<()> + Send,
    ) -> PgWireResult<()> {
        if self.kept.is_some() {
            return self.scroll(going).await?.into_iter().try_for_each(each);
        }
        let Going::Forward(mut wanted) = going else { return Err(forward_only()) };
        while wanted > 0
            && let Some(batch) = self.next(wanted).await?
        {
            wanted -= batch.num_rows();
            each(batch)?;
        }
        Ok(())
    }

    /// Some of the next rows, at most this many; none at the end.
    async fn next(&mut self, rows_max: usize) -> PgWireResult<Option<RecordBatch>> {
        let batch = match self.rest.take() {
            Some(rest) => rest,
            None => match self.rows.batches.next().await {
                Some(rows) => rows?,
                None => return Ok(None),
            },
        };
        let taken = batch.num_rows().min(rows_max);
        if taken < batch.num_rows() {
            self.rest = Some(batch.slice(taken, batch.num_rows() - taken));
        }
        Ok(Some(batch.slice(0, taken)))
    }

    /// Goes there in a cursor that goes both ways; the rows on the way.
    async fn scroll(&mut self, going: Going) -> PgWireResult<Vec<RecordBatch>> {
        let place = self.kept.as_ref().map_or(0, |kept| kept.place);
        let by = |place: usize, rows: i64| match usize::try_from(rows) {
            Ok(rows) => place.saturating_add(rows),
            Err(_) => place.saturating_sub(usize::try_from(rows.unsigned_abs()).unwrap_or(usize::MAX)),
        };
        let (to, is_one) = match going {
            Going::Forward(rows) => (place.saturating_add(rows), false),
            Going::Backward(rows) => (place.saturating_sub(rows), false),
            Going::By(rows) => (by(place, rows), true),
            Going::To(to) if to >= 0 => (by(0, to), true),
            Going::To(to) => (by(self.load(usize::MAX).await?.saturating_add(1), to), true),
        };
        let count = self.load(to).await?;
        let to = to.min(count + 1);
        let Some(kept) = &mut self.kept else { return Ok(Vec::new()) };
        kept.place = to;
        if is_one {
            return Ok(kept.rows(to, to + 1));
        }
        match to >= place {
            true => Ok(kept.rows(place + 1, to.saturating_add(1))),
            false => kept.rows(to.max(1), place).iter().rev().map(reversed).collect(),
        }
    }

    /// Finds rows until there are this many, or no more; how many there are.
    async fn load(&mut self, wanted: usize) -> PgWireResult<usize> {
        let Some(kept) = &mut self.kept else { return Ok(0) };
        let mut count = kept.ends.last().copied().unwrap_or_default();
        while count < wanted
            && let Some(batch) = self.rows.batches.next().await
        {
            let batch = batch?;
            let bytes = bytes_of(&batch);
            kept.bytes += bytes;
            let of_all = kept.of_all.fetch_add(bytes, Ordering::Relaxed) + bytes;
            if kept.bytes > KEPT_BYTES_MAX || of_all > KEPT_BYTES_MAX_OF_ALL {
                let text = match kept.bytes > KEPT_BYTES_MAX {
                    true => format!("the rows of a cursor that scrolls take more than {KEPT_BYTES_MAX} bytes"),
                    false => "the rows of all cursors that scroll take too much memory".to_owned(),
                };
                return Err(error_with_hint("53200", text, "declare it NO SCROLL, or ask for less"));
            }
            count += batch.num_rows();
            kept.batches.push(batch);
            kept.ends.push(count);
        }
        Ok(count)
    }
}

impl Kept {
    fn new(of_all: KeptOfAll) -> Self {
        Self { of_all, batches: Vec::new(), ends: Vec::new(), bytes: 0, place: 0 }
    }

    /// The rows from one place up to another, counted from one, as far as there are any.
    fn rows(&self, from: usize, before: usize) -> Vec<RecordBatch> {
        let (from, before) = (from.max(1) - 1, before.max(1) - 1);
        let mut found = Vec::new();
        for (batch, end) in self.batches.iter().zip(&self.ends) {
            let start = end - batch.num_rows();
            let (first, last) = (from.max(start), before.min(*end));
            if first < last {
                found.push(batch.slice(first - start, last - first));
            }
        }
        found
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.of_all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A cursor while it is fetched from: a connection says one thing at a time. It goes back to its
/// session when it is dropped.
pub(super) struct Lent {
    session: Arc<Session>,
    name: String,
    cursor: Option<Cursor>,
}

impl Lent {
    pub(super) fn take(session: &Arc<Session>, name: &str) -> PgWireResult<Self> {
        let cursor = session.state().cursors.remove(name).ok_or_else(|| no_cursor(name))?;
        Ok(Self { session: session.clone(), name: name.to_owned(), cursor: Some(cursor) })
    }

    /// Goes there; how many rows a fetch would have given.
    pub(super) async fn go(self, going: Going) -> PgWireResult<usize> {
        let mut count = 0;
        let each = |rows: RecordBatch| {
            count += rows.num_rows();
            Ok(())
        };
        self.along(going, each).await?;
        Ok(count)
    }

    /// The rows on the way.
    pub(super) async fn fetch(self, going: Going) -> PgWireResult<Rows> {
        let (mut fetched, mut bytes) = (Vec::new(), 0);
        let each = |rows: RecordBatch| {
            bytes += bytes_of(&rows);
            if bytes > KEPT_BYTES_MAX {
                return Err(error_with_hint("53200", "these rows take too much memory", "fetch fewer at a time"));
            }
            fetched.push(rows);
            Ok(())
        };
        let schema = self.along(going, each).await?;
        Ok(Rows::ready(schema, fetched, "FETCH"))
    }

    /// Goes there. Until it ends well, the cursor is broken: it may be cancelled anywhere.
    async fn along(
        mut self,
        going: Going,
        each: impl FnMut(RecordBatch) -> PgWireResult<()> + Send,
    ) -> PgWireResult<SchemaRef> {
        let Some(cursor) = self.cursor.as_mut() else { return Err(no_cursor(&self.name)) };
        if cursor.is_broken {
            let text = format!("cursor \"{}\" failed among its rows and gives no more", self.name);
            return Err(error_with_hint("55000", text, "close it and declare it again"));
        }
        if cursor.kept.is_none() && !matches!(going, Going::Forward(_)) {
            // One that cannot go there stays where it is.
            return Err(forward_only());
        }
        cursor.is_broken = true;
        if let Err(failure) = cursor.go(going, each).await {
            cursor.kept = cursor.kept.take().map(|kept| Kept::new(kept.of_all.clone()));
            cursor.rest = None;
            return Err(failure);
        }
        cursor.is_broken = false;
        Ok(cursor.schema.clone())
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(cursor) = self.cursor.take() {
            self.session.state().cursors.insert(std::mem::take(&mut self.name), cursor);
        }
    }
}

fn reversed(rows: &RecordBatch) -> PgWireResult<RecordBatch> {
    let places = UInt64Array::from_iter_values((0..rows.num_rows() as u64).rev());
    take_record_batch(rows, &places).map_err(|failure| error("XX000", failure.to_string()))
}

/// What rows take, bytes. They may be a part of more.
fn bytes_of(rows: &RecordBatch) -> usize {
    let of_column = |column: &ArrayRef| column.to_data().get_slice_memory_size();
    rows.columns().iter().map(|column| of_column(column).unwrap_or_else(|_| column.get_array_memory_size())).sum()
}

pub(super) fn forward_only() -> PgWireError {
    error_with_hint("55000", "cursor can only scan forward", "declare it with SCROLL")
}

/// There is no cursor of this name.
pub(super) fn no_cursor(name: &str) -> PgWireError {
    error("34000", format!("cursor \"{name}\" does not exist"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{Int64Array, cast::AsArray as _, types::Int64Type};
    use arrow_schema::{DataType, Field, Schema};
    use futures::TryStreamExt;

    use super::*;

    /// A session's cursor over the numbers from one to ten, in three batches.
    fn numbers(scrolls: bool) -> Arc<Session> {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        let batch = |from, to| {
            let column = Arc::new(Int64Array::from_iter_values(from..=to));
            RecordBatch::try_new(schema.clone(), vec![column]).expect("a batch")
        };
        let rows = Rows::ready(schema.clone(), vec![batch(1, 4), batch(5, 5), batch(6, 10)], "SELECT");
        let session = Session::new(None, KeptOfAll::default());
        let scrolls = scrolls.then(|| session.kept.clone());
        session.state().cursors.insert("c".to_owned(), Cursor::new(rows, scrolls, false, 0));
        Arc::new(session)
    }

    fn lent(session: &Arc<Session>) -> Lent {
        Lent::take(session, "c").expect("a cursor")
    }

    async fn fetched(session: &Arc<Session>, going: Going) -> Vec<i64> {
        let rows = lent(session).fetch(going).await.expect("rows");
        let batches: Vec<RecordBatch> = rows.batches.try_collect().await.expect("rows");
        batches.iter().flat_map(|rows| rows.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
    }

    /// Where PostgreSQL's cursor is and what it gives, by the words of its documentation.
    struct Model(i64);

    impl Model {
        fn fetch(&mut self, going: Going) -> Vec<i64> {
            let clamped = |place: i64| place.clamp(0, 11);
            let rows = |rows: usize| i64::try_from(rows.min(100)).expect("few");
            let one = |place: i64| (1..=10).contains(&place).then_some(place).into_iter().collect();
            let (from, to) = (
                self.0,
                match going {
                    Going::Forward(count) => clamped(self.0 + rows(count)),
                    Going::Backward(count) => clamped(self.0 - rows(count)),
                    Going::By(count) => clamped(self.0 + count),
                    Going::To(place) if place >= 0 => clamped(place),
                    Going::To(place) => clamped(11 + place),
                },
            );
            self.0 = to;
            match going {
                Going::Forward(_) => (from + 1..=to.min(10)).collect(),
                Going::Backward(_) => (to.max(1)..from).rev().collect(),
                Going::By(_) | Going::To(_) => one(to),
            }
        }
    }

    #[tokio::test]
    async fn a_cursor_goes_both_ways_as_postgresqls_does() {
        let (session, mut model) = (numbers(true), Model(0));
        let mut seed = 7_u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for step in 0..2000 {
            let rows = usize::try_from(random(13)).expect("few");
            let place = i64::try_from(random(27)).expect("few") - 13;
            let going = match random(5) {
                0 => Going::Forward(rows.max(1)),
                1 => Going::Backward(rows.max(1)),
                2 => Going::To(place),
                3 => Going::By(place),
                _ => Going::Forward(usize::MAX),
            };
            let before = model.0;
            assert_eq!(fetched(&session, going).await, model.fetch(going), "{step}: {going:?} from {before}");
        }
        assert!(session.kept.load(Ordering::Relaxed) > 0);
        session.state().cursors.clear();
        assert_eq!(session.kept.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_cursor_that_failed_or_was_cancelled_leaves_no_row_out() {
        for scrolls in [false, true] {
            let session = numbers(scrolls);
            let endless = futures::stream::pending().boxed();
            if let Some(cursor) = session.state().cursors.get_mut("c") {
                let some = std::mem::replace(&mut cursor.rows.batches, futures::stream::empty().boxed());
                cursor.rows.batches = some.take(2).chain(endless).boxed();
            }
            assert_eq!(fetched(&session, Going::Forward(2)).await, [1, 2]);
            let cancelled =
                tokio::time::timeout(std::time::Duration::from_millis(1), lent(&session).go(Going::Forward(9)));
            assert!(cancelled.await.is_err());
            assert!(lent(&session).fetch(Going::Forward(1)).await.is_err(), "what was passed is not known");
        }
    }

    #[tokio::test]
    async fn cursors_keep_no_more_than_there_is_room_for() {
        let session = numbers(true);
        session.kept.store(KEPT_BYTES_MAX_OF_ALL, Ordering::Relaxed);
        assert!(lent(&session).fetch(Going::Forward(1)).await.is_err());
        // There may be room again, but of this one's rows some were let go.
        session.kept.store(0, Ordering::Relaxed);
        assert!(lent(&session).fetch(Going::Forward(1)).await.is_err());
        session.kept.store(KEPT_BYTES_MAX_OF_ALL, Ordering::Relaxed);
        assert!(session.state().cursors.remove("c").is_some());
        assert_eq!(session.kept.load(Ordering::Relaxed), KEPT_BYTES_MAX_OF_ALL);
    }

    #[tokio::test]
    async fn a_cursor_that_keeps_nothing_goes_forward() {
        let session = numbers(false);
        assert_eq!(lent(&session).go(Going::Forward(3)).await.expect("goes"), 3);
        assert_eq!(fetched(&session, Going::Forward(4)).await, [4, 5, 6, 7]);
        assert!(lent(&session).fetch(Going::Backward(1)).await.is_err());
        assert_eq!(fetched(&session, Going::Forward(usize::MAX)).await, [8, 9, 10]);
        assert_eq!(lent(&session).go(Going::Forward(usize::MAX)).await.expect("goes"), 0);
        assert_eq!(fetched(&session, Going::Forward(1)).await, [0; 0]);
    }
}
