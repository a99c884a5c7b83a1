//! Causes as they travel.

use rollcall_types::Cause;

use crate::proto;

impl From<Cause> for proto::Cause {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::PowerOrLink | Cause::AgentDown => Self::PowerOrLink,
            Cause::CaptureStuck => Self::CaptureStuck,
            Cause::HqRefuses => Self::HqRefuses,
            Cause::CloneOrRewind => Self::CloneOrRewind,
            Cause::Void => Self::Void,
            Cause::Clock => Self::Clock,
            Cause::Disk => Self::Disk,
            // What HQ alone finds out.
            Cause::NeverEnrolled
            | Cause::Closed
            | Cause::Backlog
            | Cause::NoFlow
            | Cause::Mismatch
            | Cause::Misfit
            | Cause::RowsNotTaken
            | Cause::NotUpdated
            | Cause::NotCaptured
            | Cause::ColumnGone
            | Cause::ColumnLeftOut
            | Cause::Zone => Self::Unspecified,
        }
    }
}

impl proto::Cause {
    /// The cause; none where the sender said none, as agents before 0.2.
    pub fn known(self) -> Option<Cause> {
        Some(match self {
            Self::Unspecified => return None,
            Self::PowerOrLink => Cause::PowerOrLink,
            Self::CaptureStuck => Cause::CaptureStuck,
            Self::HqRefuses => Cause::HqRefuses,
            Self::CloneOrRewind => Cause::CloneOrRewind,
            Self::Void => Cause::Void,
            Self::Clock => Cause::Clock,
            Self::Disk => Cause::Disk,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_site_can_know_comes_back_as_it_went() {
        for cause in [
            Cause::PowerOrLink,
            Cause::CaptureStuck,
            Cause::HqRefuses,
            Cause::CloneOrRewind,
            Cause::Void,
            Cause::Clock,
            Cause::Disk,
        ] {
            assert_eq!(proto::Cause::from(cause).known(), Some(cause));
        }
    }
}
