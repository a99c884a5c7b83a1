//! Functions that answer from the session that asks.

use std::{collections::BTreeMap, sync::Arc};

use datafusion::{
    arrow::datatypes::DataType,
    common::{Result, ScalarValue},
    logical_expr::{
        ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, SimpleScalarUDF, TypeSignature,
        Volatility, create_udf,
    },
};

use crate::{error::refused, extras::Extras};

/// The version of PostgreSQL whose ways are followed.
pub const SERVER_VERSION: &str = "16.6";

/// The functions for the session of one question.
pub(crate) fn functions(extras: &Extras) -> [ScalarUDF; 5] {
    let settings = CurrentSetting {
        settings: extras.settings.clone(),
        signature: Signature::one_of(
            vec![
                TypeSignature::Exact(vec![DataType::Utf8]),
                TypeSignature::Exact(vec![DataType::Utf8, DataType::Boolean]),
            ],
            Volatility::Stable,
        ),
    };
    [
        session_user(extras.user.as_deref()),
        version(),
        nothing("pg_advisory_unlock_all", 0),
        nothing("col_description", 2),
        ScalarUDF::new_from_impl(settings),
    ]
}

/// The function that says who asks; `current_user` and `user` are rewritten to it.
fn session_user(user: Option<&str>) -> ScalarUDF {
    let name = ScalarValue::from(user.unwrap_or("hq"));
    let value = move |_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(name.clone()));
    create_udf("session_user", vec![], DataType::Utf8, Volatility::Stable, Arc::new(value))
}

/// A function that programs call and that has nothing to say here: no locks are held, and no column
/// has a comment.
fn nothing(name: &'static str, arguments: usize) -> ScalarUDF {
    let signature = match arguments {
        0 => Signature::nullary(Volatility::Stable),
        count => Signature::any(count, Volatility::Stable),
    };
    let value = |_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(ScalarValue::Utf8(None)));
    ScalarUDF::from(SimpleScalarUDF::new_with_signature(name, signature, DataType::Utf8, Arc::new(value)))
}

/// The function that says what this is, to programs that know PostgreSQL's versions.
fn version() -> ScalarUDF {
    let text = format!("PostgreSQL {SERVER_VERSION} (Rollcall {})", env!("CARGO_PKG_VERSION"));
    let text = ScalarValue::from(text);
    let value = move |_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(text.clone()));
    create_udf("version", vec![], DataType::Utf8, Volatility::Stable, Arc::new(value))
}

/// `current_setting(name [, missing_ok])`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct CurrentSetting {
    settings: Arc<BTreeMap<String, String>>,
    signature: Signature,
}

impl ScalarUDFImpl for CurrentSetting {
    fn name(&self) -> &str {
        "current_setting"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_optional = matches!(args.args.get(1), Some(ColumnarValue::Scalar(ScalarValue::Boolean(Some(true)))));
        let Some(ColumnarValue::Scalar(name)) = args.args.first() else {
            return Err(refused("0A000", "current_setting takes a name that is written out"));
        };
        let Some(Some(name)) = name.try_as_str() else { return Ok(ColumnarValue::Scalar(ScalarValue::Utf8(None))) };
        match self.settings.get(&name.to_ascii_lowercase()) {
            Some(value) => Ok(ColumnarValue::Scalar(ScalarValue::from(value.as_str()))),
            None if is_optional => Ok(ColumnarValue::Scalar(ScalarValue::Utf8(None))),
            None => Err(refused("42704", format!("unrecognized configuration parameter \"{name}\""))),
        }
    }
}
