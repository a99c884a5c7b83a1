//! An answer as an Excel workbook: the rows on one sheet, what they are missing on another.

use arrow::{
    array::{Array, AsArray, RecordBatch},
    compute::cast,
    datatypes::{DataType, Float64Type, TimeUnit, TimestampMicrosecondType},
    util::display::{ArrayFormatter, FormatOptions},
};
use datafusion::arrow;
use rollcall_types::Coverage;
use rust_xlsxwriter::{ExcelDateTime, Format, Workbook, Worksheet, XlsxError};

use crate::engine::Answer;

/// Rows that a sheet can hold below its header.
const ROWS_MAX: usize = 1_048_575;

/// Writes the workbook. An answer with more rows than a sheet holds is refused.
pub(crate) fn workbook(answer: &Answer) -> Result<Vec<u8>, XlsxError> {
    let rows: usize = answer.batches.iter().map(RecordBatch::num_rows).sum();
    if rows > ROWS_MAX {
        return Err(XlsxError::ParameterError(format!(
            "the answer has {rows} rows and a sheet holds {ROWS_MAX}; aggregate, or ask for csv or parquet"
        )));
    }
    let mut book = Workbook::new();
    let bold = Format::new().set_bold();
    let sheet = book.add_worksheet().set_name("Answer")?;
    for (column, field) in (0_u16..).zip(answer.schema.fields()) {
        sheet.write_with_format(0, column, field.name(), &bold)?;
    }
    let mut first = 1;
    for batch in &answer.batches {
        for (column, values) in (0_u16..).zip(batch.columns()) {
            write_column(sheet, first, column, values.as_ref())?;
        }
        first += batch.num_rows() as u32;
    }
    sheet.set_freeze_panes(1, 0)?;
    sheet.autofit();
    write_coverage(book.add_worksheet().set_name("Coverage")?, &answer.coverage)?;
    book.save_to_buffer()
}

fn write_column(sheet: &mut Worksheet, first: u32, column: u16, values: &dyn Array) -> Result<(), XlsxError> {
    let failed = |error: arrow::error::ArrowError| XlsxError::ParameterError(error.to_string());
    let rows = (first..).zip(0..values.len()).filter(|(_, index)| values.is_valid(*index));
    match values.data_type() {
        // A decimal's text is exact, but people add up columns: Excel knows only floats.
        kind if kind.is_numeric() => {
            let numbers = cast(values, &DataType::Float64).map_err(failed)?;
            let numbers = numbers.as_primitive::<Float64Type>();
            for (row, index) in rows {
                sheet.write(row, column, numbers.value(index))?;
            }
        }
        DataType::Boolean => {
            for (row, index) in rows {
                sheet.write(row, column, values.as_boolean().value(index))?;
            }
        }
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => {
            let times = cast(values, &DataType::Timestamp(TimeUnit::Microsecond, None)).map_err(failed)?;
            let times = times.as_primitive::<TimestampMicrosecondType>();
            let format = Format::new().set_num_format("yyyy-mm-dd hh:mm:ss");
            for (row, index) in rows {
                match ExcelDateTime::from_timestamp(times.value(index).div_euclid(1_000_000)) {
                    Ok(time) => sheet.write_with_format(row, column, &time, &format)?,
                    // Before 1900 or after 9999.
                    Err(_) => sheet.write(row, column, times.value(index).to_string())?,
                };
            }
        }
        _ => {
            let options = FormatOptions::default();
            let texts = ArrayFormatter::try_new(values, &options).map_err(failed)?;
            for (row, index) in rows {
                sheet.write(row, column, texts.value(index).to_string())?;
            }
        }
    }
    Ok(())
}

fn write_coverage(sheet: &mut Worksheet, coverage: &Coverage) -> Result<(), XlsxError> {
    let bold = Format::new().set_bold();
    sheet.write_with_format(0, 0, coverage.summary(), &bold)?;
    let names = ["site", "state", "cause", "complete through (UTC)", "rows expected to be missing", "worth about"];
    for (column, name) in (0_u16..).zip(names) {
        sheet.write_with_format(2, column, name, &bold)?;
    }
    for (row, missing) in (3_u32..).zip(&coverage.missing) {
        sheet.write(row, 0, missing.site.as_str())?;
        sheet.write(row, 1, missing.state.to_string())?;
        sheet.write(row, 2, missing.cause.map_or_else(String::new, |cause| cause.to_string()))?;
        sheet.write(row, 3, missing.since.map_or_else(|| "never".to_owned(), |since| since.to_string()))?;
        if let Some(rows) = missing.expected_rows {
            sheet.write(row, 4, rows as f64)?;
        }
        if let Some(amount) = missing.expected_amount {
            sheet.write(row, 5, amount)?;
        }
    }
    let first = 4 + coverage.missing.len() as u32;
    for (row, group) in (first..).zip(&coverage.groups) {
        let names: Vec<&str> = group.group.values().map(|value| value.as_deref().unwrap_or("none")).collect();
        let text = format!("{}: {} of {} sites complete", names.join(" / "), group.complete, group.scope);
        sheet.write(row, 0, text)?;
    }
    Ok(())
}
