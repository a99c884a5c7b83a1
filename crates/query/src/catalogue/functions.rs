//! The functions that questions about the catalogue call, over what `pg_catalog` tells.

use std::{fmt, hash, sync::Arc};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, Int32Array, ListArray, StructArray, new_null_array},
        buffer::OffsetBuffer,
        compute::cast,
        datatypes::{DataType, Field, Fields, Int32Type},
    },
    common::{Result, ScalarValue, exec_err},
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility},
};
use datafusion_pg_catalog::pg_catalog::PgCatalogStaticTables;

use super::{
    columns::oids,
    contents::{Contents, OWNER, OWNER_NAME, PG_CATALOG},
    relations::quoted,
    system::Seen,
    types::Types,
};

type Value = Arc<dyn Fn(&[ScalarValue]) -> Result<ScalarValue> + Send + Sync>;

/// A function evaluated row by row, of any arguments; known by its name.
struct OfValues {
    name: &'static str,
    returns: DataType,
    signature: Signature,
    value: Value,
}

impl fmt::Debug for OfValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for OfValues {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for OfValues {}

impl hash::Hash for OfValues {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for OfValues {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.returns.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalars = args.args.iter().map(|value| match value {
            ColumnarValue::Scalar(value) => Some(value.clone()),
            ColumnarValue::Array(_) => None,
        });
        if let Some(scalars) = scalars.collect::<Option<Vec<_>>>() {
            return (self.value)(&scalars).map(ColumnarValue::Scalar);
        }
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let value = |row: usize| {
            let of_row =
                arrays.iter().map(|array| ScalarValue::try_from_array(array, row)).collect::<Result<Vec<_>>>()?;
            (self.value)(&of_row)
        };
        if args.number_rows == 0 {
            return Ok(ColumnarValue::Array(datafusion::arrow::array::new_empty_array(&self.returns)));
        }
        let values = (0..args.number_rows).map(value).collect::<Result<Vec<_>>>()?;
        Ok(ColumnarValue::Array(ScalarValue::iter_to_array(values)?))
    }
}

fn function(
    name: &'static str,
    returns: DataType,
    value: impl Fn(&[ScalarValue]) -> Result<ScalarValue> + Send + Sync + 'static,
) -> ScalarUDF {
    let any = Signature::one_of(vec![TypeSignature::Nullary, TypeSignature::VariadicAny], Volatility::Stable);
    ScalarUDF::new_from_impl(OfValues { name, returns, signature: any, value: Arc::new(value) })
}

/// Always the same value.
fn constant(name: &'static str, value: ScalarValue) -> ScalarUDF {
    function(name, value.data_type(), move |_| Ok(value.clone()))
}

fn number(value: Option<&ScalarValue>) -> Option<i32> {
    match value?.cast_to(&DataType::Int32) {
        Ok(ScalarValue::Int32(number)) => number,
        _ => None,
    }
}

fn text(value: Option<&ScalarValue>) -> Option<String> {
    match value?.cast_to(&DataType::Utf8) {
        Ok(ScalarValue::Utf8(text)) => text,
        _ => None,
    }
}

/// All functions, for one question.
pub(crate) fn functions(seen: &Seen, tables: &Arc<PgCatalogStaticTables>) -> Vec<ScalarUDF> {
    let types = Arc::new(Types::new(&tables.pg_type));
    let mut functions = of_names(seen, &types);
    functions.extend(of_definitions(seen, types));
    functions.extend(with_one_answer());
    functions.extend(of_vectors());
    functions
}

/// The parts of a written name, with or without a schema; small letters unless in quotes.
fn parts(written: &str) -> (Option<String>, String) {
    let (mut parts, mut part, mut quotes) = (Vec::new(), String::new(), false);
    let mut letters = written.trim().chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quotes && letters.peek() == Some(&'"') => part.extend(letters.next()),
            '"' => quotes = !quotes,
            '.' if !quotes => parts.push(std::mem::take(&mut part)),
            _ if quotes => part.push(letter),
            _ => part.extend(letter.to_lowercase()),
        }
    }
    (parts.pop(), part)
}

