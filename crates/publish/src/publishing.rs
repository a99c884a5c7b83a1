//! Publishing: what is given is worked out, checked and committed.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use arrow_array::{Array, Decimal128Array, RecordBatch, cast::AsArray};
use arrow_schema::DataType;
use rollcall_lake::{
    Conformed, HQ_EPOCH, LakeError, Part, PartOutcome, SiteClock, StateView, Table, TableSchema, conform,
};
use rollcall_types::{ChainHash, HQ_SITE, Seq, SiteId, SiteNumber, TableName, Timestamp, columns, hq_identifier};

use rollcall_books::definitions::{
    AtStores, Counts, DEFINITION, Definition, PUBLICATION, Publication, definitions, publications,
};
use rollcall_registry::{HqError, Sites};

use crate::{
    changes::Changes,
    image::Image,
    publisher::Publisher,
    scheduled, shared_tables,
    tables::{
        ATTEMPTS, Class, Known, NOBODY, Outcome, Request, Rules, SITES, check_attributes, failed, publication_id,
        refresh,
    },
};

/// SQLite's tables have no more columns than 2,000 (limits.html), and staged rows one more than the
/// table.
const COLUMNS_MAX: usize = 1_900;

/// Publishes rows: works out what they change, commits that, and says so to every node and site.
/// What was begun is done to its end, though nobody may wait for it any more.
pub async fn publish(publisher: &Arc<Publisher>, request: Request) -> Result<Outcome, HqError> {
    let own = publisher.clone();
    let done = publisher.registry.tasks.spawn(async move { publish_now(&own, &request).await }).await;
    done.map_err(|error| HqError::Unavailable(error.to_string()))?
}

async fn publish_now(publisher: &Publisher, request: &Request) -> Result<Outcome, HqError> {
    let _one = publisher.tables.publishing.lock().await;
    for _ in 0..ATTEMPTS {
        publisher.registry.lake.follow().await?;
        refresh(publisher).await;
        if let Some(outcome) = try_publish(publisher, request).await? {
            return Ok(outcome);
        }
    }
    Err(HqError::Unavailable("others publish to this table all the time; try again".to_owned()))
}

/// One attempt; none if another node was faster.
async fn try_publish(publisher: &Publisher, request: &Request) -> Result<Option<Outcome>, HqError> {
    let name = &request.table;
    let before = definitions(&publisher.registry.lake.state().view()).remove(name);
    let definition = define(request, before.as_ref())?;
    shared_tables::check_names(publisher, request, before.as_ref())?;
    let table = publisher.registry.lake.table(name);
    if before.is_none() {
        check_is_not_of_sites(name, table.as_deref())?;
    }
    let schema = table.as_ref().map_or_else(
        || TableSchema::for_sites(definition.key.clone()),
        |table| table.snapshot().schema().as_ref().clone(),
    );
    let empty = Image::empty(&schema);
    let known = publisher.tables.get(name);
    let image = known.as_ref().map_or(&empty, |known| &known.image);
    if request.based_on.is_some_and(|version| version != image.version) {
        return Err(HqError::Outdated);
    }
    if let Some(version) = version_before(request, table.as_deref()) {
        return Ok(Some(nothing_more(request, version)));
    }
    let is_redefined = before.as_ref() != Some(&definition);
    // A large table takes its time; sites are served meanwhile.
    let worked_out =
        rollcall_runtime::in_place(|| WorkedOut::new(publisher, request, &definition, schema, image, is_redefined))?;
    let (previous, counts) = (image.version, worked_out.changes.counts);
    let version = Seq(previous.0 + counts.changes());
    let outcome = Outcome {
        table: name.clone(),
        version,
        previous,
        counts,
        audience: worked_out.audience,
        sites_touched: worked_out.sites_touched,
        dry_run: request.dry_run,
    };
    let now = publisher.registry.now();
    if request.dry_run || !is_redefined && counts.changes() == 0 {
        return Ok(Some(outcome));
    }
    if is_redefined {
        redefine(publisher, request, &definition, now).await?;
    }
    if !commit(publisher, request, &definition, worked_out, previous, now).await? {
        return Ok(None);
    }
    let (table, by, note_text) = (name.clone(), request.by.clone(), request.note.clone());
    note(publisher, &Publication { table, version, previous, at: now, by, note: note_text, counts }).await?;
    refresh(publisher).await;
    tracing::info!(table = %name, %version, by = request.by, ?counts, "published");
    Ok(Some(outcome))
}

