//! PostgreSQL's regular expressions: of the matches at the first place where there is one, the
//! longest counts.
//!
//! What cannot be had with a bounded effort (references back, looking around) is an error, and so
//! is what PostgreSQL would weigh otherwise than the engine here.

use std::sync::{Arc, Mutex, PoisonError};

use datafusion::common::{DataFusionError, Result, exec_err};
use regex::{Captures, Regex, RegexBuilder};
use regex_automata::{
    Anchored, Input, MatchKind,
    hybrid::dfa::{Cache, DFA},
    util::syntax,
};

/// A pattern, ready to be looked for.
pub(super) struct Expression {
    /// Finds where a match begins.
    first: Regex,
    /// Finds what its groups are, once its end is known.
    whole: Regex,
    /// Finds the furthest end.
    longest: Option<(DFA, Mutex<Cache>)>,
    /// Whether what the groups hold may depend on how alternatives are weighed.
    is_ambiguous: bool,
}

/// What the letters of `flags` say.
#[derive(Debug, Clone, Copy, Default)]
struct Flags {
    ignore_case: bool,
    /// `^` and `$` also match at lines' ends.
    lines: bool,
    /// `.` does not match a line's end.
    within_lines: bool,
    extended: bool,
    literal: bool,
    global: bool,
}

/// The flags, and whether there was a `g`, which is not for the pattern.
fn flags(letters: &str, allow_global: bool, name: &str) -> Result<Flags> {
    let mut flags = Flags::default();
    for letter in letters.chars() {
        match letter {
            'g' if allow_global => flags.global = true,
            'g' => return exec_err!("{name} does not support the \"global\" option"),
            'i' => flags.ignore_case = true,
            'c' => flags.ignore_case = false,
            'n' | 'm' => (flags.lines, flags.within_lines) = (true, true),
            's' => (flags.lines, flags.within_lines) = (false, false),
            'p' => (flags.lines, flags.within_lines) = (false, true),
            'w' => (flags.lines, flags.within_lines) = (true, false),
            'x' => flags.extended = true,
            't' => flags.extended = false,
            'q' => flags.literal = true,
            other => return exec_err!("invalid regular expression option: \"{other}\""),
        }
    }
    Ok(flags)
}

fn invalid(reason: impl std::fmt::Display) -> DataFusionError {
    DataFusionError::Execution(format!("invalid regular expression: {reason}"))
}

fn unavailable<T>(what: &str) -> Result<T> {
    exec_err!("regular expressions with {what} are not available here")
}

impl Expression {
    /// The pattern, and whether all matches are meant.
    pub(super) fn new(pattern: &str, letters: &str, allow_global: bool, name: &str) -> Result<(Self, bool)> {
        let flags = flags(letters, allow_global, name)?;
        let mut translated = Translation::default();
        if flags.literal {
            translated.out = regex::escape(pattern);
        } else {
            translated.translate(pattern, flags)?;
        }
        let Translation { out, lazy, greedy, alternatives, .. } = translated;
        if lazy && (greedy || alternatives) {
            return unavailable("both short and long quantifiers");
        }
        let build = |pattern: &str| {
            RegexBuilder::new(pattern)
                .case_insensitive(flags.ignore_case)
                .multi_line(flags.lines)
                .dot_matches_new_line(!flags.within_lines)
                .size_limit(1 << 21)
                .build()
                .map_err(|error| match error.to_string().lines().next_back() {
                    Some(reason) => invalid(reason.trim_start_matches("error: ")),
                    None => invalid("it is too large"),
                })
        };
        let longest = match lazy {
            true => None,
            false => {
                let options = syntax::Config::new()
                    .case_insensitive(flags.ignore_case)
                    .multi_line(flags.lines)
                    .dot_matches_new_line(!flags.within_lines);
                let config = DFA::config().match_kind(MatchKind::All).unicode_word_boundary(true);
                let machine = DFA::builder().configure(config).syntax(options).build(&out).map_err(invalid)?;
                let cache = machine.create_cache();
                Some((machine, Mutex::new(cache)))
            }
        };
        let whole = build(&format!("(?:{out})\\z"))?;
        let expression = Self { first: build(&out)?, whole, longest, is_ambiguous: alternatives };
        Ok((expression, flags.global))
    }

    /// Where the first match at or behind `from` is.
    pub(super) fn find(&self, text: &str, from: usize) -> Result<Option<(usize, usize)>> {
        let Some(found) = self.first.find_at(text, from) else { return Ok(None) };
        let Some((machine, cache)) = &self.longest else { return Ok(Some((found.start(), found.end()))) };
        let input = Input::new(text).range(found.start()..).anchored(Anchored::Yes);
        let mut cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
        match machine.try_search_fwd(&mut cache, &input) {
            Ok(Some(end)) => Ok(Some((found.start(), end.offset()))),
            Ok(None) => Ok(Some((found.start(), found.end()))),
            Err(_) => unavailable("word boundaries and letters beyond ASCII"),
        }
    }

