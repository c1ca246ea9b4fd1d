//! Text of others, for people: nothing in it moves a cursor, changes a colour or hides what comes next, and it is not endless.

use std::borrow::Cow;
use std::fmt::Write;

/// A text in which every character that a terminal would obey is written out, as `\u{1b}`. The ends of lines and tabs stay.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_obeyed(character) {
            // Writing to a text cannot fail.
            let _ = write!(shown, "{}", character.escape_default());
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

/// A name in one line.
pub(crate) fn in_one_line(name: &str) -> String {
    escaped(name).replace('\n', "\\n").replace('\t', "\\t")
}

/// Whether a terminal does something else with this character than to show it.
fn is_obeyed(character: char) -> bool {
    match character {
        '\n' | '\t' => false,
        // The separators of lines and paragraphs, and what changes the direction of text.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        other => other.is_control(),
    }
}

/// An error of the system without the number that Rust appends: `No such file or directory`.
pub(crate) fn reason(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    text.split_once(" (os error ").map_or_else(|| text.clone(), |(words, _)| words.to_owned())
}

/// At most so many bytes of a text; `…` stands for what is left out.
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
    fn what_a_terminal_obeys_is_written_out_and_everything_else_stays() {
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
