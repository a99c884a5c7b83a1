//! A site's rows in the types HQ decided for the table.
//!
//! A column's type is decided once, from the first site that sends it. Another store's values are
//! cast where the cast loses nothing; a value it would change goes to the row's misfit object
//! instead. Local times become UTC by the site's zone, with the original text kept in a column
//! `<name>_local`.

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
use rollcall_types::{Seq, columns, columns::at_hq as column_name_at_hq};
use serde_json::{Map, Value};

use crate::{
    error::{Doing, LakeError},
    misfit,
    schema::{Column, ColumnType, TableSchema, our_columns},
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
    /// `_seq`, `_op` (as sent), `_changed_at`, the site's columns under their names at HQ, and
    /// `_misfit` if any.
    pub rows: RecordBatch,
    /// Columns the table did not have yet.
    pub new_columns: Vec<Column>,
    /// The key the site declares, under the names at HQ.
    pub key: Vec<String>,
    /// How many rows have a misfit.
    pub misfits: usize,
    /// Why rows were left out, if any were: their key is null or does not fit its column, so they
    /// could not be told apart.
    pub unidentified: Option<String>,
    /// Rows whose key is kept as the site wrote it only because HQ reads its text as a time or a
    /// day, by `_seq`, ascending.
    read_keys: Vec<i64>,
    clock: SiteClock,
}

impl Conformed {
    /// No rows: a part that only carries marks.
    pub fn empty() -> Self {
        let rows = RecordBatch::new_empty(Arc::new(Schema::empty()));
        let clock = SiteClock::default();
        let (new_columns, key, read_keys) = (Vec::new(), Vec::new(), Vec::new());
        Self { rows, new_columns, key, misfits: 0, unidentified: None, read_keys, clock }
    }

