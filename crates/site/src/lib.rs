//! The agent at a site: enrols, pushes, answers the roll, tells its own status.
#![forbid(unsafe_code)]
