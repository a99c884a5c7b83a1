//! Patterns of numbers, as `to_char` and `to_number` take them.

use datafusion::common::{Result, exec_err};

use super::pattern::Ordinal;

/// One element of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Element {
    Nine,
    Zero,
    Point,
    Comma,
    Currency,
    Ordinal(Ordinal),
    Minus,
    Plus,
    EitherSign,
    Letter(char),
    /// What only says how the others are written.
    Nothing,
}

/// Where `S` puts the sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Sign {
    #[default]
    None,
    Before,
    Behind,
}

/// A pattern, taken apart.
#[derive(Debug, Default)]
pub(super) struct Pattern {
    pub(super) elements: Vec<Element>,
    /// Digits before the point, and behind it.
    pub(super) pre: usize,
    pub(super) post: usize,
    /// By how many places `V` shifts.
    pub(super) shift: Option<u32>,
    /// `FM`.
    pub(super) unfilled: bool,
    pub(super) decimal: bool,
    pub(super) sign: Sign,
    /// How many digits were before the `S`.
    pub(super) sign_place: usize,
    /// The first `0`, counted from 1, and the last.
    pub(super) zero_start: Option<usize>,
    pub(super) zero_end: usize,
    pub(super) minus: bool,
    pub(super) plus: bool,
    pub(super) brackets: bool,
    pub(super) roman: bool,
    small_roman: bool,
    pub(super) exponent: bool,
}

/// What is known, longer ones first; all but these are also known in small letters.
const KNOWN: [&str; 20] =
    [",", ".", "0", "9", "B", "C", "D", "EEEE", "FM", "G", "L", "MI", "PL", "PR", "RN", "SG", "SP", "S", "TH", "V"];

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self> {
        if text.len() > 4096 {
            return exec_err!("a number pattern has 4096 letters at most");
        }
        let (mut pattern, mut rest) = (Self::default(), text);
        while let Some(letter) = rest.chars().next() {
            let known =
                KNOWN.iter().find(|known| rest.starts_with(*known) || rest.starts_with(&known.to_ascii_lowercase()));
            if let Some(known) = known {
                let is_small = rest.starts_with(|letter: char| letter.is_ascii_lowercase());
                let ordinal = if is_small { Ordinal::Lower } else { Ordinal::Upper };
                rest = &rest[known.len()..];
                let element = pattern.take(known, ordinal)?;
                pattern.elements.push(element);
            } else if letter == '"' {
                let end = rest[1..].find('"').map_or(rest.len() - 1, |end| end);
                let quoted = &rest[1..=end];
                pattern.elements.extend(quoted.chars().filter(|letter| *letter != '\\').map(Element::Letter));
                rest = rest.get(end + 2..).unwrap_or("");
            } else {
                rest = if rest.starts_with("\\\"") { &rest[1..] } else { rest };
                let letter = rest.chars().next().unwrap_or(letter);
                pattern.elements.push(Element::Letter(letter));
                rest = &rest[letter.len_utf8()..];
            }
        }
        Ok(pattern)
    }

    fn take(&mut self, known: &str, ordinal: Ordinal) -> Result<Element> {
        if self.exponent {
            return exec_err!("\"EEEE\" must be the last pattern used");
        }
        Ok(match known {
            "9" | "0" => return self.take_digit(known == "0"),
            "." | "D" => {
                if self.decimal {
                    return exec_err!("multiple decimal points");
                }
                if self.shift.is_some() {
                    return exec_err!("cannot use \"V\" and decimal point together");
                }
                self.decimal = true;
                Element::Point
            }
            "," | "G" => Element::Comma,
            "FM" => {
                self.unfilled = true;
                Element::Nothing
            }
            "S" | "MI" | "PL" | "SG" | "PR" => return self.take_sign(known),
            "RN" => {
                self.roman = true;
                self.small_roman = ordinal == Ordinal::Lower;
                Element::Nothing
            }
            "L" => Element::Currency,
            "V" => {
                if self.decimal {
                    return exec_err!("cannot use \"V\" and decimal point together");
                }
                self.shift.get_or_insert(0);
                Element::Nothing
            }
            "EEEE" => {
                let others = self.unfilled || self.sign != Sign::None || self.brackets || self.minus || self.plus;
                if others || self.roman || self.shift.is_some() {
                    return exec_err!("\"EEEE\" is incompatible with other formats");
                }
                self.exponent = true;
                Element::Nothing
            }
            "TH" => Element::Ordinal(ordinal),
            _ => Element::Nothing,
        })
    }

    fn take_sign(&mut self, known: &str) -> Result<Element> {
        let has_own = self.plus || self.minus;
        match known {
            "S" if self.sign != Sign::None => return exec_err!("cannot use \"S\" twice"),
            "S" | "PR" if has_own || self.sign != Sign::None || (known == "S" && self.brackets) => {
                return exec_err!("cannot use \"{known}\" and another sign together");
            }
            "PR" => {
                self.brackets = true;
                return Ok(Element::Nothing);
            }
            "S" if self.decimal => self.sign = Sign::Behind,
            "S" => (self.sign, self.sign_place) = (Sign::Before, self.pre),
            _ if self.sign != Sign::None => return exec_err!("cannot use \"S\" and \"{known}\" together"),
            _ => {
                self.minus |= known != "PL";
                self.plus |= known != "MI";
            }
        }
        Ok(match known {
            "MI" => Element::Minus,
            "PL" => Element::Plus,
            "SG" => Element::EitherSign,
            _ => Element::Nothing,
        })
    }

    fn take_digit(&mut self, is_zero: bool) -> Result<Element> {
        if self.brackets {
            return exec_err!("\"{}\" must be ahead of \"PR\"", if is_zero { 0 } else { 9 });
        }
        if is_zero {
            if self.zero_start.is_none() && !self.decimal {
                self.zero_start = Some(self.pre + 1);
            }
            if self.decimal {
                self.post += 1;
            } else {
                self.pre += 1;
            }
            self.zero_end = self.pre + self.post;
            return Ok(Element::Zero);
        }
        match &mut self.shift {
            Some(places) => *places += 1,
            None if self.decimal => self.post += 1,
            None => self.pre += 1,
        }
        Ok(Element::Nine)
    }

    pub(super) fn roman_text(&self, roman: Option<String>) -> String {
        let roman = roman.unwrap_or_else(|| "#".repeat(15));
        let roman = if self.small_roman { roman.to_lowercase() } else { roman };
        if self.unfilled { roman } else { format!("{roman:>15}") }
    }
}

/// A number from 1 to 3999 in Roman digits.
pub(super) fn roman(number: i64) -> Option<String> {
    const DIGITS: [(i64, &str); 13] = [
        (1000, "M"),
        (900, "CM"),
        (500, "D"),
        (400, "CD"),
        (100, "C"),
        (90, "XC"),
        (50, "L"),
        (40, "XL"),
        (10, "X"),
        (9, "IX"),
        (5, "V"),
        (4, "IV"),
        (1, "I"),
    ];
    if !(1..=3999).contains(&number) {
        return None;
    }
    let (mut left, mut out) = (number, String::new());
    for (value, digits) in DIGITS {
        while left >= value {
            out.push_str(digits);
            left -= value;
        }
    }
    Some(out)
}
