//! The table of functions.

use super::*;

/// Functions whose values differ in each call, or that buildx offers and cannot call with a text.
const ELSEWHERE: [&str; 2] = ["byteslen", "bytesslice"];

fn called(name: &str, args: &[Value]) -> Result<Value, String> {
    let host = Host { now: 0, home: PathBuf::from("/root") };
    call(find(name).unwrap(), args, &host)
}

/// Each function is in a case of `testdata/bake/functions-*`, which were compared with buildx.
#[test]
fn every_function_has_a_case() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/bake");
    let mut text = String::new();
    for entry in std::fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("functions-") {
            text.push_str(&std::fs::read_to_string(path.join("docker-bake.hcl")).unwrap());
        }
    }
    let names: Vec<&str> =
        TABLES.iter().flat_map(|table| table.iter()).map(|function| function.name).collect();
    for name in names.iter().filter(|name| !ELSEWHERE.contains(name)) {
        assert!(text.contains(&format!("{name}(")), "{name}");
    }
    for name in ["try(", "can(", "convert("] {
        assert!(text.contains(name), "{name}");
    }
    let mut once = names.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), names.len());
}

#[test]
fn bytes() {
    assert_eq!(called("byteslen", &[Value::text("né")]), Ok(Value::int(3)));
    assert_eq!(
        called("bytesslice", &[Value::text("hello"), Value::int(1), Value::int(3)]),
        Ok(Value::text("ell"))
    );
    assert!(called("bytesslice", &[Value::text("né"), Value::int(0), Value::int(2)]).is_err());
}

#[test]
fn arguments_are_checked() {
    let wrong = called("upper", &[Value::texts(["a"])]).unwrap_err();
    assert_eq!(wrong, "argument 1: string required");
    assert!(called("upper", &[]).unwrap_err().contains("1 arguments are required"));
    assert!(called("upper", &[Value::NULL]).unwrap_err().contains("null"));
    assert!(called("join", &[Value::text(","), Value::text("x")]).unwrap_err().contains("list of string"));
    assert!(called("element", &[Value::tuple(Vec::new()), Value::int(0)]).is_err());
    assert!(
        called(
            "setproduct",
            &[Value::tuple(vec![Value::int(1); 2000]), Value::tuple(vec![Value::int(1); 2000])]
        )
        .is_err()
    );
    assert!(refused("rsadecrypt").is_some() && find("rsadecrypt").is_none());
}
