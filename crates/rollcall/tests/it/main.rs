//! The product as its users run it: the real binaries, real databases, real trouble.

mod ask;
mod chaos;
mod engines;
mod enrolment;
mod journals;
mod proof;
mod support;
mod watch;
