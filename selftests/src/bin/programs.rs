// SPDX-License-Identifier: GPL-2.0

//! Programs of Debian as they are: checkpointed at work, killed, restarted, and their output compared
//! with that of a run that nobody disturbed.

use selftests::prelude::*;
use selftests::sys::cvt;
use selftests::{
    Bench,
    NumbersThatFollow,
    Tool, //
};
use std::ffi::CString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{
    Path,
    PathBuf, //
};
use std::process::{
    Child,
    Command,
    ExitCode,
    Stdio, //
};

const SUITE: Suite = Suite {
    customs: &[
        Custom {
            name: "python-multiprocessing",
            run: |b| goes_on(b, &MULTIPROCESSING),
        },
        Custom {
            name: "make",
            run: |b| goes_on(b, &MAKE),
        },
        Custom {
            name: "java",
            run: |b| goes_on(b, &JAVA),
        },
        Custom {
            name: "node",
            run: |b| goes_on(b, &NODE),
        },
    ],
    // The numbers that follow are those of one program.
    jobs: 1,
    ..Suite::new("programs")
};

fn main() -> ExitCode {
    SUITE.main()
}

const DEBIAN: &str = "/debian";
const LIMIT: Duration = Duration::from_secs(120);

/// A program, which writes to standard output and to files of its directory.
struct Program {
    /// What has to be there for it.
    needs: &'static str,
    /// Files of its directory, made before.
    files: fn(&Path) -> Result<()>,
    /// A command for the shell.
    command: &'static str,
    /// The file that tells that it works: it is checkpointed when it is there.
    works: &'static str,
}

/// Workers that compute, and talk to their parent by pipes.
const MULTIPROCESSING: Program = Program {
    needs: "/usr/bin/python3",
    files: |dir| {
        let script = "import hashlib, multiprocessing, os\n\
            def work(number, requests, answers):\n\
            \x20   data = bytes([number])\n\
            \x20   while (step := requests.recv()) is not None:\n\
            \x20       for _ in range(400):\n\
            \x20           data = hashlib.sha256(data).digest()\n\
            \x20       answers.send((number, step, data.hex()))\n\
            if __name__ == '__main__':\n\
            \x20   workers = []\n\
            \x20   for number in range(4):\n\
            \x20       from_parent, requests = multiprocessing.Pipe(False)\n\
            \x20       answers, to_parent = multiprocessing.Pipe(False)\n\
            \x20       worker = multiprocessing.Process(target=work, args=(number, from_parent, to_parent))\n\
            \x20       worker.start()\n\
            \x20       workers.append((worker, requests, answers))\n\
            \x20   for step in range(120):\n\
            \x20       for _, requests, _ in workers:\n\
            \x20           requests.send(step)\n\
            \x20       for _, _, answers in workers:\n\
            \x20           print(*answers.recv(), flush=True)\n\
            \x20       if step == 10:\n\
            \x20           open('works', 'w').close()\n\
            \x20   for worker, requests, _ in workers:\n\
            \x20       requests.send(None)\n\
            \x20       worker.join()\n\
            \x20       print('ended with', worker.exitcode)\n";
        Ok(fs::write(dir.join("program.py"), script)?)
    },
    command: "exec python3 program.py",
    works: "works",
};

/// Four compilers at a time, and a program that says what they made.
const MAKE: Program = Program {
    needs: "/usr/bin/make",
    files: |dir| {
        let mut objects = String::new();
        let mut main = String::from("#include <stdio.h>\n");
        let mut calls = String::new();
        for n in 0..24 {
            let code = format!(
                "#include <stdlib.h>\n#include <string.h>\n\
                 int f{n}(void) {{ return {n} * abs(-3) + (int)strlen(\"{n}\"); }}\n"
            );
            fs::write(dir.join(format!("f{n}.c")), code)?;
            objects += &format!(" f{n}.o");
            main += &format!("int f{n}(void);\n");
            calls += &format!("\tprintf(\"%d\\n\", f{n}());\n");
        }
        main += &format!("int main(void)\n{{\n{calls}\treturn 0;\n}}\n");
        fs::write(dir.join("main.c"), main)?;
        let makefile = format!(
            "all: program\n\t./program\n\
             program: main.o{objects}\n\ttcc -o $@ $^\n\
             %.o: %.c\n\ttcc -c -o $@ $<\n\ttouch works\n"
        );
        Ok(fs::write(dir.join("Makefile"), makefile)?)
    },
    // Which compiler ends first is chance.
    command: "make -j4 --jobserver-style=pipe -s",
    works: "works",
};

/// A pool of threads of a Java virtual machine.
const JAVA: Program = Program {
    needs: "/usr/bin/java",
    files: |dir| {
        let source = "import java.util.*;\nimport java.util.concurrent.*;\n\
            public class Program {\n\
            \x20   static long work(long n) {\n\
            \x20       for (int i = 0; i < 200000; i++) n = n * 6364136223846793005L + 1442695040888963407L;\n\
            \x20       return n;\n\
            \x20   }\n\
            \x20   public static void main(String[] args) throws Exception {\n\
            \x20       ExecutorService pool = Executors.newFixedThreadPool(4);\n\
            \x20       for (int step = 0; step < 60; step++) {\n\
            \x20           List<Future<Long>> all = new ArrayList<>();\n\
            \x20           for (int n = 0; n < 8; n++) {\n\
            \x20               final long seed = step * 8 + n;\n\
            \x20               all.add(pool.submit(() -> work(seed)));\n\
            \x20           }\n\
            \x20           long sum = 0;\n\
            \x20           for (Future<Long> one : all) sum += one.get();\n\
            \x20           System.out.println(step + \" \" + sum);\n\
            \x20           if (step == 5) new java.io.File(\"works\").createNewFile();\n\
            \x20           Thread.sleep(20);\n\
            \x20       }\n\
            \x20       pool.shutdown();\n\
            \x20   }\n\
            }\n";
        Ok(fs::write(dir.join("Program.java"), source)?)
    },
    command: "exec java Program.java",
    works: "works",
};

