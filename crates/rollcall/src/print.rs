//! Standard output, whose reader may go away at any time (`| head`): it has what it wanted, and that is no failure.

use std::{
    fmt::Display,
    io::{self, Write},
};

use crate::FAILURE;

/// Writes a line to standard output. Ends the process where nobody reads any more, or nothing can be written.
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

/// Whether an error is that nobody reads standard output any more.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind = |error: &(dyn std::error::Error + 'static)| error.downcast_ref::<io::Error>().map(io::Error::kind);
    error.chain().any(|cause| kind(cause) == Some(io::ErrorKind::BrokenPipe))
}
