//! Which functions of texts, numbers and arrays there are, and their forms.

use datafusion::logical_expr::{ScalarUDF, Volatility};

use super::{
    arrays,
    function::{Form, Function, form},
    matches, math, number_char, quoting, texts,
    value::Kind::{self, Bool, Bytes, Float8, Int4, Int8, List, Numeric, Other, Text},
};

fn immutable(name: &'static str, forms: Vec<Form>) -> ScalarUDF {
    Function::udf(name, Volatility::Immutable, forms)
}

/// What shows values in texts depends on the session's zone.
fn stable(name: &'static str, forms: Vec<Form>) -> ScalarUDF {
    Function::udf(name, Volatility::Stable, forms)
}

pub(super) fn of_texts() -> Vec<ScalarUDF> {
    let counted = |of_texts, of_bytes| vec![form(&[Text], Int4, of_texts), form(&[Bytes], Int4, of_bytes)];
    let changed = |evaluate| vec![form(&[Text], Text, evaluate)];
    let numbered = |evaluate| vec![form(&[Text, Int4], Text, evaluate)];
    let trimmed = |evaluate| vec![form(&[Text, Text], Text, evaluate).optional(1)];
    let padded = |evaluate| vec![form(&[Text, Int4, Text], Text, evaluate).optional(1)];
    let three = |evaluate| vec![form(&[Text, Text, Text], Text, evaluate)];
    let part = || {
        vec![
            form(&[Text, Int4, Int4], Text, texts::substr).optional(1),
            form(&[Bytes, Int4, Int4], Bytes, texts::substr).optional(1),
        ]
    };
    let mut substring = part();
    substring.push(form(&[Text, Text], Text, matches::substring));
    let found = || vec![form(&[Text, Text], Int4, texts::strpos)];
    vec![
        immutable("length", counted(texts::length, texts::octet_length)),
        immutable("char_length", vec![form(&[Text], Int4, texts::length)]),
        immutable("character_length", vec![form(&[Text], Int4, texts::length)]),
        immutable("octet_length", counted(texts::octet_length, texts::octet_length)),
        immutable("bit_length", counted(texts::bit_length, texts::bit_length)),
        immutable("upper", changed(texts::upper)),
        immutable("lower", changed(texts::lower)),
        immutable("initcap", changed(texts::initcap)),
        immutable("reverse", changed(texts::reverse)),
        immutable("left", numbered(texts::left)),
        immutable("right", numbered(texts::right)),
        immutable("repeat", numbered(texts::repeat)),
        immutable("substr", part()),
        immutable("substring", substring),
        immutable("overlay", vec![form(&[Text, Text, Int4, Int4], Text, texts::overlay).optional(1)]),
        immutable("lpad", padded(texts::lpad)),
        immutable("rpad", padded(texts::rpad)),
        immutable("replace", three(texts::replace)),
        immutable("translate", three(texts::translate)),
        immutable("btrim", trimmed(texts::btrim)),
        immutable("trim", trimmed(texts::btrim)),
        immutable("ltrim", trimmed(texts::ltrim)),
        immutable("rtrim", trimmed(texts::rtrim)),
        immutable("strpos", found()),
        immutable("position", found()),
        immutable("starts_with", vec![form(&[Text, Text], Bool, texts::starts_with)]),
        immutable("split_part", vec![form(&[Text, Text, Int4], Text, texts::split_part)]),
        immutable("ascii", vec![form(&[Text], Int4, texts::ascii)]),
        immutable("chr", vec![form(&[Int4], Text, texts::chr)]),
        immutable("to_hex", vec![form(&[Int8], Text, texts::to_hex), form(&[Int4], Text, texts::to_hex)]),
        stable("concat", vec![form(&[Other], Text, texts::concat).variadic().with_nulls()]),
        stable("concat_ws", vec![form(&[Text, Other], Text, texts::concat_ws).variadic().with_nulls()]),
        immutable("quote_ident", changed(quoting::quote_ident)),
        stable("quote_literal", vec![form(&[Other], Text, quoting::quote_literal).with_nulls()]),
        stable("quote_nullable", vec![form(&[Other], Text, quoting::quote_nullable).with_nulls()]),
        stable("format", vec![form(&[Text, Other], Text, quoting::format).variadic().optional(1).with_nulls()]),
    ]
}

