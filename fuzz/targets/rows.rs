//! A part's rows as Arrow IPC, walked before Arrow reads them.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use rollcall_fuzz::{near, rows};

fuzz_target!(|input: &[u8]| {
    static SOUND: OnceLock<Vec<u8>> = OnceLock::new();
    let sound = SOUND.get_or_init(|| rollcall_wire::fuzzing::written(&rows()));
    let bytes = near(sound, input);
    if let Some(rows) = rollcall_wire::fuzzing::rows(&bytes) {
        // In about as much memory as the bytes: a column of nulls takes a bit a row.
        assert!(rows.get_array_memory_size() <= 64 * bytes.len() + (1 << 16), "{}", rows.get_array_memory_size());
        for column in rows.columns() {
            column.to_data().validate_full().expect("sound");
        }
    }
});
