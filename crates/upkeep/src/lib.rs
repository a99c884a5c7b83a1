//! What keeps a lake in order: compaction and clean-up while a node runs, the weekly reading of all
//! files, check and repair, backup and restore.
#![forbid(unsafe_code)]

mod backups;
mod lake_care;
mod own_disk;
pub mod scrub;
mod tidying;

pub use backups::{Restored, back_up, restore};
pub use lake_care::{LakePlace, Mended, check_lake, repair_lake, rotate_node_key};
pub use tidying::Tidying;
