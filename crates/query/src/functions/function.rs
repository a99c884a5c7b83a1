//! A scalar function with PostgreSQL's forms, evaluated row by row.
//!
//! A form is chosen as PostgreSQL chooses it: by the number of arguments and by which types become
//! which others by themselves. What fits no form is an error that says so, never a guess.

use std::{
    cell::RefCell,
    hash::{Hash, Hasher},
    sync::Arc,
};

use datafusion::{
    arrow::datatypes::{DataType, Field, FieldRef},
    common::{Result, ScalarValue, exec_err, plan_err},
    logical_expr::{
        ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature,
        Volatility,
    },
};

use super::{
    bounds::Room,
    columns::{Column, column, converted},
    regexes::Kept,
    show::shown,
    value::{Kind, Value},
    zone::Zone,
};

/// What a form gives.
pub(super) enum Gives {
    Kind(Kind),
    /// A type that depends on the arguments'.
    Of(fn(&Given<'_>) -> Result<DataType>),
}

/// What is known of a call's arguments while it is planned.
pub(super) struct Given<'a> {
    pub(super) kinds: &'a [DataType],
    pub(super) literals: &'a [Option<&'a ScalarValue>],
}

impl Given<'_> {
    /// An argument's number, where it is written as one.
    pub(super) fn int(&self, place: usize) -> Option<i64> {
        self.literals.get(place).copied().flatten()?.cast_to(&DataType::Int64).ok().and_then(|value| match value {
            ScalarValue::Int64(value) => value,
            _ => None,
        })
    }

    /// An argument's text, where it is written as one.
    pub(super) fn text(&self, place: usize) -> Option<&str> {
        self.literals.get(place).copied().flatten()?.try_as_str().flatten()
    }

    pub(super) fn kind(&self, place: usize) -> Kind {
        self.kinds.get(place).map_or(Kind::Null, Kind::of)
    }
}

