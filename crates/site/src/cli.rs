//! What can be said on the agent's command line.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use rollcall_capture::{ListedTable, TableSpec};
use rollcall_log::LogFormat;
use rollcall_site::{JoinOptions, SiteError, database_at, patiently, read_token};

/// Keeps HQ informed of every change in this store's database.
#[derive(Debug, Parser)]
#[command(
    name = "rollcall-site",
    version,
    after_help = "Example: a store joins, and its agent runs\n  \
        rollcall-site tables --db pos.sqlite\n  \
        rollcall-site join --token-file token.txt --hq hq.example.com:7400 --db pos.sqlite --tables all --run\n\n\
        Exit codes: status 0 current, 1 unconfirmed too long, 2 broken; every command 3 if it failed or was called wrongly."
)]
pub(crate) struct Cli {
    /// Where the agent's own files are: as a rule in FILE.rollcall beside the database. Say it at
    /// every command where the database is reached through a folder that is a link.
    #[arg(long, global = true, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// The form of the log on stderr.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, env = "ROLLCALL_LOG_FORMAT")]
    pub log_format: LogFormat,
    #[command(subcommand)]
    pub command: Command,
}

/// The store's database.
#[derive(Debug, Clone, Args)]
pub(crate) struct Database {
    /// The store's SQLite database; where none is named, the one in this folder that has joined HQ.
    #[arg(long, value_name = "FILE", env = "ROLLCALL_DB")]
    pub db: Option<PathBuf>,
}

impl Database {
    /// The file that is meant.
    pub(crate) fn find(self) -> Result<PathBuf, SiteError> {
        if let Some(named) = self.db {
            return Ok(named);
        }
        let entries = std::fs::read_dir(".").into_iter().flatten().flatten().map(|entry| entry.path());
        let mut joined: Vec<PathBuf> = entries
            .filter(|path| path.extension().is_some_and(|ending| ending == "rollcall") && path.is_dir())
            .map(|path| path.with_extension(""))
            .filter(|database| database.is_file())
            .map(|database| database.strip_prefix(".").map_or(database.clone(), PathBuf::from))
            .collect();
        joined.sort();
        match joined.len() {
            1 => Ok(joined.remove(0)),
            0 => Err(SiteError::Usage(
                "no database in this folder has joined HQ; name the store's with --db FILE, or set ROLLCALL_DB"
                    .to_owned(),
            )),
            _ => {
                let names: Vec<String> = joined.iter().map(|path| path.display().to_string()).collect();
                Err(SiteError::Usage(format!("name one of {} with --db FILE", names.join(", "))))
            }
        }
    }
}

