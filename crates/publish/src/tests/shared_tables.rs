use std::collections::HashMap;

use arrow_array::{ArrayRef, Int64Array, StringArray, UInt8Array};
use arrow_schema::{DataType, Field};
use rollcall_lake::{MarkKind, Part, PartMark, SiteClock, conform};
use rollcall_types::{
    ChainHash, Epoch, SiteNumber, Timestamp, columns,
    shared::{EDIT_AT, EDIT_BASE, EDIT_CHANGED, EDIT_COLUMNS, EDIT_GONE, EDIT_NUMBER, Rule},
};

use super::*;
use crate::shared_tables::{Seen, look};

/// An edit of a price at a site. Its number is its position too.
#[derive(Default)]
struct Edit {
    number: i64,
    /// The version that the editor knew.
    base: i64,
    /// Seconds since the test began.
    at: i64,
    changed: &'static str,
    gone: bool,
    sku: Option<&'static str>,
    price: i64,
}

impl Edit {
    fn rows(&self, began: Timestamp) -> RecordBatch {
        let numbers = |value: i64| Arc::new(Int64Array::from(vec![value])) as ArrayRef;
        let texts = |value: Option<&str>| Arc::new(StringArray::from(vec![value])) as ArrayRef;
        let at = began.as_micros() / 1000 + self.at * 1000;
        let ours = [
            (columns::SEQ, numbers(self.number)),
            (columns::OP, Arc::new(UInt8Array::from(vec![b'I'])) as ArrayRef),
            (columns::CHANGED_AT, numbers(at * 1000)),
        ];
        let theirs = [
            (EDIT_NUMBER, numbers(self.number)),
            (EDIT_BASE, numbers(self.base)),
            (EDIT_GONE, numbers(i64::from(self.gone))),
            (EDIT_CHANGED, texts(Some(self.changed))),
            (EDIT_AT, numbers(at)),
            (EDIT_COLUMNS, numbers(2)),
            ("sku", texts(self.sku)),
            ("price", numbers(self.price)),
        ];
        let declared = |kind: &DataType| {
            let name = if *kind == DataType::Utf8 { "TEXT" } else { "INTEGER" };
            HashMap::from([(columns::METADATA_DECLARED.to_owned(), name.to_owned())])
        };
        let field = |(name, array): &(&str, ArrayRef)| Field::new(*name, array.data_type().clone(), true);
        let of_theirs = theirs.iter().map(|of| field(of).with_metadata(declared(of.1.data_type())));
        let fields: Vec<Field> = ours.iter().map(field).chain(of_theirs).collect();
        let arrays = ours.iter().chain(&theirs).map(|(_, array)| array.clone()).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).expect("rows")
    }
}

impl Hq {
    /// An edit of a site comes into the lake.
    async fn take_edit(&self, site: &SiteId, began: Timestamp, edit: &Edit) {
        // Which one HQ hears of first matters.
        self.put_on(Duration::from_secs(1));
        let lake = &self.publisher.registry.lake;
        let key = [EDIT_NUMBER.to_owned()];
        let table = lake.table_or_create(&table("prices_edits"), &key).await.expect("a table");
        let rows = conform(&edit.rows(began), table.snapshot().schema(), SiteClock::default()).expect("conforms");
        let first = Seq(1);
        let mark = |kind| PartMark { seq: first, kind, begin: first };
        let marks =
            if edit.number == 1 { vec![mark(MarkKind::LoadBegun), mark(MarkKind::LoadComplete)] } else { vec![] };
        let part = Part {
            site: SiteNumber(self.record(site).number),
            site_id: site.clone(),
            epoch: Epoch(1),
            previous: Seq(edit.number.unsigned_abs() - 1),
            last: Seq(edit.number.unsigned_abs()),
            hash: ChainHash::default(),
            marks,
            rows,
            received_at: self.publisher.registry.now(),
            whole: false,
        };
        table.append(Arc::new(vec![part])).await.expect("appends");
    }

    /// Which edits lost, to whom, whose they are and in what.
    fn conflicts(&self) -> Vec<String> {
        let known = self.publisher.tables.get(&table("prices_conflicts")).expect("something lost");
        let rows = known.image.rows();
        let named = ["edit_site", EDIT_NUMBER, "kept", "lost", "lost_columns"];
        let column = |name: &str| (name.to_owned(), rows.column_by_name(name).expect("a column").clone());
        let mut all = texts(&RecordBatch::try_from_iter(named.map(column)).expect("rows"));
        all.sort_unstable();
        all
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sites_edits_are_decided_on_once_by_the_rule_and_what_lost_is_kept() {
    let hq = Hq::open().await;
    let tacoma = hq.list("tacoma-01", &[]).await;
    let boston = hq.list("boston-01", &[]).await;
    let shared = Request { shared: Some(Some(Rule::Latest)), ..merge("sku,price\ntea,1\nrye,2\noat,3\n") };
    hq.publish(shared).await.expect("publishes");
    let (began, mut seen) = (hq.publisher.registry.now(), Seen::default());
    hq.put_on(Duration::from_secs(1000));
    let edit = |number, at, sku, price| Edit {
        number,
        base: 3,
        at,
        changed: "price",
        sku: Some(sku),
        price,
        ..Edit::default()
    };
    // Of tea, HQ hears of the later price first; of oat, of the earlier one.
    hq.take_edit(&boston, began, &edit(1, 120, "oat", 30)).await;
    hq.take_edit(&tacoma, began, &edit(1, 200, "tea", 20)).await;
    hq.take_edit(&boston, began, &edit(2, 100, "tea", 10)).await;
    hq.take_edit(&boston, began, &Edit { gone: true, changed: "sku,price", ..edit(3, 110, "rye", 2) }).await;
    hq.take_edit(&tacoma, began, &edit(2, 210, "ice", 4)).await;
    // One that cannot be a row.
    hq.take_edit(&tacoma, began, &Edit { sku: None, ..edit(3, 220, "", 5) }).await;
    hq.take_edit(&tacoma, began, &edit(4, 230, "oat", 40)).await;
    look(&hq.publisher, &mut seen).await;
    assert_eq!(hq.rows(), ["ice 4", "oat 40", "tea 20"]);
    let lost =
        ["boston-01 2 tacoma-01 boston-01 price", "tacoma-01 3 hq tacoma-01 price", "tacoma-01 4 tacoma-01 boston-01 "];
    assert_eq!(hq.conflicts(), lost);
    let decided = |site: &SiteId| hq.prices().decided(SiteNumber(hq.record(site).number), Epoch(1));
    assert_eq!((decided(&tacoma), decided(&boston)), (4, 3));
    let version = hq.prices().image.version;
    look(&hq.publisher, &mut Seen::default()).await;
    assert_eq!(hq.prices().image.version, version, "another node that looks at all of them finds nothing to do");
    // Boston knows by now what Tacoma did.
    let known = i64::try_from(version.0).expect("fits");
    hq.take_edit(&boston, began, &Edit { base: known, ..edit(4, 130, "tea", 30) }).await;
    look(&hq.publisher, &mut seen).await;
    assert_eq!(hq.rows(), ["ice 4", "oat 40", "tea 30"], "what knows of another is later, whatever its clock says");
    assert_eq!((decided(&boston), hq.conflicts().len()), (4, 3));
}
