//! A roster as a spreadsheet writes it: commas, semicolons or tabs, ids in capitals or with blanks,
//! decimal commas.
//!
//! What can be read in one way only is read, and said; the rest is refused, all of it at once, with
//! line numbers.

use std::{
    collections::{BTreeMap, BTreeSet},
    str::FromStr,
};

use rollcall_types::SiteId;

use crate::{
    attributes::{Attributes, meant_attribute},
    error::HqError,
    roster::{check_calendar, check_name},
    zones::zone_of,
};

/// What a file says of each site: by attribute its value, none where the cell is empty.
pub(crate) type Rows = BTreeMap<SiteId, BTreeMap<String, Option<String>>>;

/// A file that was read.
#[derive(Debug, Default)]
pub struct RosterFile {
    /// What it says of each site.
    pub rows: Rows,
    /// How it was read, where that is not evident.
    pub notes: Vec<String>,
}

/// Faults that are named before the rest is counted.
const FAULTS_MAX: usize = 20;

impl RosterFile {
    /// Reads a file with a header that has a column `id`.
    pub fn read(text: &str) -> Result<Self, HqError> {
        let text = text.trim_start_matches('\u{feff}');
        let delimiter = delimiter(text);
        // The reader takes a record to begin before the line feed of the line above: a
        // spreadsheet's lines would be counted one too low.
        let text = &text.replace("\r\n", "\n");
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(delimiter)
            .trim(csv::Trim::All)
            .flexible(true)
            .from_reader(text.as_bytes());
        let invalid = |error: String| HqError::Invalid(error);
        let header = reader.headers().map_err(|error| invalid(error.to_string()))?.clone();
        let header: Vec<String> = header.iter().map(|name| name.to_lowercase().replace([' ', '-'], "_")).collect();
        let id = header.iter().position(|name| matches!(name.as_str(), "id" | "site" | "store_id" | "site_id"));
        let id = id.ok_or_else(|| {
            invalid(format!(
                "the file needs a header line with a column `id`; its first line reads {:?}. `rollcall roster template` prints a file to \
                 begin with",
                text.lines().next().unwrap_or_default()
            ))
        })?;
        if let Some(twice) = header.iter().enumerate().find(|(place, name)| header[..*place].contains(*name)) {
            return Err(invalid(format!("the file has two columns {:?}", twice.1)));
        }
        let mut reading = Reading::new(header, id, delimiter);
        for row in reader.records() {
            match row {
                Ok(row) => reading.take(&row),
                Err(error) => reading.faults.push(error.to_string()),
            }
        }
        reading.done(delimiter)
    }
}

/// The sign between cells: the one that the header has most of.
fn delimiter(text: &str) -> u8 {
    let header = text.lines().next().unwrap_or_default();
    let count = |sign: u8| header.bytes().filter(|byte| *byte == sign).count();
    *b",;\t|".iter().max_by_key(|sign| (count(**sign), **sign == b',')).unwrap_or(&b',')
}

struct Reading {
    header: Vec<String>,
    id: usize,
    decimal_commas: bool,
    file: RosterFile,
    seen: BTreeMap<SiteId, u64>,
    renamed: BTreeSet<String>,
    commas: usize,
    faults: Vec<String>,
}

impl Reading {
    fn new(header: Vec<String>, id: usize, delimiter: u8) -> Self {
        Self {
            header,
            id,
            decimal_commas: delimiter != b',',
            file: RosterFile::default(),
            seen: BTreeMap::new(),
            renamed: BTreeSet::new(),
            commas: 0,
            faults: Vec::new(),
        }
    }

    fn take(&mut self, row: &csv::StringRecord) {
        let line = row.position().map_or(0, csv::Position::line);
        // A spreadsheet writes lines of empty cells behind the last one.
        if row.iter().all(str::is_empty) {
            return;
        }
        if row.len() != self.header.len() {
            let (has, wants) = (row.len(), self.header.len());
            self.faults.push(format!("line {line} has {has} cells, and the header {wants}"));
            return;
        }
        if row.iter().any(|cell| cell.contains('\n')) {
            self.faults.push(format!(
                "line {line}: a cell goes on in the next line; write it in one, or close its quotation mark"
            ));
            return;
        }
        let said = row.get(self.id).unwrap_or_default();
        let id = said.to_lowercase().split_whitespace().collect::<Vec<_>>().join("-");
        let site = match SiteId::new(&id) {
            Ok(site) => site,
            Err(error) => {
                self.faults.push(format!("line {line}: {error}"));
                return;
            }
        };
        if let Err(error) = check_name(&site) {
            self.faults.push(format!("line {line}: {error}"));
            return;
        }
        if id != said {
            self.renamed.insert(format!("{said} is {id}"));
        }
        if let Some(first) = self.seen.insert(site.clone(), line) {
            self.faults.push(format!("line {line}: site {site} is listed twice, first in line {first}"));
            return;
        }
        let mut attributes = BTreeMap::new();
        for (place, name) in
            self.header.iter().enumerate().filter(|(place, name)| *place != self.id && !name.is_empty())
        {
            let mut value = Some(row.get(place).unwrap_or_default().to_owned()).filter(|value| !value.is_empty());
            if let Some(number) = value.as_deref().filter(|_| self.decimal_commas).and_then(with_point) {
                self.commas += 1;
                value = Some(number);
            }
            attributes.insert(name.clone(), value);
        }
        if let Err(error) = check_calendar(&Attributes::default().changed(&attributes)) {
            self.faults.push(format!("line {line}: {error}"));
        }
        self.file.rows.insert(site, attributes);
    }

