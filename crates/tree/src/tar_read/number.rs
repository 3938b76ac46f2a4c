//! Numbers in headers, as Go's reader takes them: octal digits between blanks and NULs, nothing at all for zero, or base 256.

/// A number field; `None` if it is none, or does not fit.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => base_256(field),
        _ => octal(field),
    }
}

/// Big-endian two's complement. The first bit is the mark, the second one the sign.
fn base_256(field: &[u8]) -> Option<i64> {
    let (first, rest) = field.split_first()?;
    let negative = first & 0x40 != 0;
    let start = if negative { i64::from(first | 0x80) - 0x100 } else { i64::from(first & 0x7f) };
    rest.iter().try_fold(start, |number, byte| number.checked_mul(256)?.checked_add(i64::from(*byte)))
}

fn octal(field: &[u8]) -> Option<i64> {
    let blank = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !blank(byte)).unwrap_or(field.len());
    let end = field.iter().rposition(|byte| !blank(byte)).map_or(start, |last| last + 1);
    let digits = &field[start..end];
    let digits = digits.split(|byte| *byte == 0).next().unwrap_or_default();
    digits.iter().try_fold(0i64, |number, digit| {
        let digit = matches!(digit, b'0'..=b'7').then(|| i64::from(digit - b'0'))?;
        number.checked_mul(8)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::number;

    /// The cases are those of Go's `archive/tar`, and fields as old writers left them.
    #[test]
    fn as_go_reads_them() {
        let cases: [(&[u8], Option<i64>); 24] = [
            (b"", Some(0)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b" \0 \0    ", Some(0)),
            (b"0000644\0", Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"   644\0 ", Some(0o644)),
            (b"644     ", Some(0o644)),
            (b"644\0xxxx", Some(0o644)),
            (b"00000000", Some(0)),
            (b"0123456789", None),
            (b"6 4", None),
            (b"-1", None),
            (b"0x1", None),
            (b"\x80", Some(0)),
            (b"\x80\0\0\0\0\0\0\x01", Some(1)),
            (b"\x80\x01\0\0", Some(65_536)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\xff", Some(-1)),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0", Some(i64::MIN)),
            (b"\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xff", None),
        ];
        for (field, want) in cases {
            assert_eq!(number(field), want, "{:?}", String::from_utf8_lossy(field));
        }
    }
}
