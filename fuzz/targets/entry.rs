//! An entry of a table's log: it is what was written, or damaged.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use rollcall_fuzz::near;

fuzz_target!(|input: &[u8]| {
    static SOUND: OnceLock<Vec<u8>> = OnceLock::new();
    let sound = SOUND.get_or_init(rollcall_lake::fuzzing::written_entry);
    let bytes = near(sound, input);
    let is_taken = rollcall_lake::fuzzing::entry(&bytes);
    if bytes == *sound {
        assert!(is_taken);
    }
});
