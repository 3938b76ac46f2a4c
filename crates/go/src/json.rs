//! JSON as Go's `encoding/json` writes it, so that our configs and manifests have the digests that people compare.
//!
//! The one difference to `serde_json`: Go escapes `<`, `>`, `&`, U+2028 and U+2029 inside strings.

use std::io;

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter};

struct GoFormatter<F>(F);

macro_rules! forward {
    ($($name:ident $(($arg:ident: $ty:ty))?),* $(,)?) => {
        $(fn $name<W: ?Sized + io::Write>(&mut self, out: &mut W $(, $arg: $ty)?) -> io::Result<()> {
            self.0.$name(out $(, $arg)?)
        })*
    };
}

impl<F: Formatter> Formatter for GoFormatter<F> {
    forward!(
        begin_array,
        end_array,
        begin_array_value(first: bool),
        end_array_value,
        begin_object,
        end_object,
        begin_object_key(first: bool),
        end_object_key,
        begin_object_value,
        end_object_value,
    );

    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut plain = 0;
        for (at, c) in fragment.char_indices() {
            if matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}') {
                out.write_all(&fragment.as_bytes()[plain..at])?;
                write!(out, "\\u{:04x}", u32::from(c))?;
                plain = at + c.len_utf8();
            }
        }
        out.write_all(&fragment.as_bytes()[plain..])
    }
}

fn write<T: Serialize + ?Sized>(value: &T, formatter: impl Formatter) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, GoFormatter(formatter));
    value
        .serialize(&mut serializer)
        .expect("our value types have string keys and writing to memory does not fail");
    out
}

/// `value` without white space.
pub fn to_json<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    write(value, CompactFormatter)
}

/// `value` indented by two spaces: how manifests and indexes are written.
pub fn to_json_indented<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    write(value, PrettyFormatter::with_indent(b"  "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_as_go_does() {
        assert_eq!(to_json("a<b>&\u{2028}\"é\n"), "\"a\\u003cb\\u003e\\u0026\\u2028\\\"é\\n\"".as_bytes());
    }

    #[test]
    fn empty_collections_stay_on_one_line() {
        assert_eq!(
            to_json_indented(&serde_json::json!({"a": [], "b": [1]})),
            b"{\n  \"a\": [],\n  \"b\": [\n    1\n  ]\n}"
        );
    }
}