    /// Rows of these, without the exact form of keys that HQ reads where they come before `from`:
    /// rows that are stored without it must be found by their changes.
    pub(crate) fn exact_from<'a>(
        &self,
        rows: Cow<'a, RecordBatch>,
        from: Seq,
    ) -> Result<Cow<'a, RecordBatch>, LakeError> {
        let Some(place) =
            rows.schema_ref().index_of(our_columns::EXACT_KEY).ok().filter(|_| !self.read_keys.is_empty())
        else {
            return Ok(rows);
        };
        let Some(seqs) = rows.column_by_name(columns::SEQ) else { return Ok(rows) };
        let is_without =
            |seq: i64| (from == Seq(0) || seq.unsigned_abs() < from.0) && self.read_keys.binary_search(&seq).is_ok();
        let without: BooleanArray =
            seqs.as_primitive::<Int64Type>().values().iter().map(|seq| Some(is_without(*seq))).collect();
        if without.true_count() == 0 {
            return Ok(rows);
        }
        let doing = "leaving out exact keys";
        let mut arrays = rows.columns().to_vec();
        arrays[place] = arrow_select::nullif::nullif(&arrays[place], &without).doing(doing)?;
        RecordBatch::try_new(rows.schema(), arrays).doing(doing).map(Cow::Owned)
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
    let mut kinds: HashMap<String, ColumnType> = HashMap::new();
    let key = key_of(rows)?;
    check_key(&key, &schema.key)?;
    let mut exact_keys = ExactKeys::new(rows)?;
    for (field, array) in rows.schema_ref().fields().iter().zip(rows.columns()) {
        // A column of the store's may be called like one of ours; it says how it was declared
        // there.
        let is_ours = !field.metadata().contains_key(columns::METADATA_DECLARED);
        match field.name().as_str() {
            columns::SEQ | columns::OP if is_ours => out.push(field.name(), array.clone()),
            columns::CHANGED_AT if is_ours => out.push(field.name(), on_hqs_clock(array, clock)?),
            columns::MISFIT | columns::EXACT_KEY if is_ours => {}
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
                let local_name = format!("{name}_local");
                let is_free =
                    rows.schema_ref().fields().iter().all(|other| column_name_at_hq(other.name()) != local_name)
                        && schema.column(&local_name).is_none_or(|known| known.kind == ColumnType::String);
                kinds.insert(name.clone(), kind);
                let converted = convert(array, kind, clock.zone, is_free)?;
                misfits.note_lost(site_name, array, &converted.array)?;
                if key.contains(&name) {
                    exact_keys.note(site_name, array, &converted.array, is_parsed(array.data_type(), kind));
                }
                if known.is_none() {
                    let site_name = (site_name != name).then(|| site_name.to_owned());
                    new_columns.push(Column { name: name.clone(), kind, site_name });
                }
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
    let read_keys = exact_keys.read(rows);
    if let Some(exact) = exact_keys.finish(rows)? {
        if schema.column(our_columns::EXACT_KEY).is_none() {
            new_columns.push(Column::new(our_columns::EXACT_KEY, ColumnType::String));
        }
        out.push(our_columns::EXACT_KEY, exact);
    }
    let count = misfits.count();
    if let Some(array) = misfits.finish() {
        out.push(our_columns::MISFIT, array);
    }
    // What did not fit the column that the store declares may fit the one that HQ has.
    let rows = misfit::take_in(out.finish()?, |name| kinds.get(name).copied())?;
    let (rows, unidentified) = identified(rows, if key.is_empty() { &schema.key } else { &key })?;
    Ok(Conformed { rows, new_columns, key, misfits: count, unidentified, read_keys, clock })
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

/// The rows that have a key, and what is to be said of the others. Null stands for all values that
/// do not fit: an update of one such row would hide all of them.
fn identified(rows: RecordBatch, key: &[String]) -> Result<(RecordBatch, Option<String>), LakeError> {
    let exact = rows.column_by_name(our_columns::EXACT_KEY).cloned();
    let is_null = |name: &String| rows.column_by_name(name).is_none_or(|column| column.null_count() > 0);
    let flawed: Vec<&String> = key.iter().filter(|name| is_null(name)).collect();
    if flawed.is_empty() || rows.num_rows() == 0 {
        return Ok((rows, None));
    }
    let has_key = |row: &usize| {
        exact.as_ref().is_some_and(|exact| exact.is_valid(*row))
            || flawed.iter().all(|name| rows.column_by_name(name).is_some_and(|column| column.is_valid(*row)))
    };
    let kept: BooleanArray = (0..rows.num_rows()).map(|row| Some(has_key(&row))).collect();
    let lost = kept.false_count();
    if lost == 0 {
        return Ok((rows, None));
    }
    let kept = arrow_select::filter::filter_record_batch(&rows, &kept).doing("leaving out rows without a key")?;
    let reason = format!(
        "{lost} of {} rows could not be told apart: in the key ({}) they have null, or a value too long to be sent",
        rows.num_rows(),
        flawed.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ")
    );
    Ok((kept, Some(reason)))
}

/// Brings rows conformed to an older schema into the types of `schema`, where a column's type was
/// decided otherwise between the two: two stores sent a new column at the same time, or a person
/// gave it a wider type.
pub(crate) fn recast<'a>(
    rows: &'a RecordBatch,
    part: &Conformed,
    schema: &TableSchema,
) -> Result<Cow<'a, RecordBatch>, LakeError> {
    let is_another = |field: &Arc<Field>| {
        let known = schema.column(field.name()).filter(|known| known.name != our_columns::OP);
        known.is_some_and(|known| known.kind.arrow() != *field.data_type())
    };
    if !rows.schema_ref().fields().iter().any(is_another) {
        return Ok(Cow::Borrowed(rows));
    }
    let again = conform(rows, schema, part.clock)?;
    match again.unidentified {
        // They go to quarantine when the site sends them again, since the table's types are known
        // by then.
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

/// Whether values become another kind of value by being read, so that two may come to be one.
fn is_parsed(from: &DataType, to: ColumnType) -> bool {
    matches!((from, to), (DataType::Utf8 | DataType::Int64, ColumnType::Timestamp | ColumnType::Date))
}

/// `keeps_text` says that the text of a time can be kept beside it, where the time alone is not
/// exact.
fn convert(array: &ArrayRef, kind: ColumnType, zone: Tz, keeps_text: bool) -> Result<Converted, LakeError> {
    let target = kind.arrow();
    if *array.data_type() == target {
        return Ok(Converted { array: array.clone(), local: None });
    }
    match (array.data_type(), kind) {
        (DataType::Utf8, ColumnType::Timestamp) => Ok(parse_times(array.as_string(), zone, keeps_text)),
        (DataType::Utf8, ColumnType::Date) => {
            let mut builder = Date32Builder::with_capacity(array.len());
            let epoch = NaiveDate::default();
            for text in array.as_string::<i32>() {
                let day = text.and_then(|text| NaiveDate::parse_from_str(text.trim(), "%Y-%m-%d").ok());
                builder.append_option(day.and_then(|day| i32::try_from((day - epoch).num_days()).ok()));
            }
            Ok(Converted { array: Arc::new(builder.finish()), local: None })
        }
        // A number is no text of a time, but it may be one since 1970; as a bare cast it would be
        // taken for microseconds.
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

/// Texts of times as instants; texts without an offset are local and kept, and so are those that
/// say more than an instant can: the seventh digit of a second, or spaces around it. Where no text
/// can be kept, these do not fit.
fn parse_times(texts: &StringArray, zone: Tz, keeps_text: bool) -> Converted {
    let mut instants = TimestampMicrosecondBuilder::with_capacity(texts.len());
    let mut locals = StringBuilder::new();
    let mut any_local = false;
    let mut zone = ZoneOffsets::new(zone);
    for text in texts {
        let parsed = text.and_then(|text| parse_time(text.trim()));
        let is_exact = text.is_none_or(|text| text.trim() == text && !has_finer_digits(text));
        match (text, parsed) {
            (Some(_), Some(_)) if !is_exact && !keeps_text => {
                instants.append_null();
                locals.append_null();
            }
            (Some(text), Some(ParsedTime::Local(local))) => {
                any_local = true;
                instants.append_value(zone.utc_micros(local));
                locals.append_value(text);
            }
            (text, Some(ParsedTime::Instant(micros))) => {
                any_local |= !is_exact;
                instants.append_value(micros);
                locals.append_option(text.filter(|_| !is_exact));
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

/// Whether a time has digits below a microsecond that are not zero.
fn has_finer_digits(text: &str) -> bool {
    let fraction = text.split_once('.').map_or("", |(_, fraction)| fraction);
    fraction.bytes().take_while(u8::is_ascii_digit).skip(6).any(|digit| digit != b'0')
}

enum ParsedTime {
    Local(NaiveDateTime),
    Instant(i64),
}

/// `YYYY-MM-DD[ T]HH:MM[:SS[.f]]` with or without an offset, a day alone, or seconds or
/// milliseconds since the Unix epoch.
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

/// Seconds (9 or 10 digits) or milliseconds (12 or 13) since the Unix epoch, as microseconds. A
/// number of another length is more likely a date without dashes, and no guess is made.
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

/// A zone's offsets, remembered for the last local hour: rows of one batch are mostly from the same
/// one.
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

    /// A time that comes twice (clocks set back) is taken as the earlier; one that never comes (set
    /// forward) as if the clock had not been set.
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
        if let Some(column) = our_column(batch, columns::MISFIT) {
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

/// A column of ours in a site's rows; one of the store's own that is called the same says how it
/// was declared there.
pub fn our_column<'a>(rows: &'a RecordBatch, name: &str) -> Option<&'a ArrayRef> {
    let is_ours = |field: &Field| field.name() == name && !field.metadata().contains_key(columns::METADATA_DECLARED);
    let place = rows.schema_ref().fields().iter().position(|field| is_ours(field))?;
    Some(rows.column(place))
}

/// Collects the rows whose key must be kept as the store has it, because HQ's columns alone would
/// not tell it from another.
struct ExactKeys {
    /// As the site itself says.
    said: Vec<Option<String>>,
    /// The key's columns as they were sent, by name; and the rows that are in need of an exact form
    /// by one of them.
    columns: Vec<(String, ArrayRef)>,
    needed: Vec<bool>,
    /// Those that are in need of one although every value has its place: HQ reads it as another
    /// kind of value.
    is_any_read: bool,
    lacking: Vec<bool>,
}

impl ExactKeys {
    fn new(rows: &RecordBatch) -> Result<Self, LakeError> {
        let said = match our_column(rows, columns::EXACT_KEY) {
            Some(column) => {
                let texts = arrow_cast::cast(column, &DataType::Utf8).doing("reading exact keys")?;
                texts.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
            }
            None => Vec::new(),
        };
        Ok(Self { said, columns: Vec::new(), needed: Vec::new(), is_any_read: false, lacking: Vec::new() })
    }

    /// A column of the key was converted.
    fn note(&mut self, name: &str, before: &ArrayRef, after: &ArrayRef, is_parsed: bool) {
        self.columns.push((name.to_owned(), before.clone()));
        self.is_any_read |= is_parsed;
        if is_parsed || before.null_count() != after.null_count() {
            self.needed.resize(before.len(), false);
            self.lacking.resize(before.len(), false);
            for row in 0..before.len() {
                self.needed[row] |= before.is_valid(row) && (is_parsed || after.is_null(row));
                self.lacking[row] |= before.is_valid(row) && after.is_null(row);
            }
        }
    }

    /// The rows, by `_seq`, that are in need of an exact form for nothing but being read.
    fn read(&self, rows: &RecordBatch) -> Vec<i64> {
        let Some(seqs) = our_column(rows, columns::SEQ).filter(|_| self.is_any_read) else { return Vec::new() };
        let is_read =
            |row: &usize| self.needed[*row] && !self.lacking[*row] && self.said.get(*row).is_none_or(Option::is_none);
        (0..rows.num_rows()).filter(is_read).map(|row| seqs.as_primitive::<Int64Type>().value(row)).collect()
    }

    /// The exact forms; none if no row needs one.
    fn finish(self, rows: &RecordBatch) -> Result<Option<ArrayRef>, LakeError> {
        if self.needed.is_empty() && self.said.iter().all(Option::is_none) {
            return Ok(None);
        }
        let options = FormatOptions::default();
        let formatters = self.columns.iter().map(|(_, column)| ArrayFormatter::try_new(column, &options));
        let formatters = formatters.collect::<Result<Vec<_>, _>>().doing("writing exact keys")?;
        let exact = |row: usize| {
            let said = self.said.get(row).cloned().flatten();
            let is_needed = self.needed.get(row) == Some(&true);
            if said.is_some() || !is_needed || self.columns.iter().any(|(_, column)| column.is_null(row)) {
                return said;
            }
            let values = formatters.iter().map(|formatter| Value::from(formatter.value(row).to_string()));
            Some(Value::Array(values.collect()).to_string())
        };
        let texts: StringArray = (0..rows.num_rows()).map(exact).collect();
        Ok((texts.null_count() < texts.len()).then(|| Arc::new(texts) as ArrayRef))
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
