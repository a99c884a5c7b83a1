//! How COPY writes rows.

use arrow_array::{Array, RecordBatch};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::ArrowError;
use rollcall_query::datafusion::sql::sqlparser::ast::CopyOption;

/// The form that was asked for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CopyForm {
    is_csv: bool,
    header: bool,
    delimiter: Option<char>,
}

impl CopyForm {
    /// The form these options make; the first that is not known is the error.
    pub(super) fn new(options: &[CopyOption]) -> Result<Self, String> {
        let mut form = Self::default();
        for option in options {
            match option {
                CopyOption::Format(name) if name.value.eq_ignore_ascii_case("csv") => form.is_csv = true,
                CopyOption::Format(name) if name.value.eq_ignore_ascii_case("text") => {}
                CopyOption::Header(header) => form.header = *header,
                CopyOption::Delimiter(delimiter) => form.delimiter = Some(*delimiter),
                other => return Err(format!("COPY does not know the option {other} here")),
            }
        }
        Ok(form)
    }

    /// Rows as they are sent.
    pub(super) fn text(self, rows: &RecordBatch, is_first: bool) -> Result<Vec<u8>, ArrowError> {
        let delimiter = self.delimiter.unwrap_or(if self.is_csv { ',' } else { '\t' });
        let mut text = Vec::new();
        let options = FormatOptions::default()
            .with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S%.f+00"))
            .with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.f"));
        let columns = rows.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let mut line = |fields: &mut dyn Iterator<Item = Option<String>>| {
            for (index, field) in fields.enumerate() {
                if index > 0 {
                    text.extend_from_slice(delimiter.encode_utf8(&mut [0; 4]).as_bytes());
                }
                text.extend_from_slice(self.field(field, delimiter).as_bytes());
            }
            text.push(b'\n');
        };
        if is_first && self.header {
            line(&mut rows.schema().fields().iter().map(|field| Some(field.name().clone())));
        }
        for row in 0..rows.num_rows() {
            let fields = columns.iter().zip(rows.columns());
            line(&mut fields.map(|(formatter, column)| column.is_valid(row).then(|| formatter.value(row).to_string())));
        }
        Ok(text)
    }

    /// One field, quoted as PostgreSQL does.
    fn field(self, value: Option<String>, delimiter: char) -> String {
        match (value, self.is_csv) {
            (None, true) => String::new(),
            (None, false) => "\\N".to_owned(),
            (Some(text), true) if text.is_empty() || text.contains([delimiter, '"', '\n', '\r']) => {
                format!("\"{}\"", text.replace('"', "\"\""))
            }
            (Some(text), true) => text,
            (Some(text), false) => {
                let text = text.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t");
                if delimiter == '\t' { text } else { text.replace(delimiter, &format!("\\{delimiter}")) }
            }
        }
    }
}
