//! Arrays: the literals `{1,NULL,"a b"}` and the binary form.

use pgwire::api::Type;

use super::{
    super::{ValueError, list::DIMENSIONS_MAX, quote::is_space},
    Parameter, binary, text,
};

/// The array that a literal stands for.
pub(super) fn decode_text(literal: &str, element: &Type) -> Result<Parameter, ValueError> {
    let mut reader = Literal { literal, at: 0, element, lens: [None; DIMENSIONS_MAX], leaves: None };
    reader.skip_space();
    if reader.peek() == Some(b'[') {
        return Err(ValueError::unsupported("arrays with bounds of their own are not supported"));
    }
    let array = reader.array(0)?;
    reader.skip_space();
    if reader.at != literal.len() {
        return Err(reader.malformed());
    }
    Ok(Parameter::Array(array))
}

struct Literal<'a> {
    literal: &'a str,
    at: usize,
    element: &'a Type,
    /// The number of elements that arrays of each depth have; all have the same.
    lens: [Option<usize>; DIMENSIONS_MAX],
    /// The depth at which elements are that are not arrays; there is one such depth.
    leaves: Option<usize>,
}

impl Literal<'_> {
    fn array(&mut self, depth: usize) -> Result<Vec<Parameter>, ValueError> {
        if depth == DIMENSIONS_MAX {
            return Err(too_deep(depth + 1));
        }
        if self.peek() != Some(b'{') {
            return Err(self.malformed());
        }
        self.at += 1;
        self.skip_space();
        let mut elements = Vec::new();
        if self.peek() == Some(b'}') && depth == 0 {
            self.at += 1;
        } else {
            loop {
                elements.push(self.element(depth)?);
                self.skip_space();
                let end = self.peek();
                self.at += 1;
                match end {
                    Some(b',') => self.skip_space(),
                    Some(b'}') => break,
                    _ => return Err(self.malformed()),
                }
            }
        }
        if *self.lens[depth].get_or_insert(elements.len()) != elements.len() {
            return Err(self.malformed());
        }
        Ok(elements)
    }

    fn element(&mut self, depth: usize) -> Result<Parameter, ValueError> {
        if self.peek() == Some(b'{') {
            if self.leaves.is_some_and(|leaves| leaves <= depth) {
                return Err(self.malformed());
            }
            return self.array(depth + 1).map(Parameter::Array);
        }
        if *self.leaves.get_or_insert(depth) != depth {
            return Err(self.malformed());
        }
        if self.peek() == Some(b'"') {
            let value = self.quoted()?;
            return text(&value, self.element).map(Parameter::Text);
        }
        self.plain()
    }

    fn quoted(&mut self) -> Result<String, ValueError> {
        self.at += 1;
        let mut value = String::new();
        loop {
            match self.next()? {
                '"' => return Ok(value),
                '\\' => value.push(self.next()?),
                other => value.push(other),
            }
        }
    }

    fn plain(&mut self) -> Result<Parameter, ValueError> {
        let mut value = String::new();
        // White space at the end does not count unless it stands behind a backslash.
        let mut end = 0;
        let mut has_escape = false;
        loop {
            match self.peek() {
                Some(b',' | b'}') => break,
                None | Some(b'{' | b'"') => return Err(self.malformed()),
                Some(b'\\') => {
                    self.at += 1;
                    value.push(self.next()?);
                    end = value.len();
                    has_escape = true;
                }
                Some(byte) => {
                    value.push(self.next()?);
                    if !is_space(byte) {
                        end = value.len();
                    }
                }
            }
        }
        value.truncate(end);
        if value.is_empty() {
            return Err(self.malformed());
        }
        if !has_escape && value.eq_ignore_ascii_case("null") {
            return Ok(Parameter::Null);
        }
        text(&value, self.element).map(Parameter::Text)
    }

    fn peek(&self) -> Option<u8> {
        self.literal.as_bytes().get(self.at).copied()
    }

    fn next(&mut self) -> Result<char, ValueError> {
        let rest = self.literal.get(self.at..).unwrap_or_default();
        let next = rest.chars().next().ok_or_else(|| self.malformed())?;
        self.at += next.len_utf8();
        Ok(next)
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(is_space) {
            self.at += 1;
        }
    }

    fn malformed(&self) -> ValueError {
        const SHOWN_MAX: usize = 200;
        let shown: String = self.literal.chars().take(SHOWN_MAX).collect();
        ValueError::new("22P02", format!("malformed array literal: \"{shown}\""))
    }
}

