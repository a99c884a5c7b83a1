//! A value as SQLite has it: text need not be UTF-8.

use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::{Value, json};

/// One value of the store's.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Stored {
    Null,
    Integer(i64),
    Real(f64),
    Text(Vec<u8>),
    Blob(Vec<u8>),
}

impl From<ValueRef<'_>> for Stored {
    fn from(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Null => Self::Null,
            ValueRef::Integer(number) => Self::Integer(number),
            ValueRef::Real(number) => Self::Real(number),
            ValueRef::Text(text) => Self::Text(text.to_vec()),
            ValueRef::Blob(bytes) => Self::Blob(bytes.to_vec()),
        }
    }
}

impl ToSql for Stored {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(number) => ValueRef::Integer(*number),
            Self::Real(number) => ValueRef::Real(*number),
            Self::Text(text) => ValueRef::Text(text),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

impl Stored {
    /// Adds the value to a key, so that two keys are the same bytes just when SQLite takes them for
    /// equal under BINARY.
    pub(crate) fn add_to_key(&self, key: &mut Vec<u8>) {
        let (kind, bytes): (u8, &[u8]) = match self {
            Self::Null => (0, &[]),
            Self::Integer(number) => (1, &number.to_le_bytes()),
            // 7 and 7.0 are one key.
            Self::Real(number) => match exact_integer(*number) {
                Some(number) => (1, &number.to_le_bytes()),
                None => (2, &number.to_bits().to_le_bytes()),
            },
            Self::Text(text) => (3, text),
            Self::Blob(bytes) => (4, bytes),
        };
        key.push(kind);
        key.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        key.extend_from_slice(bytes);
    }

    /// The value as JSON in which no two values that differ are the same: numbers as they are, text
    /// as text, and bytes, and text that is no UTF-8, in hexadecimal under their kind.
    pub(crate) fn exact(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Integer(number) => (*number).into(),
            Self::Real(number) => match exact_integer(*number) {
                Some(number) => number.into(),
                None => serde_json::Number::from_f64(*number)
                    .map_or_else(|| json!({ "real": number.to_string() }), Value::Number),
            },
            Self::Text(text) => match std::str::from_utf8(text) {
                Ok(text) => text.into(),
                Err(_) => json!({ "text": hex(text) }),
            },
            Self::Blob(bytes) => json!({ "blob": hex(bytes) }),
        }
    }
}

/// The integer that a number is, if it is one.
fn exact_integer(number: f64) -> Option<i64> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    (number.fract() == 0.0 && (-LIMIT..LIMIT).contains(&number)).then_some(number as i64)
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// As a load's position is kept.
impl Serialize for Stored {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value = match self {
            Self::Null => Value::Null,
            Self::Integer(number) => json!({ "i": number }),
            Self::Real(number) => json!({ "r": number.to_bits() }),
            Self::Text(text) => match std::str::from_utf8(text) {
                Ok(text) => json!({ "t": text }),
                Err(_) => json!({ "tb": text }),
            },
            Self::Blob(bytes) => json!({ "b": bytes }),
        };
        value.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Stored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let bytes = |value: &Value| serde_json::from_value::<Vec<u8>>(value.clone()).map_err(D::Error::custom);
        let wrong = || D::Error::custom("not a value of SQLite's");
        match value.as_object().and_then(|object| object.iter().next()) {
            None if value.is_null() => Ok(Self::Null),
            Some((kind, inner)) => match kind.as_str() {
                "i" => inner.as_i64().map(Self::Integer).ok_or_else(wrong),
                "r" => inner.as_u64().map(|bits| Self::Real(f64::from_bits(bits))).ok_or_else(wrong),
                "t" => inner.as_str().map(|text| Self::Text(text.as_bytes().to_vec())).ok_or_else(wrong),
                "tb" => bytes(inner).map(Self::Text),
                "b" => bytes(inner).map(Self::Blob),
                _ => Err(wrong()),
            },
            None => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_value() -> impl Strategy<Value = Stored> {
        prop_oneof![
            Just(Stored::Null),
            any::<i64>().prop_map(Stored::Integer),
            (-3_i64..4).prop_map(Stored::Integer),
            any::<f64>().prop_filter("SQLite has no NaN", |number| !number.is_nan()).prop_map(Stored::Real),
            (-3_i64..4).prop_map(|number| Stored::Real(number as f64)),
            prop::collection::vec(any::<u8>(), 0..4).prop_map(Stored::Text),
            (-3_i64..4).prop_map(|number| Stored::Text(number.to_string().into_bytes())),
            prop::collection::vec(any::<u8>(), 0..4).prop_map(Stored::Blob),
        ]
    }

    proptest! {
        /// The forms by which keys are compared are the same exactly where SQLite finds the values
        /// equal.
        #[test]
        fn forms_are_one_to_one(left in any_value(), right in any_value()) {
            let conn = rusqlite::Connection::open_in_memory().expect("opens");
            let equal: bool = conn.query_row("SELECT ?1 IS ?2", (&left, &right), |row| row.get(0)).expect("compares");
            let (mut one, mut other) = (Vec::new(), Vec::new());
            left.add_to_key(&mut one);
            right.add_to_key(&mut other);
            prop_assert_eq!(one == other, equal);
            prop_assert_eq!(left.exact() == right.exact(), equal, "{} {}", left.exact(), right.exact());
            let kept: Stored = serde_json::from_str(&serde_json::to_string(&left).expect("writes")).expect("reads");
            prop_assert_eq!(kept, left);
        }
    }
}
