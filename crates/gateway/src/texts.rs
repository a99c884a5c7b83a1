//! What sites write as text, kept short and made fit to be shown before anything else is done with
//! it.

use rollcall_types::{TEXT_BYTES_MAX, plain};
use rollcall_wire::{
    BATCH_PARTS_MAX,
    proto::{Hello, site_control::Message as FromSite},
};

/// Attempts of which a site tells at once.
const ATTEMPTS_MAX: usize = 10_000;
/// Names and versions.
const NAME_BYTES_MAX: usize = 200;

/// A name that a site says, fit to be kept.
pub(crate) fn name(text: &str) -> String {
    plain(text, NAME_BYTES_MAX)
}

fn clean(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max || text.chars().any(rollcall_types::steers) {
        *text = plain(text, bytes_max);
    }
}

fn clean_applied(applied: &mut Vec<rollcall_wire::proto::Applied>) {
    applied.truncate(BATCH_PARTS_MAX);
    applied.iter_mut().for_each(|applied| clean(&mut applied.problem, TEXT_BYTES_MAX));
}

/// A first message as HQ takes it; an error says what cannot be taken.
pub(crate) fn clean_hello(hello: &mut Hello) -> Result<(), String> {
    for text in [&mut hello.agent_version, &mut hello.called, &mut hello.resolved] {
        clean(text, NAME_BYTES_MAX);
    }
    // These are compared, so they cannot be cut.
    for (what, text) in [("instance", &hello.instance), ("journal", &hello.journal_id), ("lake", &hello.lake_id)] {
        if text.len() > NAME_BYTES_MAX || text.chars().any(rollcall_types::steers) {
            return Err(format!("the name of the {what} is none that an agent gives"));
        }
    }
    if hello.event_times.len() > BATCH_PARTS_MAX {
        return Err(format!("times of more than {BATCH_PARTS_MAX} tables are declared"));
    }
    clean_applied(&mut hello.applied);
    Ok(())
}

/// A later message as HQ takes it; none if it says nothing that can be used.
pub(crate) fn clean_message(mut message: FromSite) -> Option<FromSite> {
    match &mut message {
        FromSite::Hello(_) => {}
        FromSite::Beacon(beacon) => {
            clean(&mut beacon.capture_problem, TEXT_BYTES_MAX);
            clean_applied(&mut beacon.applied);
        }
        // Some of the heads would say that a site is complete which is not.
        FromSite::Heads(heads) if heads.tables.len() > BATCH_PARTS_MAX => return None,
        FromSite::Heads(_) => {}
        FromSite::Goodbye(goodbye) => clean(&mut goodbye.reason, TEXT_BYTES_MAX),
        FromSite::EpochWanted(wanted) => clean(&mut wanted.reason, TEXT_BYTES_MAX),
        FromSite::Refuses(refuses) => clean(&mut refuses.reason, TEXT_BYTES_MAX),
        FromSite::Attempts(attempts) => {
            attempts.attempts.truncate(ATTEMPTS_MAX);
            for attempt in &mut attempts.attempts {
                for text in [&mut attempt.address, &mut attempt.resolved] {
                    clean(text, NAME_BYTES_MAX);
                }
                clean(&mut attempt.error, TEXT_BYTES_MAX);
            }
        }
    }
    Some(message)
}

#[cfg(test)]
mod tests {
    use rollcall_wire::proto::{Beacon, Goodbye, Heads, TableHead};

    use super::*;

    #[test]
    fn what_steers_a_terminal_or_has_no_end_is_not_let_in() {
        let evil = format!("\u{1b}]0;all is well\u{7}{}", "x".repeat(1 << 20));
        let mut hello = Hello { agent_version: evil.clone(), called: evil.clone(), ..Hello::default() };
        clean_hello(&mut hello).expect("is taken");
        assert!(hello.agent_version.len() < 300 && !hello.agent_version.contains('\u{1b}'));
        assert!(clean_hello(&mut Hello { journal_id: evil.clone(), ..Hello::default() }).is_err());
        let beacon = Beacon { capture_problem: evil.clone(), ..Beacon::default() };
        let Some(FromSite::Beacon(beacon)) = clean_message(FromSite::Beacon(beacon)) else { panic!("a beacon") };
        assert!(beacon.capture_problem.starts_with("\\u{1b}]0;") && beacon.capture_problem.len() < 5000);
        let goodbye = Goodbye { reason: evil, ..Goodbye::default() };
        let Some(FromSite::Goodbye(goodbye)) = clean_message(FromSite::Goodbye(goodbye)) else { panic!("a goodbye") };
        assert!(!goodbye.reason.chars().any(rollcall_types::steers));
        let heads = Heads { tables: vec![TableHead::default(); BATCH_PARTS_MAX + 1], ..Heads::default() };
        assert!(clean_message(FromSite::Heads(heads)).is_none());
    }
}
