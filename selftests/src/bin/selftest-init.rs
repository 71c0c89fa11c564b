// SPDX-License-Identifier: GPL-2.0

//! The first process of the test guest.
//!
//! The kernel command line says what to do: `ckpt.mode=test|demo|shell|bench`, `ckpt.boot=1|2`, and
//! optionally `ckpt.filter=GLOB[,GLOB ...]`, `ckpt.long=1`, `ckpt.modes=MODES`, `ckpt.digits=N` and
//! `ckpt.bench=OPTION`. The console of the kernel is the first serial port; results go to the
//! second.

use anyhow::{
    bail,
    Context,
    Result, //
};
use selftests::{
    sys,
    Outcome,
    Reporter,
    Task,
    Tool, //
};
use std::env;
use std::ffi::{
    CString,
    OsString, //
};
use std::fs::{
    self,
    File,
    OpenOptions, //
};
use std::io::{
    self,
    BufRead,
    BufReader,
    Write, //
};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{
    chroot,
    PermissionsExt, //
};
use std::os::unix::process::{
    CommandExt,
    ExitStatusExt, //
};
use std::path::{
    Path,
    PathBuf, //
};
use std::process::{
    Child,
    Command,
    ExitStatus,
    Stdio, //
};
use std::ptr;
use std::sync::mpsc::{
    self,
    RecvTimeoutError, //
};
use std::sync::Mutex;
use std::thread;
use std::time::{
    Duration,
    Instant, //
};

const RESULTS: &str = "/dev/ttyS1";
const PROGRAMS: &str = "/selftests";
const SCRATCH: &str = "/scratch";
const DEBIAN: &str = "/debian";

/// What programs do not run beside others, nor in a pid namespace of their own: they look at the whole
/// machine, or change it.
const ALONE: &[&str] = &[
    "aio",
    "fanotify",
    "hold",
    "hugetlb",
    "io_uring",
    "leftovers",
    "madvise",
    "oom",
    "refusal",
    "scale",
    "scope",
    "swap",
];

/// What takes longest, and begins first so that the others go by meanwhile.
const LONGEST: &[&str] = &["programs", "transfer"];

/// The arguments with which a program gets a pid namespace of its own, and its first process.
const APART: &str = "--apart";
const FIRST: &str = "--first";

fn main() {
    let args: Vec<_> = env::args_os().collect();
    let result = match args.get(1).and_then(|arg| arg.to_str()) {
        Some(APART) => apart(&args[2..]),
        Some(FIRST) => first(&args[2..]),
        _ => return init(),
    };
    std::process::exit(result.unwrap_or_else(|e| {
        println!("# {e:#}");
        1
    }));
}

fn init() {
    if let Err(e) = run() {
        eprintln!("selftest-init: {e:#}");
        // The results end without their plan fulfilled, which fails the run.
        if let Ok(mut results) = OpenOptions::new().write(true).open(RESULTS) {
            let _ = writeln!(results, "Bail out! {e:#}");
        }
    }
    power_off();
}

fn run() -> Result<()> {
    // Programs need a session to be in; the kernel gives its first process none.
    // SAFETY: no memory is involved.
    sys::cvt(unsafe { libc::setsid() }).context("setsid")?;
    mount_all()?;
    let options = Options::read()?;
    match options.mode.as_str() {
        "bench" => return bench(&options),
        _ => mount("/dev/vdb", SCRATCH, "ext4", 0)?,
    }
    match options.mode.as_str() {
        "test" => test(&options),
        "demo" => demo(&options),
        "shell" => shell(),
        mode => bail!("unknown ckpt.mode={mode}"),
    }
}

/// What the kernel command line asks for.
struct Options {
    mode: String,
    boot: u32,
    filter: Option<String>,
    long: bool,
    modes: Option<String>,
    digits: u32,
    bench: Vec<String>,
}

impl Options {
    fn read() -> Result<Self> {
        Self::parse(&fs::read_to_string("/proc/cmdline")?)
    }

