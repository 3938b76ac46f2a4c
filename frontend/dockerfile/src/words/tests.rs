//! Tables of words; the environment is [`ENV`].

use proptest::prelude::*;

use super::*;

const ENV: [(&str, &str); 9] = [
    ("HOME", "/root"),
    ("EMPTY", ""),
    ("file", "archive.tar.gz"),
    ("path", "/a/b/c"),
    ("two", "x  y"),
    ("star", "a*b"),
    ("lines", "one\ntwo"),
    ("ünï", "code"),
    ("digits", "a1b22"),
];

fn lookup(name: &str) -> Option<String> {
    ENV.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
}

fn text(word: &str, mode: Mode) -> Result<String, String> {
    expand(word, &lookup, mode).map(|expanded| expanded.text).map_err(|error| error.why)
}

#[test]
fn every_form_of_substitution() {
    let table = [
        ("plain", "plain"),
        ("$HOME/x", "/root/x"),
        ("${HOME}x", "/rootx"),
        ("$NOPE.", "."),
        ("$.", "$."),
        ("$", "$"),
        ("a$ b", "a$ b"),
        ("$1x", "x"),
        ("$12x", "x"),
        ("$0$@$*$#$?$-$$$!", ""),
        ("${ünï}", "code"),
        ("$ünï", "code"),
        ("${NOPE:-d}", "d"),
        ("${NOPE-d}", "d"),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY-d}", ""),
        ("${HOME:-d}", "/root"),
        ("${NOPE:-${EMPTY:-$HOME}}", "/root"),
        ("${NOPE:-'a b'\"$HOME\"}", "a b/root"),
        ("${NOPE:-}", ""),
        ("${NOPE:+w}", ""),
        ("${EMPTY:+w}", ""),
        ("${EMPTY+w}", "w"),
        ("${HOME:+w$HOME}", "w/root"),
        ("${HOME?m}", "/root"),
        ("${EMPTY?m}", ""),
        ("${file%.*}", "archive.tar"),
        ("${file%%.*}", "archive"),
        ("${file#*.}", "tar.gz"),
        ("${file##*.}", "gz"),
        ("${file#nope}", "archive.tar.gz"),
        ("${file#archive.???}", ".gz"),
        ("${path##*/}", "c"),
        ("${path%/*}", "/a/b"),
        ("${path/\\//-}", "-a/b/c"),
        ("${path//\\//-}", "-a-b-c"),
        ("${path//[a]/x}", "/a/b/c"),
        ("${file/.*/}", "archive"),
        ("${file/a*r/X}", "X.gz"),
        ("${file//a?/'<$0>'}", "<ar>chive.t<ar>.gz"),
        ("${star/\\*/+}", "a+b"),
        ("${star#a\\*}", "b"),
        ("${EMPTY/x/y}", ""),
        ("${digits//1/'$1'}", "ab22"),
        ("${digits//2/'$$'}", "a1b$$"),
        ("${digits//2/'[${0}]'}", "a1b[2][2]"),
        ("${HOME/#/x}", "/root"),
    ];
    for (word, expected) in table {
        assert_eq!(text(word, Mode::plain('\\')).as_deref(), Ok(expected), "{word}");
    }
}

#[test]
fn quotes_and_escapes() {
    let table = [
        ("'$HOME'", "$HOME"),
        ("\"$HOME\"", "/root"),
        ("\"'$HOME'\"", "'/root'"),
        ("\\$HOME", "$HOME"),
        ("\"\\$HOME\"", "$HOME"),
        ("a\\tb", "atb"),
        ("\"a\\tb\"", "a\\tb"),
        ("\"a\\\\b\"", "a\\b"),
        ("'a\\tb'", "a\\tb"),
        ("end\\", "end"),
        ("\\\\", "\\"),
        ("he'llo\"x\"'", "hello\"x\""),
    ];
    for (word, expected) in table {
        assert_eq!(text(word, Mode::plain('\\')).as_deref(), Ok(expected), "{word}");
    }
    assert_eq!(text("a\\b`$HOME", Mode::plain('`')).as_deref(), Ok("a\\b$HOME"));
}

