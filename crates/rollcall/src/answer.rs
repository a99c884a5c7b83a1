//! Answers to SQL, written while they come: of any length, and never half of one under the name of
//! a whole.

use std::{
    fs::{self, File, Permissions},
    io::{IsTerminal, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use rollcall_hq::{ERROR_MARK, TrailerFilter};
use rollcall_types::{Coverage, plain, steers};
use tempfile::NamedTempFile;

use crate::{FINDING, SqlFormat, client::SqlAnswer};

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 64 << 10;
/// Of an answer that breaks off, the end is kept this far: it says why.
const END_BYTES: usize = 8 << 10;

/// Writes an answer to stdout or a file; its coverage goes to stderr, so that it is seen and never
/// gets into the data.
pub(crate) fn deliver(answer: SqlAnswer, format: SqlFormat, out: Option<&Path>) -> anyhow::Result<ExitCode> {
    let SqlAnswer { body, is_complete, summary } = answer;
    match out {
        Some(path) => write_file(body, format, path)?,
        None => {
            let mut stdout = std::io::stdout().lock();
            match format {
                // What stores wrote is shown on a terminal here: it must not steer it.
                SqlFormat::Table => copy(body, format, &mut Plain::new(&mut stdout))?,
                _ => copy(body, format, &mut stdout)?,
            };
            if format == SqlFormat::Json {
                stdout.write_all(b"\n")?;
            }
            stdout.flush()?;
        }
    }
    let is_incomplete = is_complete != Some(true);
    if std::io::stderr().is_terminal() && is_incomplete && std::env::var_os("NO_COLOR").is_none() {
        eprintln!("\u{1b}[33mcoverage: {summary}\u{1b}[0m");
    } else {
        eprintln!("coverage: {summary}");
    }
    Ok(if is_incomplete { ExitCode::from(FINDING) } else { ExitCode::SUCCESS })
}

/// Writes text line by line, with what would steer a terminal shown as its number.
struct Plain<W: Write> {
    to: W,
    line: Vec<u8>,
}

impl<W: Write> Plain<W> {
    fn new(to: W) -> Self {
        Self { to, line: Vec::new() }
    }

    fn put(&mut self) -> std::io::Result<()> {
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line);
        let (text, end) = text.strip_suffix('\n').map_or((text.as_ref(), ""), |text| (text, "\n"));
        match text.chars().any(steers) {
            true => write!(self.to, "{}{end}", plain(text, usize::MAX)),
            false => write!(self.to, "{text}{end}"),
        }
    }
}

impl<W: Write> Write for Plain<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                self.put()?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.put()?;
        self.to.flush()
    }
}

impl<W: Write> Drop for Plain<W> {
    fn drop(&mut self) {
        // Who reads no more is not told twice.
        let _ = self.flush();
    }
}

/// Writes the answer under another name first: what has the name that was asked for is whole.
fn write_file(body: impl Read, format: SqlFormat, path: &Path) -> anyhow::Result<()> {
    let doing = || format!("writing {}", path.display());
    // Devices, pipes and the like are written to; they cannot be replaced.
    if fs::metadata(path).is_ok_and(|known| !known.is_file()) {
        let mut file = File::options().write(true).open(path).with_context(doing)?;
        copy(body, format, &mut file)?;
        return Ok(());
    }
    // A link stays one.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut file = beside(&path).with_context(doing)?;
    let coverage = copy(body, format, &mut file)?;
    file.as_file().sync_all().with_context(doing)?;
    let coverage = match coverage {
        Some(coverage) => {
            let mut name = path.as_os_str().to_owned();
            name.push(".coverage.json");
            let name = PathBuf::from(name);
            let mut written = beside(&name)?;
            written.write_all(coverage.to_json()?.as_bytes())?;
            Some((written, name))
        }
        None => None,
    };
    file.persist(&path).with_context(doing)?;
    if let Some((written, name)) = coverage {
        written.persist(&name).with_context(|| format!("writing {}", name.display()))?;
    }
    Ok(())
}