    fn parse(line: &str) -> Result<Self> {
        let values = |name: &'static str| {
            line.split_whitespace().filter_map(move |w| {
                w.strip_prefix("ckpt.")?
                    .strip_prefix(name)?
                    .strip_prefix('=')
            })
        };
        let value = |name| values(name).next();
        Ok(Self {
            mode: value("mode").unwrap_or("test").to_owned(),
            boot: value("boot").unwrap_or("1").parse().context("ckpt.boot")?,
            filter: value("filter").map(str::to_owned),
            long: value("long") == Some("1"),
            modes: value("modes").map(str::to_owned),
            digits: value("digits")
                .unwrap_or("5000")
                .parse()
                .context("ckpt.digits")?,
            bench: values("bench").map(str::to_owned).collect(),
        })
    }
}

fn mount(source: &str, target: &str, kind: &str, flags: libc::c_ulong) -> Result<()> {
    fs::create_dir_all(target).with_context(|| target.to_owned())?;
    let (source_c, target_c, kind_c) = (
        CString::new(source)?,
        CString::new(target)?,
        CString::new(kind)?,
    );
    // SAFETY: all are C strings, and these file systems need no data.
    let result = sys::cvt(unsafe {
        libc::mount(
            source_c.as_ptr(),
            target_c.as_ptr(),
            kind_c.as_ptr(),
            flags,
            ptr::null(),
        )
    });
    match result {
        // The kernel may have mounted devtmpfs by itself.
        Err(e) if e.raw_os_error() == Some(libc::EBUSY) => Ok(()),
        other => other
            .map(drop)
            .with_context(|| format!("mount {source} on {target}")),
    }
}

fn mount_all() -> Result<()> {
    mount("proc", "/proc", "proc", 0)?;
    mount("sysfs", "/sys", "sysfs", 0)?;
    mount("devtmpfs", "/dev", "devtmpfs", 0)?;
    mount("devpts", "/dev/pts", "devpts", 0)?;
    mount("tmpfs", "/dev/shm", "tmpfs", 0)?;
    mount("tmpfs", "/tmp", "tmpfs", 0)?;
    fs::set_permissions("/tmp", fs::Permissions::from_mode(0o1777))?;
    for (kind, target) in [
        ("cgroup2", "/sys/fs/cgroup"),
        ("debugfs", "/sys/kernel/debug"),
    ] {
        if Path::new(target).is_dir() {
            mount(kind, target, kind, 0)?;
        }
    }
    if Path::new("/dev/vda").exists() {
        mount("/dev/vda", DEBIAN, "ext4", 0)?;
    }
    // Room for high process numbers, which no boot uses by itself.
    fs::write("/proc/sys/kernel/pid_max", "4194304").context("pid_max")?;
    // Some tests fault on purpose; the console is for what the kernel did not expect.
    let _ = fs::write("/proc/sys/debug/exception-trace", "0");
    loopback_up()
}

/// Switches the loopback device on, without which there is no address to bind to.
fn loopback_up() -> Result<()> {
    // SAFETY: all zeroes is an ifreq, and the name fits.
    unsafe {
        let socket = sys::owned(libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0));
        // A kernel without network has no test that needs it.
        let Ok(socket) = socket else { return Ok(()) };
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[..2].copy_from_slice(&[b'l' as libc::c_char, b'o' as libc::c_char]);
        request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
        sys::cvt(libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS,
            &request,
        ))
        .context("lo")?;
    }
    Ok(())
}

fn power_off() -> ! {
    // SAFETY: signals every process but this one; then nothing of this process is needed.
    unsafe {
        libc::kill(-1, libc::SIGKILL);
        libc::sync();
        for target in ["/debian/scratch", DEBIAN, SCRATCH] {
            if let Ok(target) = CString::new(target) {
                libc::umount2(target.as_ptr(), libc::MNT_DETACH);
            }
        }
        libc::sync();
        libc::reboot(libc::RB_POWER_OFF);
    }
    loop {
        thread::sleep(Duration::from_secs(1));
    }
}

