//! The length of sentences in the documents, by the rules of `crates/STYLE.md`.

use std::fs;
use std::path::{Path, PathBuf};

/// The most words of a sentence.
const MAX_WORDS: usize = 40;
/// The bounds of the pages that everyone reads first: the mean, and the length that nine of ten sentences keep.
const MAX_MEAN: f64 = 18.0;
const MAX_NINE_OF_TEN: usize = 30;
/// The pages with both bounds.
const FIRST_PAGES: [&str; 2] = ["README.md", "crates/README.md"];
/// Further pages of the top and of `crates`.
const PAGES: [&str; 4] =
    ["CONTRIBUTING.md", "crates/STYLE.md", "crates/xtask/bench/README.md", "frontend/README.md"];

/// The faults of all documents below `top`.
pub(super) fn faults(top: &Path) -> Result<Vec<String>, String> {
    let mut pages: Vec<PathBuf> = FIRST_PAGES.iter().chain(&PAGES).map(PathBuf::from).collect();
    for entry in super::entries(&top.join("crates"))? {
        let own = entry.join("README.md");
        pages.extend(own.is_file().then_some(own));
        let docs = entry.join("docs");
        if docs.is_dir() {
            pages.extend(super::entries(&docs)?);
        }
    }
    let mut faults = Vec::new();
    for page in pages {
        let name = page.strip_prefix(top).unwrap_or(&page).display().to_string();
        let text = fs::read_to_string(top.join(&page)).map_err(|error| format!("{name}: {error}"))?;
        faults.extend(of_page(&name, &text));
        let dir = page.parent().map(|dir| top.join(dir)).unwrap_or_default();
        let broken = links(&text).filter(|link| !dir.join(link).exists());
        faults.extend(broken.map(|link| format!("{name}: the link `{link}` leads nowhere")));
    }
    Ok(faults)
}

/// The files that a page links to, without the places in them. Addresses of the web do not count.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let prose = text.split("```").step_by(2);
    let links = prose.flat_map(|block| block.split("](").skip(1));
    let paths = links.filter_map(|rest| rest.split([')', '#']).next());
    paths.filter(|path| !path.is_empty() && !path.contains("://"))
}

fn of_page(name: &str, text: &str) -> Vec<String> {
    let sentences = sentences(text);
    let mut lengths: Vec<usize> = sentences.iter().map(|sentence| words(sentence)).collect();
    let mut faults = Vec::new();
    for (sentence, length) in sentences.iter().zip(&lengths).filter(|(_, length)| **length > MAX_WORDS) {
        let start: Vec<&str> = sentence.split_whitespace().take(6).collect();
        faults
            .push(format!("{name}: a sentence of {length} words, of {MAX_WORDS}: \"{}…\"", start.join(" ")));
    }
    lengths.sort_unstable();
    if !FIRST_PAGES.contains(&name) || lengths.is_empty() {
        return faults;
    }
    let mean = lengths.iter().sum::<usize>() as f64 / lengths.len() as f64;
    let nine_of_ten = lengths[(lengths.len() * 9).div_ceil(10) - 1];
    if mean > MAX_MEAN {
        faults.push(format!("{name}: sentences have {mean:.1} words in the mean, of {MAX_MEAN}"));
    }
    if nine_of_ten > MAX_NINE_OF_TEN {
        faults.push(format!(
            "{name}: nine of ten sentences have up to {nine_of_ten} words, of {MAX_NINE_OF_TEN}"
        ));
    }
    faults
}

/// The sentences of a page. Headings, tables, code and comments have none. Code within a sentence is one word.
fn sentences(text: &str) -> Vec<String> {
    let mut paragraphs = vec![String::new()];
    let mut code = false;
    for line in text.lines() {
        let line = line.trim();
        let fence = line.starts_with("```");
        code ^= fence;
        let prose = !code && !fence && !line.starts_with(['#', '|', '<']);
        let item = line.strip_prefix("- ").or_else(|| line.split_once(". ").and_then(numbered));
        if line.is_empty() || item.is_some() || !prose {
            paragraphs.push(String::new());
        }
        if let Some(last) = paragraphs.last_mut().filter(|_| prose) {
            last.push_str(item.unwrap_or(line));
            last.push(' ');
        }
    }
    paragraphs.iter().flat_map(|paragraph| split(&plain(paragraph))).collect()
}

fn numbered<'t>((number, rest): (&str, &'t str)) -> Option<&'t str> {
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some(rest)
}

/// A paragraph with one word for each piece of code, and without the addresses of links.
fn plain(paragraph: &str) -> String {
    let mut plain = String::new();
    for (number, piece) in paragraph.split('`').enumerate() {
        plain.push_str(if number % 2 == 0 { piece } else { "code" });
    }
    while let Some((before, rest)) = plain.split_once("](") {
        let after = rest.split_once(')').map_or("", |(_, after)| after);
        plain = format!("{before}{after}");
    }
    plain.replace("**", "")
}

fn split(paragraph: &str) -> Vec<String> {
    let mut sentences = vec![String::new()];
    for word in paragraph.split_whitespace() {
        if let Some(last) = sentences.last_mut() {
            last.push_str(word);
            last.push(' ');
        }
        if word.trim_end_matches([')', '"']).ends_with(['.', '?', '!']) {
            sentences.push(String::new());
        }
    }
    sentences.retain(|sentence| words(sentence) > 0);
    sentences
}

fn words(sentence: &str) -> usize {
    sentence.split_whitespace().filter(|word| word.contains(char::is_alphanumeric)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_sentences() {
        let page = "# No sentence.\n\nOne `a. b` two. [Three\nfour](http://x.y/z): five?\n\n- Six.\n- **Seven.** Eight\n\n\
                    | no. | no. |\n```sh\nno. no.\n```\n1. Nine.\n`ten` eleven (twelve.) Thirteen\n";
        let found = sentences(page);
        let found: Vec<&str> = found.iter().map(|sentence| sentence.trim()).collect();
        let wanted = [
            "One code two.",
            "[Three four: five?",
            "Six.",
            "Seven.",
            "Eight",
            "Nine.",
            "code eleven (twelve.)",
            "Thirteen",
        ];
        assert_eq!(found, wanted);
    }

    #[test]
    fn links_lead_to_files() {
        let page = "[a](b.md) and [c](d/e.md#f), [g](#h), [i](https://j.k/l)\n```\n[m](n)\n```\n";
        assert_eq!(links(page).collect::<Vec<_>>(), ["b.md", "d/e.md"]);
    }

    #[test]
    fn long_sentences_are_refused() {
        let page = |words: usize| format!("{}end.\n", "word ".repeat(words - 1));
        assert_eq!(of_page("crates/cli/docs/a.md", &page(40)), Vec::<String>::new());
        assert!(of_page("crates/cli/docs/a.md", &page(41))[0].contains("a sentence of 41 words"));
        assert_eq!(of_page("README.md", &page(18)), Vec::<String>::new());
        assert!(of_page("README.md", &page(19))[0].contains("19.0 words in the mean"));
        let mixed = page(31) + &page(31) + &page(2).repeat(8);
        assert!(of_page("README.md", &mixed)[0].contains("up to 31 words"));
    }
}
