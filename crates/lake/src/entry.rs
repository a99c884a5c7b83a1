//! The text of a log entry: whole, or damaged.
//!
//! The last line of an entry says who made it, and as its last two facts the digest of the entry
//! before and of all that stands before the digest. So an entry that is empty, cut short or changed
//! is no entry, and neither is one that follows upon another than it did. Entries of earlier
//! versions have no digest; none comes behind one that has.

use bytes::Bytes;
use object_store::path::Path;

use crate::{
    action::{Action, CommitInfo},
    digest::Digest,
    error::LakeError,
};

/// Stands before the digest, and after it.
const BEFORE: &str = r#","rollcallSha256":""#;
const AFTER: &str = "\"}}\n";
const DIGITS: usize = 64;

/// One entry of a table's log.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) actions: Vec<Action>,
    /// Its length.
    pub(crate) bytes: usize,
    /// Of the whole text; none if an earlier version wrote it.
    pub(crate) digest: Option<Digest>,
    /// The digest of the entry before, if its writer knew one.
    previous: Option<Digest>,
}

impl Entry {
    /// A new entry after the one with the digest `previous`: itself, its text, and the id of its
    /// commit.
    pub(crate) fn write(
        operation: &str,
        actions: Vec<Action>,
        previous: Option<Digest>,
    ) -> Result<(Self, Bytes, String), LakeError> {
        let commit_id = rollcall_runtime::new_id().simple().to_string();
        let info = CommitInfo {
            timestamp: rollcall_runtime::now().as_millis(),
            operation: operation.to_owned(),
            engine_info: concat!("rollcall/", env!("CARGO_PKG_VERSION")).to_owned(),
            rollcall_commit: commit_id.clone(),
            rollcall_previous: previous.map(|digest| digest.to_string()),
        };
        let info = Action { commit_info: Some(Box::new(info)), ..Action::default() };
        let mut text = Vec::with_capacity(64 * (actions.len() + 8));
        for action in actions.iter().chain([&info]) {
            serde_json::to_writer(&mut text, action).map_err(LakeError::damaged)?;
            text.push(b'\n');
        }
        // The line ends with the two braces of `{"commitInfo":{…}}`.
        text.truncate(text.len() - 3);
        let digest = Digest::of(&text);
        text.extend(format!("{BEFORE}{digest}{AFTER}").into_bytes());
        let whole = Some(Digest::of(&text));
        let entry = Self { actions, bytes: text.len(), digest: whole, previous };
        Ok((entry, text.into(), commit_id))
    }

    /// Reads the text of an entry; what is wrong with it, if it is damaged.
    pub(crate) fn read(text: &[u8]) -> Result<Self, String> {
        let is_whole = is_whole(text);
        if !is_whole && text.windows(BEFORE.len()).any(|part| part == BEFORE.as_bytes()) {
            return Err("it is not what was written".to_owned());
        }
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let actions = lines.map(|line| serde_json::from_slice(line).map_err(|error| error.to_string()));
        let actions = actions.collect::<Result<Vec<Action>, _>>()?;
        if actions.is_empty() {
            return Err("it is empty".to_owned());
        }
        let info = actions.iter().filter_map(|action| action.commit_info.as_ref()).next_back();
        let previous = info
            .and_then(|info| info.rollcall_previous.as_deref())
            .map(|text| Digest::parse(text).ok_or_else(|| "it does not say rightly what it follows".to_owned()));
        let digest = is_whole.then(|| Digest::of(text));
        Ok(Self { actions, bytes: text.len(), digest, previous: previous.transpose()? })
    }

    /// What the first entry of the table at `root` follows: that it is of this table, and not the
    /// first of another.
    pub(crate) fn beginning(root: &Path) -> Digest {
        Digest::of(format!("table {root}").as_bytes())
    }

    /// Whether a table at `root` can begin with it. Those of earlier versions do not say.
    pub(crate) fn begins(&self, root: &Path) -> Result<(), &'static str> {
        match self.previous {
            Some(previous) if previous != Self::beginning(root) => Err("it belongs to another table"),
            _ => Ok(()),
        }
    }

    /// The digest of the entry that this one says it follows.
    pub(crate) fn previous(&self) -> Option<Digest> {
        self.previous
    }

    /// Whether this is the commit with that id.
    pub(crate) fn is_commit(&self, id: &str) -> bool {
        self.actions.iter().filter_map(|action| action.commit_info.as_ref()).any(|info| info.rollcall_commit == id)
    }

    /// Whether it can come after an entry with the digest `last`, or after one without.
    pub(crate) fn follows(&self, last: Option<Digest>) -> Result<(), &'static str> {
        match (last, self.digest) {
            (None, _) => Ok(()),
            (Some(_), None) => Err("it has no digest, and those before it have"),
            (Some(last), Some(_)) if self.previous != Some(last) => {
                Err("it followed another entry than stands before it")
            }
            (Some(_), Some(_)) => Ok(()),
        }
    }
}

/// Whether the text ends with its own digest.
fn is_whole(text: &[u8]) -> bool {
    let Some(end) = text.len().checked_sub(AFTER.len()) else { return false };
    let Some(start) = end.checked_sub(DIGITS + BEFORE.len()) else { return false };
    let (before, rest) = text.split_at(start);
    let told = rest.strip_prefix(BEFORE.as_bytes()).and_then(|rest| rest.strip_suffix(AFTER.as_bytes()));
    told.is_some_and(|told| told == Digest::of(before).to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(previous: Option<Digest>) -> (Entry, Bytes) {
        let (entry, text, id) =
            Entry::write("WRITE", vec![Action::txn("1.1".to_owned(), 7)], previous).expect("writes");
        assert!(Entry::read(&text).expect("reads").is_commit(&id));
        (entry, text)
    }

    #[test]
    fn whatever_is_changed_is_noticed() {
        let first = written(None);
        let (_, text) = written(first.0.digest);
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut changed = text.to_vec();
                changed[at] ^= 1 << bit;
                // It cannot be read, or not be what follows the entry before.
                let is_taken = Entry::read(&changed).is_ok_and(|entry| entry.follows(first.0.digest).is_ok());
                assert!(!is_taken, "bit {bit} of byte {at}");
            }
        }
        for end in 0..text.len() {
            let is_taken = Entry::read(&text[..end]).is_ok_and(|entry| entry.follows(first.0.digest).is_ok());
            assert!(!is_taken, "cut after {end}");
        }
        assert!(Entry::read(b"").is_err() && Entry::read(b"\n\n").is_err());
    }

    #[test]
    fn an_entry_follows_the_one_it_was_written_after() {
        let (first, _) = written(None);
        let (second, text) = written(first.digest);
        let read = Entry::read(&text).expect("reads");
        assert_eq!((read.digest, read.bytes), (second.digest, second.bytes));
        assert!(read.follows(first.digest).is_ok() && read.follows(None).is_ok());
        assert!(read.follows(second.digest).is_err(), "another is gone from between");
        assert!(first.follows(second.digest).is_err(), "it began a table");
        let old = Entry::read(br#"{"txn":{"appId":"1.1","version":7}}"#).expect("reads");
        assert!(old.follows(None).is_ok() && old.follows(first.digest).is_err());
    }
}
