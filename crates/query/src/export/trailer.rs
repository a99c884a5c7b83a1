//! The last line of a CSV that carries its coverage.

use rollcall_types::Coverage;

use super::COVERAGE;

/// The line that ends a CSV which carries its coverage: a comment to most readers, JSON behind its
/// name.
pub fn csv_trailer(coverage: &Coverage) -> String {
    format!("{}{}\n", mark(), coverage.to_json().unwrap_or_default())
}

fn mark() -> String {
    format!("# {COVERAGE} ")
}

/// A CSV's rows and the coverage that its last line carries, if it does.
pub fn split_csv_trailer(csv: &[u8]) -> (&[u8], Option<Coverage>) {
    let start = last_line(csv);
    match csv[start..].strip_prefix(mark().as_bytes()).and_then(|json| serde_json::from_slice(json).ok()) {
        Some(coverage) => (&csv[..start], Some(coverage)),
        None => (csv, None),
    }
}

/// Where the last line starts that has anything on it.
fn last_line(text: &[u8]) -> usize {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)
}

/// Lets the rows of a CSV pass as they come, and keeps its last line.
#[derive(Debug, Default)]
pub struct TrailerFilter {
    /// Nothing, or a line that may be the last, perhaps not all of it yet.
    held: Vec<u8>,
    /// Whether what comes next goes on with a line that has passed in part.
    is_within_line: bool,
}

impl TrailerFilter {
    /// Takes what came; what of it, and of what was kept, is rows for certain.
    pub fn pass(&mut self, came: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(came);
        let start = last_line(&self.held);
        let (line, mark) = (&self.held[start..], mark().into_bytes());
        let starts_here = start > 0 || !self.is_within_line;
        if starts_here && (line.starts_with(&mark) || mark.starts_with(line)) {
            let kept = self.held.split_off(start);
            self.is_within_line = false;
            return std::mem::replace(&mut self.held, kept);
        }
        self.is_within_line = !self.held.ends_with(b"\n") && (!self.held.is_empty() || self.is_within_line);
        std::mem::take(&mut self.held)
    }

    /// What was rows after all, and the coverage if the last line had it: without that line the CSV
    /// is not whole.
    pub fn finish(self) -> (Vec<u8>, Option<Coverage>) {
        let (rows, coverage) = split_csv_trailer(&self.held);
        (rows.to_vec(), coverage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_pass_and_the_last_line_does_not_however_it_is_cut() {
        let coverage = Coverage { scope: 3, complete: 2, ..Coverage::default() };
        let line = csv_trailer(&coverage);
        // A line within a value may look like the last one.
        let rows = format!("a,b\n1,x\n2,\"y\n{line}\"\n# rollcall\n3,# rollcall.coverage {{}}\n");
        let whole = format!("{rows}{line}");
        for size in 1..whole.len() {
            let mut filter = TrailerFilter::default();
            let mut passed = Vec::new();
            for piece in whole.as_bytes().chunks(size) {
                passed.extend(filter.pass(piece));
            }
            let (rest, told) = filter.finish();
            passed.extend(rest);
            assert_eq!((String::from_utf8_lossy(&passed).as_ref(), told.as_ref()), (rows.as_str(), Some(&coverage)));
        }
        let mut cut = TrailerFilter::default();
        let mut passed = cut.pass(&whole.as_bytes()[..whole.len() - 5]);
        let (rest, told) = cut.finish();
        passed.extend(rest);
        assert_eq!((passed.len(), told), (whole.len() - 5, None), "what is cut is not whole");
    }
}
