//! Texts that come from elsewhere, made fit to be shown.

/// The most that is kept of a text from elsewhere, in bytes.
pub const TEXT_BYTES_MAX: usize = 4096;

/// The text with whatever steers a terminal, a page or the direction of writing shown as its
/// number, and cut after `bytes_max` bytes: it can be written to a log, a mail or a terminal, and
/// takes no more room than it should.
pub fn plain(text: &str, bytes_max: usize) -> String {
    let mut shown = String::with_capacity(text.len().min(bytes_max));
    for letter in text.chars() {
        if shown.len() + letter.len_utf8() > bytes_max {
            shown.push('…');
            break;
        }
        match letter {
            '\n' | '\t' => shown.push(' '),
            _ if steers(letter) => shown.push_str(&format!("\\u{{{:x}}}", u32::from(letter))),
            _ => shown.push(letter),
        }
    }
    shown
}

/// Whether a letter does something instead of being seen: controls (among them the start of
/// terminal sequences), marks of direction and of no width, line and paragraph separators, tags.
pub fn steers(letter: char) -> bool {
    letter.is_control()
        || matches!(letter,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_what_shows_it_and_nothing_is_endless() {
        assert_eq!(plain("\u{1b}[2J\u{9b}0mall is well\r", 100), "\\u{1b}[2J\\u{9b}0mall is well\\u{d}");
        assert_eq!(plain("a\nb\tc", 100), "a b c");
        assert_eq!(plain("abc\u{202e}fdp.exe", 100), "abc\\u{202e}fdp.exe");
        assert_eq!(plain("Größe 売上 👍", 100), "Größe 売上 👍");
        assert_eq!(plain("ööö", 5), "öö…");
        assert_eq!(plain(&"x".repeat(10_000), TEXT_BYTES_MAX).len(), TEXT_BYTES_MAX + '…'.len_utf8());
        assert!(
            (0..=0x10_ffff).filter_map(char::from_u32).all(|letter| !plain(&letter.to_string(), 9).chars().any(steers))
        );
    }
}
