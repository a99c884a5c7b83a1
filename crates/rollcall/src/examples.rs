//! An example for every command, as its `--help` shows it.

use clap::Command;

/// By command: what people type. Those not named here have theirs beside their definition.
const EXAMPLES: &[(&str, &str)] = &[
    ("hq", "rollcall hq --data /srv/rollcall --listen-sites 0.0.0.0:7400 --name Contoso"),
    (
        "sql",
        "rollcall sql \"SELECT state, count(*) FROM sales JOIN sites ON sites.id = sales._site GROUP BY 1\" --format csv",
    ),
    ("roster", "rollcall roster import sites.csv --dry-run"),
    ("roster export", "rollcall roster export > sites.csv"),
    ("roster invitations", "rollcall roster invitations --json"),
    ("roster revoke", "rollcall roster revoke 4f1c2a9b7d3e"),
    ("roster resend", "rollcall roster resend --refused --reason \"restored from Tuesday's backup\""),
    ("site", "rollcall site seattle-01"),
    ("site accept", "rollcall site seattle-01 accept 3 --reason \"the machine was replaced\""),
    ("site keep", "rollcall site seattle-01 keep 2 --reason \"an old image was started by mistake\""),
    ("incidents", "rollcall incidents --all"),
    ("incidents show", "rollcall incidents show 17"),
    ("incidents ack", "rollcall incidents ack 17 --by Ada --reason \"the line is being repaired\" --hours 4"),
    ("incidents normal", "rollcall incidents normal 17 --by Ada"),
    ("incidents outage", "rollcall incidents outage 17 --by Ada"),
    ("incidents budget", "rollcall incidents budget"),
    ("incidents close", "rollcall incidents close seattle-01 --by Ada --until 2027-01-08 --reason refit"),
    ("tables", "rollcall tables --json"),
    ("tables set", "rollcall tables set sales --event-time sold_at"),
    ("tables retype", "rollcall tables retype sales qty decimal(12,3)"),
    ("tables rekey", "rollcall tables rekey sales id,till"),
    ("tables forget", "rollcall tables forget scratch --confirm scratch"),
    ("publish", "rollcall publish prices --from prices.csv --key sku,region --to \"region = site.region\""),
    ("publications", "rollcall publications prices"),
    ("settings", "rollcall settings"),
    ("settings set", "rollcall settings set outlets --to \"site.format = 'outlet'\" --capture returns"),
    ("settings remove", "rollcall settings remove outlets"),
    ("settings show", "rollcall settings show seattle-01"),
    ("quarantine", "rollcall quarantine"),
    ("quarantine show", "rollcall quarantine show 3"),
    ("quarantine take", "rollcall quarantine take 3"),
    ("quarantine give-up", "rollcall quarantine give-up 3 --reason \"test data\""),
    ("quotas", "rollcall quotas"),
    ("quotas set", "rollcall quotas set new_columns_a_day=50"),
    ("secrets", "rollcall secrets"),
    ("secrets rotate", "rollcall secrets rotate operator-token"),
    ("secrets rotate ca", "rollcall secrets rotate ca"),
    ("secrets rotate operator-token", "rollcall secrets rotate operator-token"),
    ("secrets rotate node-key", "rollcall hq stop && rollcall secrets rotate node-key"),
    ("secrets finish", "rollcall secrets finish"),
    ("lake", "rollcall lake check"),
    ("lake check", "rollcall lake check --data /srv/rollcall"),
    ("lake repair", "rollcall hq stop && rollcall lake repair --dry-run"),
    ("users", "rollcall users"),
    ("users set", "rollcall users set ada --role operator --sees region=West"),
    ("users reset", "rollcall users reset admin --data /srv/rollcall"),
    ("users token", "rollcall users token ada nightly-report --days 30"),
    ("users tokens", "rollcall users tokens ada"),
    ("users remove", "rollcall users remove ada"),
    ("channels", "rollcall channels"),
    ("channels set", "rollcall channels set desk --from desk.json"),
    ("channels test", "rollcall channels test desk"),
    ("channels preview", "rollcall channels preview desk --incident 17"),
    ("channels who", "rollcall channels who seattle-01"),
    ("channels remove", "rollcall channels remove desk"),
    ("holidays", "rollcall holidays bavaria --set 2026-12-25,2026-12-26,2027-01-06"),
    ("audit", "rollcall audit --by ada --limit 20"),
    ("sessions", "rollcall sessions"),
    ("replay", "rollcall replay --events history.csv --roster sites.csv --html report.html"),
    ("fleet", "rollcall fleet --sites 1000 --against /srv/rollcall"),
];

/// The command line with the examples in it.
pub(crate) fn with_examples(command: Command) -> Command {
    EXAMPLES.iter().fold(command, |command, (path, example)| {
        let names: Vec<&str> = path.split(' ').collect();
        put(command, &names, example)
    })
}

fn put(command: Command, path: &[&str], example: &str) -> Command {
    match path {
        [] => command.after_help(format!("Example:\n  {example}")),
        [name, rest @ ..] => command.mut_subcommand(*name, |command| put(command, rest, example)),
    }
}
