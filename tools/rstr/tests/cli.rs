// SPDX-License-Identifier: GPL-2.0 OR MIT

//! rstr as a user meets it, as far as no kernel with restart(2) is needed.

use std::{
    fs::File,
    process::{
        Command,
        Output,
        Stdio, //
    },
};

fn rstr(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rstr"));
    command.args(args).stdin(Stdio::null());
    command
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn wrong_usage_is_status_125() {
    for args in [
        &["x.img"][..],
        &["--files=lose"],
        &["--clocks=back"],
        &["--inherit-fd", "5"],
        &["--inherit-fd", "5=-1"],
        &["--inherit-fd", "5=0", "--inherit-fd", "5=1"],
    ] {
        let output = rstr(args).output().unwrap();
        assert_eq!(code(&output), 125, "{args:?}: {}", err(&output));
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn help_is_status_0() {
    let output = rstr(&["--help"]).output().unwrap();
    assert_eq!(code(&output), 0);
}

#[test]
fn an_image_does_not_come_from_a_terminal() {
    let Ok(terminal) = File::options().read(true).write(true).open("/dev/ptmx") else {
        eprintln!("there is no terminal to test with");
        return;
    };
    let output = rstr(&[]).stdin(terminal).output().unwrap();
    assert_eq!(code(&output), 125);
    assert!(err(&output).starts_with("rstr: an image does not come from a terminal"));
}

#[test]
fn a_missing_image_is_named() {
    let output = rstr(&["-i", "/nonexistent/image"]).output().unwrap();
    assert_eq!(code(&output), 125);
    assert!(
        err(&output).starts_with("rstr: cannot open /nonexistent/image"),
        "{}",
        err(&output)
    );
}

#[test]
fn a_missing_descriptor_is_named() {
    let output = rstr(&["--inherit-fd", "5=999"]).output().unwrap();
    assert_eq!(code(&output), 125);
    assert!(err(&output).contains("descriptor 999"), "{}", err(&output));
}

#[test]
fn the_tree_is_told_of_its_standard_input() {
    let output = rstr(&[]).output().unwrap();
    assert!(
        err(&output).starts_with("rstr: standard input holds the image"),
        "{}",
        err(&output)
    );
    let output = rstr(&["-q"]).output().unwrap();
    assert!(
        !err(&output).contains("standard input holds"),
        "{}",
        err(&output)
    );
    assert_ne!(code(&output), 0);
}

/// Every option that `--help` shows is in the man page.
#[test]
fn the_man_page_has_every_option() {
    let page = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../Documentation/man/rstr.1"
    );
    let page = std::fs::read_to_string(page).unwrap().replace('\\', "");
    for args in [&["--help"][..]] {
        let help = rstr(args).output().unwrap();
        let help = String::from_utf8(help.stdout).unwrap();
        let options = help
            .split(|c: char| !(c.is_ascii_lowercase() || c == '-'))
            .filter(|word| word.starts_with("--") && word.len() > 2);
        for option in options {
            assert!(page.contains(option), "{option} is missing in the man page");
        }
    }
}
