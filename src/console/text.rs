//! Makes foreign text safe to display: it moves no cursor, changes no colour, hides nothing behind it, and is not endless.

use std::borrow::Cow;
use std::fmt::Write;

/// Escapes every control character of a text, as `\u{1b}`. Line ends and tabs stay.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_control) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_control(character) {
            // Writing to a string cannot fail.
            let _ = write!(shown, "{}", character.escape_default());
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

/// Escapes a name so that it is one line.
pub(crate) fn in_one_line(name: &str) -> String {
    escaped(name).replace('\n', "\\n").replace('\t', "\\t")
}

/// Whether a terminal would not simply show this character.
fn is_control(character: char) -> bool {
    match character {
        '\n' | '\t' => false,
        // Line and paragraph separators, and characters that change the direction of text.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        other => other.is_control(),
    }
}

/// Returns the message of a system error without the number that Rust appends: `No such file or directory`.
pub(crate) fn reason(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    text.split_once(" (os error ").map_or_else(|| text.clone(), |(words, _)| words.to_owned())
}

/// Shortens a text to at most `most` bytes; `…` marks the cut.
pub(crate) fn shortened(mut text: String, most: usize) -> String {
    if text.len() > most {
        let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.shrink_to_fit();
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_everything_else_stays() {
        for (text, shown) in [
            ("plain é 漢 👩‍👧\n\tmore", "plain é 漢 👩‍👧\n\tmore"),
            ("\x1b[31mred\x07", "\\u{1b}[31mred\\u{7}"),
            ("over\rwritten\x08\x7f", "over\\rwritten\\u{8}\\u{7f}"),
            ("\u{9b}2J", "\\u{9b}2J"),
            ("a\u{202e}b\u{2066}c\u{2028}", "a\\u{202e}b\\u{2066}c\\u{2028}"),
        ] {
            assert_eq!(escaped(text), shown);
            assert_eq!(escaped(shown), shown, "what is shown is shown as it is");
        }
        assert_eq!(in_one_line("a\n\x1bb\t"), "a\\n\\u{1b}b\\t");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(shortened("abc".into(), 3), "abc");
        assert_eq!(shortened("abcd".into(), 3), "abc…");
        assert_eq!(shortened("aéé".into(), 2), "a…");
        assert_eq!(shortened("é".into(), 0), "…");
    }
}
