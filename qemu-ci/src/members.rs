// SPDX-License-Identifier: GPL-2.0
//! The completeness test: what becomes of every member of the kernel's structs.
//!
//! `members/` has a table for each struct that a checkpoint reads. A line is
//!
//! ```text
//! member   class   what the class asks for
//! ```
//!
//! and a member of which parts fare differently has several, one below the other. The classes:
//!
//! - `saved`: fields of the image, `Record.field`, separated by commas; only `Record` stands for its tail.
//! - `equal`: has to be the restarter's; messages of that check, in quotes, separated by commas.
//! - `refused`: nobody who has it is saved; messages in the same way.
//! - `reset`: starts anew after a restart; as what.
//! - `irrelevant`: no state that a program could miss; why.
//!
//! The first three may be followed by a colon and a remark. A question mark behind the member says that only some
//! configurations have it. A member of a kernel that has no line fails the test, and so does a line without a member, a
//! field that the image does not have, and a message that the kernel side does not have: neither a new kernel nor a
//! change here can lose state in silence.

use crate::files;
use crate::lexer;
use crate::lexer::Token;
use crate::lexer::Type;
use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// What a test of this kind found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What was looked at.
    pub summary: String,
    /// What is wrong; the test has passed when there is nothing.
    pub problems: Vec<String>,
}

/// What becomes of a member, or of a part of it.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// Fields of the image that hold it: record, and field unless it is the tail.
    Saved(Vec<(String, Option<String>)>),
    /// Messages of the check.
    Equal(Vec<String>),
    /// Messages of the refusal.
    Refused(Vec<String>),
    Reset,
    Irrelevant,
}

impl Fate {
    fn parse(class: &str, rest: &str) -> Result<Self> {
        if rest.is_empty() {
            bail!("{class} as what, or why?");
        }
        Ok(match class {
            "saved" => Self::Saved(fields(rest)?),
            "equal" => Self::Equal(messages(rest)?),
            "refused" => Self::Refused(messages(rest)?),
            "reset" => Self::Reset,
            "irrelevant" => Self::Irrelevant,
            _ => bail!("{class}: no such class"),
        })
    }
}

/// Parses `Record.field, Record: remark`.
fn fields(text: &str) -> Result<Vec<(String, Option<String>)>> {
    let list = text.split_once(':').map_or(text, |(list, _)| list);
    let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    list.split(',')
        .map(|item| {
            let (record, field) = match item.trim().split_once('.') {
                Some((record, field)) => (record, Some(field)),
                None => (item.trim(), None),
            };
            if !is_name(record) || !field.is_none_or(is_name) {
                bail!("{}: Record.field is wanted", item.trim());
            }
            Ok((record.to_owned(), field.map(str::to_owned)))
        })
        .collect()
}

/// Parses `"message", "message": remark`.
fn messages(text: &str) -> Result<Vec<String>> {
    let mut messages = Vec::new();
    let mut rest = text;
    loop {
        let Some((message, after)) = rest.trim_start().strip_prefix('"').and_then(|rest| rest.split_once('"')) else {
            bail!("{rest}: a message in quotes is wanted");
        };
        messages.push(message.to_owned());
        match after.chars().next() {
            Some(',') => rest = &after[1..],
            None | Some(':') => return Ok(messages),
            Some(_) => bail!("{after}: a comma or a colon is wanted"),
        }
    }
}

/// One line of a table.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    member: String,
    /// Only some configurations have it.
    optional: bool,
    fate: Fate,
}

/// Parses a table.
fn parse(text: &str) -> Result<Vec<Row>> {
    let mut rows: Vec<Row> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let row = parse_line(line).with_context(|| format!("line {number}"))?;
        let Some(row) = row else { continue };
        if let Some(other) = rows.iter().find(|other| other.member == row.member) {
            if rows.last().is_none_or(|last| last.member != row.member) {
                bail!("line {number}: {} has lines above already", row.member);
            }
            if other.optional != row.optional {
                bail!("line {number}: {} is optional or it is not", row.member);
            }
        }
        rows.push(row);
    }
    Ok(rows)
}

