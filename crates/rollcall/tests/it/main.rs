//! The product as its users run it: the real binaries, real databases, real trouble.

mod ask;
mod attacks;
mod backups;
mod bucket;
mod chaos;
mod clients;
mod damage;
mod demo;
mod engines;
mod enrolment;
mod exports;
mod guards;
mod joins;
mod journals;
mod messages;
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
mod watch;
