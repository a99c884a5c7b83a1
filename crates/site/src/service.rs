//! `rollcall-site install`: the agent as a service of systemd, for a store that has joined.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail, ensure};
use clap::Args;
use rollcall_site::StateDirectory;

use crate::cli::Database;

const UNIT: &str = include_str!("../../../packaging/systemd/rollcall-site.service.in");
const ENVIRONMENT: &str = include_str!("../../../packaging/site.env.in");

#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    #[command(flatten)]
    db: Database,
    /// The account that the agent runs as: it must be able to write the database. As a rule its
    /// owner.
    #[arg(long)]
    user: Option<String>,
    /// Write the files, and start nothing.
    #[arg(long)]
    no_start: bool,
    /// Where units are.
    #[arg(long, value_name = "DIR", default_value = "/etc/systemd/system")]
    unit_dir: PathBuf,
    /// Where the file with the agent's options is put.
    #[arg(long, value_name = "DIR", default_value = "/etc/rollcall")]
    config_dir: PathBuf,
}

/// Writes the unit and its options, and starts it.
pub(crate) fn install(args: InstallArgs, state: Option<&Path>) -> anyhow::Result<()> {
    let database = std::path::absolute(args.db.find()?)?;
    let directory = StateDirectory::of(&database, state);
    let site = directory.identity()?.site;
    let user = match args.user {
        Some(user) => user,
        None => owner(&database)?,
    };
    let folder = database.parent().context("the database is in no folder")?;
    let mut folders = vec![folder.to_owned()];
    if !directory.path().starts_with(folder) {
        folders.push(std::path::absolute(directory.path())?);
    }
    for path in folders.iter().chain([&database]) {
        let text = path.to_string_lossy();
        ensure!(
            !text.contains(['\n', '"', '%', '\\']),
            "{text:?} cannot be named in a unit; move it, or write the unit by hand"
        );
    }
    let quoted = folders.iter().map(|folder| format!("\"{}\"", folder.display())).collect::<Vec<_>>().join(" ");
    let unit_name = format!("rollcall-site-{site}.service");
    let environment = args.config_dir.join(format!("site-{site}.env"));
    let program = std::env::current_exe().context("finding this program")?;
    let is_in_home = folders.iter().any(|folder| folder.starts_with("/home") || folder.starts_with("/root"));
    let mut run = format!("\"{}\"", program.display());
    if let Some(state) = state {
        run.push_str(&format!(" --state \"{}\"", std::path::absolute(state)?.display()));
    }
    let unit = UNIT
        .replace("@SITE@", &site)
        .replace("@ENV@", &environment.display().to_string())
        .replace("@PROGRAM@", &run)
        .replace("@USER@", &user)
        .replace("@HOME@", if is_in_home { "no" } else { "yes" })
        .replace("@FOLDERS@", &quoted);
    let options = ENVIRONMENT.replace("@UNIT@", &unit_name).replace("@DB@", &format!("\"{}\"", database.display()));
    write(&args.unit_dir.join(&unit_name), &unit)?;
    // Options that a person changed stay.
    if !environment.exists() {
        write(&environment, &options)?;
    }
    if args.no_start {
        eprintln!("start it with: systemctl enable --now {unit_name}");
        return Ok(());
    }
    systemctl(&["daemon-reload"])?;
    systemctl(&["enable", "--now", &unit_name])?;
    eprintln!("the agent of {site} runs as {unit_name}, and starts with this machine");
    Ok(())
}

/// Writes a file, and its folder if need be.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let made = path.parent().map_or(Ok(()), fs::create_dir_all);
    let written = made.and_then(|()| fs::write(path, text));
    written.with_context(|| format!("writing {}; is this run as root?", path.display()))?;
    eprintln!("wrote {}", path.display());
    Ok(())
}

fn systemctl(arguments: &[&str]) -> anyhow::Result<()> {
    let status = Command::new("systemctl").args(arguments).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => bail!("systemctl {} failed ({status}); `journalctl -xe` says why", arguments.join(" ")),
        Err(error) => bail!(
            "systemctl cannot be run ({error}): this machine has no systemd; start `rollcall-site run` by other means"
        ),
    }
}

/// The name of a file's owner.
#[cfg(unix)]
fn owner(path: &Path) -> anyhow::Result<String> {
    use std::os::unix::fs::MetadataExt;
    let id = fs::metadata(path).with_context(|| format!("looking at {}", path.display()))?.uid();
    let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut lines = accounts.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let known = lines.find(|fields| fields.get(2).is_some_and(|uid| *uid == id.to_string()));
    // systemd takes a number as well.
    Ok(known.and_then(|fields| fields.first().map(ToString::to_string)).unwrap_or_else(|| id.to_string()))
}

#[cfg(not(unix))]
fn owner(_: &Path) -> anyhow::Result<String> {
    bail!("this machine has no systemd")
}
