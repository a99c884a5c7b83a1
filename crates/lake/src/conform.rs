//! A site's rows in the types HQ decided for the table.
//!
//! A column's type is decided once, from the first site that sends it. Another store's values are cast where the cast
//! loses nothing; a value it would change goes to the row's misfit object instead. Local times become UTC by the site's
//! zone, with the original text kept in a column `<name>_local`.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use arrow_array::{
    Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    builder::{Date32Builder, StringBuilder, TimestampMicrosecondBuilder},
    cast::AsArray,
    types::Int64Type,
};
use arrow_cast::{
    CastOptions, cast_with_options,
    display::{ArrayFormatter, FormatOptions},
};
use arrow_schema::{DataType, Field, Schema};
use chrono::{DateTime, LocalResult, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeZone};
use chrono_tz::Tz;
use rollcall_types::{Seq, columns};
use serde_json::{Map, Value};

use crate::{
    error::{Doing, LakeError},
    schema::{Column, ColumnType, TableSchema, column_name_at_hq, our_columns},
};

/// A site's sense of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SiteClock {
    /// The site's zone: local times without an offset are in it.
    pub zone: Tz,
    /// To be added to the site's clock to get HQ's, microseconds.
    pub offset_micros: i64,
}

impl Default for SiteClock {
    fn default() -> Self {
        Self { zone: Tz::UTC, offset_micros: 0 }
    }
}

/// A load's mark within a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartMark {
    /// Which mark.
    pub kind: MarkKind,
    /// Position of the mark.
    pub seq: Seq,
    /// Position where the load began.
    pub begin: Seq,
}

/// Kinds of [`PartMark`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkKind {
    /// A load begins.
    LoadBegun,
    /// A load is complete.
    LoadComplete,
}

/// Rows in HQ's types.
#[derive(Debug, Clone)]
pub struct Conformed {
    /// `_seq`, `_op` (as sent), `_changed_at`, the site's columns under their names at HQ, and `_misfit` if any.
    pub rows: RecordBatch,
    /// Columns the table did not have yet.
    pub new_columns: Vec<Column>,
    /// The key the site declares, under the names at HQ.
    pub key: Vec<String>,
    /// How many rows have a misfit.
    pub misfits: usize,
    /// Why rows were left out, if any were: their key is null or does not fit its column, so they could not be told apart.
    pub unidentified: Option<String>,
    clock: SiteClock,
}

impl Conformed {
    /// No rows: a part that only carries marks.
    pub fn empty() -> Self {
        let rows = RecordBatch::new_empty(Arc::new(Schema::empty()));
        let clock = SiteClock::default();
        Self { rows, new_columns: Vec::new(), key: Vec::new(), misfits: 0, unidentified: None, clock }
    }
}

