//! Aggregates that add values up: how states of them are kept, for one group, for many, and for a
//! window that moves.

use std::{collections::VecDeque, fmt::Debug, mem::size_of, sync::Arc};

use datafusion::{
    arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array},
    arrow::datatypes::Int64Type,
    common::{Result, ScalarValue, exec_err},
    logical_expr::{Accumulator, EmitTo, GroupsAccumulator},
};

/// What is added up, and what comes of it.
pub(super) trait Total: Debug + Send + Sync + 'static {
    /// What is known of the values so far, besides how many they are.
    type State: Copy + Default + Debug + Send + Sync;

    /// Calls `add` for each value that is not null, with its row.
    fn each(&self, values: &ArrayRef, add: impl FnMut(usize, Self::State) -> Result<()>) -> Result<()>;

    /// One value, as `each` gives it, beside `count` others.
    fn add(&self, state: Self::State, count: i64, value: Self::State) -> Result<Self::State>;

    /// Two states with the counts of their values.
    fn merge(&self, one: (Self::State, i64), other: (Self::State, i64)) -> Result<Self::State>;

    /// The state without one value; none if that cannot be known from the state.
    fn remove(&self, state: Self::State, value: Self::State) -> Option<Self::State>;

    /// Columns that hold states.
    fn pack(&self, states: &[Self::State]) -> Result<Vec<ArrayRef>>;

    /// The state in a row of such columns.
    fn unpack(&self, columns: &[ArrayRef], row: usize) -> Self::State;

    /// The results; null where no value was.
    fn results(&self, states: &[Self::State], counts: &[i64]) -> Result<ArrayRef>;
}

/// The total of one group.
#[derive(Debug)]
pub(super) struct One<T: Total> {
    total: T,
    state: T::State,
    count: i64,
}

impl<T: Total> One<T> {
    pub(super) fn new(total: T) -> Self {
        Self { total, state: T::State::default(), count: 0 }
    }
}

fn packed<T: Total>(total: &T, states: &[T::State], counts: Vec<i64>) -> Result<Vec<ArrayRef>> {
    let mut columns = total.pack(states)?;
    columns.push(Arc::new(Int64Array::from(counts)));
    Ok(columns)
}

fn counts_of(columns: &[ArrayRef]) -> Result<&Int64Array> {
    match columns.last() {
        Some(counts) => Ok(counts.as_primitive::<Int64Type>()),
        None => exec_err!("a state lacks its count"),
    }
}

impl<T: Total> Accumulator for One<T> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let Self { total, state, count } = self;
        total.each(&values[0], |_, value| {
            *state = total.add(*state, *count, value)?;
            *count += 1;
            Ok(())
        })
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let Self { total, state, count } = self;
        total.each(&values[0], |_, value| {
            let Some(without) = total.remove(*state, value) else { return exec_err!("a value cannot be taken back") };
            *state = without;
            *count -= 1;
            Ok(())
        })
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        ScalarValue::try_from_array(&self.total.results(&[self.state], &[self.count])?, 0)
    }

    fn size(&self) -> usize {
        size_of::<Self>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let columns = packed(&self.total, &[self.state], vec![self.count])?;
        columns.iter().map(|column| ScalarValue::try_from_array(column, 0)).collect()
    }

    fn merge_batch(&mut self, columns: &[ArrayRef]) -> Result<()> {
        let counts = counts_of(columns)?;
        for row in 0..counts.len() {
            let count = counts.value(row);
            let other = self.total.unpack(columns, row);
            self.state = self.total.merge((self.state, self.count), (other, count))?;
            self.count += count;
        }
        Ok(())
    }
}

/// The total of a window whose values cannot be taken back from a state: they are kept.
#[derive(Debug)]
pub(super) struct Kept<T: Total> {
    total: T,
    values: VecDeque<T::State>,
}

impl<T: Total> Kept<T> {
    pub(super) fn new(total: T) -> Self {
        Self { total, values: VecDeque::new() }
    }
}

impl<T: Total> Accumulator for Kept<T> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let kept = &mut self.values;
        self.total.each(&values[0], |_, value| {
            kept.push_back(value);
            Ok(())
        })
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let kept = &mut self.values;
        self.total.each(&values[0], |_, _| {
            kept.pop_front();
            Ok(())
        })
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mut state = T::State::default();
        for (count, value) in self.values.iter().enumerate() {
            state = self.total.add(state, count as i64, *value)?;
        }
        let results = self.total.results(&[state], &[self.values.len() as i64])?;
        ScalarValue::try_from_array(&results, 0)
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.values.capacity() * size_of::<T::State>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        exec_err!("a window has no state to be merged")
    }

    fn merge_batch(&mut self, _: &[ArrayRef]) -> Result<()> {
        exec_err!("a window has no state to be merged")
    }
}

/// The totals of many groups.
#[derive(Debug)]
pub(super) struct Many<T: Total> {
    total: T,
    states: Vec<T::State>,
    counts: Vec<i64>,
}

impl<T: Total> Many<T> {
    pub(super) fn new(total: T) -> Self {
        Self { total, states: Vec::new(), counts: Vec::new() }
    }

    fn grow(&mut self, groups: usize) {
        self.states.resize(groups, T::State::default());
        self.counts.resize(groups, 0);
    }
}

fn passes(filter: Option<&BooleanArray>, row: usize) -> bool {
    filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row))
}

impl<T: Total> GroupsAccumulator for Many<T> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total_groups: usize,
    ) -> Result<()> {
        self.grow(total_groups);
        let Self { total, states, counts } = self;
        total.each(&values[0], |row, value| {
            if passes(filter, row) {
                let group = groups[row];
                states[group] = total.add(states[group], counts[group], value)?;
                counts[group] += 1;
            }
            Ok(())
        })
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let (states, counts) = (emit_to.take_needed(&mut self.states), emit_to.take_needed(&mut self.counts));
        self.total.results(&states, &counts)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let (states, counts) = (emit_to.take_needed(&mut self.states), emit_to.take_needed(&mut self.counts));
        packed(&self.total, &states, counts)
    }

    fn merge_batch(&mut self, columns: &[ArrayRef], groups: &[usize], total_groups: usize) -> Result<()> {
        self.grow(total_groups);
        let counts = counts_of(columns)?;
        for (row, group) in groups.iter().copied().enumerate() {
            let count = counts.value(row);
            let other = self.total.unpack(columns, row);
            self.states[group] = self.total.merge((self.states[group], self.counts[group]), (other, count))?;
            self.counts[group] += count;
        }
        Ok(())
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let rows = values[0].len();
        let (mut states, mut counts) = (vec![T::State::default(); rows], vec![0; rows]);
        self.total.each(&values[0], |row, value| {
            if passes(filter, row) {
                states[row] = self.total.add(T::State::default(), 0, value)?;
                counts[row] = 1;
            }
            Ok(())
        })?;
        packed(&self.total, &states, counts)
    }

    fn size(&self) -> usize {
        self.states.capacity() * size_of::<T::State>() + self.counts.capacity() * size_of::<i64>()
    }
}
