//! `strings`: the case of letters.

/// `strings.ToLower`: character by character, without Unicode's rules for several characters.
#[must_use]
pub fn to_lower(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    text.chars().map(|c| c.to_lowercase().next().unwrap_or(c)).collect()
}

/// `strings.ToUpper`: character by character.
#[must_use]
pub fn to_upper(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_uppercase();
    }
    let one = |c: char| {
        let mut upper = c.to_uppercase();
        upper.next().filter(|_| upper.next().is_none()).unwrap_or(c)
    };
    text.chars().map(one).collect()
}

/// Whether [`to_lower`] changes nothing.
#[must_use]
pub fn is_lower(text: &str) -> bool {
    if text.is_ascii() { !text.bytes().any(|byte| byte.is_ascii_uppercase()) } else { to_lower(text) == text }
}

/// Whether [`to_upper`] changes nothing.
#[must_use]
pub fn is_upper(text: &str) -> bool {
    if text.is_ascii() { !text.bytes().any(|byte| byte.is_ascii_lowercase()) } else { to_upper(text) == text }
}