/// Brings a site's rows into the types of `schema`; proposes types for columns it does not have.
pub fn conform(rows: &RecordBatch, schema: &TableSchema, clock: SiteClock) -> Result<Conformed, LakeError> {
    if rows.num_columns() == 0 {
        return Ok(Conformed::empty());
    }
    let mut out = Assembled::default();
    let mut misfits = Misfits::new(rows)?;
    let mut new_columns = Vec::new();
    let key = key_of(rows)?;
    check_key(&key, &schema.key)?;
    for (field, array) in rows.schema_ref().fields().iter().zip(rows.columns()) {
        match field.name().as_str() {
            columns::SEQ | columns::OP => out.push(field.name(), array.clone()),
            columns::CHANGED_AT => out.push(field.name(), on_hqs_clock(array, clock)?),
            columns::MISFIT => {}
            site_name => {
                let name = column_name_at_hq(site_name);
                if out.has(&name) {
                    return Err(LakeError::Rows(format!("two columns of one table would be called {name:?} at HQ")));
                }
                let known = schema.column(&name).map(|column| column.kind);
                let kind = known.unwrap_or_else(|| {
                    let declared = field.metadata().get(columns::METADATA_DECLARED).map_or("", String::as_str);
                    ColumnType::propose(declared, array.data_type())
                });
                let converted = convert(array, kind, clock.zone)?;
                misfits.note_lost(site_name, array, &converted.array)?;
                if known.is_none() {
                    let site_name = (site_name != name).then(|| site_name.to_owned());
                    new_columns.push(Column { name: name.clone(), kind, site_name });
                }
                let local_name = format!("{name}_local");
                let is_free =
                    rows.schema_ref().fields().iter().all(|other| column_name_at_hq(other.name()) != local_name)
                        && schema.column(&local_name).is_none_or(|known| known.kind == ColumnType::String);
                // A column of the store's own goes first; then the local text is not kept.
                if let Some(local) = converted.local.filter(|_| is_free) {
                    if schema.column(&local_name).is_none() {
                        new_columns.push(Column::new(&local_name, ColumnType::String));
                    }
                    out.push(&local_name, local);
                }
                out.push(&name, converted.array);
            }
        }
    }
    let count = misfits.count();
    if let Some(array) = misfits.finish() {
        out.push(our_columns::MISFIT, array);
    }
    let (rows, unidentified) = identified(out.finish()?, if key.is_empty() { &schema.key } else { &key })?;
    Ok(Conformed { rows, new_columns, key, misfits: count, unidentified, clock })
}

/// Refuses a site's key where the table has another one.
pub(crate) fn check_key(of_site: &[String], of_table: &[String]) -> Result<(), LakeError> {
    if of_site.is_empty() || of_table.is_empty() || of_site == of_table {
        return Ok(());
    }
    Err(LakeError::Rows(format!(
        "the site's key is {of_site:?}, the table's at HQ {of_table:?}: rows could not be told apart; sites that \
         fill one table must have the same key for it"
    )))
}

/// The rows that have a key, and what is to be said of the others. Null stands for all values that do not fit: an update of one
/// such row would hide all of them.
fn identified(rows: RecordBatch, key: &[String]) -> Result<(RecordBatch, Option<String>), LakeError> {
    let is_null = |name: &String| rows.column_by_name(name).is_none_or(|column| column.null_count() > 0);
    let flawed: Vec<&String> = key.iter().filter(|name| is_null(name)).collect();
    if flawed.is_empty() || rows.num_rows() == 0 {
        return Ok((rows, None));
    }
    let has_key =
        |row: &usize| flawed.iter().all(|name| rows.column_by_name(name).is_some_and(|column| column.is_valid(*row)));
    let kept: BooleanArray = (0..rows.num_rows()).map(|row| Some(has_key(&row))).collect();
    let lost = kept.false_count();
    let kept = arrow_select::filter::filter_record_batch(&rows, &kept).doing("leaving out rows without a key")?;
    let reason = format!(
        "{lost} of {} rows could not be told apart: in the key ({}) they have null or a value that does not fit its type",
        rows.num_rows(),
        flawed.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ")
    );
    Ok((kept, Some(reason)))
}

/// Brings rows conformed to an older schema into the types of `schema`, where a column's type was decided otherwise
/// between the two: only two stores that send a new column at the same time get here.
pub(crate) fn recast<'a>(
    rows: &'a RecordBatch,
    part: &Conformed,
    schema: &TableSchema,
) -> Result<Cow<'a, RecordBatch>, LakeError> {
    let differs = part
        .new_columns
        .iter()
        .any(|column| schema.column(&column.name).is_some_and(|known| known.kind != column.kind));
    if !differs {
        return Ok(Cow::Borrowed(rows));
    }
    let again = conform(rows, schema, part.clock)?;
    match again.unidentified {
        // They go to quarantine when the site sends them again, since the table's types are known by then.
        Some(reason) => Err(LakeError::Rows(reason)),
        None => Ok(Cow::Owned(again.rows)),
    }
}