    /// What the groups of a match are.
    pub(super) fn groups<'t>(&self, text: &'t str, found: (usize, usize)) -> Result<Captures<'t>> {
        if self.is_ambiguous && self.first.captures_len() > 1 {
            return unavailable("groups and alternatives that begin alike");
        }
        match self.whole.captures_at(&text[..found.1], found.0) {
            Some(groups) => Ok(groups),
            None => exec_err!("a regular expression matched and did not"),
        }
    }

    /// How many groups the pattern has.
    pub(super) fn groups_len(&self) -> usize {
        self.first.captures_len() - 1
    }

    /// All matches that do not overlap; or the first.
    pub(super) fn all(&self, text: &str, from: usize, most: usize) -> Result<Vec<(usize, usize)>> {
        let (mut found, mut from, mut last_end) = (Vec::new(), from, None);
        while found.len() < most && from <= text.len() {
            let Some((start, end)) = self.find(text, from)? else { break };
            let next =
                |place: usize| text[place..].chars().next().map_or(place + 1, |letter| place + letter.len_utf8());
            // An empty match right behind another one is none.
            if start == end && last_end == Some(start) {
                from = next(start);
                continue;
            }
            found.push((start, end));
            last_end = Some(end);
            from = if start == end { next(end) } else { end };
        }
        Ok(found)
    }
}

/// A pattern in the other engine's writing.
#[derive(Default)]
struct Translation {
    out: String,
    /// Quantifiers that take as little as they can, and as much as they can.
    lazy: bool,
    greedy: bool,
    /// Alternatives of which more than one may match at a place.
    alternatives: bool,
}

impl Translation {
    fn translate(&mut self, pattern: &str, flags: Flags) -> Result<()> {
        let pattern = match pattern.strip_prefix("***") {
            Some(rest) if rest.starts_with('=') => {
                self.out = regex::escape(&rest[1..]);
                return Ok(());
            }
            Some(rest) if rest.starts_with(':') => &rest[1..],
            Some(_) => return Err(invalid("quantifier operand invalid")),
            None => pattern,
        };
        let mut rest = pattern;
        while let Some(letter) = rest.chars().next() {
            let behind = &rest[letter.len_utf8()..];
            rest = match letter {
                '\\' => self.escape(behind)?,
                '[' => self.class(behind, flags)?,
                '(' if behind.starts_with("?:") => {
                    self.out.push_str("(?:");
                    &behind[2..]
                }
                '(' if behind.starts_with('?') => return unavailable("\"(?\""),
                '*' | '+' | '?' => {
                    self.out.push(letter);
                    self.quantifier(behind)
                }
                '{' => {
                    let Some((inside, behind)) = behind.split_once('}') else {
                        return Err(invalid("braces {} not balanced"));
                    };
                    let bounds: Vec<&str> = inside.split(',').collect();
                    let fits = bounds.len() <= 2
                        && bounds.iter().all(|bound| bound.bytes().all(|letter| letter.is_ascii_digit()))
                        && bounds
                            .iter()
                            .all(|bound| bound.parse::<u32>().map_or(bound.is_empty(), |bound| bound <= 255));
                    if !fits || bounds[0].is_empty() {
                        return Err(invalid("invalid repetition count(s)"));
                    }
                    self.out.push_str(&format!("{{{inside}}}"));
                    self.quantifier(behind)
                }
                '|' => {
                    self.alternatives = true;
                    self.out.push('|');
                    behind
                }
                letter if flags.extended && letter.is_whitespace() => behind,
                '#' if flags.extended => behind.find('\n').map_or("", |end| &behind[end..]),
                '#' | '&' | '~' | '-' | '}' | ']' => {
                    self.out.extend(['\\', letter]);
                    behind
                }
                letter => {
                    self.out.push(letter);
                    behind
                }
            };
        }
        Ok(())
    }