/// A file that is to take the place of `path`, with the rights of one made anew or of the one that
/// is there.
fn beside(path: &Path) -> anyhow::Result<NamedTempFile> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let rights = fs::metadata(path).map_or_else(|_| Permissions::from_mode(0o666), |known| known.permissions());
    let file =
        tempfile::Builder::new().prefix(".rollcall-").suffix(".part").permissions(rights).tempfile_in(directory)?;
    Ok(file)
}

/// Writes all of the answer, or fails; the coverage if the form has it at its end, where it does
/// not belong into the data.
fn copy(mut body: impl Read, format: SqlFormat, out: &mut impl Write) -> anyhow::Result<Option<Coverage>> {
    let mut filter = (format == SqlFormat::Csv).then(TrailerFilter::default);
    let (mut buffer, mut end) = (vec![0; PIECE_BYTES], Vec::new());
    loop {
        let came = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => &buffer[..length],
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => match reason(&end) {
                Some(why) => bail!("the answer broke off and is not whole: {why}"),
                None => return Err(error).context("the answer broke off and is not whole; HQ's log may say why"),
            },
        };
        end.extend_from_slice(came);
        end.drain(..end.len().saturating_sub(END_BYTES));
        match &mut filter {
            Some(filter) => out.write_all(&filter.pass(came))?,
            None => out.write_all(came)?,
        }
    }
    let Some(filter) = filter else { return Ok(None) };
    let (rows, coverage) = filter.finish();
    out.write_all(&rows)?;
    match coverage {
        Some(coverage) => Ok(Some(coverage)),
        None => bail!("the answer broke off and is not whole: it lacks its last line, the coverage"),
    }
}

/// Why HQ broke the answer off, if it said so.
fn reason(end: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(end);
    let (_, said) = text.rsplit_once(ERROR_MARK)?;
    serde_json::from_str(said.trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_store_wrote_does_not_steer_the_terminal() {
        let mut shown = Vec::new();
        let text = "a \u{1b}[2J b\nGrö\u{df}e \u{202e}x\nend";
        {
            let mut plain = Plain::new(&mut shown);
            // However it is cut.
            text.as_bytes().chunks(3).try_for_each(|piece| plain.write_all(piece)).expect("writes");
        }
        assert_eq!(String::from_utf8_lossy(&shown), "a \\u{1b}[2J b\nGröße \\u{202e}x\nend");
    }

    /// Gives some bytes, then fails.
    struct Breaks(&'static [u8]);

    impl Read for Breaks {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            match std::mem::take(&mut self.0) {
                [] => Err(std::io::ErrorKind::UnexpectedEof.into()),
                some => (&mut &some[..]).read(buffer),
            }
        }
    }

    #[test]
    fn half_an_answer_leaves_the_file_as_it_was() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("sales.csv");
        let whole: &[u8] = b"a\n1\n# rollcall.coverage {\"scope\":0,\"complete\":0,\"missing\":[]}\n";
        fs::write(&path, "old").expect("writes");
        fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("sets");
        let names = || fs::read_dir(directory.path()).expect("reads").count();
        for (body, why) in
            [(&b"a\n1\n\n# rollcall.error \"divide by zero\"\n"[..], "divide by zero"), (&b"a\n1\n"[..], "HQ's log")]
        {
            let error = write_file(Breaks(body), SqlFormat::Csv, &path).expect_err("broken off");
            assert!(format!("{error:#}").contains(why), "{error:#}");
        }
        let cut = write_file(&b"a\n1\n"[..], SqlFormat::Csv, &path).expect_err("without its last line");
        assert!(cut.to_string().contains("coverage"), "{cut}");
        assert_eq!((fs::read_to_string(&path).expect("reads").as_str(), names()), ("old", 1));

        let link = directory.path().join("link.csv");
        std::os::unix::fs::symlink(&path, &link).expect("links");
        write_file(whole, SqlFormat::Csv, &link).expect("writes");
        assert_eq!(fs::read_to_string(&path).expect("reads"), "a\n1\n");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
        assert_eq!(names(), 3, "the answer, the link, the coverage");
        write_file(whole, SqlFormat::Csv, Path::new("/dev/null")).expect("writes");
        assert!(!fs::metadata("/dev/null").expect("there").is_file());
    }
}
