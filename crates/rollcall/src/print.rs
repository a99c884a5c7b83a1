//! Standard output, whose reader may go away at any time (`| head`): it has what it wanted, and
//! that is no failure.

use std::{
    fmt::Display,
    io::{self, Write},
};

use indicatif::{ProgressBar, ProgressStyle};
use rollcall_site::local;
use serde_json::Value;

use crate::FAILURE;

/// Writes a line to standard output. Ends the process where nobody reads any more, or nothing can
/// be written.
macro_rules! outln {
    ($($said:tt)*) => {
        $crate::print::line(format_args!($($said)*))
    };
}

/// See [`outln`].
pub(crate) fn line(text: impl Display) {
    if let Err(error) = writeln!(io::stdout().lock(), "{text}") {
        match error.kind() {
            io::ErrorKind::BrokenPipe => std::process::exit(0),
            _ => {
                eprintln!("error: writing to standard output: {error}");
                std::process::exit(FAILURE.into());
            }
        }
    }
}

/// A bar that counts data files.
pub(crate) fn files_bar() -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("{msg} {bar:40} {pos} of {len} data files")?;
    Ok(ProgressBar::new(0).with_style(style))
}

/// A time in JSON as this machine's clock says it; none if there is none.
pub(crate) fn time(value: &Value) -> Option<String> {
    value.as_str()?.parse().ok().map(local)
}