fn key_of(rows: &RecordBatch) -> Result<Vec<String>, LakeError> {
    let Some(text) = rows.schema_ref().metadata().get(columns::METADATA_KEY) else { return Ok(Vec::new()) };
    let names: Vec<String> = serde_json::from_str(text).map_err(|error| LakeError::Rows(error.to_string()))?;
    Ok(names.iter().map(|name| column_name_at_hq(name)).collect())
}

fn on_hqs_clock(array: &ArrayRef, clock: SiteClock) -> Result<ArrayRef, LakeError> {
    if matches!(array.data_type(), DataType::Timestamp(..)) {
        return Ok(array.clone());
    }
    let doing = "reading times of changes";
    let micros = arrow_cast::cast(array, &DataType::Int64).doing(doing)?;
    let shifted: Int64Array =
        micros.as_primitive::<Int64Type>().unary(|micros| micros.saturating_add(clock.offset_micros));
    let times = TimestampMicrosecondArray::new(shifted.values().clone(), shifted.nulls().cloned());
    Ok(Arc::new(times.with_timezone("UTC")))
}

struct Converted {
    array: ArrayRef,
    /// The original text of local times.
    local: Option<ArrayRef>,
}

fn convert(array: &ArrayRef, kind: ColumnType, zone: Tz) -> Result<Converted, LakeError> {
    let target = kind.arrow();
    if *array.data_type() == target {
        return Ok(Converted { array: array.clone(), local: None });
    }
    match (array.data_type(), kind) {
        (DataType::Utf8, ColumnType::Timestamp) => Ok(parse_times(array.as_string(), zone)),
        (DataType::Utf8, ColumnType::Date) => {
            let mut builder = Date32Builder::with_capacity(array.len());
            let epoch = NaiveDate::default();
            for text in array.as_string::<i32>() {
                let day = text.and_then(|text| NaiveDate::parse_from_str(text.trim(), "%Y-%m-%d").ok());
                builder.append_option(day.and_then(|day| i32::try_from((day - epoch).num_days()).ok()));
            }
            Ok(Converted { array: Arc::new(builder.finish()), local: None })
        }
        // A number is no text of a time, but it may be one since 1970; as a bare cast it would be taken for microseconds.
        (DataType::Int64, ColumnType::Timestamp) => {
            let micros = array.as_primitive::<Int64Type>().iter().map(|number| number.and_then(epoch_micros));
            let times: TimestampMicrosecondArray = micros.collect();
            Ok(Converted { array: Arc::new(times.with_timezone("UTC")), local: None })
        }
        (DataType::Timestamp(..), ColumnType::Long | ColumnType::Integer) | (_, ColumnType::Date) => {
            Ok(Converted { array: arrow_array::new_null_array(&target, array.len()), local: None })
        }
        (from, _) if arrow_cast::can_cast_types(from, &target) => {
            Ok(Converted { array: cast_exactly(array, &target)?, local: None })
        }
        // No cast at all: every value is a misfit.
        _ => Ok(Converted { array: arrow_array::new_null_array(&target, array.len()), local: None }),
    }
}

/// Casts, and nulls what does not come back the same when cast back.
fn cast_exactly(array: &ArrayRef, target: &DataType) -> Result<ArrayRef, LakeError> {
    let doing = "casting a column";
    let options = CastOptions { safe: true, ..CastOptions::default() };
    let there = cast_with_options(array, target, &options).doing(doing)?;
    let back = cast_with_options(&there, array.data_type(), &options).doing(doing)?;
    let changed = arrow_ord::cmp::distinct(array, &back).doing(doing)?;
    if changed.true_count() == 0 {
        return Ok(there);
    }
    arrow_select::nullif::nullif(&there, &changed).doing(doing)
}

