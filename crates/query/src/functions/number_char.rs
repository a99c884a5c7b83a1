//! `to_char` of numbers, and `to_number`.

use datafusion::common::{Result, exec_err};

use super::{
    function::Call,
    number_pattern::{Element, Pattern, Sign, roman},
    value::{Decimal, Value, power_of_ten, text},
};

/// What is to be written: digits with a point, without sign; as many before the point as the number
/// has.
struct Number {
    digits: String,
    is_negative: bool,
}

pub(super) fn int_to_char<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let pattern = Pattern::parse(arguments[1].str()?)?;
    let number = arguments[0].int()?;
    if pattern.exponent {
        return Ok(text(scientific(number as f64, pattern.post)));
    }
    if pattern.roman {
        return Ok(text(pattern.roman_text(roman(number))));
    }
    exact(pattern, Decimal::new(i128::from(number), 0))
}

pub(super) fn numeric_to_char<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let pattern = Pattern::parse(arguments[1].str()?)?;
    let number = arguments[0].numeric()?;
    if pattern.exponent {
        return Ok(text(scientific_exact(number, pattern.post)?));
    }
    if pattern.roman {
        let whole = number.rescaled(0)?.unscaled;
        return Ok(text(pattern.roman_text(i64::try_from(whole).ok().and_then(roman))));
    }
    exact(pattern, number)
}

fn exact<'a>(mut pattern: Pattern, number: Decimal) -> Result<Value<'a>> {
    let mut number = number;
    if let Some(places) = pattern.shift {
        number.unscaled = match number.unscaled.checked_mul(power_of_ten(places)?) {
            Some(shifted) => shifted,
            None => return exec_err!("value overflows numeric format"),
        };
        pattern.pre += places as usize;
    }
    let rounded = number.rescaled(pattern.post as u32)?;
    let digits = Decimal::new(rounded.unscaled.abs(), rounded.scale).to_string();
    Ok(text(written(&pattern, Number { digits, is_negative: rounded.unscaled < 0 })))
}

pub(super) fn float_to_char<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let mut pattern = Pattern::parse(arguments[1].str()?)?;
    let mut number = arguments[0].float()?;
    if pattern.exponent {
        return Ok(text(if number.is_finite() {
            scientific(number, pattern.post)
        } else {
            format!(" {}", "#".repeat(pattern.pre + pattern.post + 6))
        }));
    }
    if pattern.roman {
        let whole = number.round_ties_even();
        return Ok(text(pattern.roman_text((whole.abs() < 1e9).then_some(whole as i64).and_then(roman))));
    }
    if let Some(places) = pattern.shift {
        number *= 10f64.powi(places as i32);
        pattern.pre += places as usize;
    }
    let before = format!("{:.0}", number.abs()).len();
    // A double has no more than 15 digits that are right.
    if before >= 15 {
        pattern.post = 0;
    } else if before + pattern.post > 15 {
        pattern.post = 15 - before;
    }
    if !number.is_finite() {
        let name = if number.is_nan() { "NaN" } else { "Infinity" };
        let digits = name.to_owned();
        return Ok(text(written(&pattern, Number { digits, is_negative: number < 0.0 })));
    }
    let digits = format!("{:.*}", pattern.post, number.abs());
    let is_negative = number.is_sign_negative() && number != 0.0;
    Ok(text(written(&pattern, Number { digits, is_negative })))
}

fn scientific(number: f64, post: usize) -> String {
    let shown = format!("{:.*e}", post, number.abs());
    let (mantissa, exponent) = shown.split_once('e').unwrap_or((&shown, "0"));
    with_exponent(number < 0.0, mantissa, exponent.parse().unwrap_or(0))
}

fn with_exponent(is_negative: bool, mantissa: &str, exponent: i64) -> String {
    let sign = if is_negative { '-' } else { ' ' };
    let direction = if exponent < 0 { '-' } else { '+' };
    format!("{sign}{mantissa}e{direction}{:02}", exponent.abs())
}

fn scientific_exact(number: Decimal, post: usize) -> Result<String> {
    let digits = number.unscaled.unsigned_abs().to_string();
    let exponent = if number.unscaled == 0 { 0 } else { digits.len() as i64 - 1 - i64::from(number.scale) };
    let mantissa = Decimal::new(number.unscaled.abs(), digits.len() as u32 - 1).rescaled(post as u32)?;
    // As there, a mantissa that is rounded up to ten stays so.
    Ok(with_exponent(number.unscaled < 0, &mantissa.to_string(), exponent))
}

/// Goes through a pattern's elements and writes a number's digits where they stand.
struct Writer<'a> {
    pattern: &'a Pattern,
    digits: &'a [u8],
    /// The next digit.
    place: usize,
    /// Digit places of the pattern that the number is too short for.
    blank: usize,
    /// How many digit places were passed.
    passed: usize,
    sign: u8,
    sign_written: bool,
    sign_kind: Sign,
    /// The last digit that must be shown, where the pattern is without fill.
    last: Option<usize>,
    /// Whether a digit was written just now.
    in_number: bool,
    brackets: bool,
    count: usize,
    /// Where the text ends since the number has no more digits.
    end: Option<usize>,
    out: String,
}

