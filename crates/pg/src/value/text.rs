//! A short text on the stack: numbers and times are put together here and then written at once.

use bytes::{BufMut, BytesMut};

/// More than the longest interval, which is the longest of the texts.
const TEXT_BYTES_MAX: usize = 128;

/// Up to [`TEXT_BYTES_MAX`] bytes of ASCII.
pub(super) struct Text {
    bytes: [u8; TEXT_BYTES_MAX],
    len: usize,
}

impl Text {
    pub(super) fn new() -> Self {
        Self { bytes: [0; TEXT_BYTES_MAX], len: 0 }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub(super) fn write_to(&self, out: &mut BytesMut) {
        out.put_slice(self.as_bytes());
    }

    pub(super) fn push(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    pub(super) fn push_str(&mut self, text: &str) {
        self.bytes[self.len..self.len + text.len()].copy_from_slice(text.as_bytes());
        self.len += text.len();
    }

    pub(super) fn push_zeros(&mut self, count: usize) {
        for _ in 0..count {
            self.push(b'0');
        }
    }

    /// Two digits; `value` is below 100.
    pub(super) fn push_two(&mut self, value: u32) {
        self.push(digit(u64::from(value) / 10));
        self.push(digit(u64::from(value)));
    }

    /// The number with at least `width` digits.
    pub(super) fn push_padded(&mut self, value: u64, width: usize) {
        let mut digits = [0; 20];
        let mut first = digits.len();
        let mut rest = value;
        loop {
            first -= 1;
            digits[first] = digit(rest);
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        let digits = &digits[first..];
        self.push_zeros(width.saturating_sub(digits.len()));
        for digit in digits {
            self.push(*digit);
        }
    }

    pub(super) fn push_signed(&mut self, value: i64) {
        if value < 0 {
            self.push(b'-');
        }
        self.push_padded(value.unsigned_abs(), 1);
    }

    /// `.5`, `.000001` or nothing: a second's fraction without the zeros at its end.
    pub(super) fn push_fraction(&mut self, micros: u32) {
        if micros == 0 {
            return;
        }
        self.push(b'.');
        self.push_padded(u64::from(micros), 6);
        while self.bytes[self.len - 1] == b'0' {
            self.len -= 1;
        }
    }
}

impl std::fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        if self.len + text.len() > TEXT_BYTES_MAX {
            return Err(std::fmt::Error);
        }
        self.push_str(text);
        Ok(())
    }
}

/// The last decimal digit of a number.
fn digit(value: u64) -> u8 {
    b'0' + (value % 10) as u8
}

/// A whole number.
pub(super) fn put_integer(out: &mut BytesMut, value: i64) {
    let mut text = Text::new();
    text.push_signed(value);
    text.write_to(out);
}
