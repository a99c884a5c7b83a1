//! What a site fetches: the rows of a published table that are for it, behind the position it has.
//!
//! Sites that are alike and stand alike fetch the same bytes; they are made once.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, Weak},
};

use arrow_array::{BooleanArray, RecordBatch, StringArray, cast::AsArray, types::Int64Type};
use arrow_schema::{Field, Schema};
use arrow_select::{concat::concat_batches, filter::filter_record_batch};
use rollcall_lake::our_columns;
use rollcall_types::{Seq, SiteId, TableName};
use rollcall_wire::{
    FETCH_BYTES_MAX,
    proto::{FetchBegin, FetchEnd, FetchReply, FetchRequest, PublishedColumn, fetch_reply::Message as Fetched},
    published::encode,
};

use rollcall_registry::HqError;

use crate::{
    image,
    publisher::Publisher,
    tables::{Class, Known, failed},
};

/// What was made for a class and a position.
pub(crate) type Made = Arc<Vec<FetchReply>>;

/// What was made of one version of a table.
#[derive(Debug, Default)]
pub(crate) struct Encoded {
    made: HashMap<(u64, Seq, bool), Made>,
    /// What is too large to be kept, while a site fetches it.
    large: HashMap<(u64, Seq, bool), Weak<Vec<FetchReply>>>,
    bytes: usize,
}

/// Bytes kept of one version of a table.
const KEPT_MAX: usize = 64 << 20;
/// Bytes of rows in one message before compression, about.
const MESSAGE_BYTES: usize = 128 * 1024;
/// Rows in one message.
const MESSAGE_ROWS: usize = 4_000;

impl Publisher {
    /// Everything a site is sent for its request.
    pub fn fetch(&self, site: &SiteId, request: &FetchRequest) -> Result<Made, HqError> {
        let no_table = || HqError::NotFound(format!("HQ does not publish table {}", request.table));
        let name = TableName::new(&request.table).map_err(|_| no_table())?;
        let known = self.tables.get(&name).ok_or_else(no_table)?;
        let record = self.registry.roster.get(site).ok_or_else(no_table)?;
        let class = known.class_of(site, &record)?;
        let after = Seq(request.after);
        let (mut after, mut whole) = match request.audience == class.tag && after <= known.image.version {
            true => (after, request.whole || after == Seq(0)),
            // Other rows are for it now, or the lake was restored from a backup.
            false => (Seq(0), true),
        };
        let is_longer = || known.image.behind(after).num_rows() > known.image.live();
        // The present state is shorter than what happened meanwhile; or which rows were for the
        // site is not known so far back, and other sites' keys are not for it.
        if after > Seq(0) && (known.image.replaced_behind(after).is_none() || !whole && is_longer()) {
            (after, whole) = (Seq(0), true);
        }
        known.made(&class, after, whole)
    }
}

impl Known {
    fn made(&self, class: &Class, after: Seq, whole: bool) -> Result<Made, HqError> {
        let key = (class.tag, after, whole);
        let kept = |known: &Self| {
            let encoded = known.encoded.lock().unwrap_or_else(PoisonError::into_inner);
            encoded.made.get(&key).cloned().or_else(|| encoded.large.get(&key)?.upgrade())
        };
        if let Some(made) = kept(self) {
            return Ok(made);
        }
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = kept(self) {
            return Ok(made);
        }
        let made = Arc::new(self.make(class, after, whole)?);
        let bytes: usize = made.iter().map(prost::Message::encoded_len).sum();
        let mut encoded = self.encoded.lock().unwrap_or_else(PoisonError::into_inner);
        if encoded.bytes + bytes > KEPT_MAX {
            *encoded = Encoded::default();
        }
        if bytes <= KEPT_MAX / 4 {
            encoded.bytes += bytes;
            encoded.made.insert(key, made.clone());
        } else {
            encoded.large.retain(|_, made| made.strong_count() > 0);
            encoded.large.insert(key, Arc::downgrade(&made));
        }
        Ok(made)
    }