pub(super) fn of_expressions() -> Vec<ScalarUDF> {
    let texts = || List(Box::new(Text));
    let flagged = |gives, evaluate| vec![form(&[Text, Text, Text], gives, evaluate).optional(1)];
    vec![
        immutable("regexp_like", flagged(Bool, matches::regexp_like)),
        immutable("regexp_match", flagged(texts(), matches::regexp_match)),
        immutable("regexp_split_to_array", flagged(texts(), matches::regexp_split_to_array)),
        immutable("regexp_count", vec![form(&[Text, Text, Int4, Text], Int4, matches::regexp_count).optional(2)]),
        immutable(
            "regexp_instr",
            vec![form(&[Text, Text, Int4, Int4, Int4, Text, Int4], Int4, matches::regexp_instr).optional(5)],
        ),
        immutable(
            "regexp_substr",
            vec![form(&[Text, Text, Int4, Int4, Text, Int4], Text, matches::regexp_substr).optional(4)],
        ),
        immutable(
            "regexp_replace",
            vec![
                form(&[Text, Text, Text, Text], Text, matches::regexp_replace).optional(1),
                form(&[Text, Text, Text, Int4, Int4, Text], Text, matches::regexp_replace_nth).optional(2),
            ],
        ),
    ]
}

pub(super) fn of_numbers() -> Vec<ScalarUDF> {
    let functions = [math::doubles(), math::bounded(), math::exact()].into_iter().flatten();
    functions.map(|(name, forms)| immutable(name, forms)).collect()
}

/// The forms of `to_char` for numbers.
pub(super) fn numbers_to_char() -> Vec<Form> {
    vec![
        form(&[Int8, Text], Text, number_char::int_to_char),
        form(&[Numeric, Text], Text, number_char::numeric_to_char),
        form(&[Float8, Text], Text, number_char::float_to_char),
    ]
}

pub(super) fn of_arrays() -> Vec<ScalarUDF> {
    let any = || List(Box::new(Other));
    let measured = |evaluate| vec![form(&[any(), Int4], Int4, evaluate)];
    let array = |takes: &[Kind], evaluate| form(takes, Other, evaluate).giving(arrays::as_first).with_nulls();
    let whole = |gives, evaluate| vec![form(&[any()], gives, evaluate)];
    vec![
        immutable("array_length", measured(arrays::array_length)),
        immutable("array_upper", measured(arrays::array_length)),
        immutable("array_lower", measured(arrays::array_lower)),
        immutable("array_ndims", whole(Int4, arrays::array_ndims)),
        immutable("array_dims", whole(Text, arrays::array_dims)),
        immutable("cardinality", whole(Int4, arrays::cardinality)),
        immutable(
            "array_position",
            vec![form(&[any(), Other, Int4], Int4, arrays::array_position).optional(1).with_nulls()],
        ),
        immutable(
            "array_positions",
            vec![form(&[any(), Other], List(Box::new(Int4)), arrays::array_positions).with_nulls()],
        ),
        immutable("array_remove", vec![array(&[any(), Other], arrays::array_remove)]),
        immutable("array_replace", vec![array(&[any(), Other, Other], arrays::array_replace)]),
        immutable("array_append", vec![array(&[any(), Other], arrays::array_append)]),
        immutable("array_prepend", vec![array(&[Other, any()], arrays::array_prepend).giving(arrays::as_second)]),
        immutable("array_cat", vec![array(&[any(), any()], arrays::array_cat)]),
        immutable("trim_array", vec![form(&[any(), Int4], Other, arrays::trim_array).giving(arrays::as_first)]),
        immutable(
            "array_fill",
            vec![form(&[Other, List(Box::new(Int4))], Other, arrays::array_fill).giving(arrays::of_first).with_nulls()],
        ),
        stable(
            "array_to_string",
            vec![form(&[any(), Text, Text], Text, arrays::array_to_string).optional(1).with_nulls()],
        ),
        immutable(
            "string_to_array",
            vec![form(&[Text, Text, Text], List(Box::new(Text)), arrays::string_to_array).optional(1).with_nulls()],
        ),
    ]
}
