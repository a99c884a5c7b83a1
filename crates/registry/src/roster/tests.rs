use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::*;
use crate::testing::{at, lake, site, store};

async fn roster() -> Roster {
    Roster::new(lake(&store()).await)
}

fn sites_of<const N: usize>(ids: [&str; N]) -> Vec<SiteId> {
    ids.map(site).into()
}

/// The secret of a new invitation.
async fn invite(roster: &Roster, id: &str, seconds: i64) -> String {
    let invitation =
        roster.invite(&site(id), &BTreeMap::new(), "print", 600, "ada", at(seconds)).await.expect("invites");
    let token = invitation.token.strip_prefix("rc1.").expect("a token");
    let said = String::from_utf8(URL_SAFE_NO_PAD.decode(token).expect("base64")).expect("text");
    let parts: Vec<&str> = said.split(' ').collect();
    assert!(parts.len() == 3 && parts[0] == id && parts[2] == "print", "{said}");
    parts[1].to_owned()
}

/// A site that joined with a key.
async fn enrolled(roster: &Roster, id: &str, key: &str, seconds: i64) -> SiteId {
    let secret = invite(roster, id, seconds).await;
    roster.enrol(&secret, key, Vec::new(), at(seconds)).await.expect("joins")
}

async fn import(roster: &Roster, text: &str, how: Importing, seconds: i64) -> ImportReport {
    roster.import(text, how, vec!["stranger".to_owned()], "ada", at(seconds)).await.expect("imports")
}

fn value(roster: &Roster, id: &str, name: &str) -> Option<String> {
    roster.get(&site(id)).expect("listed").value(&site(id), name)
}

fn change(id: &str, attribute: &str, before: Option<&str>, after: Option<&str>) -> AttributeChange {
    let [before, after] = [before, after].map(|value| value.map(str::to_owned));
    AttributeChange { site: site(id), attribute: attribute.to_owned(), before, after }
}

#[tokio::test]
async fn an_import_adds_changes_and_keeps_sites_and_says_which() {
    let roster = roster().await;
    let plain = Importing::default();
    let first =
        import(&roster, "id,tz,country,region\na-1,,DE,north\nb-1,America/New_York,,\nc-1,,,\n", plain, 0).await;
    assert_eq!((first.added, first.changed, first.unchanged), (3, 0, 0));
    assert_eq!((first.zones_by_place, first.without_zone), (sites_of(["a-1"]), sites_of(["c-1"])));
    assert_eq!(first.never_enrolled, sites_of(["a-1", "b-1", "c-1"]));
    assert_eq!((first.not_in_file, first.changes), (Vec::new(), Vec::new()));
    assert_eq!(first.unknown_senders, ["stranger"]);
    assert_eq!(value(&roster, "a-1", "tz").as_deref(), Some("Europe/Berlin"));
    enrolled(&roster, "b-1", "key", 1).await;
    roster.retire(&site("c-1"), "sold", "ada", at(1)).await.expect("retires");
    // Who is retired is missed by nobody, and attributes without a column stay.
    let second = import(&roster, "id,region,size\na-1,south,\nd-1,,\n", plain, 2).await;
    assert_eq!((second.added, second.changed, second.unchanged), (1, 1, 0));
    assert_eq!(second.changes, [change("a-1", "region", Some("north"), Some("south"))]);
    assert_eq!((second.not_in_file, second.never_enrolled), (sites_of(["b-1"]), sites_of(["a-1", "d-1"])));
    assert_eq!(value(&roster, "a-1", "country").as_deref(), Some("DE"));
    assert!(roster.get(&site("b-1")).is_some_and(|record| record.key_hash.is_some()), "it stays");
    let third = import(&roster, "id,region\na-1,south\nb-1,\nd-1,\n", plain, 3).await;
    assert_eq!((third.added, third.changed, third.unchanged), (0, 0, 3));
    // An empty cell takes the value away.
    let fourth = import(&roster, "id,region\na-1,\n", plain, 4).await;
    assert_eq!(fourth.changes, [change("a-1", "region", Some("south"), None)]);
    let numbers = ["a-1", "b-1", "c-1", "d-1"].map(|id| roster.get(&site(id)).expect("listed").number);
    assert_eq!(numbers, [1, 2, 3, 4]);
    let past = roster.history(&site("a-1")).await.expect("reads");
    let of_region: Vec<_> = past.into_iter().filter(|past| past.change.attribute == "region").collect();
    assert_eq!(of_region.iter().map(|past| past.at).collect::<Vec<_>>(), [at(0), at(2), at(4)]);
    assert_eq!(of_region[1].change, change("a-1", "region", Some("north"), Some("south")));
}