/// Opens the second serial port for lines that arrive as they are written.
fn results() -> Result<File> {
    let port = OpenOptions::new()
        .read(true)
        .write(true)
        .open(RESULTS)
        .context(RESULTS)?;
    // SAFETY: all zeroes is a termios, which tcgetattr fills.
    unsafe {
        let mut termios: libc::termios = std::mem::zeroed();
        if libc::tcgetattr(port.as_raw_fd(), &mut termios) == 0 {
            libc::cfmakeraw(&mut termios);
            libc::tcsetattr(port.as_raw_fd(), libc::TCSANOW, &termios);
        }
    }
    Ok(port)
}

/// Runs every program, then looks at what they left behind.
///
/// As many run at a time as there are processors, each with a pid namespace and terminals of its own:
/// the numbers of its victims are free when they come back.
fn test(options: &Options) -> Result<()> {
    let mut programs: Vec<_> = fs::read_dir(PROGRAMS)
        .context(PROGRAMS)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    programs.sort_by_cached_key(|name| (!LONGEST.contains(&name.as_str()), name.clone()));
    let leaks = Path::new("/sys/kernel/debug/kmemleak");
    let count = programs.len() + 2 + usize::from(leaks.exists());
    let mut ktap = Reporter::new(results()?, count)?;
    let mut left = Vec::new();
    // Without them every other test is skipped, which must not look like success.
    let missing: Vec<_> = ["ckpt", "rstr"]
        .into_iter()
        .filter(|t| !Tool::path(t).exists())
        .collect();
    let outcome = match missing.is_empty() {
        true => Outcome::Pass,
        false => Outcome::Fail(format!("missing: {}", missing.join(", "))),
    };
    ktap.result("tools-are-there", &outcome)?;

    let mut report = |program: Program| -> Result<()> {
        for line in &program.lines {
            ktap.line(line)?;
        }
        ktap.line(&format!("# {}: {} s", program.name, program.time.as_secs()))?;
        left.extend(program.left);
        Ok(ktap.result(&program.name, &program.outcome)?)
    };
    let (alone, others): (Vec<_>, Vec<_>) = programs
        .into_iter()
        .partition(|name| ALONE.contains(&name.as_str()));
    let queue = Mutex::new(others.into_iter());
    let (sender, ended) = mpsc::channel();
    thread::scope(|scope| -> Result<()> {
        for _ in 0..thread::available_parallelism()?.get() {
            let (sender, queue) = (sender.clone(), &queue);
            scope.spawn(move || loop {
                let next = queue.lock().unwrap_or_else(|e| e.into_inner()).next();
                let Some(name) = next else { break };
                if sender.send(Program::run(name, true, options)).is_err() {
                    break;
                }
            });
        }
        drop(sender);
        ended.iter().try_for_each(&mut report)
    })?;
    for name in alone {
        let mut program = Program::run(name, false, options);
        for task in left_behind()? {
            program
                .left
                .push(format!("{}: {}", program.name, name_of(&task)));
        }
        report(program)?;
    }

    let outcome = match left.is_empty() {
        true => Outcome::Pass,
        false => Outcome::Fail(left.join("\n")),
    };
    ktap.result("no-task-left-behind", &outcome)?;
    if leaks.exists() {
        let outcome = kmemleak(leaks).unwrap_or_else(failure);
        ktap.result("no-memory-leaked", &outcome)?;
    }
    Ok(())
}

fn failure(e: anyhow::Error) -> Outcome {
    Outcome::Fail(format!("{e:#}"))
}

/// Copies a program to the disk: what is mapped from it must be the same file after the next boot,
/// while the files of an initramfs are made anew.
fn on_disk(name: &str, boot: u32) -> Result<PathBuf> {
    let dir = Path::new(SCRATCH).join("bin");
    let to = dir.join(name);
    if boot == 1 {
        fs::create_dir_all(&dir)?;
        fs::copy(Path::new(PROGRAMS).join(name), &to).context("copy to the scratch disk")?;
    }
    Ok(to)
}

/// One program that has run.
struct Program {
    name: String,
    outcome: Outcome,
    /// Its results, one level deeper.
    lines: Vec<String>,
    /// Tasks that it left behind.
    left: Vec<String>,
    time: Duration,
}

