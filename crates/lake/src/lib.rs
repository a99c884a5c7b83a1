//! HQ's only durable thing: Delta Lake tables with rows and cursors committed in one atomic step.
#![forbid(unsafe_code)]