/// What joining takes.
#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// The invitation that `rollcall roster invite` printed; - reads it from standard input.
    pub token: Option<String>,
    /// A file that holds the invitation.
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    pub token_file: Option<PathBuf>,
    /// HQ's address; may be given several times. Without a port, it is 7400.
    #[arg(long, required = true, value_name = "HOST:PORT")]
    pub hq: Vec<String>,
    /// The store's SQLite database, as it is; its programs need not stop.
    #[arg(long, value_name = "FILE", env = "ROLLCALL_DB")]
    pub db: PathBuf,
    /// Tables to capture; `all` for every one that can be, as `rollcall-site tables` lists them.
    #[arg(long, required = true, value_delimiter = ',', value_name = "TABLE,…")]
    pub tables: Vec<String>,
    /// Tables not to capture, with --tables all.
    #[arg(long, value_delimiter = ',', value_name = "TABLE,…")]
    pub except: Vec<String>,
    /// Columns never to be captured.
    #[arg(long, value_delimiter = ',', value_name = "TABLE.COLUMN,…")]
    pub exclude: Vec<String>,
    /// Columns that this store left out before, and that are captured from now on.
    #[arg(long, value_delimiter = ',', value_name = "TABLE.COLUMN,…")]
    pub include: Vec<String>,
    /// The column with the time at which a row of a table happened, so that a question about
    /// last month needs no site beyond it; HQ takes it where nobody there says otherwise. May
    /// be given for several tables.
    #[arg(long, value_name = "TABLE.COLUMN")]
    pub event_time: Vec<String>,
    /// This database is this site's now, though it was another site's: what is noted of that one in
    /// it is forgotten, and every row is sent as this site's.
    #[arg(long)]
    pub replace_site: bool,
    /// Whom people at this store call when something is wrong; `status` and its page say so.
    #[arg(long, value_name = "TEXT")]
    pub contact: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the tables of a database: which can be captured, and why others cannot.
    #[command(after_help = "Example:\n  rollcall-site tables --db pos.sqlite")]
    Tables {
        /// The store's SQLite database.
        #[arg(long, value_name = "FILE", env = "ROLLCALL_DB")]
        db: PathBuf,
        /// For programs.
        #[arg(long)]
        json: bool,
    },
    /// Try everything that `join` needs, and change nothing: tables, rights, HQ's address, the
    /// invitation, the clock.
    #[command(
        after_help = "Example:\n  rollcall-site check --token-file token.txt --hq hq.example.com --db pos.sqlite --tables all"
    )]
    Check(JoinArgs),
    /// Enrol this store with HQ and begin to capture its tables. A join that was broken off is
    /// taken up by the same command.
    #[command(after_help = "Examples:\n  \
        rollcall-site join rc1.… --hq hq.example.com:7400 --db pos.sqlite --tables sales,items --exclude sales.card_number\n  \
        rollcall-site join --token-file token.txt --hq hq.example.com --db pos.sqlite --tables all --except log --run")]
    Join {
        #[command(flatten)]
        join: JoinArgs,
        /// Go on running as the agent.
        #[arg(long)]
        run: bool,
    },
    /// Run the agent until stopped.
    #[command(after_help = "Example:\n  \
        rollcall-site run --db pos.sqlite --on-unconfirmed 'wall \"$ROLLCALL_SUMMARY\"' --status-page 127.0.0.1:7490")]
    Run {
        #[command(flatten)]
        db: Database,
        /// HQ's address in place of the one given to join; may be given several times.
        #[arg(long, value_name = "HOST:PORT")]
        hq: Vec<String>,
        /// Run this command when changes have waited for HQ too long, or worse; again every 4
        /// hours.
        #[arg(long, value_name = "COMMAND", env = "ROLLCALL_ON_UNCONFIRMED")]
        on_unconfirmed: Option<String>,
        /// Unconfirmed for longer than this is too long.
        #[arg(long, default_value_t = 30, value_name = "MINUTES", env = "ROLLCALL_MAX_AGE")]
        max_age: u64,
        /// Serve a status page here, such as 127.0.0.1:7490.
        #[arg(long, value_name = "HOST:PORT", env = "ROLLCALL_STATUS_PAGE")]
        status_page: Option<SocketAddr>,
    },
    /// Say how this store stands with HQ; exit code 0 current, 1 unconfirmed too long, 2 broken.
    #[command(after_help = "Example:\n  rollcall-site status --db pos.sqlite --json")]
    Status {
        #[command(flatten)]
        db: Database,
        /// Unconfirmed for longer than this is too long.
        #[arg(long, default_value_t = 30, value_name = "MINUTES", env = "ROLLCALL_MAX_AGE")]
        max_age: u64,
        /// For programs.
        #[arg(long)]
        json: bool,
    },
    /// Install the agent as a service of systemd and start it; the store must have joined.
    #[command(after_help = "Example:\n  sudo rollcall-site install --db /srv/pos/pos.sqlite")]
    Install(crate::service::InstallArgs),
    /// Write man pages and completions into a folder, for who packages this.
    #[command(hide = true, after_help = "Example:\n  rollcall-site generate target/man")]
    Generate {
        /// The folder.
        dir: PathBuf,
    },
    /// Stop capturing a table, or all of them; the store's own tables are left as they are.
    #[command(after_help = "Example:\n  rollcall-site detach --db pos.sqlite --table log")]
    Detach {
        #[command(flatten)]
        db: Database,
        /// Only this table.
        #[arg(long)]
        table: Option<String>,
        /// Remove the journal too, with everything not confirmed yet.
        #[arg(long)]
        forget: bool,
    },
    /// Have the agent leave the database alone, to put a backup in place: it goes on by itself
    /// after a while. Changes are captured meanwhile.
    #[command(after_help = "Example:\n  rollcall-site pause --db pos.sqlite --minutes 30")]
    Pause {
        #[command(flatten)]
        db: Database,
        /// For so long at most.
        #[arg(long, default_value_t = 60, value_name = "MINUTES")]
        minutes: u32,
    },
    /// Have the agent go on, after a pause or after it gave up on a database that went back in time
    /// again and again.
    #[command(after_help = "Example:\n  rollcall-site resume --db pos.sqlite")]
    Resume {
        #[command(flatten)]
        db: Database,
    },
    /// Let HQ have a table in which the store has rows of its own: HQ's rows take their place.
    #[command(after_help = "Example:\n  rollcall-site adopt prices --db pos.sqlite")]
    Adopt {
        /// The table, which HQ publishes.
        table: String,
        #[command(flatten)]
        db: Database,
    },
    /// Accept that HQ was restored from a backup, and send again what it lacks.
    #[command(after_help = "Example:\n  rollcall-site resend --db pos.sqlite")]
    Resend {
        #[command(flatten)]
        db: Database,
    },
}