/// Refuses to publish to a table that sites fill.
fn check_is_not_of_sites(name: &TableName, table: Option<&Table>) -> Result<(), HqError> {
    match table.is_some_and(|table| table.snapshot().cursors().next().is_some()) {
        true => Err(HqError::Invalid(format!("table {name} is filled by sites; HQ publishes tables of its own only"))),
        false => Ok(()),
    }
}

/// Of what was scheduled, the version that it is, if it was published already.
fn version_before(request: &Request, table: Option<&Table>) -> Option<Seq> {
    table?.snapshot().done_as(&scheduled::done_as(request.scheduled?))
}

/// What comes of a request that was published already, as this version.
fn nothing_more(request: &Request, version: Seq) -> Outcome {
    let (table, dry_run) = (request.table.clone(), request.dry_run);
    Outcome { table, version, previous: version, counts: Counts::default(), audience: 0, sites_touched: 0, dry_run }
}

/// Stores what is said of a table from now on, and of what is scheduled for it.
async fn redefine(
    publisher: &Publisher,
    request: &Request,
    definition: &Definition,
    now: Timestamp,
) -> Result<(), LakeError> {
    let (name, by) = (&request.table, request.by.as_str());
    let records = |view: &StateView| {
        let own = view.next(DEFINITION, name.as_str(), definition, now, by)?;
        // What is scheduled is for those for whom the table is.
        let next = scheduled::next_definition(view, name, definition, now, by)?;
        Ok::<_, LakeError>(([own].into_iter().chain(next).collect(), ()))
    };
    publisher.registry.lake.state().update(records).await
}

/// Commits the rows that change as a version of the table behind `previous`; false if another node
/// was faster. The table is there afterwards, whether rows change or not.
async fn commit(
    publisher: &Publisher,
    request: &Request,
    definition: &Definition,
    worked_out: WorkedOut,
    previous: Seq,
    now: Timestamp,
) -> Result<bool, HqError> {
    let table = publisher.registry.lake.table_or_create(&request.table, &definition.key).await?;
    let WorkedOut { mut conformed, changes, .. } = worked_out;
    if changes.counts.changes() == 0 {
        return Ok(true);
    }
    conformed.rows = changes.rows(previous, now)?;
    if definition.shared.is_some() {
        conformed.rows = changes.with_origin(&conformed.rows, &definition.key, now)?;
        conformed.new_columns.extend(shared_tables::new_columns(&table));
    }
    let part = Part {
        site: SiteNumber::HQ,
        site_id: SiteId::new(HQ_SITE).map_err(|error| HqError::Invalid(error.to_string()))?,
        epoch: HQ_EPOCH,
        previous,
        last: Seq(previous.0 + changes.counts.changes()),
        hash: ChainHash::default(),
        marks: Vec::new(),
        rows: conformed,
        received_at: now,
        whole: true,
    };
    let done_as = request.scheduled.map(scheduled::done_as);
    let appended = table.append_as(done_as.as_deref(), Arc::new(vec![part])).await?;
    Ok(!matches!(appended.outcomes.first(), Some(PartOutcome::Gap { .. })))
}

/// What a publication would come to.
pub(crate) struct WorkedOut {
    pub conformed: Conformed,
    pub changes: Changes,
    /// The columns that its rule names.
    pub rule_columns: Vec<String>,
    /// Sites that have the table, and for how many of them something changes.
    pub audience: usize,
    pub sites_touched: usize,
}

