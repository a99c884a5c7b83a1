use pgwire::api::Type;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::{super::sql_type, Parameter, decode};

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hex")).collect()
}

fn text(text: &str) -> Parameter {
    Parameter::Text(text.to_owned())
}

/// What PostgreSQL's own `…_send` functions gave for these texts.
#[test]
fn values_in_binary_have_their_text() {
    let cases = [
        (Type::BOOL, "01", "t"),
        (Type::BOOL, "00", "f"),
        (Type::INT2, "8000", "-32768"),
        (Type::INT4, "ffffffff", "-1"),
        (Type::INT8, "7fffffffffffffff", "9223372036854775807"),
        (Type::OID, "ffffffff", "4294967295"),
        (Type::FLOAT4, "3dcccccd", "0.1"),
        (Type::FLOAT8, "3fb999999999999a", "0.1"),
        (Type::FLOAT8, "7ff0000000000000", "Infinity"),
        (Type::FLOAT8, "fff8000000000000", "NaN"),
        (Type::FLOAT8, "4415af1d78b58c40", "1e+20"),
        (Type::NUMERIC, "0001ffff400000011388", "-0.5"),
        (Type::NUMERIC, "00010002000000000064", "10000000000"),
        (Type::NUMERIC, "00000000c0000000", "NaN"),
        (Type::NUMERIC, "00000000d0000020", "Infinity"),
        (Type::NUMERIC, "00000000f0000000", "-Infinity"),
        (Type::NUMERIC, "000200000000000300011388", "1.500"),
        (Type::NUMERIC, "0001fffe0000000804d2", "0.00001234"),
        (Type::NUMERIC, "00010001400000000001", "-10000"),
        (Type::NUMERIC, "0000000000000003", "0.000"),
        (Type::NUMERIC, "0006000200000009000109291a852694153803e8", "123456789.987654321"),
        (Type::TEXT, "c3bc20", "ü "),
        (Type::VARCHAR, "", ""),
        (Type::JSONB, "017b2261223a20317d", "{\"a\": 1}"),
        (Type::BYTEA, "00ff41", "\\x00ff41"),
        (Type::CHAR, "62", "b"),
        (Type::DATE, "00000000", "2000-01-01"),
        (Type::DATE, "7fffffff", "infinity"),
        (Type::DATE, "ffda97cd", "4713-01-01 BC"),
        (Type::TIME, "000000141dd76000", "24:00:00"),
        (Type::TIMETZ, "000000036c966ee0ffffb2a8", "04:05:06.7+05:30"),
        (Type::TIMETZ, "000000036c8bc08000007080", "04:05:06-08"),
        (Type::TIMESTAMP, "8000000000000000", "-infinity"),
        (Type::TIMESTAMP, "0002ea455dc8b920", "2025-12-31 22:00:00.5"),
        (Type::TIMESTAMPTZ, "0002ea455dc8b920", "2025-12-31 22:00:00.5+00"),
        (Type::INTERVAL, "fffffffc9369912000000003ffffffff", "-1 mons 3 days -04:05:06.7"),
        (Type::INTERVAL, "00000000000000000000000000000000", "0 mons 0 days 00:00:00"),
        (
            Type::INTERVAL,
            "80000000000000008000000080000000",
            "-2147483648 mons -2147483648 days -2562047788:00:54.775808",
        ),
        (Type::UUID, "a0eebc999c0b4ef8bb6d6bb9bd380a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ];
    for (declared, hex, expected) in cases {
        assert_eq!(decode(Some(&bytes(hex)), true, &declared), Ok(text(expected)), "{declared} {hex}");
    }
    assert_eq!(decode(None, true, &Type::INT4), Ok(Parameter::Null));
}

#[test]
fn what_is_not_a_value_is_an_error() {
    let binary = [
        (Type::INT4, "00", "22P03"),
        (Type::INT4, "0000000000", "22P03"),
        (Type::BOOL, "", "22P03"),
        (Type::TEXT, "ff", "22021"),
        (Type::TEXT, "6100", "22021"),
        (Type::JSONB, "027b7d", "22P03"),
        (Type::JSONB, "", "22P03"),
        (Type::NUMERIC, "00", "22P03"),
        (Type::NUMERIC, "ffff000000000000", "22P03"),
        (Type::NUMERIC, "000100000000000027100001", "22P03"),
        (Type::NUMERIC, "00010000000000002710", "22P03"),
        (Type::NUMERIC, "0000000000004000", "22P03"),
        (Type::NUMERIC, "0000000012340000", "22P03"),
        (Type::DATE, "7ffffffe", "22008"),
        (Type::TIMESTAMP, "7ffffffffffffffe", "22008"),
        (Type::TIME, "ffffffffffffffff", "22008"),
        (Type::TIMETZ, "00000000000000007fffffff", "22009"),
        (Type::UUID, "00", "22P03"),
        (Type::INET, "02200000c0a80001", "0A000"),
        (Type::INT4_ARRAY, "", "22P03"),
        // Dimensions, elements and lengths that are claimed but not there.
        (Type::INT4_ARRAY, "7fffffff0000000000000017", "54000"),
        (Type::INT4_ARRAY, "ffffffff0000000000000017", "22P03"),
        (Type::INT4_ARRAY, "0000000100000000000000177fffffff00000001", "22P03"),
        (Type::INT4_ARRAY, "00000002000000000000001700010000000000010001000000000001", "22P03"),
        (Type::INT4_ARRAY, "00000001000000000000001700000001000000017fffffff00000001", "22P03"),
        (Type::INT4_ARRAY, "0000000100000000000000170000000100000001fffffffe", "22P03"),
        (Type::INT4_ARRAY, "000000000000000000000017ff", "22P03"),
        (Type::INT4_ARRAY, "000000000000000200000017", "22P03"),
        (Type::INT4_ARRAY, "000000000000000000000019", "42804"),
        // The bounds of `[0:1]={1,2}`.
        (Type::INT4_ARRAY, "000000010000000000000017000000020000000000000004000000010000000400000002", "0A000"),
    ];
    for (declared, hex, code) in binary {
        let decoded = decode(Some(&bytes(hex)), true, &declared);
        assert_eq!(decoded.map_err(|error| error.code), Err(code), "{declared} {hex}");
    }
    for word in ["", "o", "truee", "2", "tr ue"] {
        let decoded = decode(Some(word.as_bytes()), false, &Type::BOOL);
        assert_eq!(decoded.map_err(|error| error.code), Err("22P02"), "{word}");
    }
    assert_eq!(decode(Some(b"a\0"), false, &Type::TEXT).map_err(|error| error.code), Err("22021"));
}

#[test]
fn texts_are_taken_as_they_are_unless_only_postgres_reads_them() {
    let cases = [
        (Type::INT4, " 12 ", " 12 "),
        (Type::TEXT, "{1,2}", "{1,2}"),
        (Type::BOOL, " TRUE\n", "t"),
        (Type::BOOL, "y", "t"),
        (Type::BOOL, "of", "f"),
        (Type::BOOL, "0", "f"),
        (Type::BYTEA, "\\xDE ad", "\\xdead"),
        (Type::BYTEA, "a\\\\\\101ü", "\\x615c41c3bc"),
        (Type::BYTEA, "", "\\x"),
    ];
    for (declared, given, expected) in cases {
        let decoded = decode(Some(given.as_bytes()), false, &declared);
        assert_eq!(decoded, Ok(text(expected)), "{given}");
    }
    for given in ["\\xd", "\\xzz", "\\x1 2", "\\9", "\\", "\\400"] {
        assert!(decode(Some(given.as_bytes()), false, &Type::BYTEA).is_err(), "{given}");
    }
}

/// Literals and what PostgreSQL 15 makes of them.
#[test]
fn arrays_as_literals_are_read_as_postgres_reads_them() {
    let flat = |values: &[Option<&str>]| {
        Parameter::Array(values.iter().map(|value| value.map_or(Parameter::Null, text)).collect())
    };
    let good = [
        ("{1,2}", flat(&[Some("1"), Some("2")])),
        (" { 1 , NULL , 3 } ", flat(&[Some("1"), None, Some("3")])),
        ("{}", flat(&[])),
        ("{\"a b\",a b , c\\,d}", flat(&[Some("a b"), Some("a b"), Some("c,d")])),
        ("{\"\"}", flat(&[Some("")])),
        ("{\"a\" }", flat(&[Some("a")])),
        ("{NULL,\"NULL\",N\\ULL}", flat(&[None, Some("NULL"), Some("NULL")])),
        ("{ a\\ }", flat(&[Some("a ")])),
        ("{\"\\\"\\\\\"}", flat(&[Some("\"\\")])),
        ("{null,nul,ü}", flat(&[None, Some("nul"), Some("ü")])),
        ("{{1,2},{3,NULL}}", Parameter::Array(vec![flat(&[Some("1"), Some("2")]), flat(&[Some("3"), None])])),
    ];
    for (literal, expected) in good {
        let decoded = decode(Some(literal.as_bytes()), false, &Type::TEXT_ARRAY);
        assert_eq!(decoded, Ok(expected), "{literal}");
    }
    let bad = [
        "{{}}",
        "{{},{}}",
        "{{1,2},{3}}",
        "{1,{2}}",
        "{{1},2}",
        "{,}",
        "{1,}",
        "{",
        "{1}x",
        "{a\"b}",
        "{\"a\"b}",
        "x",
        "",
        "{a{}",
        "{{1},{}}",
        "{\\",
        "{\"",
        "{1",
        "{1}}",
        "{{1}",
        "{{{1}},{2}}",
    ];
    for literal in bad {
        let decoded = decode(Some(literal.as_bytes()), false, &Type::TEXT_ARRAY);
        assert_eq!(decoded.map_err(|error| error.code), Err("22P02"), "{literal}");
    }
    let code = |literal: &str| decode(Some(literal.as_bytes()), false, &Type::INT4_ARRAY).map_err(|error| error.code);
    assert_eq!(code("[0:1]={1,2}"), Err("0A000"));
    assert_eq!(code("{{{{{{{1}}}}}}}"), Err("54000"));
    assert_eq!(code(&"{".repeat(1_000_000)), Err("54000"));
    let of_booleans = decode(Some(b"{yes,NULL}"), false, &Type::BOOL_ARRAY);
    assert_eq!(of_booleans, Ok(flat(&[Some("t"), None])));
}

#[test]
fn arrays_in_binary_have_their_elements() {
    let nested = "000000020000000100000017000000020000000100000002000000010000000400000001ffffffff\
                  00000004000000030000000400000004"
        .replace(' ', "");
    let expected = Parameter::Array(vec![
        Parameter::Array(vec![text("1"), Parameter::Null]),
        Parameter::Array(vec![text("3"), text("4")]),
    ]);
    assert_eq!(decode(Some(&bytes(&nested)), true, &Type::INT4_ARRAY), Ok(expected));
    let empty = bytes("000000000000000000000019");
    assert_eq!(decode(Some(&empty), true, &Type::TEXT_ARRAY), Ok(Parameter::Array(vec![])));
    let texts = bytes("000000010000000100000019000000020000000100000003612062ffffffff");
    let expected = Parameter::Array(vec![text("a b"), Parameter::Null]);
    assert_eq!(decode(Some(&texts), true, &Type::TEXT_ARRAY), Ok(expected.clone()));
    assert_eq!(decode(Some(&texts), true, &Type::VARCHAR_ARRAY), Ok(expected));
}

#[test]
fn no_bytes_whatever_cause_a_panic() {
    let types = [
        Type::BOOL,
        Type::INT2,
        Type::INT4,
        Type::INT8,
        Type::OID,
        Type::FLOAT4,
        Type::FLOAT8,
        Type::NUMERIC,
        Type::TEXT,
        Type::JSONB,
        Type::BYTEA,
        Type::CHAR,
        Type::DATE,
        Type::TIME,
        Type::TIMETZ,
        Type::TIMESTAMP,
        Type::TIMESTAMPTZ,
        Type::INTERVAL,
        Type::UUID,
        Type::INET,
        Type::INT4_ARRAY,
        Type::TEXT_ARRAY,
        Type::NUMERIC_ARRAY,
        Type::BOOL_ARRAY,
        Type::BYTEA_ARRAY,
        Type::INT2_VECTOR,
        Type::RECORD,
        Type::UNKNOWN,
    ];
    let mut random = StdRng::seed_from_u64(22);
    let alphabet = b"{}\",\\ NULna10[]x:=\xc3\xbc\0";
    for round in 0..60_000 {
        let declared = &types[round % types.len()];
        let len = random.random_range(0..48);
        let mut bytes: Vec<u8> = match round % 3 {
            0 => (0..len).map(|_| random.random()).collect(),
            // Small numbers get further into the forms that count.
            1 => (0..len).map(|_| u8::from(random.random_ratio(1, 6)) * random.random_range(0..30)).collect(),
            _ => (0..len).map(|_| alphabet[random.random_range(0..alphabet.len())]).collect(),
        };
        if round % 2 == 0 && bytes.len() >= 12 {
            let element = if *declared == Type::TEXT_ARRAY { 25 } else { 23 };
            bytes[..12].copy_from_slice(&[0, 0, 0, random.random_range(0..3), 0, 0, 0, 0, 0, 0, 0, element]);
        }
        let _ = decode(Some(&bytes), true, declared);
        let _ = decode(Some(&bytes), false, declared);
    }
}

#[test]
fn literals_are_cast_to_the_type_of_the_element() {
    assert_eq!(sql_type(&Type::INT8), Some("BIGINT"));
    assert_eq!(sql_type(&Type::FLOAT8_ARRAY), Some("DOUBLE PRECISION"));
    assert_eq!(sql_type(&Type::TIMESTAMPTZ), Some("TIMESTAMPTZ"));
    assert_eq!(sql_type(&Type::VARCHAR), None);
    assert_eq!(sql_type(&Type::TEXT_ARRAY), None);
}
