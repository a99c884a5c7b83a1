//! Calls the roll: pure logic that turns what was heard into a state for every site.
#![forbid(unsafe_code)]
