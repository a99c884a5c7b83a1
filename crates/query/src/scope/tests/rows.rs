//! Rows for random plans: two tables that sites send, and a plan's scans turned to the one or the
//! other set of them.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{ArrayRef, Int64Array, StringArray, StringViewArray, TimestampMicrosecondArray},
        datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
        record_batch::RecordBatch,
        util::display::{ArrayFormatter, FormatOptions},
    },
    common::{Result, tree_node::Transformed},
    datasource::{MemTable, TableProvider, provider_as_source},
    execution::object_store::ObjectStoreUrl,
    logical_expr::LogicalPlan,
    physical_plan::collect,
};
use rand::{Rng, rngs::StdRng, seq::IndexedRandom};
use rollcall_types::{SiteId, TableName};

use super::{
    super::{Scope, site_table},
    Session,
};
use crate::scan::FilesTable;

pub(super) const SITES: usize = 4;
pub(super) const TABLES: [&str; 2] = ["sales", "returns"];
/// Texts that joins meet: ids of sites, attributes, and what is neither.
pub(super) const TEXTS: [&str; 6] = ["s0", "s1", "s2", "s3", "WA", "a"];
pub(super) const STATES: [Option<&str>; SITES] = [Some("WA"), Some("WA"), Some("OR"), None];
pub(super) const HOUR_MICROS: i64 = 3_600_000_000;

pub(super) fn site_ids() -> Vec<SiteId> {
    (0..SITES).map(|site| SiteId::new(&format!("s{site}")).expect("valid")).collect()
}

pub(super) fn utc() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn schema() -> SchemaRef {
    let fields = vec![
        Field::new("_site", DataType::Utf8View, false),
        Field::new("sku", DataType::Utf8View, true),
        Field::new("qty", DataType::Int64, true),
        Field::new("sold_at", utc(), true),
    ];
    Arc::new(Schema::new(fields))
}

/// The table as the product scans it, without a file.
pub(super) fn scanned(table: &str) -> Arc<dyn TableProvider> {
    let url = ObjectStoreUrl::parse("lake://hq").expect("valid");
    let name = TableName::new(table).expect("valid");
    Arc::new(FilesTable::new(&schema(), table.to_owned(), Vec::new(), url).of_sites(Some(name), None))
}

pub(super) fn roster() -> Arc<dyn TableProvider> {
    let fields = ["id", "state"].map(|name| Field::new(name, DataType::Utf8, true)).to_vec();
    let schema = Arc::new(Schema::new(fields));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values((0..SITES).map(|site| format!("s{site}")))),
        Arc::new(StringArray::from_iter(STATES)),
    ];
    let rows = RecordBatch::try_new(schema.clone(), columns).expect("columns match");
    Arc::new(MemTable::try_new(schema, vec![vec![rows]]).expect("a table"))
}

/// A row of a site's table.
#[derive(Debug, Clone)]
pub(super) struct Row {
    site: usize,
    sku: Option<&'static str>,
    qty: Option<i64>,
    at: Option<i64>,
}

/// The rows of each table.
pub(super) type World = [Vec<Row>; 2];

/// A time that rows happen at, and that literals name: some hours around `about`.
pub(super) fn time(random: &mut StdRng, about: i64) -> i64 {
    let hours = if random.random_bool(0.6) { random.random_range(-15..16) } else { random.random_range(-30..54) };
    let part = *[0, 0, 0, HOUR_MICROS / 2, 1, -1].choose(random).expect("some");
    about + hours * HOUR_MICROS + part
}

/// Rows drawn at random; null in one of `nulls_in` values.
pub(super) fn draw(random: &mut StdRng, about: i64, nulls_in: u32) -> World {
    [(); 2].map(|()| {
        let mut rows = Vec::new();
        for site in 0..SITES {
            for _ in 0..random.random_range(0..5) {
                let mut known = || !random.random_ratio(1, nulls_in);
                let known = (known(), known(), known());
                rows.push(Row {
                    site,
                    sku: TEXTS.choose(random).copied().filter(|_| known.0),
                    qty: Some(random.random_range(0..4)).filter(|_| known.1),
                    at: Some(time(random, about)).filter(|_| known.2),
                });
            }
        }
        rows
    })
}

/// Whether a scope says that the row could change the answer. It says nothing of rows without a
/// time.
fn matters(scope: &Scope, table: &str, row: &Row) -> bool {
    scope.scans.iter().filter(|scan| scan.table.as_str() == table && scan.sites[row.site]).any(|scan| {
        row.at.is_none_or(|at| {
            scan.from.is_none_or(|from| from.as_micros() <= at) && scan.until.is_none_or(|until| at < until.as_micros())
        })
    })
}

/// The rows of `base` that matter, and those of `other` that do not.
pub(super) fn with_others(base: &World, other: &World, scope: &Scope) -> World {
    let of_table = |index: usize| {
        let kept = base[index].iter().filter(|row| matters(scope, TABLES[index], row));
        let added = other[index].iter().filter(|row| !matters(scope, TABLES[index], row));
        kept.chain(added).cloned().collect()
    };
    [of_table(0), of_table(1)]
}

/// The rows of `base`, those of one site replaced.
pub(super) fn with_site_of(base: &World, other: &World, site: usize) -> World {
    let of_table = |index: usize| {
        let kept = base[index].iter().filter(|row| row.site != site);
        kept.chain(other[index].iter().filter(|row| row.site == site)).cloned().collect()
    };
    [of_table(0), of_table(1)]
}

fn table_of(rows: &[Row]) -> Arc<dyn TableProvider> {
    let schema = schema();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringViewArray::from_iter_values(rows.iter().map(|row| format!("s{}", row.site)))),
        Arc::new(StringViewArray::from_iter(rows.iter().map(|row| row.sku))),
        Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.qty))),
        Arc::new(TimestampMicrosecondArray::from_iter(rows.iter().map(|row| row.at)).with_timezone("UTC")),
    ];
    let batch = RecordBatch::try_new(schema.clone(), columns).expect("columns match");
    Arc::new(MemTable::try_new(schema, vec![vec![batch]]).expect("a table"))
}

/// The answer of an optimised plan on these rows, as text, its rows in order.
pub(super) async fn answer(session: &Session, plan: &LogicalPlan, world: &World) -> Result<Vec<String>> {
    let tables = [table_of(&world[0]), table_of(&world[1])];
    let turned = plan.clone().transform_up_with_subqueries(|node| {
        let LogicalPlan::TableScan(mut scan) = node else { return Ok(Transformed::no(node)) };
        let Some(name) = site_table(&scan) else { return Ok(Transformed::no(LogicalPlan::TableScan(scan))) };
        let index = TABLES.iter().position(|table| *table == name.as_str()).expect("known");
        scan.source = provider_as_source(tables[index].clone());
        Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
    })?;
    let physical = session.state.query_planner().create_physical_plan(&turned.data, &session.state).await?;
    let batches = collect(physical, session.task.clone()).await?;
    let options = FormatOptions::default().with_null("null");
    let mut lines = Vec::new();
    for batch in batches {
        let columns: Result<Vec<_>, _> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options)).collect();
        let columns = columns?;
        for row in 0..batch.num_rows() {
            let values: Vec<String> = columns.iter().map(|column| column.value(row).to_string()).collect();
            lines.push(values.join("|"));
        }
    }
    lines.sort_unstable();
    Ok(lines)
}
