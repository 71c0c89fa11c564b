// SPDX-License-Identifier: GPL-2.0
//! The support table of the README, from the list in `support.txt`.
//!
//! A line `== Title` begins a part; every other line is a row:
//!
//! ```text
//! what there is to save | supported, refused "message", or later | selftests that prove it
//! ```
//!
//! The message has to be one of the kernel side, the selftests have to exist, and what is supported needs one. `later`
//! is for what starts anew at a restart instead, as the tables of members say.

use crate::context::Context;
use crate::files;
use crate::members::Evidence;
use crate::members::Outcome;
use crate::ui;
use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

const BEGIN: &str = "<!-- support:begin -->";
const END: &str = "<!-- support:end -->";

#[derive(Debug, PartialEq, Eq)]
enum Status {
    Supported,
    /// With this message.
    Refused(String),
    Later,
}

#[derive(Debug, PartialEq, Eq)]
struct Row {
    resource: String,
    status: Status,
    selftests: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
struct Part {
    title: String,
    rows: Vec<Row>,
}

fn parse(text: &str) -> Result<Vec<Part>> {
    let mut parts: Vec<Part> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(title) = line.strip_prefix("== ") {
            parts.push(Part { title: title.to_owned(), rows: Vec::new() });
            continue;
        }
        let part = parts.last_mut().with_context(|| format!("line {number}: a title is wanted first"))?;
        part.rows.push(parse_row(line).with_context(|| format!("line {number}"))?);
    }
    Ok(parts)
}

fn parse_row(line: &str) -> Result<Row> {
    let fields: Vec<_> = line.split('|').map(str::trim).collect();
    let [resource, status, selftests] = fields[..] else {
        bail!("resource | status | selftests are wanted");
    };
    let status = match status.split_once(' ') {
        None if status == "supported" => Status::Supported,
        None if status == "later" => Status::Later,
        Some(("refused", message)) => {
            let message = message.strip_prefix('"').and_then(|message| message.strip_suffix('"'));
            Status::Refused(message.context("a message in quotes is wanted")?.to_owned())
        }
        _ => bail!("{status}: no such status"),
    };
    let selftests: Vec<_> = selftests.split_whitespace().map(str::to_owned).collect();
    if status == Status::Supported && selftests.is_empty() {
        bail!("{resource}: no selftest proves it");
    }
    Ok(Row { resource: resource.to_owned(), status, selftests })
}

/// The list of the repository, and what is wrong with it.
fn read(repo: &Path) -> Result<(Vec<Part>, Vec<String>)> {
    let path = repo.join("qemu-ci/support.txt");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let parts = parse(&text).context("qemu-ci/support.txt")?;
    let evidence = Evidence::read(repo)?;
    let mut problems = Vec::new();
    for row in parts.iter().flat_map(|part| &part.rows) {
        if let Status::Refused(message) = &row.status {
            if !evidence.has_message(message) {
                problems.push(format!("{}: nothing in rust/checkpoint says \"{message}\"", row.resource));
            }
        }
        for selftest in row.selftests.iter().filter(|name| !repo.join(source(name)).exists()) {
            problems.push(format!("{}: there is no selftest {selftest}", row.resource));
        }
    }
    Ok((parts, problems))
}

/// The source of a selftest, from the root of the repository.
fn source(selftest: &str) -> String {
    format!("selftests/src/bin/{selftest}.rs")
}

fn markdown(parts: &[Part]) -> String {
    let mut text = String::new();
    for part in parts {
        let _ = write!(text, "### {}\n\n| | | proved by |\n|---|---|---|\n", part.title);
        for row in &part.rows {
            let status = match &row.status {
                Status::Supported => "supported".to_owned(),
                Status::Refused(message) => format!("refused by name: `{message}`"),
                Status::Later => "later".to_owned(),
            };
            let selftests: Vec<_> = row.selftests.iter().map(|name| format!("[{name}]({})", source(name))).collect();
            let _ = writeln!(text, "| {} | {status} | {} |", row.resource, selftests.join(", "));
        }
        text.push('\n');
    }
    text
}

fn readme(repo: &Path) -> Result<String> {
    match fs::read_to_string(repo.join("README.md")) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(String::new()),
        result => result.context("README.md"),
    }
}

/// Prints the table, or, with `write`, puts it between the markers of README.md.
pub fn support(ctx: &Context, write: bool) -> Result<()> {
    let (parts, problems) = read(&ctx.repo)?;
    if !problems.is_empty() {
        bail!("qemu-ci/support.txt:\n  {}", problems.join("\n  "));
    }
    let table = markdown(&parts);
    if !write {
        ui::say(table.trim_end());
        return Ok(());
    }
    let Some(new) = files::between(&readme(&ctx.repo)?, BEGIN, END, &table) else {
        bail!("README.md has no place for the table: two lines are wanted, {BEGIN} and {END}");
    };
    let changed = files::write_if_changed(&ctx.repo.join("README.md"), new)?;
    ui::say(if changed { "README.md: support table written" } else { "README.md: support table is up to date" });
    Ok(())
}

/// Checks the list, and that README.md shows it as it is.
///
/// # Errors
///
/// Files that cannot be read, a list that does not parse.
pub fn check(repo: &Path) -> Result<Outcome> {
    let (parts, mut problems) = read(repo)?;
    let readme = readme(repo)?;
    let rows = parts.iter().map(|part| part.rows.len()).sum::<usize>();
    let state = match files::between(&readme, BEGIN, END, &markdown(&parts)) {
        None => "README.md has no markers for them yet, not compared",
        Some(new) => {
            if new != readme {
                problems.push("README.md shows another table: make support".into());
            }
            "compared with README.md"
        }
    };
    Ok(Outcome { summary: format!("{rows} rows of the support table, {state}"), problems })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "# comment\n== Tasks\nthreads | supported | process\nseccomp | refused \"seccomp\" |\n";

    #[test]
    fn list_and_table() {
        let parts = parse(LIST).unwrap();
        assert_eq!(
            markdown(&parts),
            "### Tasks\n\n| | | proved by |\n|---|---|---|\n\
             | threads | supported | [process](selftests/src/bin/process.rs) |\n\
             | seccomp | refused by name: `seccomp` |  |\n\n"
        );
    }

    #[test]
    fn lists_that_do_not_parse() {
        let error = |text: &str| format!("{:#}", parse(text).unwrap_err());
        assert_eq!(error("a | later |"), "line 1: a title is wanted first");
        assert_eq!(error("== T\na | later"), "line 2: resource | status | selftests are wanted");
        assert_eq!(error("== T\na | soon |"), "line 2: soon: no such status");
        assert_eq!(error("== T\na | refused x |"), "line 2: a message in quotes is wanted");
        assert_eq!(error("== T\na | supported |"), "line 2: a: no selftest proves it");
    }
}
