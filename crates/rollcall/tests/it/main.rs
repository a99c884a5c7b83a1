//! The product as its users run it: the real binaries, real databases, real trouble.
#![allow(clippy::disallowed_methods, reason = "not simulated: time, chance and tasks are the system's")]

mod ask;
mod attacks;
mod backups;
mod bucket;
mod chaos;
mod clients;
mod damage;
mod demo;
mod docs;
mod engines;
mod enrolment;
mod exports;
mod guards;
mod joins;
mod journals;
mod lacks;
mod messages;
mod metrics;
mod nodes;
mod proof;
mod published;
mod quarantine;
mod secrets;
mod services;
mod settings;
mod shared;
mod store_side;
mod support;
mod tutorial;
mod watch;