#[tokio::test]
async fn an_import_that_replaces_takes_other_attributes_away_and_a_dry_one_changes_nothing() {
    let roster = roster().await;
    import(&roster, "id,tz,region\na-1,Europe/Paris,north\n", Importing::default(), 0).await;
    let before = roster.all();
    let text = "id,tz\na-1,Europe/Paris\nb-1,\n";
    let dry = import(&roster, text, Importing { replace: true, dry_run: true }, 1).await;
    assert!(Arc::ptr_eq(&before, &roster.all()), "nothing changed, and nothing is read anew");
    assert_eq!((dry.added, dry.changed), (1, 1));
    assert_eq!(dry.never_enrolled, sites_of(["a-1", "b-1"]), "as it would be");
    let done = import(&roster, text, Importing { replace: true, dry_run: false }, 1).await;
    assert_eq!(done, dry, "it did what it said");
    assert_eq!(value(&roster, "a-1", "region"), None);
    let after = roster.all();
    assert_eq!(after.get(&site("b-1")).map(|record| record.number), Some(2), "the dry one used no number up");
    assert_eq!(after.keys().cloned().collect::<Vec<_>>(), sites_of(["a-1", "b-1"]));
    let refused = roster.import("id,tz\nc-1,\nhq,\n", Importing::default(), Vec::new(), "ada", at(2)).await;
    assert!(refused.is_err_and(|error| error.to_string().contains("that is HQ itself")));
    assert!(Arc::ptr_eq(&after, &roster.all()), "not even the good line");
}

#[tokio::test]
async fn an_invitation_lets_one_key_in_and_no_other() {
    let roster = roster().await;
    let a = site("a-1");
    let secret = invite(&roster, "a-1", 0).await;
    assert_eq!(roster.get(&a).and_then(|record| record.listed_at), Some(at(0)));
    let usable = roster.check_invitation(&secret, None, at(1)).expect("usable");
    assert!(usable.invitation.site == a && !usable.is_repeat);
    assert!(roster.get(&a).is_some_and(|record| record.enrolled_at.is_none()), "to look uses nothing up");
    let left_out = vec![LeftOut { table: "People".to_owned(), columns: vec!["Pin".to_owned()] }];
    assert_eq!(roster.enrol(&secret, "key", left_out.clone(), at(2)).await.expect("joins"), a);
    let record = roster.get(&a).expect("listed");
    assert_eq!((record.enrolled_at, record.key_hash.as_deref()), (Some(at(2)), Some("key")));
    assert_eq!(record.left_out, left_out);
    // The reply was lost: the same database asks again.
    assert_eq!(roster.enrol(&secret, "key", Vec::new(), at(3)).await.expect("a repeat"), a);
    assert_eq!(roster.get(&a), Some(record), "it is as it was");
    assert!(roster.check_invitation(&secret, Some("key"), at(3)).expect("usable").is_repeat);
    for key in [Some("other"), None] {
        let said = roster.check_invitation(&secret, key, at(3)).map(drop).expect_err("it was used").to_string();
        assert!(said.contains("was used already"), "{said}");
    }
    assert!(roster.enrol(&secret, "other", Vec::new(), at(3)).await.is_err());
    assert!(roster.enrol("guessed", "other", Vec::new(), at(3)).await.is_err());
    let shown = roster.invitations(at(3));
    assert!(matches!(&shown[..], [one] if one.used_at == Some(at(2)) && !one.is_over && one.site == a));
    let said = roster.revoke(&shown[0].id, "ada", at(4)).await.expect_err("it was used").to_string();
    assert!(said.contains("roster retire a-1"), "{said}");
}

