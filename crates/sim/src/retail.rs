//! Retail rows with the cardinalities of a real retailer: some thousand articles, prices with
//! pence, few customers known.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, Decimal128Array, Int64Array, RecordBatch, StringArray, UInt8Array,
    builder::{Int64Builder, StringBuilder},
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use rollcall_types::{calendar::civil, columns};

/// Articles sold.
const ARTICLES: usize = 4000;
/// Customers known by number.
const CUSTOMERS: i64 = 4300;

const WORDS: [&str; 24] = [
    "WHITE",
    "RED",
    "VINTAGE",
    "HEART",
    "HANGING",
    "T-LIGHT",
    "HOLDER",
    "SET",
    "OF",
    "SIX",
    "PAPER",
    "CHAIN",
    "KIT",
    "RETROSPOT",
    "LUNCH",
    "BAG",
    "CAKE",
    "STAND",
    "REGENCY",
    "PARTY",
    "BUNTING",
    "JUMBO",
    "STORAGE",
    "BOX",
];

/// One article.
#[derive(Debug, Clone)]
pub(crate) struct Article {
    pub(crate) sku: String,
    pub(crate) description: String,
    /// Pence.
    pub(crate) price: i64,
}

/// The articles every store sells.
pub(crate) fn articles() -> Vec<Article> {
    let mut random = SmallRng::seed_from_u64(2011);
    (0..ARTICLES)
        .map(|number| {
            let words: Vec<&str> = (0..random.random_range(3..6)).map(|_| WORDS[random.random_range(0..24)]).collect();
            Article {
                sku: format!("{}{}", 20_000 + number, ["", "A", "B"][number % 3]),
                description: words.join(" "),
                price: random.random_range(42..1995),
            }
        })
        .collect()
}

/// Picks an article; a few sell most.
pub(crate) fn pick<'a>(articles: &'a [Article], random: &mut impl Rng) -> &'a Article {
    let skewed = random.random::<f64>().powi(3);
    &articles[((skewed * articles.len() as f64) as usize).min(articles.len() - 1)]
}

/// Makes batches of sales as an agent would send them.
pub(crate) struct SalesGenerator {
    articles: Arc<Vec<Article>>,
    random: SmallRng,
    schema: SchemaRef,
    next_id: i64,
}

impl SalesGenerator {
    pub(crate) fn new(articles: Arc<Vec<Article>>, seed: u64) -> Self {
        let own = |name: &str, declared: &str, kind: DataType| {
            Field::new(name, kind, true)
                .with_metadata([(columns::METADATA_DECLARED.to_owned(), declared.to_owned())].into())
        };
        let fields = vec![
            Field::new(columns::SEQ, DataType::Int64, false),
            Field::new(columns::OP, DataType::UInt8, false),
            Field::new(columns::CHANGED_AT, DataType::Int64, true),
            own("id", "INTEGER", DataType::Int64),
            own("invoice", "INTEGER", DataType::Int64),
            own("sku", "TEXT", DataType::Utf8),
            own("description", "TEXT", DataType::Utf8),
            own("qty", "INTEGER", DataType::Int64),
            own("price", "DECIMAL(10,2)", DataType::Decimal128(10, 2)),
            own("customer", "INTEGER", DataType::Int64),
            own("sold_at", "DATETIME", DataType::Utf8),
        ];
        let metadata = [(columns::METADATA_KEY.to_owned(), r#"["id"]"#.to_owned())].into();
        let schema = Arc::new(Schema::new_with_metadata(fields, metadata));
        Self { articles, random: SmallRng::seed_from_u64(seed), schema, next_id: 1 }
    }

    /// `rows` sales with positions behind `after`, at `now_micros`.
    pub(crate) fn batch(&mut self, after: u64, rows: usize, now_micros: i64) -> anyhow::Result<RecordBatch> {
        let first_id = self.next_id;
        self.next_id += rows as i64;
        let (mut invoices, mut quantities, mut prices) =
            (Vec::with_capacity(rows), Vec::with_capacity(rows), Vec::with_capacity(rows));
        let mut skus = StringBuilder::with_capacity(rows, rows * 6);
        let mut descriptions = StringBuilder::with_capacity(rows, rows * 27);
        let mut customers = Int64Builder::with_capacity(rows);
        let mut times = StringBuilder::with_capacity(rows, rows * 19);
        let mut invoice = 536_365 + first_id / 20;
        let mut customer = None;
        for row in 0..rows {
            if row % 20 == 0 {
                invoice += 1;
                customer = self.random.random_bool(0.75).then(|| self.random.random_range(12_346..12_346 + CUSTOMERS));
            }
            let article = pick(&self.articles, &mut self.random);
            invoices.push(invoice);
            skus.append_value(&article.sku);
            descriptions.append_value(&article.description);
            quantities.push(self.random.random_range(1..25_i64));
            prices.push(i128::from(article.price));
            customers.append_option(customer);
            append_time(&mut times, now_micros / 1_000_000 + row as i64 / 20);
        }
        let changed = now_micros;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values((after as i64 + 1)..=(after as i64 + rows as i64))),
            Arc::new(UInt8Array::from(vec![b'I'; rows])),
            Arc::new(Int64Array::from_iter_values((0..rows as i64).map(|row| changed + row * 1000))),
            Arc::new(Int64Array::from_iter_values(first_id..first_id + rows as i64)),
            Arc::new(Int64Array::from(invoices)),
            Arc::new(skus.finish()),
            Arc::new(descriptions.finish()),
            Arc::new(Int64Array::from(quantities)),
            Arc::new(Decimal128Array::from(prices).with_precision_and_scale(10, 2)?),
            Arc::new(customers.finish()),
            Arc::new(times.finish()) as Arc<StringArray>,
        ];
        Ok(RecordBatch::try_new(self.schema.clone(), columns)?)
    }
}

/// `YYYY-MM-DD HH:MM:SS` of a Unix time, as a till writes it.
fn append_time(times: &mut StringBuilder, seconds: i64) {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let mut text = *b"0000-00-00 00:00:00";
    let mut put = |at: usize, width: usize, mut number: i64| {
        for index in (at..at + width).rev() {
            text[index] = b'0' + (number % 10) as u8;
            number /= 10;
        }
    };
    put(0, 4, year);
    put(5, 2, month);
    put(8, 2, day);
    put(11, 2, second / 3600);
    put(14, 2, second / 60 % 60);
    put(17, 2, second % 60);
    times.append_value(std::str::from_utf8(&text).unwrap_or_default());
}