/// PostgreSQL's own numbers of the relations that questions name.
const SYSTEM_RELATIONS: [(&str, i32); 34] = [
    ("pg_type", 1247),
    ("pg_attribute", 1249),
    ("pg_proc", 1255),
    ("pg_class", 1259),
    ("pg_authid", 1260),
    ("pg_auth_members", 1261),
    ("pg_database", 1262),
    ("pg_tablespace", 1213),
    ("pg_foreign_server", 1417),
    ("pg_sequence", 2224),
    ("pg_foreign_data_wrapper", 2328),
    ("pg_aggregate", 2600),
    ("pg_am", 2601),
    ("pg_attrdef", 2604),
    ("pg_cast", 2605),
    ("pg_constraint", 2606),
    ("pg_conversion", 2607),
    ("pg_depend", 2608),
    ("pg_description", 2609),
    ("pg_index", 2610),
    ("pg_inherits", 2611),
    ("pg_language", 2612),
    ("pg_namespace", 2615),
    ("pg_opclass", 2616),
    ("pg_operator", 2617),
    ("pg_rewrite", 2618),
    ("pg_trigger", 2620),
    ("pg_opfamily", 2753),
    ("pg_extension", 3079),
    ("pg_foreign_table", 3118),
    ("pg_policy", 3256),
    ("pg_collation", 3456),
    ("pg_event_trigger", 3466),
    ("pg_enum", 3501),
];

pub(super) fn system_relation(schema: Option<&str>, name: &str) -> Option<i32> {
    if schema.is_some_and(|schema| schema != "pg_catalog") {
        return None;
    }
    SYSTEM_RELATIONS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

fn relation_number(contents: &Contents, written: &str) -> Option<i32> {
    if let Ok(number) = written.parse() {
        return Some(number);
    }
    let (schema, name) = parts(written);
    let found = contents.relation(schema.as_deref(), &name).map(|relation| relation.number);
    found.or_else(|| system_relation(schema.as_deref(), &name))
}

/// From names to numbers and back.
fn of_names(seen: &Seen, types: &Arc<Types>) -> Vec<ScalarUDF> {
    let resolve = |name: &'static str, must: bool| {
        let seen = seen.clone();
        function(name, DataType::Int32, move |arguments| {
            let Some(written) = text(arguments.first()) else { return Ok(ScalarValue::Int32(None)) };
            match relation_number(seen.contents(), &written) {
                None if must => exec_err!("relation {written:?} does not exist"),
                number => Ok(ScalarValue::Int32(number)),
            }
        })
    };
    let mut made = vec![resolve("to_regclass", false), resolve("rollcall_regclass", true)];
    let of_type = types.clone();
    made.push(function("to_regtype", DataType::Int32, move |arguments| {
        let written = text(arguments.first());
        Ok(ScalarValue::Int32(written.and_then(|written| of_type.number(&written))))
    }));
    let of_schema = seen.clone();
    made.push(function("to_regnamespace", DataType::Int32, move |arguments| {
        let name = text(arguments.first()).map(|written| parts(&written).1);
        Ok(ScalarValue::Int32(name.and_then(|name| of_schema.contents().schemas.get(&name).copied())))
    }));
    let of_relation = seen.clone();
    made.push(function("rollcall_regclass_name", DataType::Utf8, move |arguments| {
        let Some(number) = number(arguments.first()) else { return Ok(ScalarValue::Utf8(None)) };
        let contents = of_relation.contents();
        let name = contents.by_number(number).map(|relation| match relation.schema.as_str() {
            "public" => quoted(&relation.name),
            schema => format!("{}.{}", quoted(schema), quoted(&relation.name)),
        });
        Ok(ScalarValue::from(name.unwrap_or_else(|| if number == 0 { "-".to_owned() } else { number.to_string() })))
    }));
    let of_schema = seen.clone();
    made.push(function("rollcall_regnamespace_name", DataType::Utf8, move |arguments| {
        let number = number(arguments.first());
        let contents = of_schema.contents();
        let name = contents.schemas.iter().find(|(_, known)| Some(**known) == number);
        Ok(ScalarValue::Utf8(name.map(|(name, _)| name.clone()).or_else(|| number.map(|number| number.to_string()))))
    }));
    let visible = seen.clone();
    made.push(function("pg_table_is_visible", DataType::Boolean, move |arguments| {
        let Some(number) = number(arguments.first()) else { return Ok(ScalarValue::Boolean(None)) };
        let contents = visible.contents();
        let relation = contents.by_number(number);
        let visible = relation.is_none_or(|relation| relation.schema == "public" || relation.namespace == PG_CATALOG);
        Ok(ScalarValue::from(visible))
    }));
    made.push(function("pg_get_userbyid", DataType::Utf8, |arguments| {
        let name = number(arguments.first()).map(|number| match number {
            OWNER => OWNER_NAME.to_owned(),
            other => format!("unknown (OID={other})"),
        });
        Ok(ScalarValue::Utf8(name))
    }));
    made
}

