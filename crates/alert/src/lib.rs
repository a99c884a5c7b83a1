//! The watch of a node: what silence means, what people ask about it, and who is told.
//!
//! [`Alerts`] looks each second at what the registry heard, opens and ends incidents, and tells
//! people of them over channels. All nodes watch; only the one that acts stores incidents and tells
//! anybody. Nothing here asks a question of the lake's tables.
#![forbid(unsafe_code)]

mod alerts;
mod arrived;
mod calendar;
mod metrics;
mod notify;
mod observe;
mod requests;
mod store;
#[cfg(test)]
mod tests;
mod watch_loop;
mod watching;

pub use alerts::{AlertParts, Alerts, HqName};
pub use arrived::ArrivedSource;
pub use calendar::{Holidays, holidays, roster_from_csv, set_holidays};
pub use notify::{
    Channel, Channels, How, Mail, MailTls, Message, Notifiers, Preview, QuietHours, Route, Template, escape_html,
};
pub use requests::{CommandOutcome, IncidentCommand};
pub use store::{TICKS, last_sign, leave_room_for_numbers};
pub use watching::{WatchSettings, Watching};