impl Program {
    fn run(name: String, is_apart: bool, options: &Options) -> Self {
        let mut program = Self {
            name,
            outcome: Outcome::Pass,
            lines: Vec::new(),
            left: Vec::new(),
            time: Duration::ZERO,
        };
        let start = Instant::now();
        program.outcome = program.results(is_apart, options).unwrap_or_else(failure);
        program.time = start.elapsed();
        program
    }

    /// Runs it and sums up its results.
    fn results(&mut self, is_apart: bool, options: &Options) -> Result<Outcome> {
        // One test takes seconds; a program that has not said anything for so long hangs.
        let silence = Duration::from_secs(if options.long { 1800 } else { 420 });
        let path = on_disk(&self.name, options.boot)?;
        let mut command = match is_apart {
            true => Command::new("/proc/self/exe"),
            false => Command::new(&path),
        };
        if is_apart {
            command.arg(APART).arg(&path);
        }
        command.args(["--boot", &options.boot.to_string()]);
        if let Some(filter) = &options.filter {
            command.args(["--filter", filter]);
        }
        command.args(options.long.then_some("--long"));
        if let Some(modes) = &options.modes {
            command.args(["--modes", modes]);
        }
        let mut child = command
            .current_dir(SCRATCH)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", self.name))?;
        let lines = reader(&mut child)?;
        let (mut planned, mut passed, mut failed) = (None, 0, 0);
        let status = loop {
            match lines.recv_timeout(silence) {
                Ok(line) => {
                    if let Some(task) = line.strip_prefix(LEFT) {
                        self.left.push(format!("{}: {task}", self.name));
                        continue;
                    }
                    match line.split(' ').next() {
                        Some("ok") => passed += 1,
                        Some("not") => failed += 1,
                        Some(plan) if plan.starts_with("1..") => planned = plan[3..].parse().ok(),
                        _ => {}
                    }
                    self.lines.push(format!("    {line}"));
                }
                Err(RecvTimeoutError::Timeout) => {
                    child.kill()?;
                    child.wait()?;
                    bail!("silent for {silence:?}, killed");
                }
                Err(RecvTimeoutError::Disconnected) => break child.wait()?,
            }
        };
        match planned {
            Some(0) => Ok(Outcome::Skip("nothing selected".into())),
            Some(n) if n == passed && failed == 0 && status.success() => Ok(Outcome::Pass),
            Some(n) => Ok(Outcome::Fail(format!(
                "{passed} of {n} passed, {failed} failed, {status}"
            ))),
            None => Ok(Outcome::Fail(format!("no plan, {status}"))),
        }
    }
}

/// Begins a line about a task that a program apart has left behind.
const LEFT: &str = "# left task ";

fn name_of(task: &Task) -> String {
    format!("{} ({}) in state {}", task.pid, task.comm, task.state)
}

/// Runs a command in a pid namespace of its own, and returns its status.
fn apart(command: &[OsString]) -> Result<i32> {
    // SAFETY: no memory is involved.
    sys::cvt(unsafe { libc::unshare(libc::CLONE_NEWPID | libc::CLONE_NEWNS) })
        .context("unshare")?;
    let status = Command::new("/proc/self/exe")
        .arg(FIRST)
        .args(command)
        .status()?;
    Ok(status.code().unwrap_or(1))
}