impl WorkedOut {
    pub(crate) fn new(
        publisher: &Publisher,
        request: &Request,
        definition: &Definition,
        schema: TableSchema,
        image: &Image,
        is_redefined: bool,
    ) -> Result<Self, HqError> {
        let key = &definition.key;
        let conformed = in_hqs_types(&request.rows, &schema, key)?;
        if definition.to != NOBODY {
            check_decimals(&conformed.rows)?;
        }
        let schema = schema.merged(&conformed.new_columns).unwrap_or(schema);
        let is_free = |name: &&String| schema.column(name).is_some() && !key.contains(name);
        if let Some(wrong) = definition.at_stores.rewritten.iter().find(|name| !is_free(name)) {
            return Err(HqError::Invalid(format!("--rewritten {wrong}: no column outside the key is called so")));
        }
        let keys = |rows: &RecordBatch| in_hqs_types(&named_only(rows, key)?, &schema, key);
        let gone = request.gone.as_ref().map(keys).transpose()?.map(|gone| gone.rows);
        let changes = Changes::new(image, &conformed.rows, gone.as_ref(), &schema, key, request.mode)?;
        if definition.to != NOBODY {
            check_width(&changes.rows)?;
        }
        if definition.shared.is_some() {
            shared_tables::check_columns(&changes.shape())?;
        }
        let roster = publisher.registry.roster.all();
        let audience = publisher.engine.audience(&definition.to, &changes.shape());
        let audience = audience.map_err(|error| HqError::Invalid(error.to_string()))?;
        check_attributes(&audience, &roster)?;
        let rule_columns = audience.row_columns();
        let rules = Arc::new(Rules::new(audience, definition.clone()));
        let known = Known::new(request.table.clone(), Image::empty(&schema), rules, None);
        let (audience, sites_touched) = touched(&known, &changes, &roster, is_redefined)?;
        Ok(Self { conformed, changes, rule_columns, audience, sites_touched })
    }
}

/// Stores what was published.
async fn note(publisher: &Publisher, publication: &Publication) -> Result<(), LakeError> {
    let Publication { at, by, .. } = publication;
    let record = |view: &StateView| view.next(PUBLICATION, &publication_id(publication), publication, *at, by);
    publisher.registry.lake.state().update(|view| Ok::<_, LakeError>((vec![record(view)?], ()))).await
}

/// Notes that sites' edits made versions of a shared table. Those of an hour with no other
/// publication between are noted as one: there may be some each second.
pub(crate) async fn note_edits(
    publisher: &Publisher,
    table: &TableName,
    previous: Seq,
    version: Seq,
    counts: Counts,
) -> Result<(), LakeError> {
    const HOUR_MICROS: i64 = 3_600_000_000;
    let now = publisher.registry.now();
    let hour = |at: Timestamp| at.as_micros().div_euclid(HOUR_MICROS);
    let record = |view: &StateView| {
        let prefix = format!("{table}/");
        let of_table = view.of_kind(PUBLICATION).filter(|record| record.id.starts_with(&prefix));
        let of_table = of_table.filter_map(|record| record.parse::<Publication>().ok());
        let newest = of_table.max_by_key(|of| (of.version, of.at));
        let goes_on = newest.filter(|of| of.by == SITES && of.version == previous && hour(of.at) == hour(now));
        let (first, before) = goes_on.map_or((previous, Counts::default()), |of| (of.previous, of.counts));
        let (table, note) = (table.clone(), "edits of sites".to_owned());
        let counts = before.and(counts);
        let publication = Publication { table, version, previous: first, at: now, by: SITES.to_owned(), note, counts };
        let id = format!("{}/{:020}/{SITES}", publication.table, first.0);
        view.next(PUBLICATION, &id, &publication, now, SITES)
    };
    publisher.registry.lake.state().update(|view| Ok::<_, LakeError>((vec![record(view)?], ()))).await
}