/// What defines a key, an index or a type.
fn of_definitions(seen: &Seen, types: Arc<Types>) -> Vec<ScalarUDF> {
    let of_constraint = seen.clone();
    let of_index = seen.clone();
    vec![
        function("pg_get_constraintdef", DataType::Utf8, move |arguments| {
            let number = number(arguments.first());
            let contents = of_constraint.contents();
            let key = contents.indexes.iter().find(|index| Some(index.constraint) == number);
            Ok(ScalarValue::Utf8(key.map(|key| format!("PRIMARY KEY ({})", key.column_list()))))
        }),
        function("pg_get_indexdef", DataType::Utf8, move |arguments| {
            let contents = of_index.contents();
            let index = number(arguments.first()).and_then(|number| contents.index(number));
            let schema = |number| contents.by_number(number).map_or("public", |table| table.schema.as_str());
            let definition = index.and_then(|index| match number(arguments.get(1)).unwrap_or(0) {
                0 => Some(index.definition(schema(index.table))),
                column => {
                    let place = usize::try_from(column - 1).ok()?;
                    index.columns.get(place).map(|(_, name)| quoted(name))
                }
            });
            Ok(ScalarValue::Utf8(definition))
        }),
        function("format_type", DataType::Utf8, move |arguments| {
            let modifier = number(arguments.get(1)).unwrap_or(-1);
            Ok(ScalarValue::Utf8(number(arguments.first()).map(|number| types.format(number, modifier))))
        }),
    ]
}

/// What has the same answer for everything here: nothing has a comment, a rule, a trigger, a size.
fn with_one_answer() -> Vec<ScalarUDF> {
    let no_text = [
        "obj_description",
        "shobj_description",
        "pg_get_expr",
        "pg_get_viewdef",
        "pg_get_ruledef",
        "pg_get_triggerdef",
        "pg_get_functiondef",
        "pg_get_function_result",
        "pg_get_function_arguments",
        "pg_get_function_identity_arguments",
        "pg_get_function_sqlbody",
        "pg_get_serial_sequence",
        "pg_get_partkeydef",
        "pg_get_statisticsobjdef_columns",
        "pg_tablespace_location",
        "inet_server_addr",
        "inet_client_addr",
    ];
    let yes = [
        "pg_type_is_visible",
        "pg_function_is_visible",
        "pg_collation_is_visible",
        "pg_opclass_is_visible",
        "pg_opfamily_is_visible",
        "pg_operator_is_visible",
        "pg_ts_config_is_visible",
        "pg_ts_dict_is_visible",
        "pg_statistics_obj_is_visible",
        "has_table_privilege",
        "has_any_column_privilege",
        "has_column_privilege",
        "has_schema_privilege",
        "has_database_privilege",
        "has_function_privilege",
        "has_type_privilege",
        "has_tablespace_privilege",
        "has_language_privilege",
        "pg_has_role",
    ];
    let no = ["has_sequence_privilege", "has_server_privilege", "pg_is_other_temp_schema", "pg_is_in_recovery"];
    let no = no.into_iter().chain(["pg_relation_is_publishable"]);
    let zero = ["pg_relation_size", "pg_total_relation_size", "pg_table_size", "pg_indexes_size", "pg_database_size"];
    let mut made: Vec<ScalarUDF> = no_text.into_iter().map(|name| constant(name, ScalarValue::Utf8(None))).collect();
    made.extend(yes.into_iter().map(|name| constant(name, ScalarValue::from(true))));
    made.extend(no.map(|name| constant(name, ScalarValue::from(false))));
    made.extend(zero.into_iter().map(|name| constant(name, ScalarValue::from(0_i64))));
    let nothing = new_null_array(&oids(), 1).as_list().clone();
    made.push(constant("rollcall_no_oids", ScalarValue::List(Arc::new(nothing))));
    made.push(constant("pg_my_temp_schema", ScalarValue::from(0_i32)));
    made.push(constant("getdatabaseencoding", ScalarValue::from("UTF8")));
    made.push(constant("pg_char_to_encoding", ScalarValue::from(6_i32)));
    made.push(function("pg_encoding_to_char", DataType::Utf8, |arguments| {
        Ok(ScalarValue::from(if number(arguments.first()) == Some(6) { "UTF8" } else { "" }))
    }));
    made.push(function("pg_size_pretty", DataType::Utf8, |arguments| {
        Ok(ScalarValue::Utf8(text(arguments.first()).map(|bytes| format!("{bytes} bytes"))))
    }));
    made
}

