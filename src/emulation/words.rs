//! The words of a text, and where each stands in it.

use std::borrow::Cow;

use crate::error::Error;

/// How much of a word an error shows.
const SHOWN: usize = 40;

/// A word, and the number of its first byte in the text, counted from 1.
#[derive(Debug, Clone, Copy)]
pub struct Word<'a> {
    pub bytes: &'a [u8],
    pub at: usize,
}

impl<'a> Word<'a> {
    /// The word in lower case, in which all but paths are understood.
    pub fn lower(&self) -> Cow<'a, str> {
        let text = String::from_utf8_lossy(self.bytes);
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return text.to_ascii_lowercase().into();
        }
        text
    }

    /// Whether it is to be a number: no word that the language knows begins with anything but a letter.
    fn is_argument(&self) -> bool {
        !self.bytes[0].is_ascii_alphabetic()
    }

    /// The error that this word is, and what is wrong with it.
    pub fn error(&self, why: &str) -> Error {
        let shown = &self.bytes[..self.bytes.len().min(SHOWN)];
        let cut = if shown.len() < self.bytes.len() { "..." } else { "" };
        let text = String::from_utf8_lossy(shown);
        Error::invalid(format!("\"{text}{cut}\" at {}: {why}", self.at))
    }
}

/// The words of a text that are still to be read.
#[derive(Clone)]
pub struct Words<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Words<'a> {
    pub fn of(text: &'a [u8]) -> Words<'a> {
        Words { text, at: 0 }
    }

    /// The next word, if it is to be a number.
    pub fn argument(&mut self) -> Option<Word<'a>> {
        self.clone().next().filter(Word::is_argument).inspect(|word| self.go_behind(word))
    }

    /// The next word, which has to follow `word`.
    pub fn after(&mut self, word: &Word<'_>, expected: &str) -> Result<Word<'a>, Error> {
        self.next().ok_or_else(|| word.error(&format!("{expected} has to follow")))
    }

    /// The next word, where commas stand between words too.
    pub fn item(&mut self) -> Option<Word<'a>> {
        self.word(|byte| byte.is_ascii_whitespace() || *byte == b',')
    }

    /// Skips what stands between items, so that a list may end in a comma.
    pub fn end_items(&mut self) {
        let next = self.clone().item().map_or(self.text.len(), |item| item.at - 1);
        self.at = next;
    }

    pub fn go_behind(&mut self, word: &Word<'_>) {
        self.at = word.at - 1 + word.bytes.len();
    }

    fn word(&mut self, is_between: impl Fn(&u8) -> bool) -> Option<Word<'a>> {
        let rest = &self.text[self.at..];
        let start = rest.iter().position(|byte| !is_between(byte))?;
        let len = rest[start..].iter().position(is_between).unwrap_or(rest.len() - start);
        let word = Word { bytes: &rest[start..start + len], at: self.at + start + 1 };
        self.go_behind(&word);
        Some(word)
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = Word<'a>;

    fn next(&mut self) -> Option<Word<'a>> {
        self.word(u8::is_ascii_whitespace)
    }
}
