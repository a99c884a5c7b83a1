//! An HQ node: gateway, ingest, roll, SQL over HTTP.
#![forbid(unsafe_code)]
