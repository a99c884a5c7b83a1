//! `rollcall lake`: whether what is in the lake is what was written, and mending it.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};
use rollcall_hq::{LakePlace, Mended, check_lake, repair_lake};
use rollcall_lake::CheckReport;
use rollcall_types::counted;

use crate::{FAILURE, FINDING, print::files_bar};

#[derive(Debug, Args)]
pub(crate) struct LakeArgs {
    #[command(subcommand)]
    command: LakeCommand,
}

#[derive(Debug, Subcommand)]
enum LakeCommand {
    /// Read everything (logs, checkpoints, data files) and compare it with its digests; HQ may run
    /// meanwhile.
    #[command(visible_alias = "scrub")]
    Check {
        #[command(flatten)]
        place: PlaceArgs,
        /// For programs.
        #[arg(long)]
        json: bool,
    },
    /// Mend what `check` finds; HQ must not run. What is taken out, the sites state again.
    Repair {
        #[command(flatten)]
        place: PlaceArgs,
        /// Only say what would be done.
        #[arg(long)]
        dry_run: bool,
        /// For programs.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct PlaceArgs {
    /// HQ's data directory.
    #[arg(long, env = "ROLLCALL_DATA", value_name = "DIR", default_value = crate::client::DEFAULT_DATA)]
    data: PathBuf,
    /// The object store that holds the lake, if that is not the directory.
    #[arg(long, value_name = "URL")]
    store: Option<String>,
}

impl From<PlaceArgs> for LakePlace {
    fn from(place: PlaceArgs) -> Self {
        Self { data: place.data, store: place.store }
    }
}

pub(crate) async fn run(args: LakeArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        LakeCommand::Check { place, json } => {
            let report = checked(&place.into()).await?;
            show(&report, json)?;
            Ok(if report.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FINDING) })
        }
        LakeCommand::Repair { place, dry_run, json } => {
            let place = place.into();
            let report = checked(&place).await?;
            if dry_run {
                show(&report, json)?;
                return Ok(if report.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FINDING) });
            }
            let mended = repair_lake(&place, report).await?;
            show_mended(&mended, json)
        }
    }
}

async fn checked(place: &LakePlace) -> anyhow::Result<CheckReport> {
    let bar = files_bar()?.with_message("reading the lake");
    let report = check_lake(place, |read, of| {
        bar.set_length(of as u64);
        bar.set_position(read as u64);
    });
    let report = report.await?;
    bar.finish_and_clear();
    Ok(report)
}

fn show(report: &CheckReport, is_json: bool) -> anyhow::Result<()> {
    if is_json {
        outln!("{}", serde_json::to_string(report)?);
        return Ok(());
    }
    for finding in &report.findings {
        outln!("{}\n  remedy: {}", finding.what, finding.remedy());
        if let rollcall_lake::Damage::Log { lost, .. } = &finding.damage {
            for range in lost {
                outln!(
                    "  site {} of the roster, life {}: positions {} to {}",
                    range.site,
                    range.epoch,
                    range.after + 1,
                    range.through
                );
            }
        }
    }
    let unverified = match report.unverified {
        0 => String::new(),
        count => format!(", {count} of them without a digest"),
    };
    outln!(
        "{} in {} and {} ({}{unverified})",
        counted(report.findings.len(), "finding"),
        counted(report.tables, "table"),
        counted(report.files, "data file"),
        indicatif::BinaryBytes(report.bytes)
    );
    Ok(())
}

fn show_mended(mended: &[Mended], is_json: bool) -> anyhow::Result<ExitCode> {
    let is_whole = mended.iter().all(|mended| mended.error.is_none());
    let code = if is_whole { ExitCode::SUCCESS } else { ExitCode::from(FAILURE) };
    if is_json {
        outln!("{}", serde_json::to_string(mended)?);
        return Ok(code);
    }
    for Mended { finding, error, asked, gone } in mended {
        outln!("{}", finding.what);
        match error {
            None => outln!("  done: {}", finding.remedy()),
            Some(error) => outln!("  not mended: {error}"),
        }
        match asked.as_slice() {
            [] => {}
            [one] => outln!("  {one} sends its rows again when it is heard; until then it is missing"),
            [first, .., last] => {
                let count = asked.len();
                outln!(
                    "  {count} sites ({first} to {last}) send their rows again when heard; until then they are missing"
                );
            }
        }
        for gone in gone {
            outln!("  cannot come back: {gone}");
        }
    }
    outln!("{} findings mended", mended.iter().filter(|mended| mended.error.is_none()).count());
    Ok(code)
}