    fn make(&self, class: &Class, after: Seq, whole: bool) -> Result<Vec<FetchReply>, HqError> {
        let rows = self.for_class(class, after, whole)?;
        let reply = |message| FetchReply { message: Some(message) };
        let columns = self.image.columns.iter();
        let begin = FetchBegin {
            audience: class.tag,
            after: after.0,
            whole,
            columns: columns
                .map(|column| PublishedColumn { name: column.name.clone(), r#type: column.kind.delta() })
                .collect(),
            key: self.image.key.clone(),
            rows: rows.num_rows() as u64,
            mends: self.definition().mends,
            shared: self.definition().shared.is_some(),
            keeps_referenced: self.definition().at_stores.keeps_referenced,
            rewritten: self.definition().at_stores.rewritten.clone(),
        };
        let mut replies = vec![reply(Fetched::Begin(begin))];
        let seqs = rows.column(0).as_primitive::<Int64Type>();
        let indices: Vec<usize> = (1..rows.num_columns()).collect();
        let sent = rows.project(&indices).map_err(failed)?;
        let row_bytes = sent.get_array_memory_size().div_ceil(sent.num_rows().max(1)).max(1);
        let step = (MESSAGE_BYTES / row_bytes).clamp(1, MESSAGE_ROWS);
        let mut pending: Vec<(usize, usize)> =
            (0..sent.num_rows()).step_by(step).map(|from| (from, step.min(sent.num_rows() - from))).rev().collect();
        while let Some((from, count)) = pending.pop() {
            let through = Seq(seqs.value(from + count - 1).unsigned_abs());
            match encode(&sent.slice(from, count), through) {
                Ok(rows) => replies.push(reply(Fetched::Rows(rows))),
                // Some rows are much wider than others.
                Err(_) if count > 1 => pending.extend([(from + count / 2, count - count / 2), (from, count / 2)]),
                Err(error) => {
                    let text = format!("a row of {} is wider than {FETCH_BYTES_MAX} bytes: {error}", self.name);
                    return Err(HqError::Invalid(text));
                }
            }
        }
        replies.push(reply(Fetched::End(FetchEnd {
            version: self.image.version.0,
            published_at: self.image.made_at(self.image.version).unwrap_or_default(),
        })));
        Ok(replies)
    }

    /// `_seq`, `_op` (`U` or `D`), and the columns, in the order of publication.
    fn for_class(&self, class: &Class, after: Seq, whole: bool) -> Result<RecordBatch, HqError> {
        let behind = self.image.behind(after);
        // A mask of a rule has no nulls.
        let is_for = BooleanArray::new(class.mask(&behind)?.values() & image::is_live(&behind).values(), None);
        let upserts = with_op(&filter_record_batch(&behind, &is_for).map_err(failed)?, "U")?;
        if whole && after == Seq(0) {
            return Ok(upserts);
        }
        // Rows that were for the site and are no more.
        let replaced = self.image.replaced_behind(after).ok_or(HqError::Outdated)?;
        let lost = filter_record_batch(&replaced, &class.mask(&replaced)?).map_err(failed)?;
        let keys = image::row_bytes(&lost, &self.image.key).map_err(failed)?;
        let kept = image::row_bytes(&upserts, &self.image.key).map_err(failed)?;
        let others = filter_record_batch(&lost, &image::outside(&keys, &kept)).map_err(failed)?;
        let deletes = self.only_keys(&with_op(&others, "D")?)?;
        let schema = upserts.schema();
        let both = concat_batches(&schema, &[upserts, deletes]).map_err(failed)?;
        in_order(&both)
    }
}

impl Known {
    /// What is deleted is told by its key: what else a row says may not be for the site.
    fn only_keys(&self, rows: &RecordBatch) -> Result<RecordBatch, HqError> {
        let columns =
            rows.schema_ref().fields().iter().zip(rows.columns()).enumerate().map(|(place, (field, array))| {
                let stays = place < image::OURS || self.image.key.contains(field.name());
                if stays { array.clone() } else { arrow_array::new_null_array(array.data_type(), array.len()) }
            });
        RecordBatch::try_new(rows.schema(), columns.collect()).map_err(failed)
    }
}

fn with_op(rows: &RecordBatch, op: &str) -> Result<RecordBatch, HqError> {
    let mut fields: Vec<Field> = rows.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    let mut arrays = rows.columns().to_vec();
    fields[1] = Field::new(our_columns::OP, arrow_schema::DataType::Utf8, false);
    arrays[1] = Arc::new(StringArray::from_iter_values(std::iter::repeat_n(op, rows.num_rows())));
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(failed)
}

fn in_order(rows: &RecordBatch) -> Result<RecordBatch, HqError> {
    let order = arrow_ord::sort::sort_to_indices(rows.column(0), None, None).map_err(failed)?;
    arrow_select::take::take_record_batch(rows, &order).map_err(failed)
}
