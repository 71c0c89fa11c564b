// SPDX-License-Identifier: GPL-2.0
//! As much of the syntax of Rust and C as it takes to find structs and strings in them.

use std::collections::BTreeMap;
use std::iter::Peekable;

/// A piece of source text. Comments and blanks are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// A name, a keyword or a number.
    Word(&'a str),
    /// What a string stands for, escapes resolved as far as messages use them.
    Text(String),
    /// A character; an arrow or a shift to the left, whose characters are no brackets.
    Mark(&'a str),
}

/// The tokens of a source text.
pub fn tokens(source: &str) -> impl Iterator<Item = Token<'_>> {
    let mut rest = source;
    std::iter::from_fn(move || {
        loop {
            rest = rest.trim_start();
            let first = rest.chars().next()?;
            if rest.starts_with("//") {
                rest = rest.find('\n').map_or("", |end| &rest[end..]);
            } else if rest.starts_with("/*") {
                rest = rest.find("*/").map_or("", |end| &rest[end + 2..]);
            } else if let Some(len) = char_literal(rest) {
                rest = &rest[len..];
            } else if first == '"' {
                let (text, len) = string(rest);
                rest = &rest[len..];
                return Some(Token::Text(text));
            } else {
                let is_word = |c: char| c.is_alphanumeric() || c == '_';
                let len = match rest.find(|c| !is_word(c)) {
                    _ if ["->", "=>", "<<"].iter().any(|arrow| rest.starts_with(arrow)) => 2,
                    Some(0) => first.len_utf8(),
                    end => end.unwrap_or(rest.len()),
                };
                let (token, after) = rest.split_at(len);
                rest = after;
                return Some(if is_word(first) { Token::Word(token) } else { Token::Mark(token) });
            }
        }
    })
}

/// Length of a character in quotes, as opposed to the quote of a lifetime.
fn char_literal(rest: &str) -> Option<usize> {
    let mut chars = rest.strip_prefix('\'')?.char_indices();
    match chars.next()?.1 {
        '\\' => chars.skip(1).find(|(_, c)| *c == '\'').map(|(at, _)| at + 2),
        _ => chars.next().filter(|(_, c)| *c == '\'').map(|(at, _)| at + 2),
    }
}

/// The string at the start of `rest`, and how long it is with its quotes.
fn string(rest: &str) -> (String, usize) {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (text, at + 1),
            '\\' => match chars.next() {
                // The string goes on at the first character of the next line.
                Some((_, '\n')) => while chars.next_if(|(_, c)| c.is_whitespace()).is_some() {},
                Some((_, 'n')) => text.push('\n'),
                Some((_, escaped)) => text.push(escaped),
                None => {}
            },
            c => text.push(c),
        }
    }
    (text, rest.len())
}

/// A member of a struct or union.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its type, where that is a single name.
    pub type_name: Option<String>,
}

/// A struct or union, and what is implemented for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Type {
    /// Its public members.
    pub members: Vec<Member>,
    /// Names of the public methods that only look at it: of a bit field, its accessors.
    pub getters: Vec<String>,
}

/// The structs and unions of a Rust source, by name.
pub fn types(source: &str) -> BTreeMap<String, Type> {
    let mut types = BTreeMap::<String, Type>::new();
    let mut tokens = tokens(source).peekable();
    while let Some(token) = tokens.next() {
        let Token::Word(keyword @ ("struct" | "union" | "impl")) = token else { continue };
        let Some(Token::Word(name)) = tokens.next_if(|token| matches!(token, Token::Word(_))) else { continue };
        if tokens.next_if_eq(&Token::Mark("{")).is_none() {
            continue;
        }
        let of = types.entry(name.to_owned()).or_default();
        if keyword == "impl" {
            of.getters.extend(getters(&mut tokens));
        } else {
            of.members = members(&mut tokens);
        }
    }
    types
}

/// How much deeper in brackets what follows `token` is.
fn depth(token: &Token<'_>) -> i32 {
    match token {
        Token::Mark("{" | "(" | "[" | "<") => 1,
        Token::Mark("}" | ")" | "]" | ">") => -1,
        _ => 0,
    }
}