fn numbers() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Int32, true)))
}

/// The numbers of a vector as `pg_index` writes it, or of an array.
fn vector(value: Option<&ScalarValue>) -> Result<Option<Vec<i32>>> {
    Ok(match value {
        Some(value) if matches!(value.data_type(), DataType::List(_) | DataType::LargeList(_)) => {
            let array = cast(&value.to_array()?, &numbers())?;
            let lists = array.as_list::<i32>();
            lists.is_valid(0).then(|| lists.value(0).as_primitive::<Int32Type>().values().to_vec())
        }
        value => text(value)
            .map(|written| written.split([' ', ',', '{', '}']).filter_map(|number| number.parse().ok()).collect()),
    })
}

fn list(values: Option<Vec<i32>>) -> ScalarValue {
    let lists = [values.map(|values| values.into_iter().map(Some).collect::<Vec<_>>())];
    ScalarValue::List(Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists)))
}

fn places() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Struct(place_fields()), true)))
}

fn place_fields() -> Fields {
    Fields::from(vec![Field::new("x", DataType::Int32, true), Field::new("n", DataType::Int32, true)])
}

/// Vectors of numbers, which PostgreSQL has as a type of its own.
fn of_vectors() -> Vec<ScalarUDF> {
    vec![
        function("rollcall_vector", numbers(), |arguments| Ok(list(vector(arguments.first())?))),
        // The places of a vector, counted from the second argument.
        function("rollcall_subscripts", numbers(), |arguments| {
            let from = number(arguments.get(1)).unwrap_or(1);
            let places = vector(arguments.first())?.map(|values| (from..from + values.len() as i32).collect());
            Ok(list(places))
        }),
        function("rollcall_places", places(), |arguments| {
            let values = vector(arguments.first())?.unwrap_or_default();
            let counted = Int32Array::from_iter_values(1..=values.len() as i32);
            let offsets = OffsetBuffer::from_lengths([values.len()]);
            let columns: Vec<ArrayRef> = vec![Arc::new(Int32Array::from(values)), Arc::new(counted)];
            let structs = StructArray::try_new(place_fields(), columns, None)?;
            let item = Arc::new(Field::new_list_field(DataType::Struct(place_fields()), true));
            Ok(ScalarValue::List(Arc::new(ListArray::try_new(item, offsets, Arc::new(structs), None)?)))
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::contents::Type;

    /// The name of a column's type as a table's definition would have it.
    fn written_type(types: &Types, kind: &DataType) -> String {
        let kind = Type::of(kind);
        types.format(kind.number, kind.modifier)
    }

    #[test]
    fn written_names_are_taken_apart_as_postgresql_does() {
        let both = |schema: Option<&str>, name: &str| (schema.map(str::to_owned), name.to_owned());
        assert_eq!(parts("Sales"), both(None, "sales"));
        assert_eq!(parts("public.\"order-lines\""), both(Some("public"), "order-lines"));
        assert_eq!(parts("\"a\"\"b.c\""), both(None, "a\"b.c"));
    }

    #[test]
    fn types_are_written_as_in_a_definition() {
        let tables = PgCatalogStaticTables::try_new().expect("loads");
        let types = Types::new(&tables.pg_type);
        assert_eq!(written_type(&types, &DataType::Decimal128(10, 2)), "numeric(10,2)");
        assert_eq!(written_type(&types, &DataType::Utf8View), "text");
        assert_eq!(types.format(1009, -1), "text[]");
        assert_eq!(types.format(1043, 24), "character varying(20)");
        assert_eq!(types.format(18, -1), "\"char\"");
        assert_eq!(types.format(4, -1), "???");
        assert_eq!(types.number("pg_catalog.int4"), Some(23));
        assert_eq!(types.number("character varying"), Some(1043));
        assert_eq!(types.number("text[]"), Some(1009));
    }

    #[test]
    fn vectors_are_read_from_their_text_and_from_arrays() {
        assert_eq!(vector(Some(&ScalarValue::from("1 8"))).expect("reads"), Some(vec![1, 8]));
        assert_eq!(vector(Some(&list(Some(vec![3, 4])))).expect("reads"), Some(vec![3, 4]));
        assert_eq!(vector(Some(&ScalarValue::Utf8(None))).expect("reads"), None);
    }
}
