//! `rollcall users`: who may ask, and what they may see.

use std::{collections::BTreeMap, process::ExitCode};

use clap::{Args, Subcommand, ValueEnum};
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use rollcall_types::counted;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    client::{Client, HqAddress},
    print,
};

#[derive(Debug, Args)]
pub(crate) struct UsersArgs {
    #[command(subcommand)]
    command: Option<UsersCommand>,
    /// For programs.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    hq: HqAddress,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoleArg {
    /// Ask, and see the roll and incidents.
    Viewer,
    /// Also take incidents, invite and retire sites.
    Operator,
    /// Also change users and channels.
    Admin,
}

#[derive(Debug, Subcommand)]
enum UsersCommand {
    /// Add or change a user. What is not said stays as it is. A new one's password is made and
    /// shown once, unless it is given on standard input.
    Set {
        name: String,
        /// A new user is a viewer if nothing is said.
        #[arg(long, value_enum)]
        role: Option<RoleArg>,
        /// Only sites with this attribute are seen (`region=West`); may be given several times.
        #[arg(long = "sees", value_name = "NAME=VALUE")]
        sees: Vec<String>,
        /// All sites are seen.
        #[arg(long, conflicts_with = "sees")]
        sees_all: bool,
        /// Over the PostgreSQL port, incomplete answers are errors.
        #[arg(long)]
        strict: bool,
        /// There they come with a notice.
        #[arg(long, conflicts_with = "strict")]
        not_strict: bool,
        /// Read the password from the first line of standard input.
        #[arg(long)]
        password_stdin: bool,
        #[command(flatten)]
        hq: HqAddress,
    },
    /// Make a new password for a user, and show it once. With --data on HQ's own machine this needs
    /// no password, so that one that was
    /// lost locks nobody out.
    Reset {
        name: String,
        #[command(flatten)]
        hq: HqAddress,
    },
    /// The tokens of a user: made when, and valid until when.
    Tokens {
        user: String,
        /// For programs.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        hq: HqAddress,
    },
    /// Make a token for a program that asks on a user's behalf; it is shown once.
    Token {
        user: String,
        /// What it is for; a token of this name is replaced.
        name: String,
        /// It is valid for so many days.
        #[arg(long, default_value_t = 90)]
        days: u32,
        /// Revoke it instead.
        #[arg(long)]
        revoke: bool,
        #[command(flatten)]
        hq: HqAddress,
    },
    /// Remove a user, and their tokens.
    Remove {
        name: String,
        #[command(flatten)]
        hq: HqAddress,
    },
}

#[derive(Debug, Deserialize)]
struct UserLine {
    role: String,
    sees: BTreeMap<String, String>,
    strict: bool,
}

/// What it means to see only some sites.
fn say_limits(limits: &str, seen: u64, role: &str) {
    match seen {
        0 => eprintln!("WARNING: no site has {limits}: is it misspelt? `rollcall roster` shows the attributes"),
        seen => eprintln!("that is {} at present", counted(seen as usize, "site")),
    }
    if role != "viewer" {
        eprintln!("who sees only some sites may ask about these; taking incidents, inviting and settings concern all");
    }
}

/// Attributes as people read them; none if there are none.
fn in_words(sees: &Value) -> Option<String> {
    let sees = sees.as_object().filter(|sees| !sees.is_empty())?;
    let pairs = sees.iter().map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()));
    Some(pairs.collect::<Vec<String>>().join(", "))
}