/// The event loop of Node, with its pool of threads.
const NODE: Program = Program {
    needs: "/usr/bin/node",
    files: |dir| {
        let source = "const crypto = require('crypto');\nconst fs = require('fs');\n\
            const hash = (text) => new Promise((good, bad) => crypto.pbkdf2(text, 'salt', 2000, 16, 'sha256',\n\
            \x20   (err, key) => err ? bad(err) : good(key.toString('hex'))));\n\
            const pause = (ms) => new Promise((done) => setTimeout(done, ms));\n\
            (async () => {\n\
            \x20   for (let step = 0; step < 60; step++) {\n\
            \x20       const all = await Promise.all([0, 1, 2, 3].map((n) => hash(`${step} ${n}`)));\n\
            \x20       fs.writeSync(1, `${step} ${all.join(' ')}\\n`);\n\
            \x20       if (step == 5) fs.writeFileSync('works', '');\n\
            \x20       await pause(20);\n\
            \x20   }\n\
            })();\n";
        Ok(fs::write(dir.join("program.js"), source)?)
    },
    command: "exec node program.js",
    works: "works",
};

/// Debian's root as it is seen from here, with the kernel's file systems in it.
fn debian() -> Result<()> {
    if !Path::new(DEBIAN).join("bin/sh").exists() {
        return skip("there is no Debian");
    }
    if Path::new(DEBIAN).join("proc/self").exists() {
        return Ok(());
    }
    for dir in ["/proc", "/sys", "/dev", "/tmp", "/scratch"] {
        let to = format!("{DEBIAN}{dir}");
        fs::create_dir_all(&to)?;
        let (from, to) = (CString::new(dir)?, CString::new(to)?);
        // SAFETY: the names are C strings, the other arguments are not looked at.
        cvt(unsafe {
            libc::mount(
                from.as_ptr(),
                to.as_ptr(),
                c"none".as_ptr(),
                libc::MS_BIND | libc::MS_REC,
                std::ptr::null(),
            )
        })
        .with_context(|| format!("mount {dir}"))?;
    }
    Ok(())
}

/// What runs in Debian.
fn inside(mut command: Command, dir: PathBuf) -> Result<Command> {
    let (root, dir) = (
        CString::new(DEBIAN)?,
        CString::new(dir.as_os_str().as_encoded_bytes())?,
    );
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", "/");
    // SAFETY: the calls are async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            cvt(libc::chroot(root.as_ptr()))?;
            cvt(libc::chdir(dir.as_ptr()))?;
            cvt(libc::setsid()).map(drop)
        });
    }
    Ok(command)
}

fn start(program: &Program, dir: &Path) -> Result<Child> {
    fs::create_dir_all(dir)?;
    (program.files)(dir)?;
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(program.command);
    let log = fs::File::create(dir.join("log"))?;
    command
        .stdin(Stdio::null())
        .stdout(fs::File::create(dir.join("output"))?)
        .stderr(log);
    Ok(inside(command, dir.to_owned())?.spawn()?)
}

/// A tool in Debian, which is where the program's files are.
fn tool(name: &str, dir: &Path) -> Result<Command> {
    let copy = dir.join(name);
    fs::copy(Tool::path(name), &copy)?;
    let mut command = Command::new(copy);
    command.stdin(Stdio::null());
    inside(command, dir.to_owned())
}

fn ends(mut child: Child, what: &str, dir: &Path) -> Result<()> {
    let begin = Instant::now();
    while child.try_wait()?.is_none() {
        if begin.elapsed() > LIMIT {
            child.kill()?;
            bail!("{what} does not end");
        }
        sys::nap(Duration::from_millis(20));
    }
    let status = child.wait()?;
    let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
    ensure!(status.success(), "{what} ended with {status}: {log}");
    Ok(())
}

fn goes_on(b: &Bench<'_>, program: &Program) -> Result<()> {
    debian()?;
    if !Path::new(DEBIAN).join(&program.needs[1..]).exists() {
        return skip(format!("there is no {}", program.needs));
    }
    let undisturbed = b.path("undisturbed");
    ends(start(program, &undisturbed)?, "the program", &undisturbed)?;

    let dir = b.path("restarted");
    let numbers = NumbersThatFollow::choose();
    let mut child = start(program, &dir)?;
    let works = || dir.join(program.works).exists();
    ensure!(sys::until(LIMIT, works), "the program does not work");
    let begin = Instant::now();
    // Now and then one of its processes is where it cannot be saved, as between vfork and exec.
    loop {
        let output = tool("ckpt", &dir)?
            .args(["--kill", "-o", "image", &child.id().to_string()])
            .output()?;
        if output.status.success() {
            break;
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(
            begin.elapsed() < LIMIT / 4 && child.try_wait()?.is_none(),
            "ckpt: {}",
            said.trim()
        );
    }
    child.wait()?;
    drop(numbers);
    let rstr = tool("rstr", &dir)?
        .args(["--files=truncate", "-i", "image"])
        .stdout(Stdio::null())
        .stderr(fs::File::create(dir.join("log"))?)
        .spawn()?;
    ends(rstr, "the restarted program", &dir)?;
    let output = |dir: &Path| fs::read_to_string(dir.join("output"));
    same("output", output(&undisturbed)?, output(&dir)?)
}
