//! Words for people: a number with its noun, and what a person may have meant who misspelt a name.

/// A number of things; one of them without the plural's `s`.
pub fn counted(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// The known name that is most like what was said: the same but for case, or few letters away from
/// it (Damerau-Levenshtein distance of at most a third of its length, at least 1).
pub fn nearest<'a>(said: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let said = said.to_lowercase();
    let distance = |name: &&str| strsim::damerau_levenshtein(&said, &name.to_lowercase());
    let near = known.into_iter().map(|name| (distance(&name), name));
    let near = near.filter(|(distance, _)| *distance <= (said.chars().count() / 3).max(1));
    near.min_by_key(|(distance, _)| *distance).map(|(_, name)| name)
}

/// The end of an error about a name that is not known: which one may be meant, if one is near.
pub fn is_meant<'a>(said: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(said, known).map_or_else(String::new, |near| format!("; is {near:?} meant?"))
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_slip_is_understood_and_another_word_is_not() {
        let sites = ["berlin-01", "berlin-02", "hamburg-01"];
        assert_eq!(nearest("berlin-0l", sites), Some("berlin-01"));
        assert_eq!(nearest("Hamburg-01", sites), Some("hamburg-01"));
        assert_eq!(nearest("hmaburg-01", sites), Some("hamburg-01"));
        assert_eq!(nearest("munich-01", sites), None);
        assert_eq!(nearest("x", ["y"]), Some("y"));
        assert_eq!(nearest("sales", []), None);
    }
}
