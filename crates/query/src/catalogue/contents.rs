//! The tables that a question sees, with the numbers by which `pg_catalog` speaks of them.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::{
    arrow::datatypes::{DataType, SchemaRef},
    catalog::CatalogProviderList,
    common::Result,
};

use super::keys::Key;

/// Numbers below are PostgreSQL's own.
const FIRST_NUMBER: u32 = 16_384;
/// The number of `pg_catalog`, fixed in every PostgreSQL.
pub(crate) const PG_CATALOG: i32 = 11;
const PUBLIC: i32 = 2200;
/// The number of the role that everything belongs to.
pub(crate) const OWNER: i32 = 10;
/// Its name.
pub(crate) const OWNER_NAME: &str = "hq";

/// What PostgreSQL knows of a type of columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Type {
    pub(crate) number: i32,
    /// Bytes of a value; -1 if they differ.
    pub(crate) length: i16,
    /// What is declared of it, as a number; -1 for nothing.
    pub(crate) modifier: i32,
    pub(crate) align: &'static str,
    pub(crate) collation: i32,
}

impl Type {
    pub(crate) fn of(kind: &DataType) -> Self {
        let of = |number, length, align| Self { number, length, modifier: -1, align, collation: 0 };
        match kind {
            DataType::Boolean => of(16, 1, "c"),
            DataType::Int8 | DataType::UInt8 | DataType::Int16 => of(21, 2, "s"),
            DataType::UInt16 | DataType::Int32 => of(23, 4, "i"),
            DataType::UInt32 | DataType::Int64 | DataType::UInt64 => of(20, 8, "d"),
            DataType::Float16 | DataType::Float32 => of(700, 4, "i"),
            DataType::Float64 => of(701, 8, "d"),
            DataType::Decimal128(digits, fraction) | DataType::Decimal256(digits, fraction) => {
                let declared = (i32::from(*digits) << 16 | i32::from(*fraction)) + 4;
                Self { modifier: declared, ..of(1700, -1, "i") }
            }
            DataType::Date32 | DataType::Date64 => of(1082, 4, "i"),
            DataType::Timestamp(_, Some(_)) => of(1184, 8, "d"),
            DataType::Timestamp(_, None) => of(1114, 8, "d"),
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => of(17, -1, "i"),
            _ => Self { collation: 100, ..of(25, -1, "i") },
        }
    }

    pub(crate) fn by_value(self) -> bool {
        self.length > 0
    }
}

/// A column of a table, or of the index over its key.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub(crate) relation: i32,
    pub(crate) name: String,
    pub(crate) position: i16,
    pub(crate) kind: Type,
    pub(crate) not_null: bool,
}

/// The key of a table, and the index that PostgreSQL would have over it.
#[derive(Debug, Clone)]
pub(crate) struct Index {
    pub(crate) number: i32,
    pub(crate) constraint: i32,
    pub(crate) name: String,
    pub(crate) table: i32,
    pub(crate) table_name: String,
    pub(crate) namespace: i32,
    /// Which columns of the table, by position and name.
    pub(crate) columns: Vec<(i16, String)>,
}

/// A table or an index.
#[derive(Debug, Clone)]
pub(crate) struct Relation {
    pub(crate) number: i32,
    pub(crate) name: String,
    pub(crate) namespace: i32,
    pub(crate) schema: String,
    pub(crate) is_index: bool,
    pub(crate) columns: i16,
    pub(crate) has_index: bool,
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) schemas: BTreeMap<String, i32>,
    pub(crate) relations: Vec<Relation>,
    pub(crate) columns: Vec<Column>,
    pub(crate) indexes: Vec<Index>,
}

/// Numbers given to names: the same for a name at every node and after every start, unless two
/// names meet.
#[derive(Default)]
struct Numbers(BTreeSet<u32>);

impl Numbers {
    fn give(&mut self, kind: &str, schema: &str, name: &str) -> i32 {
        // FNV-1a of 32 bits.
        let bytes = kind.bytes().chain([0]).chain(schema.bytes()).chain([0]).chain(name.bytes());
        let hash = bytes.fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        let mut number = hash % (i32::MAX as u32 - FIRST_NUMBER) + FIRST_NUMBER;
        while !self.0.insert(number) {
            number = if number == i32::MAX as u32 { FIRST_NUMBER } else { number + 1 };
        }
        number as i32
    }
}

