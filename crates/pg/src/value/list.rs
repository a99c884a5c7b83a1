//! Lists as PostgreSQL's arrays, which are rectangular whatever their depth.

use arrow_array::{Array as _, ArrayRef, cast::AsArray as _};
use arrow_buffer::OffsetBuffer;
use arrow_schema::DataType;
use bytes::{BufMut, BytesMut};

use super::{
    ValueError,
    column::{Column, put_sized},
    quote::quote_element,
    zone::Zone,
};

/// So many dimensions PostgreSQL's arrays have at most.
pub(super) const DIMENSIONS_MAX: usize = 6;

/// A column of lists.
pub(super) struct List {
    items: Box<Column>,
    spans: Spans,
    depth: usize,
}

/// Where in the items a row's list is.
enum Spans {
    Small(OffsetBuffer<i32>),
    Large(OffsetBuffer<i64>),
    Fixed(usize),
    /// First item and count.
    Views(Vec<(usize, usize)>),
}

/// The lengths of an array's dimensions, outermost first.
#[derive(Default)]
struct Dimensions {
    lens: [Option<usize>; DIMENSIONS_MAX],
}

impl List {
    pub(super) fn new(array: &ArrayRef) -> Result<Self, ValueError> {
        let (field, items, spans) = match array.data_type() {
            DataType::List(field) => {
                let list = array.as_list::<i32>();
                (field, list.values(), Spans::Small(list.offsets().clone()))
            }
            DataType::LargeList(field) => {
                let list = array.as_list::<i64>();
                (field, list.values(), Spans::Large(list.offsets().clone()))
            }
            DataType::FixedSizeList(field, len) => {
                let list = array.as_fixed_size_list();
                (field, list.values(), Spans::Fixed(usize::try_from(*len).unwrap_or(0)))
            }
            DataType::ListView(field) => {
                let list = array.as_list_view::<i32>();
                (field, list.values(), Spans::views(list.offsets(), list.sizes()))
            }
            DataType::LargeListView(field) => {
                let list = array.as_list_view::<i64>();
                (field, list.values(), Spans::views(list.offsets(), list.sizes()))
            }
            other => return Err(ValueError::unsupported(format!("{other} is not a list"))),
        };
        let items = Box::new(Column::new(field, items)?);
        let depth = 1 + items.as_list().map_or(0, |inner| inner.depth);
        if depth > DIMENSIONS_MAX {
            let message =
                format!("number of array dimensions ({depth}) exceeds the maximum allowed ({DIMENSIONS_MAX})");
            return Err(ValueError::new("54000", message));
        }
        Ok(Self { items, spans, depth })
    }

    pub(super) fn put_text(&self, row: usize, zone: &Zone, out: &mut BytesMut) -> Result<(), ValueError> {
        if self.dimensions(row)?.is_empty(self.depth) {
            out.put_slice(b"{}");
            return Ok(());
        }
        self.put_items_text(row, zone, out)
    }

    fn put_items_text(&self, row: usize, zone: &Zone, out: &mut BytesMut) -> Result<(), ValueError> {
        out.put_u8(b'{');
        let (first, len) = self.spans.get(row);
        for item in first..first + len {
            if item > first {
                out.put_u8(b',');
            }
            if let Some(inner) = self.items.as_list() {
                inner.put_items_text(item, zone, out)?;
            } else if self.items.is_null(item) {
                out.put_slice(b"NULL");
            } else {
                let start = out.len();
                self.items.put_text(item, zone, out)?;
                quote_element(out, start);
            }
        }
        out.put_u8(b'}');
        Ok(())
    }

    pub(super) fn put_binary(&self, row: usize, out: &mut BytesMut) -> Result<(), ValueError> {
        let dimensions = self.dimensions(row)?;
        let is_empty = dimensions.is_empty(self.depth);
        out.put_i32(if is_empty { 0 } else { i32::try_from(self.depth).unwrap_or(0) });
        let flags = out.len();
        out.put_i32(0);
        out.put_u32(self.element().oid());
        if is_empty {
            return Ok(());
        }
        for len in dimensions.lens.iter().take(self.depth).flatten() {
            out.put_i32(i32::try_from(*len).map_err(|_| too_long())?);
            out.put_i32(1);
        }
        if self.put_items_binary(row, out)? {
            out[flags + 3] = 1;
        }
        Ok(())
    }

    /// Whether there was a NULL.
    fn put_items_binary(&self, row: usize, out: &mut BytesMut) -> Result<bool, ValueError> {
        let mut has_null = false;
        let (first, len) = self.spans.get(row);
        for item in first..first + len {
            if let Some(inner) = self.items.as_list() {
                has_null |= inner.put_items_binary(item, out)?;
                continue;
            }
            let is_null = self.items.is_null(item);
            has_null |= is_null;
            put_sized(out, |out| if is_null { Ok(false) } else { self.items.put_binary(item, out).map(|()| true) })?;
        }
        Ok(has_null)
    }

    fn element(&self) -> &Column {
        self.items.as_list().map_or(self.items.as_ref(), List::element)
    }

    fn dimensions(&self, row: usize) -> Result<Dimensions, ValueError> {
        let mut dimensions = Dimensions::default();
        self.measure(row, 0, &mut dimensions)?;
        Ok(dimensions)
    }

    fn measure(&self, row: usize, level: usize, into: &mut Dimensions) -> Result<(), ValueError> {
        let (first, len) = self.spans.get(row);
        if *into.lens[level].get_or_insert(len) != len {
            let message = "multidimensional arrays must have array expressions with matching dimensions";
            return Err(ValueError::new("2202E", message));
        }
        let Some(inner) = self.items.as_list() else {
            return Ok(());
        };
        for item in first..first + len {
            if self.items.is_null(item) {
                return Err(ValueError::new("22004", "an array of arrays cannot have NULL for an array"));
            }
            inner.measure(item, level + 1, into)?;
        }
        Ok(())
    }
}

impl Dimensions {
    fn is_empty(&self, depth: usize) -> bool {
        self.lens.iter().take(depth).any(|len| len.unwrap_or(0) == 0)
    }
}

impl Spans {
    fn views<O: arrow_array::OffsetSizeTrait>(offsets: &[O], sizes: &[O]) -> Self {
        let spans = offsets.iter().zip(sizes);
        Self::Views(spans.map(|(offset, size)| (offset.as_usize(), size.as_usize())).collect())
    }

    fn get(&self, row: usize) -> (usize, usize) {
        let between = |from: usize, to: usize| (from, to - from);
        let number = |value: i64| usize::try_from(value).unwrap_or(0);
        match self {
            Self::Small(offsets) => between(number(offsets[row].into()), number(offsets[row + 1].into())),
            Self::Large(offsets) => between(number(offsets[row]), number(offsets[row + 1])),
            Self::Fixed(len) => (row * len, *len),
            Self::Views(spans) => spans[row],
        }
    }
}

fn too_long() -> ValueError {
    ValueError::new("54000", "an array has too many elements")
}
