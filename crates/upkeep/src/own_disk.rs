//! Room on HQ's own disk: told before it is full.

use std::path::Path;

/// Less than this share of the disk is little …
const SHARE_MIN: f64 = 0.05;
/// … unless that is more than this, bytes: a large disk has room for weeks then.
const BYTES_ENOUGH: u64 = 20 << 30;

/// Free bytes and all bytes of the disk that a path is on; none where that cannot be told.
#[cfg(unix)]
fn room(path: &Path) -> Option<(u64, u64)> {
    let space = rustix::fs::statvfs(path).ok()?;
    Some((space.f_bavail.saturating_mul(space.f_frsize), space.f_blocks.saturating_mul(space.f_frsize)))
}

#[cfg(not(unix))]
fn room(_: &Path) -> Option<(u64, u64)> {
    None
}

/// Why there is too little room on the disk of a directory; none if there is enough.
pub(crate) fn problem(path: &Path) -> Option<String> {
    judge(path, room(path)?)
}

fn judge(path: &Path, (free, all): (u64, u64)) -> Option<String> {
    let is_little = (free as f64) < all as f64 * SHARE_MIN && free < BYTES_ENOUGH;
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    is_little.then(|| {
        format!(
            "the disk of {} has {:.1} GiB free of {:.1}; when it is full, nothing is confirmed any more, and every store keeps its \
             changes. Make room, or move HQ to a larger disk",
            path.display(),
            gib(free),
            gib(all)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_low_by_its_size() {
        let said = judge(Path::new("/srv"), (1 << 30, 100 << 30)).expect("low");
        assert!(said.contains("/srv has 1.0 GiB free of 100.0"), "{said}");
        assert_eq!(judge(Path::new("/srv"), (6 << 30, 100 << 30)), None);
        assert_eq!(judge(Path::new("/srv"), (30 << 30, 4000 << 30)), None);
    }
}