    fn quantifier<'a>(&mut self, behind: &'a str) -> &'a str {
        match behind.strip_prefix('?') {
            Some(rest) => {
                self.lazy = true;
                self.out.push('?');
                rest
            }
            None => {
                self.greedy = true;
                behind
            }
        }
    }

    fn escape<'a>(&mut self, rest: &'a str) -> Result<&'a str> {
        let Some(letter) = rest.chars().next() else { return Err(invalid("invalid escape \\ sequence")) };
        let behind = &rest[letter.len_utf8()..];
        let plain = match letter {
            'm' => "\\b{start}",
            'M' => "\\b{end}",
            'y' => "\\b",
            'Y' => "\\B",
            'A' => "\\A",
            'Z' => "\\z",
            'd' => "[0-9]",
            'D' => "[^0-9]",
            'w' => "[\\p{Alphabetic}\\p{Nd}_]",
            'W' => "[^\\p{Alphabetic}\\p{Nd}_]",
            's' => "\\s",
            'S' => "\\S",
            'a' => "\\x07",
            'b' => "\\x08",
            'B' => "\\\\",
            'e' => "\\x1b",
            'f' => "\\x0c",
            'n' => "\\n",
            'r' => "\\r",
            't' => "\\t",
            'v' => "\\x0b",
            '0' => return unavailable("\"\\0\""),
            '1'..='9' => return unavailable("references back"),
            'u' | 'x' | 'U' => {
                let width = if letter == 'U' { 8 } else { 4 };
                let digits = behind.bytes().take(width).take_while(u8::is_ascii_hexdigit).count();
                if digits == 0 {
                    return Err(invalid("invalid escape \\ sequence"));
                }
                self.out.push_str(&format!("\\x{{{}}}", &behind[..digits]));
                return Ok(&behind[digits..]);
            }
            letter if letter.is_ascii_alphanumeric() => return Err(invalid("invalid escape \\ sequence")),
            letter => {
                self.out.push_str(&regex::escape(&letter.to_string()));
                return Ok(behind);
            }
        };
        self.out.push_str(plain);
        Ok(behind)
    }

    /// What stands between brackets.
    fn class<'a>(&mut self, rest: &'a str, flags: Flags) -> Result<&'a str> {
        let (negated, mut rest) = rest.strip_prefix('^').map_or((false, rest), |rest| (true, rest));
        if let Some(behind) = rest.strip_prefix(":<:]]").or_else(|| rest.strip_prefix("[:<:]]")) {
            self.out.push_str("\\b{start}");
            return Ok(behind);
        }
        if let Some(behind) = rest.strip_prefix("[:>:]]") {
            self.out.push_str("\\b{end}");
            return Ok(behind);
        }
        self.out.push_str(if negated { "[^" } else { "[" });
        if negated && flags.within_lines {
            self.out.push_str("\\n");
        }
        let mut is_first = true;
        loop {
            let Some(letter) = rest.chars().next() else { return Err(invalid("brackets [] not balanced")) };
            let behind = &rest[letter.len_utf8()..];
            rest = match letter {
                ']' if !is_first => {
                    self.out.push(']');
                    return Ok(behind);
                }
                '[' if behind.starts_with(':') => self.named_class(&behind[1..])?,
                '[' if behind.starts_with(['.', '=']) => return unavailable("collating elements"),
                '\\' => {
                    let before = self.out.len();
                    let behind = self.escape(behind)?;
                    if self.out[before..].starts_with("\\b") || self.out[before..].starts_with("\\B") {
                        return Err(invalid("invalid escape \\ sequence"));
                    }
                    behind
                }
                '-' if is_first || behind.starts_with(']') => {
                    self.out.push_str("\\-");
                    behind
                }
                '[' | ']' | '&' | '~' | '^' => {
                    self.out.extend(['\\', letter]);
                    behind
                }
                letter => {
                    self.out.push(letter);
                    behind
                }
            };
            is_first = false;
        }
    }

    fn named_class<'a>(&mut self, rest: &'a str) -> Result<&'a str> {
        let Some((name, behind)) = rest.split_once(":]") else { return Err(invalid("brackets [] not balanced")) };
        self.out.push_str(match name {
            "alpha" => "\\p{Alphabetic}",
            "digit" => "0-9",
            "alnum" => "\\p{Alphabetic}\\p{Nd}",
            "word" => "\\p{Alphabetic}\\p{Nd}_",
            "upper" => "\\p{Uppercase}",
            "lower" => "\\p{Lowercase}",
            "space" => "\\s",
            "punct" => "\\p{P}\\p{S}",
            "blank" => "\\t ",
            "xdigit" => "0-9A-Fa-f",
            "cntrl" => "\\p{Cc}",
            "ascii" => "\\x00-\\x7f",
            "print" => "[:print:]",
            "graph" => "[:graph:]",
            _ => return Err(invalid("invalid character class")),
        });
        Ok(behind)
    }
}

/// An expression that is kept as long as the pattern stays the same.
pub(super) type Kept = Option<(String, String, Arc<Expression>, bool)>;