#[tokio::test]
async fn an_invitation_that_expired_or_was_revoked_or_overtaken_lets_nobody_in() {
    let roster = roster().await;
    let refused = async |secret: &str, seconds: i64, why: &str| {
        let checked = roster.check_invitation(secret, None, at(seconds)).map(drop).expect_err("refused").to_string();
        assert!(checked.contains(why), "{checked}");
        assert!(roster.enrol(secret, "late", Vec::new(), at(seconds)).await.is_err());
    };
    let expired = invite(&roster, "a-1", 0).await;
    assert!(roster.check_invitation(&expired, None, at(600)).is_ok(), "to the last moment");
    refused(&expired, 601, "has expired").await;
    let revoked = invite(&roster, "b-1", 0).await;
    let id = roster.invitations(at(1)).into_iter().find(|one| one.site == site("b-1")).expect("listed").id;
    assert!(!revoked.contains(&id), "it tells nothing of the token");
    assert_eq!(roster.revoke(&id, "bob", at(1)).await.expect("revokes"), site("b-1"));
    refused(&revoked, 2, "was revoked").await;
    let unknown = roster.revoke("none", "bob", at(1)).await;
    assert!(unknown.is_err_and(|error| matches!(error, HqError::NotFound(_))));
    // Another database joined with a newer one.
    let overtaken = invite(&roster, "c-1", 0).await;
    enrolled(&roster, "c-1", "key", 1).await;
    refused(&overtaken, 2, "is older than the site's enrolment").await;
    assert_eq!(roster.get(&site("c-1")).and_then(|record| record.key_hash.clone()).as_deref(), Some("key"));
    let shown: Vec<_> = roster.invitations(at(601)).into_iter().map(|one| (one.site, one.by, one.is_over)).collect();
    let expected = [("a-1", "ada", true), ("b-1", "bob", true), ("c-1", "ada", true), ("c-1", "c-1", false)];
    assert_eq!(shown, expected.map(|(id, by, is_over)| (site(id), by.to_owned(), is_over)));
    let of_hq = roster.invite(&site("hq"), &BTreeMap::new(), "print", 600, "ada", at(0)).await;
    assert!(of_hq.is_err(), "no site can be called like HQ");
}

#[tokio::test]
async fn a_retired_site_loses_its_key_and_comes_back_only_when_a_person_says_so() {
    let roster = roster().await;
    let a = enrolled(&roster, "a-1", "key", 0).await;
    let open = invite(&roster, "a-1", 1).await;
    let not_retired = roster.reinstate(&a, "ada", at(1)).await.expect_err("it is on the roster").to_string();
    assert!(not_retired.contains("was not retired"), "{not_retired}");
    roster.retire(&a, "sold", "ada", at(2)).await.expect("retires");
    roster.retire(&a, "another reason", "bob", at(3)).await.expect("it is retired already");
    let record = roster.get(&a).expect("known still");
    assert_eq!(record.retired, Some(Retired { at: at(2), reason: "sold".to_owned() }));
    assert_eq!(record.key_hash, None);
    assert!(roster.enrol(&open, "other", Vec::new(), at(4)).await.is_err());
    let invited = roster.invite(&a, &BTreeMap::new(), "print", 600, "ada", at(4)).await;
    assert!(invited.is_err_and(|error| error.to_string().contains("roster reinstate a-1")));
    roster.reinstate(&a, "ada", at(5)).await.expect("takes it back");
    let back = roster.get(&a).expect("listed");
    assert_eq!((back.retired.as_ref(), back.listed_at, back.number), (None, Some(at(5)), record.number));
    assert_eq!(back.key_hash, None, "the old key stays revoked");
    let old = roster.enrol(&open, "other", Vec::new(), at(5)).await.expect_err("made before it was retired");
    assert!(old.to_string().contains("older than the site's place"), "{old}");
    assert!(roster.invitations(at(5)).iter().all(|invited| invited.is_over || invited.used_at.is_some()));
    enrolled(&roster, "a-1", "new key", 6).await;
    assert_eq!(roster.get(&a).and_then(|record| record.key_hash.clone()).as_deref(), Some("new key"));
    assert!(
        roster
            .retire(&site("z-1"), "sold", "ada", at(7))
            .await
            .is_err_and(|error| matches!(error, HqError::NotFound(_)))
    );
}