fn written(pattern: &Pattern, number: Number) -> String {
    let before = number.digits.find('.').unwrap_or(number.digits.len());
    let digits = if before > pattern.pre {
        let mut filled = vec![b'#'; pattern.pre + pattern.post + 1];
        filled[pattern.pre] = b'.';
        filled
    } else {
        number.digits.clone().into_bytes()
    };
    let blank = pattern.pre.saturating_sub(before);
    let sign = if number.is_negative { b'-' } else { b'+' };
    let own_sign = pattern.minus || pattern.plus;
    let mut writer = Writer {
        pattern,
        digits: &digits,
        place: 0,
        blank,
        passed: 0,
        sign,
        sign_written: if own_sign {
            !pattern.plus || pattern.minus
        } else {
            sign == b'+' && pattern.unfilled && pattern.sign == Sign::None
        },
        sign_kind: match pattern.sign {
            Sign::Before if !own_sign && pattern.pre == pattern.sign_place => Sign::Behind,
            kind => kind,
        },
        last: None,
        in_number: false,
        brackets: pattern.brackets && (own_sign || sign == b'-' || !pattern.unfilled),
        count: (pattern.pre + pattern.post).wrapping_sub(1),
        end: None,
        out: String::new(),
    };
    if pattern.unfilled && pattern.decimal {
        writer.last = writer.last_relevant();
    }
    if !writer.sign_written && blank == 0 {
        writer.count = writer.count.wrapping_add(1);
    }
    for element in &pattern.elements {
        writer.write(element);
    }
    if let Some(end) = writer.end {
        writer.out.truncate(end);
    }
    writer.out
}

impl Writer<'_> {
    fn digit(&self) -> Option<u8> {
        self.digits.get(self.place).copied()
    }

    /// The last digit behind the point that is not 0, or the point; further if the pattern has
    /// zeros.
    fn last_relevant(&self) -> Option<usize> {
        let point = self.digits.iter().position(|digit| *digit == b'.')?;
        let last = (point + 1..self.digits.len()).rev().find(|place| self.digits[*place] != b'0').unwrap_or(point);
        if self.pattern.zero_end > self.blank {
            return Some(last.max((self.digits.len() - 1).min(self.pattern.zero_end - self.blank)));
        }
        Some(last)
    }

    fn write(&mut self, element: &Element) {
        let unfilled = self.pattern.unfilled;
        match element {
            Element::Nine | Element::Zero | Element::Point => self.number_part(element),
            Element::Comma if !self.in_number && unfilled => {}
            Element::Comma => self.out.push(if self.in_number { ',' } else { ' ' }),
            Element::Currency => self.out.push(' '),
            Element::Ordinal(kind) => {
                if self.sign != b'-' && self.digits.first() != Some(&b'#') && !self.pattern.decimal {
                    let digits = String::from_utf8_lossy(self.digits).into_owned();
                    self.out.push_str(&super::pattern::ordinal(&digits, *kind));
                }
            }
            Element::Minus if self.sign == b'-' => self.out.push('-'),
            Element::Plus if self.sign == b'+' => self.out.push('+'),
            Element::Minus | Element::Plus if unfilled => {}
            Element::Minus | Element::Plus => self.out.push(' '),
            Element::EitherSign => self.out.push(char::from(self.sign)),
            Element::Letter(letter) => self.out.push(*letter),
            Element::Nothing => {}
        }
    }

    /// A point that nothing follows, of a number without fill.
    fn ends_at_point(&self) -> bool {
        self.last.is_some_and(|last| self.digits.get(last) == Some(&b'.'))
    }

    /// Whether a lone 0 before the point is left out.
    fn is_bare_zero(&self) -> bool {
        self.pattern.zero_start.is_none()
            && self.place == 0
            && self.digits.first() == Some(&b'0')
            && self.pattern.post != 0
    }

    fn number_part(&mut self, element: &Element) {
        self.in_number = false;
        let reached = self.passed >= self.blank || self.pattern.zero_start == Some(self.passed + 1);
        if !self.sign_written && reached && (!self.is_bare_zero() || self.ends_at_point()) {
            self.write_sign();
        }
        self.write_digit(element);
        let mut end =
            self.count.wrapping_add(usize::from(self.blank > 0)).wrapping_add(usize::from(self.pattern.decimal));
        if self.last == Some(self.place) {
            end = self.passed;
        }
        if self.passed + 1 == end {
            if self.sign_written && self.brackets {
                self.out.push(if self.sign == b'+' { ' ' } else { '>' });
            } else if self.pattern.sign != Sign::None && self.sign_kind == Sign::Behind {
                self.out.push(char::from(self.sign));
            }
        }
        self.passed += 1;
    }

    fn write_sign(&mut self) {
        if self.pattern.sign != Sign::None {
            if self.sign_kind == Sign::Before {
                self.out.push(char::from(self.sign));
                self.sign_written = true;
            }
            return;
        }
        match (self.brackets, self.sign) {
            (true, b'+') => self.out.push(' '),
            (true, _) => self.out.push('<'),
            (false, b'+') if self.pattern.unfilled => {}
            (false, b'+') => self.out.push(' '),
            (false, _) => self.out.push('-'),
        }
        self.sign_written = true;
    }

    fn write_digit(&mut self, element: &Element) {
        let unfilled = self.pattern.unfilled;
        let in_zeros = self.pattern.zero_start.is_some_and(|start| start <= self.passed + 1);
        if self.passed < self.blank {
            if in_zeros {
                self.out.push('0');
                self.in_number = true;
            } else if !unfilled {
                self.out.push(' ');
            }
            return;
        }
        match self.digit() {
            Some(b'.') => {
                if !self.ends_at_point() || unfilled {
                    self.out.push('.');
                }
            }
            _ if self.last.is_some_and(|last| self.place > last) && *element != Element::Zero => {}
            _ if self.is_bare_zero() => {
                if !unfilled {
                    self.out.push(' ');
                } else if self.ends_at_point() {
                    self.out.push('0');
                }
            }
            Some(digit) => {
                self.out.push(char::from(digit));
                self.in_number = true;
            }
            None => self.end = self.end.or(Some(self.out.len())),
        }
        if self.digit().is_some() {
            self.place += 1;
        }
    }
}