impl JoinArgs {
    /// What was said, with `all` looked up in the database.
    pub(crate) fn options(&self, state: Option<PathBuf>) -> Result<JoinOptions, SiteError> {
        Ok(JoinOptions {
            token: read_token(self.token.as_deref(), self.token_file.as_deref())?,
            hq_addresses: self.hq.clone(),
            database: self.db.clone(),
            state,
            replaces_site: self.replace_site,
            tables: self.specs()?,
            included: self.include.iter().map(|text| table_column("--include", text)).collect::<Result<_, _>>()?,
            contact: self.contact.clone(),
            event_times: self
                .event_time
                .iter()
                .map(|text| table_column("--event-time", text))
                .collect::<Result<_, _>>()?,
        })
    }

    fn specs(&self) -> Result<Vec<TableSpec>, SiteError> {
        let wants_all = self.tables.iter().any(|table| table.trim() == "all");
        let tables: Vec<String> = match wants_all && self.tables.len() == 1 {
            true => {
                let listed = listed(&self.db)?;
                let known = listed.iter().map(|listed| listed.table.as_str());
                for except in &self.except {
                    if !listed.iter().any(|listed| listed.table.eq_ignore_ascii_case(except.trim())) {
                        let near = rollcall_types::is_meant(except, known);
                        return Err(SiteError::Usage(format!(
                            "--except {except}: no such table in this database{near}"
                        )));
                    }
                }
                let is_wanted =
                    |table: &str| !self.except.iter().any(|except| except.trim().eq_ignore_ascii_case(table));
                let can_be = listed.into_iter().filter(|listed| listed.problem.is_none() && is_wanted(&listed.table));
                can_be.map(|listed| listed.table).collect()
            }
            false if wants_all => {
                return Err(SiteError::Usage("--tables all stands alone; leave some out with --except".to_owned()));
            }
            false if !self.except.is_empty() => {
                return Err(SiteError::Usage("--except goes with --tables all".to_owned()));
            }
            false => self.tables.iter().map(|table| table.trim().to_owned()).collect(),
        };
        with_exclusions(tables, &self.exclude)
    }
}

/// The tables of a database that is there.
pub(crate) fn listed(database: &std::path::Path) -> Result<Vec<ListedTable>, SiteError> {
    if !database.is_file() {
        return Err(SiteError::Usage(format!("there is no database {}", database.display())));
    }
    let mut source = database_at(database).source()?;
    patiently(|| source.list_tables())
}

fn with_exclusions(tables: Vec<String>, exclude: &[String]) -> Result<Vec<TableSpec>, SiteError> {
    let mut specs: Vec<TableSpec> = tables.into_iter().map(|table| TableSpec { table, excluded: Vec::new() }).collect();
    for text in exclude {
        let (table, column) = table_column("--exclude", text)?;
        let Some(place) = specs.iter().position(|spec| spec.table.eq_ignore_ascii_case(&table)) else {
            let near = rollcall_types::is_meant(&table, specs.iter().map(|spec| spec.table.as_str()));
            return Err(SiteError::Usage(format!("--exclude {text:?}: that table is not among --tables{near}")));
        };
        specs[place].excluded.push(column);
    }
    Ok(specs)
}

/// What an option says as `table.column`.
fn table_column(option: &str, text: &str) -> Result<(String, String), SiteError> {
    let pair = text.split_once('.').map(|(table, column)| (table.to_owned(), column.to_owned()));
    pair.ok_or_else(|| SiteError::Usage(format!("{option} {text:?}: write it as table.column")))
}

/// Unconfirmed for longer than this is too long, unless told otherwise.
pub(crate) const MAX_AGE: Duration = Duration::from_secs(30 * 60);