/// The first process of a pid namespace: runs a command, buries its orphans, says what is left, and
/// returns its status. All that is left dies with this process.
fn first(command: &[OsString]) -> Result<i32> {
    let (program, args) = command.split_first().context("no command")?;
    // SAFETY: no memory is involved. Programs need a session to be in, and die with who waits for them.
    unsafe {
        sys::cvt(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
        sys::cvt(libc::setsid()).context("setsid")?;
    }
    mount("none", "/", "none", libc::MS_PRIVATE | libc::MS_REC)?;
    mount("proc", "/proc", "proc", 0)?;
    // Numbers of terminals have to be free as well.
    mount("devpts", "/dev/pts", "devpts", 0)?;
    let mut child = Command::new(program).args(args).spawn()?;
    let status = reap(&mut child)?;
    for task in left_behind()? {
        println!("{LEFT}{}", name_of(&task));
    }
    Ok(status.code().unwrap_or(1))
}

/// The lines of a child, from a thread of their own.
fn reader(child: &mut Child) -> Result<mpsc::Receiver<String>> {
    let stdout = child.stdout.take().context("the output is a pipe")?;
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(io::Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    Ok(lines)
}

/// Waits for a child, and buries the orphans that have come to the first process meanwhile.
fn reap(child: &mut Child) -> Result<ExitStatus> {
    let status = child.wait()?;
    bury();
    Ok(status)
}

fn bury() {
    // SAFETY: no status is asked for.
    while unsafe { libc::waitpid(-1, ptr::null_mut(), libc::WNOHANG) } > 0 {}
}

/// Processes other than the first one; they are killed after they are listed.
fn left_behind() -> Result<Vec<Task>> {
    bury();
    let mut left = selftests::tasks()?;
    left.retain(|task| task.pid != 1);
    if !left.is_empty() {
        // SAFETY: signals every process but this one.
        unsafe { libc::kill(-1, libc::SIGKILL) };
        sys::until(Duration::from_secs(10), || {
            bury();
            selftests::tasks().is_ok_and(|tasks| tasks.len() <= 1)
        });
    }
    Ok(left)
}

/// Two scans, as the first one only marks what is new.
fn kmemleak(control: &Path) -> Result<Outcome> {
    for _ in 0..2 {
        // Objects are reported once they are some seconds old.
        thread::sleep(Duration::from_secs(6));
        fs::write(control, "scan").context("kmemleak")?;
    }
    let report = fs::read_to_string(control).context("kmemleak")?;
    Ok(match report.trim() {
        "" => Outcome::Pass,
        report => Outcome::Fail(report.to_owned()),
    })
}

/// Runs the benchmark.
fn bench(options: &Options) -> Result<()> {
    for name in ["bench", "ckpt", "rstr"] {
        fs::copy(Path::new("/bin").join(name), Path::new("/tmp").join(name))
            .with_context(|| format!("copy {name}"))?;
    }
    let mut out = results()?;
    switch_root()?;
    let bench = Command::new("/tmp/bench")
        .arg("run")
        .args(&options.bench)
        .env("PATH", "/tmp:/usr/sbin:/usr/bin:/sbin:/bin")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .spawn()
        .context("bench")?;
    // Whoever loses its parent comes here, and its number is taken until it is waited for.
    let status = loop {
        let mut status = 0;
        // SAFETY: `status` is valid for writing.
        if sys::cvt(unsafe { libc::waitpid(-1, &mut status, 0) })? == bench.id() as i32 {
            break ExitStatus::from_raw(status);
        }
    };
    writeln!(out, "bench ended: {status}")?;
    Ok(())
}

/// Makes Debian's file system the root of the mount namespace: CRIU wants the tree, and itself, to
/// have that for their root directory.
fn switch_root() -> Result<()> {
    for dir in ["/proc", "/sys", "/dev", "/tmp"] {
        mount(dir, &format!("{DEBIAN}{dir}"), "none", libc::MS_MOVE)?;
    }
    std::env::set_current_dir(DEBIAN)?;
    mount(".", "/", "none", libc::MS_MOVE)?;
    chroot(".")?;
    std::env::set_current_dir("/")?;
    Ok(())
}

/// A shell on the console.
fn shell() -> Result<()> {
    if Path::new("/debian/bin/sh").exists() {
        enter_debian()?;
    }
    let console = |write| {
        OpenOptions::new()
            .read(true)
            .write(write)
            .open("/dev/ttyS0")
    };
    let mut command = Command::new("/bin/sh");
    command
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin:/scratch/bin")
        .env("HOME", "/root")
        .env("TERM", "vt100")
        .current_dir("/")
        .stdin(console(false)?)
        .stdout(console(true)?)
        .stderr(console(true)?);
    // SAFETY: both calls are async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            sys::cvt(libc::setsid())?;
            sys::cvt(libc::ioctl(0, libc::TIOCSCTTY, 0)).map(drop)
        });
    }
    let mut shell = command.spawn().context("there is no shell")?;
    reap(&mut shell)?;
    Ok(())
}

