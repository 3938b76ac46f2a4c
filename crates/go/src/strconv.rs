//! `strconv`: booleans and whole numbers.

use crate::quoted;

/// Text that is no number of 32 bits, in the words of `strconv.ParseInt`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("strconv.ParseInt: parsing {}: {why}", quoted(text))]
pub struct NumberError {
    /// The whole text.
    text: String,
    /// Go's reason.
    why: &'static str,
}

/// `strconv.ParseBool`; `None` is its error.
#[must_use]
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// `strconv.ParseInt(text, 10, 32)`.
///
/// # Errors
/// Go's error for the first digit too many or for the first character that is no digit, whichever comes first.
pub fn parse_int(text: &str) -> Result<i64, NumberError> {
    let wrong = |why| Err(NumberError { text: text.to_owned(), why });
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let mut number: u32 = 0;
    for c in digits.chars() {
        let Some(digit) = c.to_digit(10) else { return wrong("invalid syntax") };
        match number.checked_mul(10).and_then(|tenfold| tenfold.checked_add(digit)) {
            Some(next) => number = next,
            None => return wrong("value out of range"),
        }
    }
    if digits.is_empty() {
        return wrong("invalid syntax");
    }
    let number = if text.starts_with('-') { -i64::from(number) } else { i64::from(number) };
    if i32::try_from(number).is_err() { wrong("value out of range") } else { Ok(number) }
}
