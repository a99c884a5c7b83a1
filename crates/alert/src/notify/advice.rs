//! What is likely, and what to look at first, by cause. Whoever is told may never have heard of
//! Rollcall.

use rollcall_roll::{Condition, Incident, Kind};
use rollcall_types::Cause;

/// What is likely, and what to check first, the likeliest first.
pub(super) struct Advice {
    pub(super) likely: &'static str,
    pub(super) check: &'static [&'static str],
}

const fn advice(likely: &'static str, check: &'static [&'static str]) -> Advice {
    Advice { likely, check }
}

/// For an incident.
pub(super) fn of(incident: &Incident) -> Advice {
    match incident.kind {
        Kind::Group if incident.attribute.is_none() => advice(
            "So many sites at once are more likely HQ's trouble than theirs: its line, its name in DNS, its certificate, its firewall.",
            &[
                "From outside, can HQ's address for sites be reached (`rollcall hq --announce`, port 7400)?",
                "Did DNS, a firewall or a certificate change at HQ today?",
            ],
        ),
        Kind::Group => advice(
            "What these sites share has failed: its provider, its power, its server. The sites themselves are probably well.",
            &[
                "Ask whoever runs what they share whether it is down, and until when.",
                "Call one of the stores: do they sell? Then only the line is gone, and nothing is lost.",
            ],
        ),
        Kind::CohortQuiet => advice(
            "A holiday that nobody told HQ of, or something all of them share.",
            &[
                "Is it a closing day there? Then declare it: a holiday calendar, or `rollcall incidents close SITE --until DAY`.",
            ],
        ),
        Kind::HqBlind => advice(
            "HQ itself cannot hear, or was stopped. Nothing is said about any site until 10 minutes after nine tenths of them are heard \
             again and have sent their backlogs, or an hour after most are heard.",
            &[
                "Is HQ's own network up, and its address for sites reachable from outside?",
                "Is its disk or object store writable (the log of `rollcall hq`)?",
            ],
        ),
        Kind::Hq => {
            advice("HQ itself fails at something it must do.", &["The log of `rollcall hq` has the whole error."])
        }
        Kind::Channel => advice(
            "People are not told what they should be.",
            &[
                "Does the address still exist, and is its password or key still good? Try `rollcall channels test NAME`.",
            ],
        ),
        Kind::Chronic => advice(
            "These lines are bad, and have been for days.",
            &["Have the lines repaired: a second provider, a new router."],
        ),
        Kind::Publication => of_cause(Cause::NotUpdated),
        Kind::Drop => advice(
            "Rows come, far fewer than usual: some tills are off, or part of the capture is.",
            &[
                "Are all tills of the store switched on and logged in?",
                "`rollcall-site status` at the store: is every table captured?",
            ],
        ),
        Kind::NeverHeard => match incident.cause {
            Some(Cause::NeverEnrolled) => of_cause(Cause::NeverEnrolled),
            _ => advice(
                "The site used its invitation and was never heard since.",
                &["At the store, does `rollcall-site run` run, and does `rollcall-site status` reach HQ?"],
            ),
        },
        Kind::Condition(condition) => of_condition(condition),
        Kind::Silence => of_cause(incident.cause.unwrap_or(Cause::PowerOrLink)),
    }
}

fn of_condition(condition: Condition) -> Advice {
    match condition {
        Condition::ColumnGone => advice(
            "A column that HQ has of this store is gone there: it was dropped or renamed.",
            &[
                "Was the till's software updated, or a table changed by hand?",
                "If that is as it should be: `rollcall tables set TABLE --optional-column COLUMN`",
            ],
        ),
        Condition::Quarantined => advice(
            "Rows of the site could not be taken and are kept aside; all others are here.",
            &["`rollcall quarantine` says which rows and why.", "Mend the cause, then `rollcall quarantine take`."],
        ),
        Condition::Quota => advice(
            "The site would have HQ keep more than it may.",
            &["`rollcall quotas` says who has how much. Is it a loop at the store, or a store that has grown?"],
        ),
        Condition::Loss => advice(
            "Changes are lost for good; the site recorded that itself, usually when its disk died.",
            &[
                "Ask the store's own books for what is missing; then account for it with `rollcall incidents outage ID --by NAME`.",
            ],
        ),
        Condition::Restated => advice(
            "Rows of a table may be missing or stale until the site has stated all of them again.",
            &["Nothing, if it gets done within the hour: `rollcall call`"],
        ),
        other => of_cause(other.cause()),
    }
}

/// Of a store that is well, but for a part of its rows.
fn of_a_part(cause: Cause) -> Advice {
    match cause {
        Cause::RowsNotTaken => advice(
            "Rows of the store are not in answers: HQ could not take them and keeps them aside, or the store does not send them.",
            &["The sentence above names the remedy.", "`rollcall quarantine` lists what is kept aside."],
        ),
        Cause::Mismatch => advice(
            "What arrived is not what the site counted.",
            &[
                "`rollcall sql \"SELECT * FROM rollcall.manifests WHERE rows_here <> rows_stated\"` says which table and when.",
            ],
        ),
        Cause::Misfit => advice(
            "Values do not fit the type of their column at HQ; they are kept, and null until it is widened.",
            &["`rollcall tables` says which column, and how to widen it."],
        ),
        Cause::Zone => advice(
            "What time the store's rows are from is not sure: nobody said its time zone, or it was corrected.",
            &[
                "`rollcall roster set SITE tz=ZONE`",
                "Rows from before: `rollcall roster resend SITE --reason \"time zone corrected\"`",
            ],
        ),
        _ => advice(
            "The store works, and a part of what it has is not sent.",
            &[
                "`rollcall sql \"SELECT * FROM rollcall.uncaptured\"` says which tables and columns; at the store, `rollcall-site tables` does.",
            ],
        ),
    }
}

/// Of a store that is not expected, yet or now.
fn of_no_trouble(cause: Cause) -> Advice {
    match cause {
        Cause::NeverEnrolled => advice(
            "The site is on the roster, and nobody has joined it.",
            &["Is the agent installed there? Invite it again: `rollcall roster invite SITE`"],
        ),
        _ => advice("It said goodbye.", &[]),
    }
}

fn of_cause(cause: Cause) -> Advice {
    match cause {
        Cause::PowerOrLink => advice(
            "Nothing at all arrives: no power, no line, or the agent does not run. What was sold meanwhile waits at the store and is not lost.",
            &[
                "Call the store: have they power, and do they sell?",
                "Can they open any web page from the back office? If not, restart the router, then call the provider.",
                "On the store's server, `rollcall-site status` says what its agent tries and what answers.",
            ],
        ),
        Cause::Void => advice(
            "The store talks to something that is not HQ: an old address, a wrong DNS entry. It looks well from there, and nothing arrives.",
            &[
                "What does the store's server resolve HQ's name to, and is that HQ's address today?",
                "On the store's server: `rollcall-site status`",
            ],
        ),
        Cause::CaptureStuck => advice(
            "The store is heard, but its changes are not captured: triggers are gone, or its database file was replaced.",
            &[
                "Was the till's software updated or its database restored today?",
                "On the store's server: `rollcall-site status`",
            ],
        ),
        Cause::RowsNotTaken
        | Cause::NotCaptured
        | Cause::ColumnGone
        | Cause::ColumnLeftOut
        | Cause::Mismatch
        | Cause::Misfit
        | Cause::Zone => of_a_part(cause),
        Cause::HqRefuses => advice(
            "HQ and the site keep each other from going on, on purpose: something would be lost or doubled otherwise.",
            &[
                "The sentence above names the remedy.",
                "Was HQ restored from a backup? For all such sites: `rollcall roster resend --refused --reason WHY`",
            ],
        ),
        Cause::CloneOrRewind => advice(
            "The store's database went back in time, or runs twice.",
            &["Was it restored from a backup, or copied to a second machine? Then look at `rollcall site SITE`."],
        ),
        Cause::Backlog => advice(
            "The store is heard, and its changes wait there: a slow line, or more than it can carry.",
            &["`rollcall call` says how many wait, and until when they are here at this pace."],
        ),
        Cause::AgentDown => advice("The machine is there, its agent does not run.", &["Start it: `rollcall-site run`"]),
        Cause::Clock => {
            advice("The clock of the store's server is far off.", &["Set it, and let it be set by the network (NTP)."])
        }
        Cause::Disk => advice(
            "The disk of the store's server is nearly full: soon the till itself stops.",
            &["Free space there today."],
        ),
        Cause::NoFlow => advice(
            "The store is heard, and rows that should come do not: nobody sells, or the till writes elsewhere.",
            &[
                "Call the store: do they sell? Are the tills logged in?",
                "On the store's server, `rollcall-site status`: is the table captured, and does it grow?",
            ],
        ),
        Cause::NotUpdated => advice(
            "The store is heard, and has not taken what HQ published, or cannot.",
            &["`rollcall publications` says who lacks it, and why."],
        ),
        Cause::NeverEnrolled | Cause::Closed => of_no_trouble(cause),
    }
}