/// Makes Debian's file system the root, with the kernel's file systems, the scratch disk and the
/// tools in it.
fn enter_debian() -> Result<()> {
    let tools = Path::new(SCRATCH).join("bin");
    fs::create_dir_all(&tools)?;
    for name in ["ckpt", "rstr"] {
        let from = Path::new("/bin").join(name);
        if from.exists() {
            fs::copy(&from, tools.join(name)).with_context(|| format!("copy {name}"))?;
        }
    }
    for dir in ["/proc", "/sys", "/dev", "/tmp", SCRATCH] {
        mount(
            dir,
            &format!("{DEBIAN}{dir}"),
            "none",
            libc::MS_BIND | libc::MS_REC,
        )?;
    }
    chroot(DEBIAN).context(DEBIAN)?;
    std::env::set_current_dir("/")?;
    Ok(())
}

const PI: &str = "/scratch/demo/pi.py";
const DIGITS: &str = "/scratch/demo/pi.txt";
const CONTROL: &str = "/scratch/demo/pi-control.txt";
const IMAGE: &str = "/scratch/demo/pi.img";
const PID: &str = "/scratch/demo/pid";

/// The guest's half of the demonstration: one boot of two.
fn demo(options: &Options) -> Result<()> {
    let mut out = results()?;
    let mut say = |text: String| {
        println!("demo: {text}");
        writeln!(out, "demo: {text}")
    };
    enter_debian()?;
    let outcome = match options.boot {
        1 => first_boot(options.digits, &mut say),
        _ => second_boot(options.digits, &mut say),
    };
    match outcome {
        Ok(()) => say(format!("boot {}: ok", options.boot))?,
        Err(e) => say(format!("boot {}: FAILED: {e:#}", options.boot))?,
    }
    Ok(())
}

/// Starts the computation, a plain python3 program.
fn start_pi(digits: u32, to: &str) -> Result<Child> {
    let log = File::create(format!("{to}.log"))?;
    let mut command = Command::new("/usr/bin/python3");
    command
        .args([PI, to, &digits.to_string()])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    // SAFETY: setsid(2) is async-signal-safe.
    unsafe {
        command.pre_exec(|| sys::cvt(libc::setsid()).map(drop));
    }
    command.spawn().context("start python3")
}

/// Number of digits in the file so far.
fn digits_in(path: &str) -> usize {
    fs::read(path).map_or(0, |text| text.iter().filter(|b| b.is_ascii_digit()).count())
}

