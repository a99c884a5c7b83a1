//! An answer as an Excel workbook: the rows on one sheet, what they are missing on another.
//!
//! Excel's numbers are doubles of which it shows 15 digits, and its days begin in 1900. What does
//! not fit is a text, so that nothing is rounded. Rows go to a file while they come; only the
//! current one is in memory.

use std::io::Seek;

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray, RecordBatch, StringArray},
    compute::cast,
    datatypes::{DataType, FieldRef, SchemaRef, TimeUnit, TimestampMicrosecondType},
};
use rollcall_types::Coverage;
use rust_xlsxwriter::{Format, Workbook, Worksheet, XlsxError, utility::row_col_to_cell};

use super::{ExportError, Form, Rest, text};

/// Rows of a sheet, of which the header is one.
const ROWS_MAX: u32 = 1_048_576;
const COLUMNS_MAX: usize = 16_384;
/// Letters in a cell, as UTF-16 counts them.
const LETTERS_MAX: usize = 32_767;
/// Digits of a number that Excel keeps.
const DIGITS_MAX: usize = 15;
const DAY_MICROS: i64 = 86_400_000_000;
/// Excel counts days from the last but one of 1899. Before March 1900 programs disagree by one,
/// since Excel knows a day in February 1900 that never was.
const EPOCH_DAY: i64 = 25_569;
const DAYS: std::ops::Range<i64> = 61..2_958_466;
/// Letters of a column, from its name and first rows.
const WIDTHS: std::ops::RangeInclusive<usize> = 8..=60;

impl From<XlsxError> for ExportError {
    fn from(error: XlsxError) -> Self {
        Self::Failed(Box::new(error))
    }
}

pub(super) struct Book {
    book: Workbook,
    coverage: Coverage,
    row: u32,
    formats: Formats,
}

struct Formats {
    day: Format,
    second: Format,
    fraction: Format,
}

impl Book {
    pub(super) fn new(schema: &SchemaRef, coverage: &Coverage) -> Result<Self, ExportError> {
        if schema.fields().len() > COLUMNS_MAX {
            let columns = schema.fields().len();
            let text = format!("a sheet of Excel holds {COLUMNS_MAX} columns, and the answer has {columns}");
            return Err(ExportError::Form(format!("{text}; ask for csv, json, arrow or parquet")));
        }
        let mut book = Workbook::new();
        let bold = Format::new().set_bold();
        let sheet = book.add_worksheet_with_constant_memory()?.set_name("Answer")?;
        sheet.set_freeze_panes(1, 0)?;
        for (column, field) in (0_u16..).zip(schema.fields()) {
            check_letters(field.name(), 0, column, field.name())?;
            sheet.write_string_with_format(0, column, field.name(), &bold)?;
        }
        let time = |format| Format::new().set_num_format(format);
        let formats = Formats {
            day: time("yyyy-mm-dd"),
            second: time("yyyy-mm-dd hh:mm:ss"),
            fraction: time("yyyy-mm-dd hh:mm:ss.000"),
        };
        Ok(Self { book, coverage: coverage.clone(), row: 1, formats })
    }
}

impl Form for Book {
    fn rows(&mut self, rows: &RecordBatch) -> Result<Vec<u8>, ExportError> {
        if (self.row as usize + rows.num_rows()) > ROWS_MAX as usize {
            return Err(ExportError::Form(format!(
                "a sheet of Excel holds {ROWS_MAX} rows, its header among them, and the answer has more; aggregate, or ask for \
                 csv, json, arrow or parquet"
            )));
        }
        let names = rows.schema();
        let columns = names.fields().iter().zip(rows.columns()).map(|(field, column)| Cells::new(field, column));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let sheet = self.book.worksheet_from_index(0)?;
        if self.row == 1 {
            for ((column, cells), field) in (0_u16..).zip(&columns).zip(names.fields()) {
                sheet.set_column_width(column, cells.width(field.name()) as f64)?;
            }
        }
        for index in 0..rows.num_rows() {
            for ((column, cells), field) in (0_u16..).zip(&columns).zip(names.fields()) {
                cells.write(sheet, index, (self.row, column, field.name()), &self.formats)?;
            }
            self.row += 1;
        }
        Ok(Vec::new())
    }

    fn finish(mut self: Box<Self>) -> Result<Rest, ExportError> {
        write_coverage(self.book.add_worksheet().set_name("Coverage")?, &self.coverage)?;
        let mut file = tempfile::tempfile()?;
        self.book.save_to_writer(&file)?;
        file.rewind()?;
        Ok(Rest::File(file))
    }
}

/// A column, in what its cells are made of.
enum Cells {
    Flags(BooleanArray),
    /// Numbers as exact texts; whether they are exact as such, however many digits they have.
    Numbers(StringArray, bool),
    /// Instants, and their texts; whether they are days.
    Times(PrimitiveArray<TimestampMicrosecondType>, StringArray, bool),
    Texts(StringArray),
}