fn too_deep(dimensions: usize) -> ValueError {
    let message = format!("number of array dimensions ({dimensions}) exceeds the maximum allowed ({DIMENSIONS_MAX})");
    ValueError::new("54000", message)
}

/// The array of the binary form: dimensions, a flag, the elements' type, for each dimension its
/// length and lower bound, and the elements, each behind its length.
pub(super) fn decode_binary(bytes: &[u8], element: &Type) -> Result<Parameter, ValueError> {
    let mut wire = Wire { rest: bytes };
    let dimensions = usize::try_from(wire.int()?).map_err(|_| wrong("number of dimensions"))?;
    if dimensions > DIMENSIONS_MAX {
        return Err(too_deep(dimensions));
    }
    if !matches!(wire.int()?, 0 | 1) {
        return Err(wrong("array flags"));
    }
    let sent = wire.int()?.cast_unsigned();
    if sent != element.oid() && !(is_text(&Type::from_oid(sent)) && is_text(&Some(element.clone()))) {
        let message = format!("binary data has array element type {sent} instead of expected {}", element.oid());
        return Err(ValueError::new("42804", message));
    }
    let mut lens = Vec::with_capacity(dimensions);
    for _ in 0..dimensions {
        lens.push(usize::try_from(wire.int()?).map_err(|_| wrong("array length"))?);
        if wire.int()? != 1 {
            return Err(ValueError::unsupported("arrays with bounds of their own are not supported"));
        }
    }
    // Each element has four bytes at least, which bounds what is believed of their number.
    let start = usize::from(!lens.is_empty());
    let count = lens.iter().try_fold(start, |count, len| count.checked_mul(*len));
    let count = count.filter(|count| *count <= wire.rest.len() / 4);
    let array = match count.ok_or_else(|| wrong("array length"))? {
        0 => Vec::new(),
        _ => wire.array(&lens, element)?,
    };
    if !wire.rest.is_empty() {
        return Err(wrong("array length"));
    }
    Ok(Parameter::Array(array))
}

fn is_text(kind: &Option<Type>) -> bool {
    matches!(kind, Some(Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN))
}

struct Wire<'a> {
    rest: &'a [u8],
}

impl<'a> Wire<'a> {
    fn array(&mut self, lens: &[usize], element: &Type) -> Result<Vec<Parameter>, ValueError> {
        let Some((len, inner)) = lens.split_first() else {
            return Ok(Vec::new());
        };
        let one = |_| match inner {
            [] => self.element(element),
            _ => self.array(inner, element).map(Parameter::Array),
        };
        (0..*len).map(one).collect()
    }

    fn element(&mut self, element: &Type) -> Result<Parameter, ValueError> {
        match self.int()? {
            -1 => Ok(Parameter::Null),
            len => {
                let len = usize::try_from(len).map_err(|_| wrong("element length"))?;
                binary::decode(self.bytes(len)?, element).map(Parameter::Text)
            }
        }
    }

    fn int(&mut self) -> Result<i32, ValueError> {
        Ok(i32::from_be_bytes(binary::exactly(self.bytes(4)?, &Type::INT4)?))
    }

    fn bytes(&mut self, len: usize) -> Result<&'a [u8], ValueError> {
        let (bytes, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or_else(|| ValueError::new("22P03", "insufficient data left in message"))?;
        self.rest = rest;
        Ok(bytes)
    }
}

fn wrong(what: &str) -> ValueError {
    ValueError::new("22P03", format!("invalid {what} in an array in binary form"))
}