/// Texts of times as instants; texts without an offset are local and kept.
fn parse_times(texts: &StringArray, zone: Tz) -> Converted {
    let mut instants = TimestampMicrosecondBuilder::with_capacity(texts.len());
    let mut locals = StringBuilder::new();
    let mut any_local = false;
    let mut zone = ZoneOffsets::new(zone);
    for text in texts {
        let parsed = text.and_then(|text| parse_time(text.trim()));
        match (text, parsed) {
            (Some(text), Some(ParsedTime::Local(local))) => {
                any_local = true;
                instants.append_value(zone.utc_micros(local));
                locals.append_value(text);
            }
            (_, Some(ParsedTime::Instant(micros))) => {
                instants.append_value(micros);
                locals.append_null();
            }
            _ => {
                instants.append_null();
                locals.append_null();
            }
        }
    }
    Converted {
        array: Arc::new(instants.finish().with_timezone("UTC")),
        local: any_local.then(|| Arc::new(locals.finish()) as ArrayRef),
    }
}

enum ParsedTime {
    Local(NaiveDateTime),
    Instant(i64),
}

/// `YYYY-MM-DD[ T]HH:MM[:SS[.f]]` with or without an offset, a day alone, or seconds or milliseconds since the Unix epoch.
fn parse_time(text: &str) -> Option<ParsedTime> {
    if let Some(local) = parse_plain(text.as_bytes()) {
        return Some(ParsedTime::Local(local));
    }
    if let Ok(instant) = DateTime::parse_from_rfc3339(&text.replacen(' ', "T", 1)) {
        return Some(ParsedTime::Instant(instant.timestamp_micros()));
    }
    if let Ok(number) = text.parse::<i64>() {
        return epoch_micros(number).map(ParsedTime::Instant);
    }
    None
}

/// Seconds (9 or 10 digits) or milliseconds (12 or 13) since the Unix epoch, as microseconds. A number of another length is
/// more likely a date without dashes, and no guess is made.
fn epoch_micros(number: i64) -> Option<i64> {
    match number {
        100_000_000..=9_999_999_999 => Some(number * 1_000_000),
        100_000_000_000..=9_999_999_999_999 => Some(number * 1000),
        _ => None,
    }
}

/// The plain local form, by hand: it is on the path of every row.
fn parse_plain(text: &[u8]) -> Option<NaiveDateTime> {
    let number = |from: usize, to: usize| {
        text.get(from..to)?
            .iter()
            .try_fold(0_u32, |number, byte| byte.is_ascii_digit().then(|| number * 10 + u32::from(byte - b'0')))
    };
    let is = |at: usize, byte: u8| text.get(at) == Some(&byte);
    if !(is(4, b'-') && is(7, b'-')) {
        return None;
    }
    let date = NaiveDate::from_ymd_opt(i32::try_from(number(0, 4)?).ok()?, number(5, 7)?, number(8, 10)?)?;
    if text.len() == 10 {
        return Some(date.and_time(NaiveTime::MIN));
    }
    if !((is(10, b' ') || is(10, b'T')) && is(13, b':')) {
        return None;
    }
    let (hour, minute) = (number(11, 13)?, number(14, 16)?);
    if text.len() == 16 {
        return date.and_hms_opt(hour, minute, 0);
    }
    let second = is(16, b':').then(|| number(17, 19))??;
    let fraction = &text[19..];
    if fraction.is_empty() {
        return date.and_hms_opt(hour, minute, second);
    }
    if fraction[0] != b'.' || fraction.len() < 2 || fraction.len() > 10 {
        return None;
    }
    let mut micros = 0;
    for index in 1..=6 {
        let digit = fraction.get(index).copied().unwrap_or(b'0');
        if !digit.is_ascii_digit() {
            return None;
        }
        micros = micros * 10 + u32::from(digit - b'0');
    }
    fraction[1..].iter().all(u8::is_ascii_digit).then(|| date.and_hms_micro_opt(hour, minute, second, micros))?
}

/// A zone's offsets, remembered for the last local hour: rows of one batch are mostly from the same one.
struct ZoneOffsets {
    zone: Tz,
    hour: i64,
    offset_seconds: i64,
    certain: bool,
}

impl ZoneOffsets {
    fn new(zone: Tz) -> Self {
        Self { zone, hour: i64::MIN, offset_seconds: 0, certain: false }
    }

