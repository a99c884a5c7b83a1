//! HQ's PostgreSQL port beside a real PostgreSQL.
#![allow(clippy::disallowed_methods, reason = "not simulated: time, chance and tasks are the system's")]

mod differential;
mod doors;
mod hq;
mod postgres;
mod sessions;
mod wire;
