//! Names of sites and tables, validated once at the edge.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {name:?} is not valid: use 1 to 64 of a-z, 0-9, '-', '_' and '.', starting with a letter or digit")]
pub struct InvalidName {
    what: &'static str,
    name: String,
}

fn is_valid(name: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=64).contains(&name.len())
        && name.starts_with(is_word)
        && name.chars().all(|c| is_word(c) || matches!(c, '-' | '_' | '.'))
}

macro_rules! name_type {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(Arc<str>);

        impl $type {
            /// Validates `name`; surrounding space is not trimmed.
            pub fn new(name: &str) -> Result<Self, InvalidName> {
                if is_valid(name) {
                    Ok(Self(name.into()))
                } else {
                    Err(InvalidName { what: $what, name: name.chars().take(80).collect() })
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = InvalidName;
            fn from_str(name: &str) -> Result<Self, InvalidName> {
                Self::new(name)
            }
        }

        impl TryFrom<String> for $type {
            type Error = InvalidName;
            fn try_from(name: String) -> Result<Self, InvalidName> {
                Self::new(&name)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::borrow::Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name_type!(
    /// A site's id, such as `seattle-01`: chosen by people, stable for the life of the site.
    SiteId,
    "site id"
);
name_type!(
    /// A table's name at HQ: lower case, because SQL folds unquoted names to lower case.
    TableName,
    "table name"
);

impl TableName {
    /// The name HQ gives to a site's table `name`: lower case, Latin letters without their marks,
    /// what else is not allowed replaced by `_`, and none of these in front.
    ///
    /// Two tables of one site can meet here (`Sales` and `sales` cannot coexist in SQLite, `a b`
    /// and `a_b` can); the caller refuses the second one.
    pub fn at_hq(name: &str) -> Result<Self, InvalidName> {
        let folded = hq_identifier(name);
        if is_valid(&folded) {
            return Self::new(&folded);
        }
        let mut plain = String::new();
        for letter in folded.chars().flat_map(char::to_lowercase) {
            match letter {
                _ if letter.is_ascii() => plain.push(letter),
                _ => plain.push_str(plain_letter(letter)),
            }
        }
        let plain = plain.trim_start_matches('_');
        let refused = |_| InvalidName { what: "table name", name: name.chars().take(80).collect() };
        Self::new(plain.get(..64).unwrap_or(plain)).map_err(refused)
    }
}

/// A letter of Latin script as plain letters; `_` for others.
fn plain_letter(letter: char) -> &'static str {
    match letter {
        'ä' | 'æ' => "ae",
        'ö' | 'ø' | 'œ' => "oe",
        'ü' => "ue",
        'ß' => "ss",
        'å' => "aa",
        'à' | 'á' | 'â' | 'ã' | 'ą' | 'ă' => "a",
        'ç' | 'ć' | 'č' => "c",
        'ď' | 'đ' | 'ð' => "d",
        'è' | 'é' | 'ê' | 'ë' | 'ę' | 'ě' => "e",
        'ğ' => "g",
        'ì' | 'í' | 'î' | 'ï' | 'ı' => "i",
        'ł' | 'ľ' => "l",
        'ñ' | 'ń' | 'ň' => "n",
        'ò' | 'ó' | 'ô' | 'õ' | 'ő' => "o",
        'ř' => "r",
        'ś' | 'š' | 'ş' | 'ș' => "s",
        'ť' | 'ț' | 'ţ' => "t",
        'þ' => "th",
        'ù' | 'ú' | 'û' | 'ů' | 'ű' => "u",
        'ý' | 'ÿ' => "y",
        'ź' | 'ż' | 'ž' => "z",
        _ => "_",
    }
}

/// Lower-cases `name` and replaces what neither Delta nor plain SQL identifiers allow by `_`.
pub fn hq_identifier(name: &str) -> String {
    let replaced: String =
        name.chars().map(|c| if c.is_alphanumeric() || c == '_' { c.to_ascii_lowercase() } else { '_' }).collect();
    replaced.chars().take(64).collect()
}

/// The short number HQ allots to a site; it names the site in the lake's cursors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SiteNumber(pub u32);

impl SiteNumber {
    /// HQ itself, as the writer of the tables it publishes; sites' numbers begin at 1.
    pub const HQ: Self = Self(0);
}

/// Names HQ itself in `_site` of the tables it publishes; no site may be called so.
pub const HQ_SITE: &str = "hq";

impl fmt::Display for SiteNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_id_is_lower_case_and_short() {
        assert!(SiteId::new("seattle-01").is_ok());
        for bad in ["", "Seattle", "-x", "a b", "ä", &"x".repeat(65)] {
            assert!(SiteId::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn table_names_are_folded_for_hq() {
        let at_hq = |name| TableName::at_hq(name).map(String::from).ok();
        for (name, expected) in
            [("Order Lines", "order_lines"), ("Größe", "groesse"), ("ÉTÉ", "ete"), ("_sales", "sales"), ("a.b", "a_b")]
        {
            assert_eq!(at_hq(name).as_deref(), Some(expected), "{name}");
        }
        assert_eq!(at_hq("売上"), None, "nothing is left of it");
    }
}
