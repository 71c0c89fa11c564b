// SPDX-License-Identifier: GPL-2.0 OR MIT

//! ckpt as a user meets it, as far as no kernel with checkpoint(2) is needed.

use std::{
    fs::{
        self,
        File, //
    },
    io::Write,
    path::{
        Path,
        PathBuf, //
    },
    process::{
        Command,
        Output,
        Stdio, //
    },
    thread, //
};

use checkpoint::compress::Compressor;

fn ckpt(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ckpt"));
    command.args(args).stdin(Stdio::null());
    command
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../image/tests/golden")
        .join(name)
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Gives `input` to ckpt on standard input.
fn fed(args: &[&str], input: Vec<u8>) -> Output {
    let mut child = ckpt(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = thread::spawn(move || {
        // It need not read what comes after a defect.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

#[test]
fn wrong_usage_is_status_2() {
    for args in [
        &[][..],
        &["0"],
        &["-5"],
        &["python3"],
        &["1", "2"],
        &["--kill", "--stop", "1"],
        &["--check", "-o", "x", "1"],
        &["--timeout", "0", "1"],
        &["--timeout", "never", "1"],
        &["show"],
    ] {
        let output = ckpt(args).output().unwrap();
        assert_eq!(code(&output), 2, "{args:?}: {}", err(&output));
        assert!(!output.stderr.is_empty());
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn help_is_status_0() {
    let output = ckpt(&["--help"]).output().unwrap();
    assert_eq!(code(&output), 0);
    assert!(out(&output).contains("Exit status"));
}

#[test]
fn an_image_does_not_go_to_a_terminal() {
    let Ok(terminal) = File::options().read(true).write(true).open("/dev/ptmx") else {
        eprintln!("there is no terminal to test with");
        return;
    };
    let output = ckpt(&["1"]).stdout(terminal).output().unwrap();
    assert_eq!(code(&output), 2);
    assert!(err(&output).starts_with("ckpt: an image does not go to a terminal"));
}

#[test]
fn a_missing_process_is_named() {
    // Above every possible number.
    let output = ckpt(&["1073741823"]).output().unwrap();
    assert_eq!(code(&output), 1);
    assert!(
        err(&output).starts_with("ckpt: process 1073741823: "),
        "{}",
        err(&output)
    );
}

#[test]
fn a_failed_checkpoint_leaves_no_file() {
    let folder = std::env::temp_dir().join(format!("ckpt-cli-{}", std::process::id()));
    fs::create_dir(&folder).unwrap();
    let image = folder.join("image");
    fs::write(&image, "older").unwrap();
    // The caller itself is in no tree that can be saved.
    let me = std::process::id().to_string();
    let output = ckpt(&["-o", path(&image), &me]).output().unwrap();
    assert_eq!(code(&output), 1);
    let names: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names, ["image"]);
    assert_eq!(fs::read_to_string(&image).unwrap(), "older");
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn golden_images_are_good() {
    for name in ["v1-minimal.img", "v1-tree.img"] {
        let image = golden(name);
        let output = ckpt(&["verify", path(&image)]).output().unwrap();
        assert_eq!(code(&output), 0, "{}", err(&output));
        assert!(out(&output).contains("good"));
        let output = fed(&["verify", "-q", "-"], fs::read(&image).unwrap());
        assert_eq!(code(&output), 0);
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn show_has_tree_memory_and_files() {
    let output = ckpt(&["show", path(&golden("v1-tree.img"))])
        .output()
        .unwrap();
    assert_eq!(code(&output), 0);
    let text = out(&output);
    for part in [
        "Linux 7.3.4",
        "100 python3  pgid 100, sid 90 (outside), 2 threads",
        "    101 python3",
        "000000400000-000000404000 r-xp",
        "[stack]",
        "/home/käfer/pi.txt  append at 4711 of 4711",
        "/dev/pts/0  tty, to be supplied",
        "pipe 6  read, 8 bytes in it",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
}

#[test]
fn a_compressed_image_shows_as_it_is() {
    let image = golden("v1-tree.img");
    let file = std::env::temp_dir().join(format!("ckpt-cli-{}.lz4", std::process::id()));
    let compressor = Compressor::start(File::create(&file).unwrap().into()).unwrap();
    let stream = compressor.stream().try_clone_to_owned().unwrap();
    File::from(stream)
        .write_all(&fs::read(&image).unwrap())
        .unwrap();
    compressor.finish().unwrap();
    let compressed = fs::read(&file).unwrap();
    assert!(compressed.len() < fs::read(&image).unwrap().len());

    let expected = ckpt(&["show", path(&image)]).output().unwrap();
    for output in [
        ckpt(&["show", path(&file)]).output().unwrap(),
        fed(&["show", "-"], compressed.clone()),
    ] {
        assert_eq!((code(&output), out(&output)), (0, out(&expected)));
    }
    let half = compressed[..compressed.len() / 2].to_vec();
    let output = fed(&["verify", "-"], half);
    assert_eq!(code(&output), 3, "{}", err(&output));
    fs::remove_file(file).unwrap();
}

#[test]
fn show_as_json_has_every_record() {
    let output = ckpt(&["show", "--json", path(&golden("v1-tree.img"))])
        .output()
        .unwrap();
    assert_eq!(code(&output), 0);
    let image: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(image["complete"], true);
    assert_eq!(image["tasks"], 4);
    let records = image["records"].as_array().unwrap();
    let find = |kind: &str| {
        records
            .iter()
            .find(|record| record["record"] == kind)
            .unwrap()
    };
    assert_eq!(find("Machine")["strings"][1], "node");
    assert_eq!(find("FileExternal")["kind"], 1);
    assert_eq!(find("Files")["items"][4]["flags"][0], "CLOEXEC");
    assert_eq!(find("Pipe")["data"], "6162636465666768");
    assert_eq!(find("Registers")["orig_rax"], u64::MAX);
    assert_eq!(find("Task")["comm"], "python3");
    assert_eq!(find("Process")["exit_signal"], 17);
    assert_eq!(find("Task")["mask"][0], 3);
    assert_eq!(image["memory"][2]["extents"][1][0], 0x50_2000);
}

#[test]
fn defects_are_status_3_and_told_apart() {
    let good = fs::read(golden("v1-tree.img")).unwrap();
    let mut flipped = good.clone();
    flipped[1000] ^= 4;
    let mut page = good.clone();
    page[good.len() - 500] ^= 4;
    let more = [&good[..], b"x"].concat();
    for (image, words) in [
        (vec![], "the image is empty"),
        (b"\x7fELF\x02\x01".to_vec(), "not a checkpoint image"),
        (good[..40].to_vec(), "the image is truncated"),
        (
            good[..2000].to_vec(),
            "the image is truncated: it ends at byte 2000",
        ),
        (good[..good.len() - 1].to_vec(), "the image is truncated"),
        (flipped, "the image is damaged"),
        (page, "checksum of the pages does not match"),
        (more, "something follows the trailer"),
    ] {
        let output = fed(&["verify", "-"], image);
        assert_eq!(code(&output), 3, "{words}");
        let said = err(&output);
        assert!(said.starts_with("ckpt: standard input: "), "{said}");
        assert!(said.contains(words), "{words} is missing in {said}");
        assert_eq!(said.lines().count(), 1);
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_defect_in_the_pages_leaves_the_plan_to_be_shown() {
    let mut image = fs::read(golden("v1-tree.img")).unwrap();
    let at = image.len() - 500;
    image[at] ^= 4;
    let output = fed(&["show", "-"], image);
    assert_eq!(code(&output), 3);
    assert!(out(&output).contains("100 python3"));
    assert!(out(&output).contains("defective"));
}

#[test]
fn a_missing_image_is_status_1() {
    let output = ckpt(&["show", "/nonexistent/image"]).output().unwrap();
    assert_eq!(code(&output), 1);
    assert!(err(&output).contains("/nonexistent/image"));
}

/// Every option that `--help` shows is in the man page.
#[test]
fn the_man_page_has_every_option() {
    let page = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../Documentation/man/ckpt.1"
    );
    let page = std::fs::read_to_string(page).unwrap().replace('\\', "");
    for args in [&["--help"][..], &["show", "--help"], &["verify", "--help"]] {
        let help = ckpt(args).output().unwrap();
        let help = String::from_utf8(help.stdout).unwrap();
        let options = help
            .split(|c: char| !(c.is_ascii_lowercase() || c == '-'))
            .filter(|word| word.starts_with("--") && word.len() > 2);
        for option in options {
            assert!(page.contains(option), "{option} is missing in the man page");
        }
    }
}