/// Notes what is there without a record of it, since the node that published it died before it
/// could. What was found so at the last look is; what is new may be noted in this moment.
pub async fn note_orphans(publisher: &Publisher, found: &mut BTreeMap<TableName, Seq>) -> Result<(), HqError> {
    let view = publisher.registry.lake.state().view();
    let noted = publications(&view);
    let before = std::mem::take(found);
    for (name, definition) in definitions(&view) {
        let Some(table) = publisher.registry.lake.table(&name) else { continue };
        let is_shared =
            definition.shared.is_some() || table.snapshot().schema().column(shared_tables::ORIGIN).is_some();
        let version = table.cursor(SiteNumber::HQ, HQ_EPOCH).unwrap_or_default().seq;
        let newest = noted.iter().filter(|known| known.table == name).map(|known| known.version).max();
        let previous = newest.unwrap_or_default();
        if version > previous {
            found.insert(name.clone(), version);
        }
        if version > previous && before.get(&name) == Some(&version) {
            let (by, note_text) = match is_shared {
                true => (SITES, "edits of sites"),
                false => ("unknown", "the node that published this stopped before it could say who asked for it"),
            };
            let counts = Counts::default();
            let (at, by, note_text) = (publisher.registry.now(), by.to_owned(), note_text.to_owned());
            note(publisher, &Publication { table: name, version, previous, at, by, note: note_text, counts }).await?;
        }
    }
    Ok(())
}

fn define(request: &Request, before: Option<&Definition>) -> Result<Definition, HqError> {
    let name = &request.table;
    let kept = [("rollcall.", "Rollcall"), ("_", "Rollcall"), ("sqlite_", "SQLite")];
    let is_kept = |(prefix, _): &&(&str, &str)| before.is_none() && name.as_str().starts_with(prefix);
    if let Some((prefix, owner)) = kept.iter().find(is_kept) {
        return Err(HqError::Invalid(format!(
            "{name}: names that begin with {prefix} are {owner}'s own; choose another"
        )));
    }
    let key: Vec<String> = request.key.iter().map(|column| hq_identifier(column)).collect();
    match before {
        Some(known) if !key.is_empty() && key != known.key => Err(HqError::Invalid(format!(
            "the key of {name} is ({}); a table with another key needs another name",
            known.key.join(", ")
        ))),
        Some(known) => Ok(Definition {
            key: known.key.clone(),
            to: request.to.clone().unwrap_or_else(|| known.to.clone()),
            mends: request.mends.unwrap_or(known.mends),
            restated: known.restated,
            shared: request.shared.unwrap_or(known.shared),
            at_stores: known.at_stores.changed(&request.at_stores),
        }),
        None if key.is_empty() => Err(HqError::Invalid(format!(
            "{name} was never published: say with --key which columns name a row, and with --to which sites get which rows"
        ))),
        None => Ok(Definition {
            key,
            to: request.to.clone().unwrap_or_else(|| "true".to_owned()),
            mends: request.mends.unwrap_or(true),
            restated: 0,
            shared: request.shared.flatten(),
            at_stores: AtStores::default().changed(&request.at_stores),
        }),
    }
}

