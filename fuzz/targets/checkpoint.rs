//! A checkpoint of a table's log.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use rollcall_fuzz::near;

fuzz_target!(|input: &[u8]| {
    static SOUND: OnceLock<Vec<u8>> = OnceLock::new();
    let sound = SOUND.get_or_init(|| {
        // A panic that is caught is no finding; one that is not ends the target all the same.
        std::panic::set_hook(Box::new(|_| {}));
        rollcall_lake::fuzzing::written_checkpoint()
    });
    let bytes = near(sound, input);
    let is_taken = rollcall_lake::fuzzing::checkpoint(bytes.clone());
    if bytes == *sound {
        assert!(is_taken);
    }
});
