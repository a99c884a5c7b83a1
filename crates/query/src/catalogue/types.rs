//! The names of PostgreSQL's types.

use std::collections::HashMap;

use datafusion::arrow::{
    array::{Array, AsArray},
    datatypes::Int32Type,
};
use datafusion_pg_catalog::pg_catalog::ArrowTable;

/// The types of `pg_type`, by number.
#[derive(Debug, Default)]
pub(crate) struct Types {
    /// The name, and of an array the type of its elements.
    names: HashMap<i32, (String, Option<i32>)>,
}

/// Types whose name in SQL is not that in `pg_type`.
const NAMES: [(&str, &str); 14] = [
    ("bool", "boolean"),
    ("int2", "smallint"),
    ("int4", "integer"),
    ("int8", "bigint"),
    ("float4", "real"),
    ("float8", "double precision"),
    ("varchar", "character varying"),
    ("bpchar", "character"),
    ("timestamp", "timestamp without time zone"),
    ("timestamptz", "timestamp with time zone"),
    ("time", "time without time zone"),
    ("timetz", "time with time zone"),
    ("varbit", "bit varying"),
    ("char", "\"char\""),
];

impl Types {
    pub(crate) fn new(pg_type: &ArrowTable) -> Self {
        let mut names = HashMap::new();
        for batch in pg_type.data() {
            let column = |name: &str| batch.column_by_name(name);
            let (Some(numbers), Some(texts), Some(kinds), Some(elements)) =
                (column("oid"), column("typname"), column("typcategory"), column("typelem"))
            else {
                continue;
            };
            let (numbers, elements) = (numbers.as_primitive::<Int32Type>(), elements.as_primitive::<Int32Type>());
            let (texts, kinds) = (texts.as_string::<i32>(), kinds.as_string::<i32>());
            for row in (0..batch.num_rows()).filter(|row| numbers.is_valid(*row)) {
                let element = (kinds.value(row) == "A").then(|| elements.value(row));
                names.insert(numbers.value(row), (texts.value(row).to_owned(), element));
            }
        }
        Self { names }
    }

    /// The type of this number, with what was declared of it.
    pub(crate) fn format(&self, number: i32, modifier: i32) -> String {
        match self.names.get(&number) {
            Some((name, None)) => written(name, modifier),
            Some((_, Some(element))) => {
                let name = self.names.get(element).map_or("???", |(name, _)| name);
                format!("{}[]", written(name, modifier))
            }
            None if number == 0 => "-".to_owned(),
            None => "???".to_owned(),
        }
    }

    /// The number of the type of this name.
    pub(crate) fn number(&self, name: &str) -> Option<i32> {
        if let Ok(number) = name.parse() {
            return Some(number);
        }
        let name = name.trim().trim_start_matches("pg_catalog.").to_lowercase();
        let (name, is_array) = name.strip_suffix("[]").map_or((name.as_str(), false), |element| (element, true));
        let own = NAMES.iter().find(|(_, long)| *long == name).map_or(name, |(own, _)| own).trim_matches('"');
        let own = match own {
            "int" => "int4",
            "decimal" => "numeric",
            own => own,
        };
        let mut known = self.names.iter();
        let (number, _) = known.find(|(_, (known, element))| known == own && element.is_none())?;
        if !is_array {
            return Some(*number);
        }
        self.names
            .iter()
            .find(|(_, (name, element))| *element == Some(*number) && name.starts_with('_'))
            .map(|it| *it.0)
    }
}

fn written(name: &str, modifier: i32) -> String {
    let long = NAMES.iter().find(|(own, _)| *own == name).map_or(name, |(_, long)| long);
    match name {
        "numeric" if modifier >= 4 => {
            format!("numeric({},{})", ((modifier - 4) >> 16) & 0xffff, (modifier - 4) & 0xffff)
        }
        "varchar" | "bpchar" if modifier >= 4 => format!("{long}({})", modifier - 4),
        "timestamp" | "timestamptz" | "time" | "timetz" if modifier >= 0 => {
            let (kind, zone) = long.split_once(' ').unwrap_or((long, ""));
            format!("{kind}({modifier}) {zone}")
        }
        _ => long.to_owned(),
    }
}
