//! The options of a copy, in the form with parentheses and in the older one.

use rollcall_query::datafusion::sql::sqlparser::ast::{CopyLegacyCsvOption, CopyLegacyOption, CopyOption, Ident};

use super::super::ValueError;

/// How a copy is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyForm {
    pub(super) layout: Layout,
    pub(super) delimiter: u8,
    pub(super) null: String,
    pub(super) has_header: bool,
    pub(super) quote: u8,
    pub(super) escape: u8,
    force_quote: ForceQuote,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    Text,
    Csv,
    Binary,
}

/// Which columns of a CSV are quoted whether they need it or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ForceQuote {
    /// None.
    #[default]
    None,
    /// All, as `FORCE_QUOTE *` asks for.
    All,
    /// Those of these names.
    Columns(Vec<String>),
}

/// The options as they were given, before they are checked against each other.
#[derive(Default)]
struct Given {
    layout: Option<Layout>,
    delimiter: Option<char>,
    null: Option<String>,
    header: Option<bool>,
    quote: Option<char>,
    escape: Option<char>,
    force_quote: Option<ForceQuote>,
    freeze: Option<bool>,
    encoding: Option<String>,
}

impl CopyForm {
    /// The form that these options of `COPY … TO STDOUT` describe. An option that PostgreSQL
    /// refuses, or that HQ does not know, is an error; none is passed over.
    ///
    /// # Errors
    /// If an option is unknown, given twice, or contradicts another.
    pub fn from_options(options: &[CopyOption], legacy_options: &[CopyLegacyOption]) -> Result<Self, ValueError> {
        let mut given = Given::default();
        for option in options {
            given.take(option)?;
        }
        for option in legacy_options {
            given.take_legacy(option)?;
        }
        given.check()?.finish()
    }

    /// The same with columns to be quoted in any case.
    ///
    /// # Errors
    /// If it is not CSV.
    pub fn with_force_quote(self, force_quote: ForceQuote) -> Result<Self, ValueError> {
        if self.layout != Layout::Csv && force_quote != ForceQuote::None {
            return Err(only_in_csv("force quote"));
        }
        Ok(Self { force_quote, ..self })
    }

    /// Whether values leave in their binary form.
    pub fn is_binary(&self) -> bool {
        self.layout == Layout::Binary
    }

    /// Refuses a form that quotes columns the answer does not have.
    ///
    /// # Errors
    /// If there is such a column.
    pub fn check_columns(&self, names: &[&str]) -> Result<(), ValueError> {
        let ForceQuote::Columns(forced) = &self.force_quote else {
            return Ok(());
        };
        match forced.iter().find(|forced| !names.contains(&forced.as_str())) {
            Some(missing) => Err(ValueError::new("42703", format!("column \"{missing}\" does not exist"))),
            None => Ok(()),
        }
    }

    pub(super) fn is_forced(&self, name: &str) -> bool {
        match &self.force_quote {
            ForceQuote::None => false,
            ForceQuote::All => true,
            ForceQuote::Columns(forced) => forced.iter().any(|forced| forced == name),
        }
    }
}

impl Given {
    fn take(&mut self, option: &CopyOption) -> Result<(), ValueError> {
        match option {
            CopyOption::Format(name) => set(&mut self.layout, layout(name)?),
            CopyOption::Freeze(freeze) => set(&mut self.freeze, *freeze),
            CopyOption::Delimiter(delimiter) => set(&mut self.delimiter, *delimiter),
            CopyOption::Null(null) => set(&mut self.null, null.clone()),
            CopyOption::Header(header) => set(&mut self.header, *header),
            CopyOption::Quote(quote) => set(&mut self.quote, *quote),
            CopyOption::Escape(escape) => set(&mut self.escape, *escape),
            CopyOption::ForceQuote(columns) => set(&mut self.force_quote, force_quote(columns)),
            CopyOption::Encoding(encoding) => set(&mut self.encoding, encoding.clone()),
            CopyOption::ForceNotNull(_) => Err(only_from("force not null")),
            CopyOption::ForceNull(_) => Err(only_from("force null")),
        }
    }

    fn take_legacy(&mut self, option: &CopyLegacyOption) -> Result<(), ValueError> {
        match option {
            CopyLegacyOption::Binary => set(&mut self.layout, Layout::Binary),
            CopyLegacyOption::Csv(options) => {
                set(&mut self.layout, Layout::Csv)?;
                options.iter().try_for_each(|option| self.take_legacy_csv(option))
            }
            CopyLegacyOption::Delimiter(delimiter) => set(&mut self.delimiter, *delimiter),
            CopyLegacyOption::Null(null) => set(&mut self.null, null.clone()),
            CopyLegacyOption::Header => set(&mut self.header, true),
            other => Err(ValueError::new("42601", format!("option {other} of COPY is not supported"))),
        }
    }

