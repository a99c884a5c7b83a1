//! `rollcall backup` and `rollcall restore`.

use std::process::ExitCode;

use clap::Args;
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use rollcall_hq::{Restored, back_up, restore};
use rollcall_types::counted;

use crate::{lake::PlaceArgs, print::files_bar, roster::named};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  rollcall backup /mnt/backup/rollcall\n  rollcall backup s3://backups/rollcall --json\n\n\
    The same place may be given again: only what is new is copied. The copy is read and counted before it is called complete."
)]
pub(crate) struct BackupArgs {
    /// A directory, or an object store (s3://bucket/prefix).
    to: String,
    #[command(flatten)]
    place: PlaceArgs,
    /// Put node.key, which opens the lake's secrets, into the backup as well. Who has both has the
    /// secrets.
    #[arg(long)]
    with_key: bool,
    /// For programs.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rollcall hq stop && rollcall restore /mnt/backup/rollcall --replace")]
pub(crate) struct RestoreArgs {
    /// Where the backup is.
    from: String,
    #[command(flatten)]
    place: PlaceArgs,
    /// Move the lake that is there aside, into a folder of the data directory.
    #[arg(long)]
    replace: bool,
    /// For programs.
    #[arg(long)]
    json: bool,
}

/// A bar that tells what is being done.
fn bar() -> anyhow::Result<impl FnMut(&str, usize, usize)> {
    let bar = files_bar()?;
    Ok(move |what: &str, done: usize, of: usize| {
        bar.set_message(what.to_owned());
        bar.set_length(of as u64);
        bar.set_position(done as u64);
    })
}

pub(crate) async fn run(args: BackupArgs) -> anyhow::Result<ExitCode> {
    let copied = back_up(&args.place.into(), &args.to, args.with_key, bar()?).await?;
    if args.json {
        outln!("{}", serde_json::to_string(&copied)?);
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header(["table", "version", "rows, with history", "files"]);
    for one in &copied.tables {
        table.add_row([one.table.clone(), one.version.to_string(), one.rows.to_string(), one.files.to_string()]);
    }
    outln!("{table}");
    eprintln!(
        "{} holds a complete backup of lake {} ({}); it was read and counted",
        args.to,
        copied.lake,
        indicatif::BinaryBytes(copied.bytes)
    );
    if !args.with_key {
        eprintln!("node.key is not in it: keep a copy of it elsewhere, or every site must join again after a restore");
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn run_restore(args: RestoreArgs) -> anyhow::Result<ExitCode> {
    let now = rollcall_types::Timestamp::from(chrono::Utc::now());
    let restored: Restored = restore(&args.from, &args.place.into(), args.replace, now, bar()?).await?;
    if args.json {
        outln!("{}", serde_json::to_string(&restored)?);
        return Ok(ExitCode::SUCCESS);
    }
    let rows: u64 = restored.copied.tables.iter().map(|table| table.rows).sum();
    eprintln!("restored: {}, {rows} rows with history", counted(restored.copied.tables.len(), "table"));
    if let Some(aside) = &restored.moved_to {
        eprintln!("the old directory is in {}; remove it when you no longer need it", aside.display());
    }
    if !restored.has_key {
        eprintln!("node.key is missing: put it into the data directory before you start HQ");
    }
    if !restored.sites.is_empty() {
        let sites: Vec<String> = restored.sites.iter().map(ToString::to_string).collect();
        eprintln!("{} may have sent more than this backup has: {}", counted(sites.len(), "site"), named(&sites));
        eprintln!("start HQ; then make the refused sites send what it lacks:");
        eprintln!("  rollcall roster resend --refused --reason \"restored from a backup\"");
    }
    Ok(ExitCode::SUCCESS)
}
