// SPDX-License-Identifier: GPL-2.0

//! Working directory, root and umask.

use selftests::prelude::*;
use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::ExitCode;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("working-directory", working_directory),
        Case::new("deep-working-directory", deep_working_directory),
        Case::new("umask", umask),
        Case::new("root", root),
    ],
    ..Suite::new("fs")
};

fn main() -> ExitCode {
    SUITE.main()
}

fn working_directory(v: &Victim) -> Result<()> {
    let dir = v.path("here");
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("relative"), "found")?;
    env::set_current_dir(&dir)?;
    v.stand()?;
    same("working directory", dir, env::current_dir()?)?;
    same(
        "file by a relative path",
        "found",
        fs::read_to_string("relative")?,
    )?;
    fs::write("made", "")?;
    ensure!(
        v.path("here/made").exists(),
        "a relative path leads elsewhere"
    );
    Ok(())
}

fn deep_working_directory(v: &Victim) -> Result<()> {
    let mut dir = v.path("deep");
    for _ in 0..15 {
        dir.push("b".repeat(200));
    }
    fs::create_dir_all(&dir)?;
    env::set_current_dir(&dir)?;
    v.stand()?;
    same("working directory", dir, env::current_dir()?)
}

/// The umask as it acts.
fn umask(v: &Victim) -> Result<()> {
    // SAFETY: no memory is involved.
    unsafe { libc::umask(0o137) };
    v.stand()?;
    let path = v.path("made");
    let _ = fs::remove_file(&path);
    fs::write(&path, "")?;
    let mode = fs::metadata(&path)?.permissions().mode() & 0o777;
    same("mode of a new file", 0o640, mode)?;
    // SAFETY: no memory is involved.
    same("umask", 0o137, unsafe { libc::umask(0) })
}

fn root(v: &Victim) -> Result<()> {
    let before = fs::read_link("/proc/self/root")?;
    v.stand()?;
    same("root", before, fs::read_link("/proc/self/root")?)?;
    ensure!(
        fs::metadata(v.path("."))?.is_dir(),
        "absolute paths lead elsewhere"
    );
    Ok(())
}
