//! Patterns: PostgreSQL's regular expressions, `SIMILAR TO` and `LIKE`, written as those that are
//! known here.

use datafusion::common::{Result, plan_err};

/// A regular expression as PostgreSQL reads it (an ARE), for a library that reads it otherwise.
pub(super) fn regular(pattern: &str) -> Result<String> {
    let mut letters = pattern.chars().peekable();
    let mut written = String::new();
    if pattern.starts_with("***") {
        return plan_err!("a regular expression with a director (***) is not supported here");
    }
    // A point is any letter, the end of a line among them.
    written.push_str("(?s)");
    let mut is_first = true;
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next() {
                Some(escaped) => written.push_str(&escape(escaped)?),
                None => return plan_err!("invalid regular expression: invalid escape \\ sequence"),
            },
            '[' => bracket(&mut letters, &mut written)?,
            '(' if letters.peek() == Some(&'?') => {
                letters.next();
                match letters.next() {
                    Some(':') => written.push_str("(?:"),
                    Some('i') if is_first && letters.next() == Some(')') => written.push_str("(?i)"),
                    Some('c') if is_first && letters.next() == Some(')') => {}
                    _ => return plan_err!("a regular expression with (?…) other than (?:…) is not supported here"),
                }
            }
            '{' if !letters.peek().is_some_and(char::is_ascii_digit) => written.push_str("\\{"),
            other => written.push(other),
        }
        is_first = false;
    }
    Ok(written)
}

fn escape(letter: char) -> Result<String> {
    Ok(match letter {
        'd' | 'D' | 's' | 'S' | 'w' | 'W' | 'A' | 'n' | 't' | 'r' | 'f' | 'v' => format!("\\{letter}"),
        'm' => "\\b{start}".to_owned(),
        'M' => "\\b{end}".to_owned(),
        'y' => "\\b".to_owned(),
        'Y' => "\\B".to_owned(),
        'Z' => "\\z".to_owned(),
        'B' => "\\\\".to_owned(),
        'a' => "\\x07".to_owned(),
        'b' => "\\x08".to_owned(),
        'e' => "\\x1b".to_owned(),
        '1'..='9' => return plan_err!("a regular expression with a back reference is not supported here"),
        letter if letter.is_alphanumeric() => {
            return plan_err!("\\{letter} in a regular expression is not supported here");
        }
        letter => literal(letter),
    })
}

/// A letter that stands for itself.
fn literal(letter: char) -> String {
    const SPECIAL: &str = "\\.+*?()|[]{}^$#&-~/";
    if SPECIAL.contains(letter) { format!("\\{letter}") } else { letter.to_string() }
}

/// `[…]`, whose first letter has been read.
fn bracket(letters: &mut std::iter::Peekable<std::str::Chars<'_>>, written: &mut String) -> Result<()> {
    let rest: String = letters.clone().collect();
    for (word, boundary) in [("[:<:]]", "\\b{start}"), ("[:>:]]", "\\b{end}")] {
        if rest.starts_with(word) {
            letters.nth(word.len() - 1);
            written.push_str(boundary);
            return Ok(());
        }
    }
    written.push('[');
    if letters.next_if_eq(&'^').is_some() {
        written.push('^');
    }
    if letters.next_if_eq(&']').is_some() {
        written.push_str("\\]");
    }
    while let Some(letter) = letters.next() {
        match letter {
            ']' => {
                written.push(']');
                return Ok(());
            }
            '[' => match letters.peek() {
                Some(':') => {
                    letters.next();
                    let mut name = String::new();
                    for letter in letters.by_ref() {
                        if letter == ':' {
                            break;
                        }
                        name.push(letter);
                    }
                    if letters.next() != Some(']') {
                        return plan_err!("invalid regular expression: invalid character class");
                    }
                    written.push_str(&class(&name)?);
                }
                Some('.' | '=') => {
                    return plan_err!("a collating element in a regular expression is not supported here");
                }
                _ => written.push_str("\\["),
            },
            '\\' => match letters.next() {
                Some(letter @ ('d' | 's' | 'w' | 'n' | 't' | 'r')) => written.push_str(&format!("\\{letter}")),
                Some(letter) if letter.is_alphanumeric() => {
                    return plan_err!("\\{letter} within [] of a regular expression is not supported here");
                }
                Some(letter) => written.push_str(&literal(letter)),
                None => break,
            },
            // Doubled, these would be operators on sets of letters.
            letter @ ('&' | '~') => written.push_str(&format!("\\{letter}")),
            letter => written.push(letter),
        }
    }
    plan_err!("invalid regular expression: brackets [] not balanced")
}

