//! Why HQ turns a site away, as it travels in `Refused.code`. `docs/errors.md` explains each to
//! people.

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// Why HQ turns a site away.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Refusal {
            $($(#[$doc])* $name,)*
        }

        impl Refusal {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The code that travels.
            pub fn code(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)*
                }
            }
        }
    };
}

refusals! {
    /// Site and HQ are too far apart in version.
    Protocol = "protocol",
    /// The node has as many sites as it can hold; another one may have room.
    Full = "full",
    /// Two running copies of one site take turns.
    Clone = "clone",
    /// A table that the site fills is set aside at HQ.
    Damaged = "damaged",
    /// The site was retired, or is not on the roster.
    NotOnRoster = "not-on-roster",
    /// The site's journal began too many new lives within an hour.
    Quota = "quota",
    /// HQ's lake lacks what it once confirmed.
    OlderLake = "older-lake",
    /// The node stops; another one may go on.
    Stopping = "stopping",
    /// Another connection speaks for this site now.
    Superseded = "superseded",
    /// HQ did not let the site enrol, or believes its certificate no more.
    Denied = "denied",
}

impl Refusal {
    /// The refusal with this code; none if it is of a newer HQ.
    pub fn of(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|refusal| refusal.code() == code)
    }

    /// Whether another node may take the site.
    pub fn is_of_this_node_only(self) -> bool {
        matches!(self, Self::Stopping | Self::Full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_of_one_refusal() {
        for refusal in Refusal::ALL {
            assert_eq!(Refusal::of(refusal.code()), Some(*refusal));
        }
        assert_eq!(Refusal::of("of-a-newer-hq"), None);
    }
}