/// Rows as given, in the table's types and under its names.
fn in_hqs_types(rows: &RecordBatch, schema: &TableSchema, key: &[String]) -> Result<Conformed, HqError> {
    if rows.num_columns() == 0 {
        return Ok(Conformed::empty());
    }
    let key_text = serde_json::to_string(key).unwrap_or_default();
    let metadata = HashMap::from([(columns::METADATA_KEY.to_owned(), key_text)]);
    let given = rows.schema().as_ref().clone().with_metadata(metadata);
    let rows = RecordBatch::try_new(Arc::new(given), rows.columns().to_vec()).map_err(failed)?;
    let conformed =
        conform(&rows, schema, SiteClock::default()).map_err(|error| HqError::Invalid(error.to_string()))?;
    let width = schema.columns.len() + conformed.new_columns.len();
    if width > COLUMNS_MAX && !conformed.new_columns.is_empty() {
        let text = format!("the table would have {width} columns; a store's database takes {COLUMNS_MAX}");
        return Err(HqError::Invalid(text));
    }
    if let Some(column) = conformed.new_columns.iter().find(|column| column.name.starts_with('_')) {
        let text = format!("a column cannot be called {}: names that begin with _ are Rollcall's own", column.name);
        return Err(HqError::Invalid(text));
    }
    if let Some(reason) = conformed.unidentified {
        return Err(HqError::Invalid(reason));
    }
    if conformed.misfits > 0 {
        let text = format!("{} rows have values that the table's types cannot hold", conformed.misfits);
        return Err(HqError::Invalid(text));
    }
    Ok(conformed)
}

/// Of rows as given, the columns with these names at HQ.
fn named_only(rows: &RecordBatch, names: &[String]) -> Result<RecordBatch, HqError> {
    let is_named = |place: &usize| names.contains(&hq_identifier(rows.schema_ref().field(*place).name()));
    let places: Vec<usize> = (0..rows.num_columns()).filter(is_named).collect();
    rows.project(&places).map_err(failed)
}

/// Refuses numbers that SQLite would round, or take for one another: it keeps decimals as floats
/// (datatype3.html, 3.1).
fn check_decimals(rows: &RecordBatch) -> Result<(), HqError> {
    const EXACT: u128 = 10_u128.pow(15);
    for (field, array) in rows.schema_ref().fields().iter().zip(rows.columns()) {
        let DataType::Decimal128(_, scale) = field.data_type() else { continue };
        let most = if *scale == 0 { i64::MAX as u128 } else { EXACT - 1 };
        let numbers: &Decimal128Array = array.as_primitive();
        let wide = (0..numbers.len()).find(|row| numbers.is_valid(*row) && numbers.value(*row).unsigned_abs() > most);
        if let Some(row) = wide {
            return Err(HqError::Invalid(format!(
                "row {}: {} is {}, which a store's database cannot hold exactly (15 digits, or whole numbers of 63 bits); \
                 publish it as text",
                row + 1,
                field.name(),
                numbers.value_as_string(row)
            )));
        }
    }
    Ok(())
}

/// Refuses rows that could not be sent to sites.
fn check_width(rows: &RecordBatch) -> Result<(), HqError> {
    match shared_tables::too_wide(rows)?.iter().position(|wide| *wide) {
        Some(row) => Err(HqError::Invalid(format!(
            "row {} of those that change is wider than {} bytes; publish where it is to be found instead",
            row + 1,
            shared_tables::ROW_BYTES_MAX
        ))),
        None => Ok(()),
    }
}

/// How many sites have the table, and for how many something changes.
fn touched(known: &Known, changes: &Changes, roster: &Sites, is_redefined: bool) -> Result<(usize, usize), HqError> {
    let mut by_class: HashMap<u64, (Arc<Class>, usize)> = HashMap::new();
    for (site, record) in roster.iter().filter(|(_, record)| record.retired.is_none()) {
        let class = known.class_of(site, record)?;
        by_class.entry(class.tag).or_insert_with(|| (class, 0)).1 += 1;
    }
    let (mut audience, mut touched) = (0, 0);
    for (class, sites) in by_class.into_values().filter(|(class, _)| !class.rule.is_nobody()) {
        audience += sites;
        // Worked out in any case: a rule that fails is refused now, and not when the sites ask for
        // their rows.
        let comes = class.rule.mask(&changes.rows).map_err(HqError::query)?.true_count() > 0;
        let goes = class.rule.mask(&changes.before).map_err(HqError::query)?.true_count() > 0;
        let changes_it = is_redefined || comes || goes;
        touched += if changes_it { sites } else { 0 };
    }
    Ok((audience, touched))
}
