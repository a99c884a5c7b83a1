//! Digests: whether something is what it was before is told by 8 bytes, where keeping it for each
//! of tens of thousands of sites would take many.

use std::hash::{DefaultHasher, Hash, Hasher};

use prost::Message;

/// A digest of what is in memory. It means something to this process alone.
pub fn of(what: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

/// A digest of a message without maps, in which equal ones could be in any order.
pub fn of_message(message: &impl Message) -> u64 {
    of(message.encode_to_vec().as_slice())
}