fn class(name: &str) -> Result<String> {
    Ok(match name {
        "alpha" => "\\p{Alphabetic}".to_owned(),
        "digit" => "\\d".to_owned(),
        "alnum" => "\\p{Alphabetic}\\d".to_owned(),
        "upper" => "\\p{Uppercase}".to_owned(),
        "lower" => "\\p{Lowercase}".to_owned(),
        "space" => "\\s".to_owned(),
        "word" => "\\w".to_owned(),
        "punct" | "blank" | "cntrl" | "xdigit" | "ascii" => format!("[:{name}:]"),
        _ => return plan_err!("[:{name}:] in a regular expression is not supported here"),
    })
}

/// PostgreSQL's regular expression that matches as `SIMILAR TO` does.
pub(super) fn similar(pattern: &str, escape: Option<char>) -> Result<String> {
    let escape = escape.unwrap_or('\\');
    let mut letters = pattern.chars();
    let mut written = "^(?:".to_owned();
    let mut in_class = false;
    while let Some(letter) = letters.next() {
        match letter {
            letter if letter == escape => match letters.next() {
                Some('"') => return plan_err!("SIMILAR TO with a part in quotes is not supported here"),
                Some(letter) => written.push_str(&literal(letter)),
                None => return plan_err!("SIMILAR TO pattern must not end with escape character"),
            },
            letter if in_class => {
                in_class = letter != ']';
                if letter == '\\' || letter == '[' || letter == '&' || letter == '~' {
                    // A class by name would begin so too.
                    return plan_err!("this class of letters in SIMILAR TO is not supported here");
                }
                written.push(letter);
            }
            '[' => {
                in_class = true;
                written.push('[');
            }
            '%' => written.push_str(".*"),
            '_' => written.push('.'),
            '(' => written.push_str("(?:"),
            letter @ (')' | '|' | '*' | '+' | '?' | '{' | '}') => written.push(letter),
            letter => written.push_str(&literal(letter)),
        }
    }
    written.push_str(")$");
    Ok(written)
}

/// A pattern of `LIKE` with a backslash before what stands for itself, instead of `escape`.
pub(super) fn like(pattern: &str, escape: char) -> Result<String> {
    let (mut written, mut letters) = (String::new(), pattern.chars());
    while let Some(letter) = letters.next() {
        match letter {
            letter if letter == escape => match letters.next() {
                Some(letter) => {
                    written.push('\\');
                    written.push(letter);
                }
                None => return plan_err!("LIKE pattern must not end with escape character"),
            },
            '\\' => written.push_str("\\\\"),
            letter => written.push(letter),
        }
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_written_otherwise_or_refused() {
        let cases = [
            ("\\mfoo\\M", "(?s)\\b{start}foo\\b{end}"),
            ("[[:<:]]x[[:>:]]", "(?s)\\b{start}x\\b{end}"),
            ("[]a[]", "(?s)[\\]a\\[]"),
            ("a{,2}", "(?s)a\\{,2}"),
            ("a\\.b\\\\", "(?s)a\\.b\\\\"),
            ("[^&&x]", "(?s)[^\\&\\&x]"),
        ];
        for (pattern, written) in cases {
            assert_eq!(regular(pattern).expect("written"), written);
        }
        for pattern in ["(a)\\1", "a(?=b)", "a(?!b)", "[[.a.]]", "[a", "\\x41", "***=a"] {
            assert!(regular(pattern).is_err(), "{pattern}");
        }
        assert_eq!(similar("a%(b|c)_.", None).expect("written"), "^(?:a.*(?:b|c).\\.)$");
        assert_eq!(like("a!%b\\", '!').expect("written"), "a\\%b\\\\");
    }
}