/// Waits until there are so many digits.
fn wait_for_digits(path: &str, digits: usize, child: &mut Child) -> Result<()> {
    while digits_in(path) < digits {
        if let Some(status) = child.try_wait()? {
            let log = fs::read_to_string(format!("{path}.log")).unwrap_or_default();
            bail!(
                "python3 ended with {status} after {} digits: {log}",
                digits_in(path)
            );
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Runs a tool of the scratch disk; both its streams are files.
fn tool(name: &str, args: &[&str], stdin: Stdio, stdout: Stdio) -> Result<(Child, PathBuf)> {
    let said = PathBuf::from(format!("/scratch/demo/{name}.err"));
    let child = Command::new(format!("/scratch/bin/{name}"))
        .args(args)
        .stdin(stdin)
        .stdout(stdout)
        .stderr(File::create(&said)?)
        .spawn()
        .with_context(|| format!("start {name}"))?;
    Ok((child, said))
}

fn first_boot(digits: u32, say: &mut impl FnMut(String) -> io::Result<()>) -> Result<()> {
    fs::create_dir_all("/scratch/demo")?;
    fs::write(PI, include_str!("../../demo/pi.py"))?;
    let whole = digits as usize;

    say(format!(
        "python3 computes {digits} digits of pi, once undisturbed and once not"
    ))?;
    let begin = Instant::now();
    let mut control = start_pi(digits, CONTROL)?;
    // A number that no process has after a boot.
    fs::write("/proc/sys/kernel/ns_last_pid", "31415")?;
    let mut pi = start_pi(digits, DIGITS)?;
    fs::write("/proc/sys/kernel/ns_last_pid", "500")?;
    let pid = pi.id();
    fs::write(PID, pid.to_string())?;
    say(format!("started as process {pid}"))?;

    wait_for_digits(DIGITS, whole * 2 / 5, &mut pi)?;
    let at = digits_in(DIGITS);
    let begun = Instant::now();
    let (mut ckpt, said) = tool(
        "ckpt",
        &[&pid.to_string()],
        Stdio::null(),
        File::create(IMAGE)?.into(),
    )?;
    let status = ckpt.wait()?;
    let took = begun.elapsed();
    let said = fs::read_to_string(said)?;
    for line in said.lines() {
        say(format!("ckpt: {line}"))?;
    }
    if !status.success() {
        bail!("ckpt: {status}");
    }
    let size = fs::metadata(IMAGE)?.len();
    say(format!(
        "checkpoint at about {at} digits: {size} bytes of image, ckpt took {took:.2?}"
    ))?;

    wait_for_digits(DIGITS, digits_in(DIGITS) + whole / 10, &mut pi)?;
    sys::kill(pid as i32, libc::SIGKILL)?;
    pi.wait()?;
    say(format!(
        "it went on to {} digits and was killed with SIGKILL",
        digits_in(DIGITS)
    ))?;

    let status = control.wait()?;
    if !status.success() {
        bail!("the undisturbed run ended with {status}");
    }
    let all = digits_in(CONTROL);
    say(format!(
        "the undisturbed run wrote {all} digits, {:.1?} after the start",
        begin.elapsed()
    ))?;
    // SAFETY: no memory is involved.
    unsafe { libc::sync() };
    say("powering off".into())?;
    Ok(())
}

fn second_boot(digits: u32, say: &mut impl FnMut(String) -> io::Result<()>) -> Result<()> {
    let pid: i32 = fs::read_to_string(PID)
        .context("the first boot left no process number")?
        .parse()?;
    let before = digits_in(DIGITS);
    say(format!(
        "a new boot; {before} digits are in the file, no process {pid}"
    ))?;
    if let Some(task) = Task::read(pid) {
        bail!("process number {pid} is taken by {}", task.comm);
    }
    let begin = Instant::now();
    let (mut rstr, said) = tool(
        "rstr",
        &["--files=truncate"],
        File::open(IMAGE)?.into(),
        Stdio::null(),
    )?;
    let mut ended = None;
    // Restarted is when rstr says so: the number has a task before, and the file is cut back late.
    let running = sys::until(Duration::from_secs(120), || {
        ended = rstr.try_wait().ok().flatten();
        ended.is_some() || fs::read_to_string(&said).is_ok_and(|said| said.contains("goes on"))
    });
    let took = begin.elapsed();
    let at = digits_in(DIGITS);
    if let (true, None) = (running, ended) {
        say(format!(
            "restarted as process {pid} in {took:.2?}, goes on at {at} digits"
        ))?;
    }
    let status = match ended {
        Some(status) => status,
        None => rstr.wait()?,
    };
    for line in fs::read_to_string(said)?.lines() {
        say(format!("rstr: {line}"))?;
    }
    if !status.success() {
        bail!("rstr: {status}");
    }
    say(format!(
        "it ended with status 0 after {:.1?}",
        begin.elapsed()
    ))?;
    let (whole, control) = (fs::read(DIGITS)?, fs::read(CONTROL)?);
    let count = digits_in(DIGITS);
    if count < digits as usize {
        bail!("only {count} of {digits} digits");
    }
    if let Some(at) = whole.iter().zip(&control).position(|(a, b)| a != b) {
        bail!("the digits differ at byte {at}");
    }
    if whole.len() != control.len() {
        bail!(
            "{} bytes, the undisturbed run has {}",
            whole.len(),
            control.len()
        );
    }
    say(format!(
        "{count} digits, byte for byte those of the undisturbed run"
    ))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_understood() {
        let options = Options::parse("console=ttyS0 ckpt.mode=demo ckpt.boot=2 ckpt.filter=mem*\n");
        let options = options.expect("a good command line");
        assert_eq!((options.mode.as_str(), options.boot), ("demo", 2));
        assert_eq!(options.filter.as_deref(), Some("mem*"));
        assert!(!options.long);
        assert!(Options::parse("ckpt.boot=two").is_err());
    }
}
