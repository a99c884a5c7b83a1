//! HQ's PostgreSQL port beside a real PostgreSQL.

mod differential;
mod doors;
mod hq;
mod postgres;
mod sessions;
mod wire;