pub(crate) fn run(args: UsersArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        Some(UsersCommand::Set { name, role, sees, sees_all, strict, not_strict, password_stdin, hq }) => {
            let pair = |text: &String| {
                let (name, value) =
                    text.split_once('=').ok_or_else(|| anyhow::anyhow!("--sees {text}: write NAME=VALUE"))?;
                Ok((name.to_owned(), value.to_owned()))
            };
            let sees = sees.iter().map(pair).collect::<anyhow::Result<BTreeMap<_, _>>>()?;
            let password = if password_stdin {
                let mut line = String::new();
                std::io::stdin().read_line(&mut line)?;
                Some(line.trim_end_matches(['\r', '\n']).to_owned())
            } else {
                None
            };
            let role = role.and_then(|role| role.to_possible_value()).map(|value| value.get_name().to_owned());
            let sees = (sees_all || !sees.is_empty()).then_some(sees);
            let strict = if strict { Some(true) } else { not_strict.then_some(false) };
            let body = json!({"role": role, "sees": sees, "strict": strict, "password": password});
            let answer: Value = Client::find(&hq)?.put(&format!("/api/users/{name}"), &body)?;
            say_rights(&name, &answer);
        }
        Some(UsersCommand::Reset { name, hq }) => {
            let client = Client::find(&hq)?;
            let users: BTreeMap<String, Value> = serde_json::from_str(&client.get("/api/users")?)?;
            anyhow::ensure!(users.contains_key(&name), "there is no user {name}; `rollcall users` lists them");
            let answer: Value =
                client.put(&format!("/api/users/{name}"), &json!({"password": null, "new_password": true}))?;
            eprintln!("New password of user {name} (shown once; the old one is no longer valid):");
            outln!("{}", answer["password"].as_str().unwrap_or_default());
        }
        Some(UsersCommand::Tokens { user, json, hq }) => {
            let text = Client::find(&hq)?.get(&format!("/api/users/{user}/tokens"))?;
            if json {
                outln!("{text}");
                return Ok(ExitCode::SUCCESS);
            }
            outln!("{}", table_of_tokens(&serde_json::from_str(&text)?));
        }
        Some(UsersCommand::Token { user, name, days, revoke, hq }) => {
            let (client, path) = (Client::find(&hq)?, format!("/api/users/{user}/tokens/{name}"));
            if revoke {
                let _: Value = client.delete(&path)?;
                eprintln!("token {name} of {user} is revoked");
            } else {
                let answer: Value = client.put(&path, &json!({"days": days}))?;
                let until = answer["expires_at"].as_str().unwrap_or_default();
                eprintln!("Token {name} of {user}, valid until {until} (shown once; use it as ROLLCALL_TOKEN):");
                outln!("{}", answer["token"].as_str().unwrap_or_default());
            }
        }
        Some(UsersCommand::Remove { name, hq }) => {
            let _: Value = Client::find(&hq)?.delete(&format!("/api/users/{name}"))?;
            eprintln!("user {name} is removed");
        }
        None => {
            let text = Client::find(&args.hq)?.get("/api/users")?;
            if args.json {
                outln!("{text}");
                return Ok(ExitCode::SUCCESS);
            }
            outln!("{}", table_of_users(serde_json::from_str(&text)?));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What a user has and may now, as the API answered.
fn say_rights(name: &str, answer: &Value) {
    match answer["password"].as_str() {
        Some(password) => {
            eprintln!("Password of user {name} (shown once):");
            outln!("{password}");
        }
        None => eprintln!("user {name} is changed"),
    }
    let limits = in_words(&answer["sees"]);
    let sees = limits.clone().unwrap_or_else(|| "all sites".to_owned());
    let role = answer["role"].as_str().unwrap_or("viewer");
    eprintln!("{name} is {role}, and sees {sees}");
    if let (Some(limits), Some(seen)) = (limits, answer["sites_seen"].as_u64()) {
        say_limits(&limits, seen, role);
    }
}

fn table_of_tokens(tokens: &BTreeMap<String, Value>) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header(["token", "made", "valid until"]);
    let time = |value: &Value| print::time(value).unwrap_or_default();
    for (name, token) in tokens {
        table.add_row([name.clone(), time(&token["made_at"]), time(&token["expires_at"])]);
    }
    table
}

fn table_of_users(users: BTreeMap<String, UserLine>) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header(["user", "role", "sees", "incomplete answers"]);
    for (name, user) in users {
        let sees: Vec<String> = user.sees.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        let sees = if sees.is_empty() { "all sites".to_owned() } else { sees.join(", ") };
        let told = if user.strict { "are errors" } else { "come with a notice" };
        table.add_row([name, user.role, sees, told.to_owned()]);
    }
    table
}
