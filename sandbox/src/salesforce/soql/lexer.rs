//! Cuts a query into words, literals and signs.

use super::super::error::SalesforceError;
use super::malformed;

/// One piece of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// Keyword, field path, bare literal such as a date, number or `LAST_N_DAYS:3`.
    Word(String),
    /// Quoted text, escapes resolved.
    Text(String),
    /// Parenthesis, comma, comparison.
    Sign(&'static str),
}

impl Token {
    /// Tells whether this is the given keyword, in any letter case.
    pub(super) fn is(&self, keyword: &str) -> bool {
        matches!(self, Self::Word(word) if word.eq_ignore_ascii_case(keyword))
    }

    /// Returns the text that error messages quote.
    pub(super) fn shown(&self) -> &str {
        match self {
            Self::Word(text) | Self::Text(text) => text,
            Self::Sign(sign) => sign,
        }
    }
}

pub(super) fn tokens(query: &str) -> Result<Vec<Token>, SalesforceError> {
    const SIGNS: [&str; 11] = ["!=", "<>", "<=", ">=", "=", "<", ">", "(", ")", ",", "*"];
    let mut tokens = Vec::new();
    let mut rest = query;
    loop {
        rest = rest.trim_start();
        let Some(first) = rest.chars().next() else {
            return Ok(tokens);
        };
        if first == '\'' {
            let (text, after) = quoted(rest)?;
            tokens.push(Token::Text(text));
            rest = after;
            continue;
        }
        if let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
            tokens.push(Token::Sign(sign));
            rest = rest.strip_prefix(sign).unwrap_or_default();
            continue;
        }
        let belongs = |letter: char| letter.is_ascii_alphanumeric() || "_.:+-".contains(letter);
        let end = rest.find(|letter| !belongs(letter)).unwrap_or(rest.len());
        if end == 0 {
            return Err(malformed(format!("line 1: unexpected character '{first}'")));
        }
        let (word, after) = rest.split_at(end);
        tokens.push(Token::Word(word.to_owned()));
        rest = after;
    }
}

fn quoted(rest: &str) -> Result<(String, &str), SalesforceError> {
    let mut text = String::new();
    let mut letters = rest.char_indices().skip(1);
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\'' => return Ok((text, rest.split_at(at + 1).1)),
            '\\' => match letters.next() {
                Some((_, 'n')) => text.push('\n'),
                Some((_, 'r')) => text.push('\r'),
                Some((_, 't')) => text.push('\t'),
                // In LIKE an escaped wildcard stands for itself; the mark is kept for the matcher.
                Some((_, wildcard @ ('%' | '_'))) => text.extend(['\\', wildcard]),
                Some((_, other)) => text.push(other),
                None => break,
            },
            other => text.push(other),
        }
    }
    Err(malformed("line 1: mismatched character '<EOF>' expecting '''"))
}
