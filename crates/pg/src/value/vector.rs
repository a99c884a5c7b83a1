//! Vectors of numbers, as the catalogue's tables have them: texts such as `1 2`, whose binary form
//! is an array's.

use arrow_array::ArrayRef;
use bytes::{BufMut, BytesMut};
use pgwire::api::Type;

use super::{ValueError, strings::Strings};

/// A column of vectors.
pub(super) struct Vector {
    texts: Strings,
    is_short: bool,
}

impl Vector {
    /// Vectors of `kind`, `int2vector` or `oidvector`.
    pub(super) fn new(array: &ArrayRef, kind: &Type) -> Result<Self, ValueError> {
        Ok(Self { texts: Strings::new(array)?, is_short: *kind == Type::INT2_VECTOR })
    }

    pub(super) fn text(&self, row: usize) -> &[u8] {
        self.texts.get(row)
    }

    /// Writes an array of one dimension, which is counted from 0.
    pub(super) fn put_binary(&self, row: usize, out: &mut BytesMut) -> Result<(), ValueError> {
        let text = String::from_utf8_lossy(self.text(row)).into_owned();
        let wrong = || ValueError::new("XX000", format!("\"{text}\" is not a vector of numbers"));
        let numbers: Vec<&str> = text.split_ascii_whitespace().collect();
        out.put_i32(1);
        out.put_i32(0);
        out.put_u32(if self.is_short { Type::INT2 } else { Type::OID }.oid());
        out.put_i32(i32::try_from(numbers.len()).map_err(|_| wrong())?);
        out.put_i32(0);
        for number in numbers {
            if self.is_short {
                out.put_i32(2);
                out.put_i16(number.parse().map_err(|_| wrong())?);
            } else {
                out.put_i32(4);
                out.put_u32(number.parse().map_err(|_| wrong())?);
            }
        }
        Ok(())
    }
}