impl Cells {
    fn new(field: &FieldRef, column: &ArrayRef) -> Result<Self, ExportError> {
        let column = &text::unpacked(column)?;
        Ok(match column.data_type() {
            DataType::Boolean => Self::Flags(column.as_boolean().clone()),
            kind if kind.is_numeric() => Self::Numbers(text::texts(field, column)?, kind.is_floating()),
            kind @ (DataType::Timestamp(..) | DataType::Date32 | DataType::Date64) => {
                // Instants that microseconds cannot count are none here, and are texts.
                let instants = cast(column, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
                let instants = instants.as_primitive::<TimestampMicrosecondType>().clone();
                Self::Times(instants, text::texts(field, column)?, *kind == DataType::Date32)
            }
            _ => Self::Texts(text::texts(field, column)?),
        })
    }

    fn width(&self, name: &str) -> usize {
        let longest = match self {
            Self::Flags(_) => 5,
            Self::Times(_, _, is_day) => {
                if *is_day {
                    10
                } else {
                    19
                }
            }
            Self::Numbers(texts, _) | Self::Texts(texts) => {
                texts.iter().take(200).flatten().map(|text| text.chars().count()).max().unwrap_or(0)
            }
        };
        (longest.max(name.chars().count()) + 1).clamp(*WIDTHS.start(), *WIDTHS.end())
    }

    fn write(
        &self,
        sheet: &mut Worksheet,
        index: usize,
        (row, column, name): (u32, u16, &str),
        formats: &Formats,
    ) -> Result<(), ExportError> {
        let texts = match self {
            Self::Flags(flags) => {
                if flags.is_valid(index) {
                    sheet.write_boolean(row, column, flags.value(index))?;
                }
                return Ok(());
            }
            Self::Numbers(texts, _) | Self::Times(_, texts, _) | Self::Texts(texts) => texts,
        };
        if texts.is_null(index) {
            return Ok(());
        }
        let text = texts.value(index);
        match self {
            Self::Numbers(_, is_float) => {
                if let Some(number) = number(text, *is_float) {
                    sheet.write_number(row, column, number)?;
                    return Ok(());
                }
            }
            Self::Times(instants, _, is_day) if instants.is_valid(index) => {
                let instant = instants.value(index);
                let (day, rest) = (instant.div_euclid(DAY_MICROS) + EPOCH_DAY, instant.rem_euclid(DAY_MICROS));
                if DAYS.contains(&day) {
                    let format = match rest % 1_000_000 {
                        _ if *is_day => &formats.day,
                        0 => &formats.second,
                        _ => &formats.fraction,
                    };
                    let serial = day as f64 + rest as f64 / DAY_MICROS as f64;
                    sheet.write_number_with_format(row, column, serial, format)?;
                    return Ok(());
                }
            }
            _ => check_letters(text, row, column, name)?,
        }
        // A text, never a formula, whatever it starts with.
        sheet.write_string(row, column, text)?;
        Ok(())
    }
}

/// The number, if Excel keeps all its digits.
fn number(text: &str, is_float: bool) -> Option<f64> {
    let digits = text.bytes().filter(u8::is_ascii_digit).skip_while(|digit| *digit == b'0').count();
    if !is_float && digits > DIGITS_MAX {
        return None;
    }
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

fn check_letters(text: &str, row: u32, column: u16, name: &str) -> Result<(), ExportError> {
    let letters = if text.len() > LETTERS_MAX { text.encode_utf16().count() } else { 0 };
    if letters <= LETTERS_MAX {
        return Ok(());
    }
    let name: String = name.chars().take(60).collect();
    Err(ExportError::Form(format!(
        "cell {} (column {name}) would have {letters} letters, and a cell of Excel holds {LETTERS_MAX}; ask for csv, json, arrow \
         or parquet",
        row_col_to_cell(row, column)
    )))
}

fn write_coverage(sheet: &mut Worksheet, coverage: &Coverage) -> Result<(), XlsxError> {
    let bold = Format::new().set_bold();
    sheet.write_string_with_format(0, 0, coverage.summary(), &bold)?;
    let names = ["site", "state", "cause", "complete through (UTC)", "rows expected to be missing", "worth about"];
    for (column, name) in (0_u16..).zip(names) {
        sheet.write_string_with_format(2, column, name, &bold)?;
    }
    for (row, missing) in (3_u32..).zip(&coverage.missing) {
        sheet.write_string(row, 0, missing.site.as_str())?;
        sheet.write_string(row, 1, missing.state.to_string())?;
        sheet.write_string(row, 2, missing.cause.map_or_else(String::new, |cause| cause.to_string()))?;
        sheet.write_string(row, 3, missing.since.map_or_else(|| "never".to_owned(), |since| since.to_string()))?;
        if let Some(rows) = missing.expected_rows {
            sheet.write_number(row, 4, rows as f64)?;
        }
        if let Some(amount) = missing.expected_amount {
            sheet.write_number(row, 5, amount)?;
        }
    }
    let first = 4 + coverage.missing.len() as u32;
    for (row, group) in (first..).zip(&coverage.groups) {
        let names: Vec<&str> = group.group.values().map(|value| value.as_deref().unwrap_or("none")).collect();
        let text = format!("{}: {} of {} sites complete", names.join(" / "), group.complete, group.scope);
        sheet.write_string(row, 0, text)?;
    }
    Ok(())
}