/// A new life of a site's journal.
fn life(is_contested: bool, is_resend: bool) -> NewLife<'static> {
    NewLife { journal_id: "journal", reason: "the journal is new", is_contested, is_resend }
}

async fn begin(roster: &Roster, id: &str, new: NewLife<'_>, seconds: i64) -> Epoch {
    let known = roster.get(&site(id)).expect("listed").journal.clone();
    roster.new_epoch(&site(id), known.as_ref(), new, at(seconds)).await.expect("a life")
}

#[tokio::test]
async fn sites_that_are_enrolled_send_again_once() {
    let roster = roster().await;
    let a = enrolled(&roster, "a-1", "key", 0).await;
    begin(&roster, "a-1", life(false, false), 0).await;
    invite(&roster, "b-1", 0).await;
    let all = sites_of(["a-1", "b-1", "z-1"]).into_iter().collect();
    let told = roster.resend(&all, "a backup was put back", "ada", at(1)).await.expect("asks");
    assert_eq!(told, sites_of(["a-1"]));
    let asked = |id: &str| roster.get(&site(id)).expect("listed").resend.clone();
    assert_eq!(asked("b-1"), None);
    let resend = asked("a-1").expect("asked");
    assert_eq!((resend.at, resend.epoch), (at(1), None));
    assert_eq!(resend.as_reason(), "ada has sites send again: a backup was put back");
    roster.resent(&a, Epoch(1), at(2)).await.expect("notes");
    assert!(asked("a-1").is_some(), "it came with the life of before");
    let epoch = begin(&roster, "a-1", life(false, true), 3).await;
    assert_eq!((epoch, asked("a-1").and_then(|resend| resend.epoch)), (Epoch(2), Some(Epoch(2))));
    roster.resent(&a, Epoch(1), at(4)).await.expect("notes");
    assert!(asked("a-1").is_some());
    roster.resent(&a, Epoch(2), at(5)).await.expect("notes");
    assert_eq!(asked("a-1"), None);
    // Any other new life states everything as well.
    roster.resend(&all, "again", "ada", at(6)).await.expect("asks");
    begin(&roster, "a-1", life(false, false), 7).await;
    assert_eq!(asked("a-1"), None);
}

#[tokio::test]
async fn a_contested_life_is_apart_until_a_person_accepts_it() {
    let roster = roster().await;
    let a = enrolled(&roster, "a-1", "key", 0).await;
    assert_eq!(begin(&roster, "a-1", life(true, false), 1).await, Epoch(1));
    let first = roster.get(&a).expect("listed");
    assert!(first.contested.is_empty() && first.question().is_none(), "there is nothing that it could lack");
    let outdated = roster.new_epoch(&a, None, life(false, false), at(2)).await;
    assert!(outdated.is_err_and(|error| matches!(error, HqError::Outdated)), "another node allotted one");
    assert_eq!(begin(&roster, "a-1", life(true, false), 3).await, Epoch(2));
    let apart = roster.get(&a).expect("listed");
    assert_eq!((apart.current_life(), apart.apart_since()), (Some(Epoch(1)), Some(at(3))));
    assert_eq!(apart.lives_apart().collect::<Vec<_>>(), [Epoch(2)]);
    assert_eq!(apart.held().as_deref(), Some("the journal is new"));
    let question = apart.question().expect("open");
    assert_eq!((question.epoch, question.before, question.state()), (Epoch(2), Epoch(1), "apart, to be ruled on"));
    let rule =
        async |epoch: u32, is_accepted: bool| roster.rule(&a, Epoch(epoch), is_accepted, "seen", "ada", at(4)).await;
    assert!(rule(1, true).await.is_err(), "nobody contests it");
    assert!(rule(2, false).await.is_err(), "it is not the one that is current");
    assert!(rule(2, true).await.expect("rules"), "that changes what is shown");
    let accepted = roster.get(&a).expect("listed");
    assert_eq!((accepted.current_life(), accepted.apart_since(), accepted.held()), (Some(Epoch(2)), None, None));
    assert_eq!((accepted.question(), accepted.contested[0].state()), (None, "accepted"));
    let expected = Ruling { is_accepted: true, at: at(4), by: "ada".to_owned(), reason: "seen".to_owned() };
    assert_eq!(accepted.contested[0].ruling, Some(expected));
    assert!(!rule(2, true).await.expect("rules"), "it was so already");
}