    /// A time that comes twice (clocks set back) is taken as the earlier; one that never comes (set forward) as if the
    /// clock had not been set.
    fn utc_micros(&mut self, local: NaiveDateTime) -> i64 {
        let naive = local.and_utc();
        let hour = naive.timestamp().div_euclid(3600);
        if !(self.certain && hour == self.hour) {
            let offset = |time: DateTime<Tz>| i64::from(time.offset().fix().local_minus_utc());
            let (seconds, certain) = match self.zone.from_local_datetime(&local) {
                LocalResult::Single(time) => (offset(time), true),
                LocalResult::Ambiguous(early, _) => (offset(early), false),
                LocalResult::None => {
                    let before = local - chrono::Duration::hours(3);
                    (self.zone.from_local_datetime(&before).earliest().map_or(0, offset), false)
                }
            };
            // Zones change on odd minutes too: trust the hour only if both its ends agree.
            let start = local - chrono::Duration::seconds(naive.timestamp().rem_euclid(3600));
            let ends = [start, start + chrono::Duration::minutes(59)];
            let steady = ends.iter().all(|end| {
                matches!(self.zone.from_local_datetime(end), LocalResult::Single(time) if offset(time) == seconds)
            });
            (self.hour, self.offset_seconds, self.certain) = (hour, seconds, certain && steady);
        }
        naive.timestamp_micros() - self.offset_seconds * 1_000_000
    }
}

/// Collects what does not fit, per row, on top of what the site itself could not fit.
struct Misfits {
    rows: HashMap<usize, Map<String, Value>>,
    len: usize,
}

impl Misfits {
    fn new(batch: &RecordBatch) -> Result<Self, LakeError> {
        let mut rows = HashMap::new();
        if let Some(column) = batch.column_by_name(columns::MISFIT) {
            let doing = "reading misfits";
            let texts = arrow_cast::cast(column, &DataType::Utf8).doing(doing)?;
            for (row, text) in texts.as_string::<i32>().iter().enumerate() {
                if let Some(text) = text {
                    let object = serde_json::from_str(text)
                        .unwrap_or_else(|_| Map::from_iter([("_misfit".to_owned(), Value::from(text))]));
                    rows.insert(row, object);
                }
            }
        }
        Ok(Self { rows, len: batch.num_rows() })
    }

    /// Notes every value that is there before and null after.
    fn note_lost(&mut self, name: &str, before: &ArrayRef, after: &ArrayRef) -> Result<(), LakeError> {
        if after.null_count() == before.null_count() {
            return Ok(());
        }
        let options = FormatOptions::default();
        let formatter = ArrayFormatter::try_new(before, &options).doing("reading a misfit")?;
        for row in 0..before.len() {
            if before.is_valid(row) && after.is_null(row) {
                let value = Value::from(formatter.value(row).to_string());
                self.rows.entry(row).or_default().insert(name.to_owned(), value);
            }
        }
        Ok(())
    }

    fn count(&self) -> usize {
        self.rows.len()
    }

    fn finish(mut self) -> Option<ArrayRef> {
        if self.rows.is_empty() {
            return None;
        }
        let texts = (0..self.len).map(|row| self.rows.remove(&row).map(|object| Value::Object(object).to_string()));
        Some(Arc::new(texts.collect::<StringArray>()))
    }
}

#[derive(Default)]
struct Assembled {
    fields: Vec<Field>,
    arrays: Vec<ArrayRef>,
}

impl Assembled {
    fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|field| field.name() == name)
    }

    fn push(&mut self, name: &str, array: ArrayRef) {
        self.fields.push(Field::new(name, array.data_type().clone(), true));
        self.arrays.push(array);
    }

    fn finish(self) -> Result<RecordBatch, LakeError> {
        RecordBatch::try_new(Arc::new(Schema::new(self.fields)), self.arrays).doing("conforming rows")
    }
}