fn parse_line(line: &str) -> Result<Option<Row>> {
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (member, rest) = line.split_once(' ').context("a member and its class are wanted")?;
    let rest = rest.trim_start();
    let (class, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let (member, optional) = member.strip_suffix('?').map_or((member, false), |member| (member, true));
    Ok(Some(Row { member: member.to_owned(), optional, fate: Fate::parse(class, rest.trim())? }))
}

/// The members of `root` by the names that C has for them, those of anonymous structs and unions among them.
///
/// Fails when the bindings do not have the struct, or know no more of it than its name.
fn members(types: &BTreeMap<String, Type>, root: &str) -> Result<Vec<String>> {
    fn descend(
        types: &BTreeMap<String, Type>,
        root: &str,
        of: &str,
        prefix: &str,
        found: &mut Vec<String>,
    ) -> Result<()> {
        let nested = format!("{root}__bindgen_ty_");
        let this = types.get(of).with_context(|| format!("{of}: not in the bindings"))?;
        for member in &this.members {
            let name = &member.name;
            if name.starts_with("_bitfield_align_") {
                continue;
            }
            if name.starts_with("_bitfield_") {
                let missing = |bit: &&String| !found.contains(&format!("{prefix}{bit}"));
                let bits: Vec<_> = this.getters.iter().filter(missing).map(|bit| format!("{prefix}{bit}")).collect();
                found.extend(bits);
                continue;
            }
            match member.type_name.as_deref().filter(|type_name| type_name.starts_with(&nested)) {
                Some(type_name) if name.starts_with("__bindgen_anon_") => {
                    descend(types, root, type_name, prefix, found)?;
                }
                Some(type_name) => {
                    let prefix = format!("{prefix}{}.", c_name(name));
                    descend(types, root, type_name, &prefix, found)?;
                }
                None => found.push(format!("{prefix}{}", c_name(name))),
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    descend(types, root, root, "", &mut found)?;
    if found.is_empty() {
        bail!("{root}: opaque or empty in the bindings");
    }
    Ok(found)
}

/// The name of a member in C: bindgen puts an underscore behind keywords of Rust.
fn c_name(name: &str) -> &str {
    const KEYWORDS: [&str; 14] =
        ["as", "dyn", "fn", "impl", "in", "loop", "match", "mod", "move", "priv", "ref", "self", "type", "use"];
    name.strip_suffix('_').filter(|word| KEYWORDS.contains(word)).unwrap_or(name)
}

/// What the repository has to prove a line with.
pub struct Evidence {
    records: BTreeMap<String, Type>,
    messages: Vec<String>,
}

impl Evidence {
    /// Reads the image's records and the messages of the kernel side.
    pub fn read(repo: &Path) -> Result<Self> {
        let mut records = BTreeMap::new();
        for (_, source) in sources(&repo.join("rust/image/record"), &["rs"])? {
            records.extend(lexer::types(&source));
        }
        let mut messages = Vec::new();
        for (_, source) in sources(&repo.join("rust/checkpoint"), &["rs", "c"])? {
            messages.extend(lexer::tokens(&source).filter_map(|token| match token {
                Token::Text(text) => Some(text),
                Token::Word(_) | Token::Mark(_) => None,
            }));
        }
        Ok(Self { records, messages })
    }

    /// Whether the image has `record`, and `field` in it.
    fn has_field(&self, record: &str, field: Option<&str>) -> bool {
        let found = self.records.get(record);
        found.is_some_and(|found| field.is_none_or(|field| found.members.iter().any(|member| member.name == field)))
    }

    /// Whether a message of the kernel side has `text` in it, as whole words.
    pub fn has_message(&self, text: &str) -> bool {
        let in_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        self.messages.iter().any(|message| {
            message.match_indices(text).any(|(at, _)| {
                let (before, after) = (&message[..at], &message[at + text.len()..]);
                !in_word(before.chars().next_back()) && !in_word(after.chars().next())
            })
        })
    }

    /// What `fate` names that does not exist.
    fn missing(&self, fate: &Fate) -> Vec<String> {
        match fate {
            Fate::Saved(fields) => fields
                .iter()
                .filter(|(record, field)| !self.has_field(record, field.as_deref()))
                .map(|(record, field)| match field {
                    Some(field) => format!("the image has no {record}.{field}"),
                    None => format!("the image has no {record}"),
                })
                .collect(),
            Fate::Equal(messages) | Fate::Refused(messages) => messages
                .iter()
                .filter(|message| !self.has_message(message))
                .map(|message| format!("nothing in rust/checkpoint says \"{message}\""))
                .collect(),
            Fate::Reset | Fate::Irrelevant => Vec::new(),
        }
    }
}

/// The files below `dir` with one of these extensions: path and contents.
fn sources(dir: &Path, extensions: &[&str]) -> Result<Vec<(String, String)>> {
    let wanted = |path: &Path| path.extension().is_some_and(|ext| extensions.iter().any(|wanted| ext == *wanted));
    files::walk(dir, &|_| false)?
        .into_iter()
        .filter(|path| wanted(path))
        .map(|path| {
            let full = dir.join(&path);
            let text = fs::read_to_string(&full).with_context(|| full.display().to_string())?;
            Ok((path.display().to_string(), text))
        })
        .collect()
}

/// Compares the tables of `repo` with the structs in `bindings`, the file that bindgen made of a configured kernel.
///
/// # Errors
///
/// Files that cannot be read, tables that do not parse.
pub fn check(bindings: &Path, repo: &Path) -> Result<Outcome> {
    let source = fs::read_to_string(bindings).with_context(|| bindings.display().to_string())?;
    let types = lexer::types(&source);
    let evidence = Evidence::read(repo)?;
    let mut problems = Vec::new();
    let mut count = 0;
    let tables = sources(&repo.join("qemu-ci/members"), &["txt"])?;
    for (file, text) in &tables {
        let name = file.trim_end_matches(".txt");
        let rows = parse(text).with_context(|| format!("qemu-ci/members/{file}"))?;
        let members = match members(&types, name) {
            Ok(members) => members,
            Err(e) => {
                problems.push(e.to_string());
                continue;
            }
        };
        count += members.len();
        problems.extend(compare(&rows, &members, &evidence).into_iter().map(|problem| format!("{name}.{problem}")));
    }
    Ok(Outcome { summary: format!("{count} members of {} structs", tables.len()), problems })
}

/// What is wrong with the table of a struct, each line beginning with the member.
fn compare(rows: &[Row], members: &[String], evidence: &Evidence) -> Vec<String> {
    let listed: BTreeSet<_> = rows.iter().map(|row| row.member.as_str()).collect();
    let present: BTreeSet<_> = members.iter().map(String::as_str).collect();
    let mut problems: Vec<_> = members
        .iter()
        .filter(|member| !listed.contains(member.as_str()))
        .map(|member| format!("{member}: is not in the table"))
        .collect();
    for row in rows {
        if !row.optional && !present.contains(row.member.as_str()) {
            problems.push(format!("{}: this kernel has no such member", row.member));
        }
        problems.extend(evidence.missing(&row.fate).into_iter().map(|what| format!("{}: {what}", row.member)));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    const BINDINGS: &str = "
        pub struct s {
            pub __bindgen_anon_1: s__bindgen_ty_1,
            pub fn_: ::core::option::Option<unsafe extern \"C\" fn(arg1: *mut s)>,
            pub named: s__bindgen_ty_2,
            pub other: t,
            pub _bitfield_align_1: [u8; 0],
            pub _bitfield_1: __BindgenBitfieldUnit<[u8; 1usize]>,
            pub last_: u8,
        }
        pub union s__bindgen_ty_1 { pub whole: u64, pub __bindgen_anon_1: s__bindgen_ty_1__bindgen_ty_1 }
        pub struct s__bindgen_ty_1__bindgen_ty_1 { pub low: u32, pub high: u32 }
        pub struct s__bindgen_ty_2 { pub inner: u8 }
        impl s {
            pub fn bit(&self) -> u32 { 0 }
            pub fn set_bit(&mut self, val: u32) {}
        }
        pub struct opaque { _unused: [u8; 0] }";

    fn evidence() -> Evidence {
        let records = lexer::types("pub struct Task { pub tid: I32 => Check::Range(1, 2) }");
        Evidence { records, messages: vec!["seccomp: not supported".into(), "another {name} than".into()] }
    }

    fn problems(table: &str, members: &[&str]) -> Vec<String> {
        let members: Vec<_> = members.iter().map(|member| (*member).to_owned()).collect();
        compare(&parse(table).unwrap(), &members, &evidence())
    }

    fn error(table: &str) -> String {
        format!("{:#}", parse(table).unwrap_err())
    }

    #[test]
    fn members_by_their_names_in_c() {
        let types = lexer::types(BINDINGS);
        let found = members(&types, "s").unwrap();
        assert_eq!(found, ["whole", "low", "high", "fn", "named.inner", "other", "bit", "last_"]);
        assert!(members(&types, "opaque").is_err());
        assert!(members(&types, "absent").is_err());
    }

    #[test]
    fn tables() {
        let rows = parse("# comment\n\na  saved  Task.tid, Task: its tail\na  refused  \"x y\", \"z\": why\n").unwrap();
        let fields = vec![("Task".into(), Some("tid".into())), ("Task".into(), None)];
        assert_eq!(rows[0].fate, Fate::Saved(fields));
        assert_eq!(rows[1].fate, Fate::Refused(vec!["x y".into(), "z".into()]));
        assert!(parse("a? reset zero\n").unwrap()[0].optional);
    }

    #[test]
    fn tables_that_do_not_parse() {
        assert_eq!(error("a lost why"), "line 1: lost: no such class");
        assert_eq!(error("a irrelevant"), "line 1: irrelevant as what, or why?");
        assert_eq!(error("a refused x"), "line 1: x: a message in quotes is wanted");
        assert_eq!(error("a saved Task tid"), "line 1: Task tid: Record.field is wanted");
        assert_eq!(error("a reset x\nb reset x\na reset y"), "line 3: a has lines above already");
        assert_eq!(error("a reset x\na? reset y"), "line 2: a is optional or it is not");
        assert_eq!(error("a"), "line 1: a member and its class are wanted");
    }

    #[test]
    fn a_table_that_matches() {
        let table = "a saved Task.tid\nb refused \"seccomp\"\nc equal \"another {name}\"\nd? reset zero\n";
        assert_eq!(problems(table, &["a", "b", "c"]), [""; 0]);
        assert_eq!(problems(table, &["a", "b", "c", "d"]), [""; 0]);
    }

    #[test]
    fn members_that_came_or_went() {
        assert_eq!(problems("a reset zero\n", &["a", "new"]), ["new: is not in the table"]);
        assert_eq!(problems("a reset zero\n", &[]), ["a: this kernel has no such member"]);
    }

    #[test]
    fn claims_without_evidence() {
        assert_eq!(problems("a saved Task.gone\n", &["a"]), ["a: the image has no Task.gone"]);
        assert_eq!(problems("a saved Gone\n", &["a"]), ["a: the image has no Gone"]);
        assert_eq!(problems("a refused \"comp\"\n", &["a"]), ["a: nothing in rust/checkpoint says \"comp\""]);
    }
}