type Evaluate = for<'a> fn(&Call<'_>, &[Value<'a>]) -> Result<Value<'a>>;

/// One way in which a function is called.
pub(super) struct Form {
    /// What it takes; the last again and again if it is variadic.
    pub(super) takes: Vec<Kind>,
    pub(super) variadic: bool,
    /// How many at the end may be missing.
    pub(super) optional: usize,
    pub(super) gives: Gives,
    /// Whether the function sees NULLs; else it is NULL if any argument is.
    pub(super) nulls: bool,
    pub(super) evaluate: Evaluate,
}

pub(super) fn form(takes: &[Kind], gives: Kind, evaluate: Evaluate) -> Form {
    Form { takes: takes.to_vec(), variadic: false, optional: 0, gives: Gives::Kind(gives), nulls: false, evaluate }
}

impl Form {
    pub(super) fn variadic(self) -> Self {
        Self { variadic: true, ..self }
    }

    pub(super) fn optional(self, optional: usize) -> Self {
        Self { optional, ..self }
    }

    pub(super) fn with_nulls(self) -> Self {
        Self { nulls: true, ..self }
    }

    pub(super) fn giving(self, gives: fn(&Given<'_>) -> Result<DataType>) -> Self {
        Self { gives: Gives::Of(gives), ..self }
    }

    fn taken(&self, place: usize) -> Option<&Kind> {
        if self.variadic { self.takes.get(place).or(self.takes.last()) } else { self.takes.get(place) }
    }

    fn distance(&self, kinds: &[Kind]) -> Option<u32> {
        if kinds.len() + self.optional < self.takes.len() {
            return None;
        }
        kinds.iter().enumerate().map(|(place, kind)| kind.distance(self.taken(place)?)).sum()
    }
}

/// What a function knows besides its arguments.
pub(super) struct Call<'a> {
    pub(super) name: &'a str,
    /// Where the session's clock stands.
    pub(super) zone: Zone,
    /// The types of the arguments, as they were given.
    pub(super) kinds: &'a [Kind],
    /// How long the results may be.
    pub(super) room: &'a Room,
    /// The pattern last used, ready: it is mostly the same in all rows.
    pub(super) pattern: RefCell<Kept>,
}

impl Call<'_> {
    /// The text of an argument of any type.
    pub(super) fn shown(&self, arguments: &[Value<'_>], place: usize) -> Option<String> {
        shown(arguments.get(place)?, self.kinds.get(place).unwrap_or(&Kind::Other), &self.zone)
    }
}

/// A function with PostgreSQL's name and meaning.
pub(super) struct Function {
    name: &'static str,
    forms: Vec<Form>,
    signature: Signature,
}

impl Function {
    pub(super) fn udf(name: &'static str, volatility: Volatility, forms: Vec<Form>) -> ScalarUDF {
        let any = vec![TypeSignature::Nullary, TypeSignature::VariadicAny];
        let signature = Signature::one_of(any, volatility);
        ScalarUDF::new_from_impl(Self { name, forms, signature })
    }

    fn chosen(&self, kinds: &[Kind]) -> Result<&Form> {
        let near = self.forms.iter().filter_map(|form| Some((form.distance(kinds)?, form)));
        match near.min_by_key(|(distance, _)| *distance) {
            Some((_, form)) => Ok(form),
            None => {
                let names: Vec<_> = kinds.iter().map(Kind::name).collect();
                plan_err!("function {}({}) does not exist", self.name, names.join(", "))
            }
        }
    }

    fn given(&self, kinds: &[DataType], literals: &[Option<&ScalarValue>]) -> Result<DataType> {
        let of: Vec<Kind> = kinds.iter().map(Kind::of).collect();
        match &self.chosen(&of)?.gives {
            Gives::Kind(kind) => Ok(kind.data_type()),
            Gives::Of(gives) => gives(&Given { kinds, literals }),
        }
    }
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Function").field("name", &self.name).finish_non_exhaustive()
    }
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        self.given(kinds, &vec![None; kinds.len()])
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let kinds: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        Ok(Arc::new(Field::new(self.name, self.given(&kinds, args.scalar_arguments)?, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let given = args.return_type().clone();
        let kinds: Vec<Kind> = args.args.iter().map(|argument| Kind::of(&argument.data_type())).collect();
        let form = self.chosen(&kinds)?;
        let zone = Zone::of_session(args.config_options.execution.time_zone.as_deref())?;
        let room = Room::new(self.name);
        let call = Call { name: self.name, zone, kinds: &kinds, room: &room, pattern: RefCell::new(None) };
        let scalar = args.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)))
            && self.signature.volatility != Volatility::Volatile;
        let rows = if scalar { 1 } else { args.number_rows };
        // A value that is the same in every row is read once.
        let columns = args
            .args
            .iter()
            .map(|argument| match argument {
                ColumnarValue::Array(array) => Ok((Column::new(array)?, false)),
                ColumnarValue::Scalar(scalar) => Ok((Column::new(&scalar.to_array()?)?, true)),
            })
            .collect::<Result<Vec<_>>>()?;
        let mut values = Vec::with_capacity(rows);
        for row in 0..rows {
            let mut arguments = Vec::with_capacity(columns.len());
            for (place, (column, same)) in columns.iter().enumerate() {
                let value = column.value(if *same { 0 } else { row })?;
                let Some(taken) = form.taken(place) else { return exec_err!("too many arguments") };
                arguments.push(converted(value, taken, &zone)?);
            }
            let value = if !form.nulls && arguments.iter().any(Value::is_null) {
                Value::Null
            } else {
                (form.evaluate)(&call, &arguments)?.into_owned()
            };
            room.take(value.size())?;
            values.push(value);
        }
        let array = column(&values, &given)?;
        if scalar {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?));
        }
        Ok(ColumnarValue::Array(array))
    }
}