#[tokio::test]
async fn a_contested_life_that_a_person_refuses_stays_apart_and_may_be_accepted_later() {
    let roster = roster().await;
    let a = enrolled(&roster, "a-1", "key", 0).await;
    begin(&roster, "a-1", life(false, false), 1).await;
    begin(&roster, "a-1", life(true, false), 2).await;
    let rule = async |epoch: u32, is_accepted: bool| {
        roster.rule(&a, Epoch(epoch), is_accepted, "a copy", "ada", at(3)).await.expect("rules")
    };
    assert!(!rule(1, false).await, "what is shown stays");
    let refused = roster.get(&a).expect("listed");
    assert_eq!((refused.current_life(), refused.apart_since()), (Some(Epoch(1)), Some(at(2))));
    assert_eq!((refused.question(), refused.contested[0].state()), (None, "apart"));
    assert_eq!(refused.held().as_deref(), Some("ada kept life 1: a copy"));
    // The next life leaves that as it is, and is a question of its own.
    begin(&roster, "a-1", life(true, false), 4).await;
    let next = roster.get(&a).expect("listed");
    assert_eq!(next.question().map(|life| (life.epoch, life.before)), Some((Epoch(3), Epoch(1))));
    assert_eq!(next.apart_since(), Some(at(2)), "the first of them ended what is shown");
    assert!(rule(3, true).await);
    let accepted = roster.get(&a).expect("listed");
    assert_eq!((accepted.current_life(), accepted.apart_since()), (Some(Epoch(3)), None));
    assert_eq!(accepted.lives_apart().collect::<Vec<_>>(), [Epoch(2)]);
    let older = roster.rule(&a, Epoch(2), true, "no", "ada", at(5)).await;
    assert!(older.is_err_and(|error| error.to_string().contains("is older")));
}

#[tokio::test]
async fn hq_accepts_what_has_every_row_and_only_while_that_is_the_question() {
    let roster = roster().await;
    let a = enrolled(&roster, "a-1", "key", 0).await;
    begin(&roster, "a-1", life(false, false), 1).await;
    begin(&roster, "a-1", life(true, false), 2).await;
    begin(&roster, "a-1", life(true, false), 3).await;
    let followed = roster.get(&a).expect("listed");
    let ruling = followed.contested[0].ruling.as_ref().expect("another life followed");
    assert!(!ruling.is_accepted && ruling.by == "hq" && ruling.reason.starts_with("life 3 followed"), "{ruling:?}");
    assert!(!roster.accept_contained(&a, Epoch(2), at(4)).await.expect("looks"), "it is no question any more");
    assert!(roster.accept_contained(&a, Epoch(3), at(4)).await.expect("accepts"));
    assert!(!roster.accept_contained(&a, Epoch(3), at(5)).await.expect("looks"), "once");
    let accepted = roster.get(&a).expect("listed");
    assert_eq!((accepted.current_life(), accepted.question()), (Some(Epoch(3)), None));
    assert_eq!(accepted.lives_apart().collect::<Vec<_>>(), [Epoch(2)]);
}