/// Reads the body of a struct to its end.
fn members<'a>(tokens: &mut Peekable<impl Iterator<Item = Token<'a>>>) -> Vec<Member> {
    let mut members = Vec::new();
    let mut level = 0;
    while let Some(token) = tokens.next() {
        level += depth(&token);
        if level < 0 {
            break;
        }
        if level > 0 || token != Token::Word("pub") {
            continue;
        }
        let Some(Token::Word(name)) = tokens.next() else { continue };
        if tokens.next_if_eq(&Token::Mark(":")).is_none() {
            continue;
        }
        let mut type_name = None;
        if let Some(Token::Word(word)) = tokens.next_if(|token| matches!(token, Token::Word(_))) {
            if matches!(tokens.peek(), Some(Token::Mark("," | "}"))) {
                type_name = Some(word.to_owned());
            }
        }
        members.push(Member { name: name.to_owned(), type_name });
    }
    members
}

/// Reads the body of an impl to its end, for methods `pub fn name(&self)`.
fn getters<'a>(tokens: &mut Peekable<impl Iterator<Item = Token<'a>>>) -> Vec<String> {
    const SIGNATURE: [Token<'_>; 4] = [Token::Mark("("), Token::Mark("&"), Token::Word("self"), Token::Mark(")")];
    let mut getters = Vec::new();
    let mut level = 0;
    while let Some(token) = tokens.next() {
        // Less-than signs are no brackets here.
        level += if matches!(token, Token::Mark("<" | ">")) { 0 } else { depth(&token) };
        if level < 0 {
            break;
        }
        if level > 0 || token != Token::Word("pub") || tokens.next_if_eq(&Token::Word("fn")).is_none() {
            continue;
        }
        let Some(Token::Word(name)) = tokens.next() else { continue };
        let matched = SIGNATURE
            .iter()
            .take_while(|wanted| tokens.next_if_eq(wanted).inspect(|token| level += depth(token)).is_some());
        if matched.count() == SIGNATURE.len() {
            getters.push(name.to_owned());
        }
    }
    getters
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(source: &str) -> Vec<String> {
        tokens(source).filter_map(|token| if let Token::Text(text) = token { Some(text) } else { None }).collect()
    }

    #[test]
    fn strings_but_not_those_in_comments() {
        assert_eq!(strings(r#"a("x y"), // "no" '"'"#), ["x y"]);
        assert_eq!(strings("/* \"no\" */ \"yes\""), ["yes"]);
        assert_eq!(strings("\"one \\\n     line \\\"quoted\\\"\""), ["one line \"quoted\""]);
    }

    #[test]
    fn quotes_of_characters_and_lifetimes() {
        assert_eq!(strings(r#"'"' '\'' '\\' "a" &'static "b" <'a> "c""#), ["a", "b", "c"]);
    }

    #[test]
    fn members_of_all_shapes() {
        let types = types(
            "#[repr(C)] pub struct a { pub x: u8, pub y: [u32; 2usize],
                 pub f: ::core::option::Option<unsafe extern \"C\" fn(arg1: *mut a) -> b>, pub z: c, hidden: d }
             pub struct empty {}
             pub union u{pub one:u8,pub two:a}
             layout! { /// A record.
                 pub struct R { pub id: U32 => Check::Id(&[Kind::A], 1 << 2), pub n: U64 } }",
        );
        let names = |name: &str| types[name].members.iter().map(|member| member.name.as_str()).collect::<Vec<_>>();
        assert_eq!(names("a"), ["x", "y", "f", "z"]);
        assert_eq!(names("empty"), [""; 0]);
        assert_eq!(names("u"), ["one", "two"]);
        assert_eq!(names("R"), ["id", "n"]);
        let type_names: Vec<_> = types["a"].members.iter().map(|member| member.type_name.as_deref()).collect();
        assert_eq!(type_names, [Some("u8"), None, None, Some("c")]);
    }

    #[test]
    fn getters_but_not_setters() {
        let types = types(
            "impl a { #[inline] pub fn bit(&self) -> u32 { if 1 < 2 { 0 } else { self.get(1usize, 2u8) } }
                 pub fn set_bit(&mut self, val: u32) { }
                 pub unsafe fn bit_raw(this: *const Self) -> u32 { 0 }
                 pub fn other(&self) -> u32 { 1 } }
             impl Default for a { fn default() -> Self { } }",
        );
        assert_eq!(types["a"].getters, ["bit", "other"]);
    }
}