#[test]
fn errors() {
    let table = [
        ("${}", "syntax error: bad substitution"),
        ("${{x}", "syntax error: bad substitution"),
        ("${:x}", "syntax error: bad substitution"),
        ("${", "syntax error: missing '}'"),
        ("${x", "unsupported modifier (\u{fffd}) in substitution"),
        ("${x:-y", "syntax error: missing '}'"),
        ("${x:-${y}", "syntax error: missing '}'"),
        ("${HOME:=y}", "unsupported modifier (:=) in substitution"),
        ("${HOME=y}", "unsupported modifier (=) in substitution"),
        ("${HOME:0:2}", "unsupported modifier (:0) in substitution"),
        ("${HOME^^}", "unsupported modifier (^) in substitution"),
        ("${HOME,,}", "unsupported modifier (,) in substitution"),
        ("${#HOME}", "unsupported modifier (H) in substitution"),
        ("${!HOME}", "unsupported modifier (H) in substitution"),
        ("${HOME:#x}", "unsupported modifier (:#) in substitution"),
        ("${NOPE?}", "NOPE: is not allowed to be unset"),
        ("${EMPTY:?}", "EMPTY: is not allowed to be empty"),
        ("${NOPE:?give one}", "NOPE: give one"),
        ("${HOME#\\a}", "invalid pattern (\\a) in substitution: invalid escape '\\a'"),
        ("${path/}", "syntax error: missing '/' in ${}"),
        ("'open", "unexpected end of statement while looking for matching single-quote"),
        ("\"open", "unexpected end of statement while looking for matching double-quote"),
    ];
    for (word, expected) in table {
        assert_eq!(text(word, Mode::plain('\\')).unwrap_err(), expected, "{word}");
    }
    let error = expand("${x?\"m\"}", &lookup, Mode::plain('\\')).unwrap_err();
    assert_eq!(error.to_string(), "failed to process \"${x?\\\"m\\\"}\": x: m");
}

#[test]
fn raw_modes_keep_what_they_are_told_to() {
    let raw = Mode { raw_quotes: true, raw_escapes: true, skip_unset_env: true, ..Mode::plain('\\') };
    let table = [
        ("'a' \"b$HOME\" \\c", "'a' \"b/root\" \\c"),
        ("$NOPE ${NOPE} ${NOPE:-x} ${NOPE#x} ${NOPE//a/b}", "$NOPE ${NOPE} ${NOPE:-x} ${NOPE#x} ${NOPE/a/b}"),
        ("${NOPE:=x}", "${NOPE:=x}"),
    ];
    for (word, expected) in table {
        assert_eq!(text(word, raw).as_deref(), Ok(expected), "{word}");
    }
    let body = Mode { skip_process_quotes: true, ..Mode::plain('\\') };
    assert_eq!(text("'$HOME' \"x\" \\$a \\\\ \\n", body).as_deref(), Ok("'/root' \"x\" $a \\ n"));
}

#[test]
fn words_split_after_expansion() {
    let table: [(&str, &[&str]); 8] = [
        ("a b", &["a", "b"]),
        ("a$two", &["ax", "y"]),
        ("\"$two\" z", &["x  y", "z"]),
        ("a\\ b", &["a b"]),
        ("'' x", &["x"]),
        ("3000 4000/udp", &["3000", "4000/udp"]),
        ("a << EOF", &["a", "<< EOF"]),
        ("80${NOPE:-80} 1", &["80", "1"]),
    ];
    for (word, expected) in table {
        assert_eq!(expand(word, &lookup, Mode::plain('\\')).unwrap().words, expected, "{word}");
    }
}

#[test]
fn names_are_told_apart() {
    let expanded = expand("$HOME ${NOPE:-$file} ${OTHER}", &lookup, Mode::plain('\\')).unwrap();
    assert_eq!(expanded.matched.iter().collect::<Vec<_>>(), ["HOME", "file"]);
    assert_eq!(expanded.unmatched.iter().collect::<Vec<_>>(), ["NOPE", "OTHER"]);
}

#[test]
fn hostile_words_cost_little() {
    let nested = "${a:-".repeat(10_000);
    assert!(text(&nested, Mode::plain('\\')).is_err());
    let big = "x".repeat(MAX_EXPANSION / 2);
    let doubled = |_: &str| Some(big.clone());
    assert!(expand("$a$a$a", &doubled, Mode::plain('\\')).is_err());
    let stars = format!("${{v##{}b}}", "*a".repeat(200));
    let value = |_: &str| Some("a".repeat(4000));
    assert_eq!(expand(&stars, &value, Mode::plain('\\')).unwrap().text.len(), 4000);
}

proptest! {
    #[test]
    fn nothing_panics(word in "[a-zA-Z$\\{\\}:#%/*?'\"\\\\ <é-]{0,40}", raw in any::<bool>()) {
        let mode = Mode { raw_quotes: raw, raw_escapes: raw, skip_unset_env: raw, ..Mode::plain('\\') };
        drop(expand(&word, &lookup, mode));
    }

    #[test]
    fn text_without_special_characters_is_itself(word in "[a-z0-9 ./_é-]{0,40}") {
        prop_assert_eq!(expand(&word, &lookup, Mode::plain('\\')).unwrap().text, word);
    }
}
