//! The lake's promises, against real stores, some of which fail before or after the effect.

mod campaign;
mod compaction;
mod conform;
mod damage;
mod exactly_once;
mod faulty;
mod golden;
mod support;