    fn done(self, delimiter: u8) -> Result<RosterFile, HqError> {
        let Self { header, mut file, renamed, commas, faults, .. } = self;
        if !faults.is_empty() {
            let more = faults.len().saturating_sub(FAULTS_MAX);
            let more = if more > 0 { format!("\nand {more} more") } else { String::new() };
            let named: Vec<&str> = faults.iter().take(FAULTS_MAX).map(String::as_str).collect();
            let count = faults.len();
            return Err(HqError::Invalid(format!(
                "nothing is imported; {count} {}:\n{}{more}",
                if count == 1 { "fault" } else { "faults" },
                named.join("\n")
            )));
        }
        match delimiter {
            b';' => file.notes.push("cells are set apart by semicolons".to_owned()),
            b'\t' => file.notes.push("cells are set apart by tabs".to_owned()),
            b'|' => file.notes.push("cells are set apart by bars".to_owned()),
            _ => {}
        }
        for name in &header {
            if let Some(own) = meant_attribute(name) {
                file.notes.push(format!("the column {name} is kept, and means nothing to HQ; is {own} meant?"));
            }
        }
        if let Some(first) = renamed.first() {
            let count = renamed.len();
            file.notes.push(format!("{count} ids are in small letters without blanks now ({first})"));
        }
        if commas > 0 {
            file.notes.push(format!("{commas} numbers with a decimal comma have a point now"));
        }
        Ok(file)
    }
}

/// A number with a decimal comma, with a point; none if it is something else.
fn with_point(value: &str) -> Option<String> {
    let (whole, part) = value.split_once(',')?;
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = format!("{whole}.{part}");
    (is_digits(whole.trim_start_matches('-')) && is_digits(part) && f64::from_str(&number).is_ok()).then_some(number)
}

/// The attributes with the zone that the country or state tells; none if there is a zone, or these
/// do not tell it.
pub(crate) fn with_zone_by_place(attributes: &Attributes) -> Option<Attributes> {
    if attributes.get("tz").is_some() {
        return None;
    }
    let zone = zone_of(attributes.get("country"), attributes.get("state"))?;
    Some(attributes.with(&BTreeMap::from([("tz".to_owned(), zone.to_owned())])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(file: &RosterFile, site: &str, name: &str) -> Option<String> {
        file.rows[&SiteId::new(site).expect("valid")][name].clone()
    }

    #[test]
    fn what_a_spreadsheet_writes_is_read_and_said() {
        let text = "\u{feff}ID;State;Tz;Sq M;City\r\nBerlin 01;BE;Europe/Berlin;812,5;M\u{fc}nchen, Ost\r\n;;;;\r\n";
        let file = RosterFile::read(text).expect("read");
        assert_eq!(value(&file, "berlin-01", "sq_m").as_deref(), Some("812.5"));
        assert_eq!(value(&file, "berlin-01", "city").as_deref(), Some("M\u{fc}nchen, Ost"));
        assert_eq!(file.notes.len(), 3, "{:?}", file.notes);
        let tabs = RosterFile::read("id\tstate\nx-1\tWA\n").expect("read");
        assert_eq!(value(&tabs, "x-1", "state").as_deref(), Some("WA"));
        let plain = RosterFile::read("id,size\nx-1,\"1,5\"\n").expect("read");
        assert_eq!(value(&plain, "x-1", "size").as_deref(), Some("1,5"), "there it may be a list");
        assert!(plain.notes.is_empty());
        let near = RosterFile::read("id,holiday,tz\nx-1,us,UTC\n").expect("read");
        assert!(near.notes.len() == 1 && near.notes[0].contains("is holidays meant?"), "{:?}", near.notes);
    }

    #[test]
    fn all_faults_are_named_at_once_with_their_lines() {
        let text = "id,tz,hours\na-1,Mars/Olympus,\n\u{e4}rger,,\nb-1,,whenever\nc-1,\na-1,,\n";
        let said = RosterFile::read(text).expect_err("faults").to_string();
        for part in
            ["5 faults", "line 2:", "line 3:", "line 4:", "line 5 has 2 cells", "line 6: site a-1 is listed twice"]
        {
            assert!(said.contains(part), "{part}: {said}");
        }
        let of_spreadsheet = RosterFile::read(&text.replace('\n', "\r\n")).expect_err("faults").to_string();
        assert_eq!(of_spreadsheet, said, "lines are counted as people count them");
        // All stores up to the next quotation mark would be a part of one cell.
        let open = RosterFile::read("id,name\na-1,\"North\nb-1,South\n").expect_err("a quote is open").to_string();
        assert!(open.contains("quotation mark"), "{open}");
        let headless = RosterFile::read("name,city\nx,y\n").expect_err("no id").to_string();
        assert!(headless.contains("roster template") && headless.contains("name,city"), "{headless}");
    }
}