impl Contents {
    pub(crate) async fn gather(shown: &dyn CatalogProviderList, keys: &[Key]) -> Result<Self> {
        let (mut contents, mut numbers) = (Self::default(), Numbers::default());
        let keys: BTreeMap<&str, &Key> = keys.iter().map(|key| (key.table.as_str(), key)).collect();
        contents.schemas.insert("pg_catalog".to_owned(), PG_CATALOG);
        contents.schemas.insert("information_schema".to_owned(), numbers.give("n", "", "information_schema"));
        contents.schemas.insert("public".to_owned(), PUBLIC);
        for catalog in shown.catalog_names().iter().filter_map(|name| shown.catalog(name)) {
            for schema_name in catalog.schema_names() {
                let Some(schema) = catalog.schema(&schema_name) else { continue };
                if !contents.schemas.contains_key(&schema_name) {
                    let number = numbers.give("n", "", &schema_name);
                    contents.schemas.insert(schema_name.clone(), number);
                }
                let mut names = schema.table_names();
                names.sort_unstable();
                for name in names {
                    let Some(table) = schema.table(&name).await? else { continue };
                    let key = keys.get(name.as_str()).filter(|_| schema_name == "public");
                    contents.add(&mut numbers, &schema_name, &name, &table.schema(), key.copied());
                }
            }
        }
        Ok(contents)
    }

    fn add(&mut self, numbers: &mut Numbers, schema: &str, name: &str, columns: &SchemaRef, key: Option<&Key>) {
        let namespace = self.schemas.get(schema).copied().unwrap_or(PUBLIC);
        let number = numbers.give("r", schema, name);
        let in_key = |column: &str| key.is_some_and(|key| key.columns.iter().any(|part| part == column));
        let of_table = (1..).zip(columns.fields()).map(|(position, field)| Column {
            relation: number,
            name: field.name().clone(),
            position,
            kind: Type::of(field.data_type()),
            not_null: in_key(field.name()) || !field.is_nullable(),
        });
        let of_table: Vec<Column> = of_table.collect();
        let relation = |number, name: &str, is_index, columns: usize| Relation {
            number,
            name: name.to_owned(),
            namespace,
            schema: schema.to_owned(),
            is_index,
            columns: i16::try_from(columns).unwrap_or(i16::MAX),
            has_index: !is_index && key.is_some(),
        };
        self.relations.push(relation(number, name, false, of_table.len()));
        if let Some(key) = key {
            let index = numbers.give("i", schema, name);
            let parts = key.columns.iter().filter_map(|part| of_table.iter().find(|column| column.name == *part));
            let parts: Vec<&Column> = parts.collect();
            self.relations.push(relation(index, &key.name(), true, parts.len()));
            let of_index = (1..).zip(&parts);
            self.columns.extend(of_index.map(|(position, part)| Column {
                relation: index,
                position,
                not_null: false,
                ..(*part).clone()
            }));
            self.indexes.push(Index {
                number: index,
                constraint: numbers.give("c", schema, name),
                name: key.name(),
                table: number,
                table_name: name.to_owned(),
                namespace,
                columns: parts.iter().map(|part| (part.position, part.name.clone())).collect(),
            });
        }
        self.columns.extend(of_table);
    }

    /// A relation by its name, of the schema `public` if none is named.
    pub(crate) fn relation(&self, schema: Option<&str>, name: &str) -> Option<&Relation> {
        let schema = schema.unwrap_or("public");
        self.relations.iter().find(|relation| relation.schema == schema && relation.name == name)
    }

    pub(crate) fn by_number(&self, number: i32) -> Option<&Relation> {
        self.relations.iter().find(|relation| relation.number == number)
    }

    pub(crate) fn index(&self, number: i32) -> Option<&Index> {
        self.indexes.iter().find(|index| index.number == number)
    }
}