    fn take_legacy_csv(&mut self, option: &CopyLegacyCsvOption) -> Result<(), ValueError> {
        match option {
            CopyLegacyCsvOption::Header => set(&mut self.header, true),
            CopyLegacyCsvOption::Quote(quote) => set(&mut self.quote, *quote),
            CopyLegacyCsvOption::Escape(escape) => set(&mut self.escape, *escape),
            CopyLegacyCsvOption::ForceQuote(columns) => set(&mut self.force_quote, force_quote(columns)),
            CopyLegacyCsvOption::ForceNotNull(_) => Err(only_from("force not null")),
        }
    }

    /// Refuses options that do not go together, in PostgreSQL's order and words.
    fn check(self) -> Result<Self, ValueError> {
        let is_binary = self.layout == Some(Layout::Binary);
        let is_csv = self.layout == Some(Layout::Csv);
        let in_binary = [
            (self.delimiter.is_some(), "DELIMITER", "42601"),
            (self.null.is_some(), "NULL", "42601"),
            (self.header == Some(true), "HEADER", "0A000"),
        ];
        if let Some((_, name, code)) = in_binary.iter().find(|(given, ..)| is_binary && *given) {
            return Err(ValueError::new(code, format!("cannot specify {name} in BINARY mode")));
        }
        let in_csv = [
            (self.quote.is_some(), "quote"),
            (self.escape.is_some(), "escape"),
            (self.force_quote.is_some(), "force quote"),
        ];
        if let Some((_, name)) = in_csv.iter().find(|(given, _)| !is_csv && *given) {
            return Err(only_in_csv(name));
        }
        let is_utf8 = |name: &str| ["utf8", "utf-8", "unicode"].iter().any(|known| name.eq_ignore_ascii_case(known));
        match &self.encoding {
            Some(name) if !is_utf8(name) => {
                let message = format!("encoding \"{name}\" is not supported, only UTF8 is");
                Err(ValueError::unsupported(message))
            }
            _ => Ok(self),
        }
    }

    fn finish(self) -> Result<CopyForm, ValueError> {
        let layout = self.layout.unwrap_or(Layout::Text);
        let is_csv = layout == Layout::Csv;
        let delimiter = one_byte(self.delimiter.unwrap_or(if is_csv { ',' } else { '\t' }), "delimiter")?;
        let quote = one_byte(self.quote.unwrap_or('"'), "quote")?;
        let escape = self.escape.map_or(Ok(quote), |escape| one_byte(escape, "escape"))?;
        let null = self.null.unwrap_or_else(|| if is_csv { "" } else { "\\N" }.to_owned());
        if matches!(delimiter, b'\n' | b'\r') {
            return Err(invalid("COPY delimiter cannot be newline or carriage return"));
        }
        if null.contains(['\n', '\r']) {
            return Err(invalid("COPY null representation cannot use newline or carriage return"));
        }
        let is_of_values =
            delimiter.is_ascii_lowercase() || delimiter.is_ascii_digit() || matches!(delimiter, b'\\' | b'.');
        if !is_csv && is_of_values {
            let message = format!("COPY delimiter cannot be \"{}\"", char::from(delimiter));
            return Err(invalid(&message));
        }
        if is_csv && delimiter == quote {
            return Err(invalid("COPY delimiter and quote must be different"));
        }
        if null.as_bytes().contains(&delimiter) {
            let message = "COPY delimiter must not appear in the NULL specification";
            return Err(ValueError::unsupported(message));
        }
        if is_csv && null.as_bytes().contains(&quote) {
            let message = "CSV quote character must not appear in the NULL specification";
            return Err(ValueError::unsupported(message));
        }
        let has_header = self.header.unwrap_or(false);
        let force_quote = self.force_quote.unwrap_or_default();
        Ok(CopyForm { layout, delimiter, null, has_header, quote, escape, force_quote })
    }
}

fn set<T>(place: &mut Option<T>, value: T) -> Result<(), ValueError> {
    if place.replace(value).is_some() {
        return Err(ValueError::new("42601", "conflicting or redundant options"));
    }
    Ok(())
}

fn layout(name: &Ident) -> Result<Layout, ValueError> {
    // A name without quotes is folded; one with quotes is taken as it is.
    let folded = if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() };
    match folded.as_str() {
        "text" => Ok(Layout::Text),
        "csv" => Ok(Layout::Csv),
        "binary" => Ok(Layout::Binary),
        _ => Err(invalid(&format!("COPY format \"{}\" not recognized", name.value))),
    }
}

fn force_quote(columns: &[Ident]) -> ForceQuote {
    let name = |column: &Ident| {
        if column.quote_style.is_some() { column.value.clone() } else { column.value.to_lowercase() }
    };
    ForceQuote::Columns(columns.iter().map(name).collect())
}

fn one_byte(character: char, what: &str) -> Result<u8, ValueError> {
    u8::try_from(character)
        .ok()
        .filter(|byte| byte.is_ascii() && *byte != 0)
        .ok_or_else(|| ValueError::unsupported(format!("COPY {what} must be a single one-byte character")))
}

fn only_in_csv(what: &str) -> ValueError {
    ValueError::unsupported(format!("COPY {what} available only in CSV mode"))
}

fn only_from(what: &str) -> ValueError {
    ValueError::unsupported(format!("COPY {what} only available using COPY FROM"))
}

fn invalid(message: &str) -> ValueError {
    ValueError::new("22023", message)
}
