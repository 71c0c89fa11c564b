// SPDX-License-Identifier: GPL-2.0
//! A boot of the guest in QEMU.
//!
//! The first serial port carries the kernel's log into a file, the second one what the guest's init reports.

use crate::config::Flavour;
use crate::context::Context;
use crate::files;
use crate::process;
use crate::ui;
use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use clap::ValueEnum;
use serde::Deserialize;
use serde::Serialize;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::mpsc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::Duration;
use std::time::Instant;

const QEMU: &str = "qemu-system-x86_64";

/// MiB of memory that the tests need.
pub const MEMORY: u32 = 3072;

/// How long the probe of KVM may take.
const PROBE_LIMIT: Duration = Duration::from_secs(10);

/// What the guest sees as its processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Cpu {
    /// All that QEMU can do.
    Max,
    /// A processor without XSAVE: only FXSAVE for the extended state.
    Fxsr,
}

/// What the guest's init does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Runs the selftests.
    Test,
    /// Plays the guest's half of the demonstration.
    Demo,
    /// Runs the benchmark.
    Bench,
    /// Gives the user a shell on the first serial port.
    Shell,
}

/// How the guest's processors run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Two of them, as fast as the host can.
    Free,
    /// One, emulated; each instruction takes a nanosecond of the guest's time, and sleeping takes no time of the host's.
    Counted,
}

/// Everything that one boot needs.
pub struct Boot<'a> {
    /// Which kernel `kernel` is.
    pub flavour: Flavour,
    /// The bzImage.
    pub kernel: &'a Path,
    /// The initramfs.
    pub initramfs: &'a Path,
    /// Debian's root file system; it is not changed.
    pub debian: &'a Path,
    /// The disk that outlives the boot, if it has one.
    pub scratch: Option<&'a Path>,
    /// How its processors run.
    pub pace: Pace,
    /// MiB of memory.
    pub memory: u32,
    /// The processor.
    pub cpu: Cpu,
    /// What init does.
    pub mode: Mode,
    /// 1 or 2.
    pub number: u32,
    /// Words that are added to the kernel's command line.
    pub append: Vec<String>,
    /// The guest is ended after this time.
    pub limit: Duration,
}

/// How a boot ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The guest switched itself off.
    ByItself,
    /// It had to be ended.
    TimedOut,
}

impl Boot<'_> {
    /// The kernel's log of the boot.
    pub fn console(&self, ctx: &Context) -> PathBuf {
        ctx.log(&format!("console-{}-{}", self.flavour.name(), self.number))
    }

    /// Runs the guest to its end; `on_line` gets each line that init reports.
    pub fn run(&self, ctx: &Context, mut on_line: impl FnMut(&str)) -> Result<Ended> {
        let console = self.console(ctx);
        files::remove(&console)?;
        let mut command = self.qemu(ctx)?;
        command.args(["-serial", &format!("file:{}", console.display()), "-serial", "stdio"]);
        let guest = spawn(command)?;
        let deadline = Instant::now() + self.limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match guest.lines.recv_timeout(left) {
                Ok(line) => on_line(&line),
                Err(RecvTimeoutError::Timeout) => return guest.kill(),
                Err(RecvTimeoutError::Disconnected) => return guest.wait(),
            }
        }
    }

    /// Runs the guest with the first serial port on the user's terminal.
    pub fn interactive(&self, ctx: &Context) -> Result<()> {
        let results = ctx.log("shell-results");
        let mut command = self.qemu(ctx)?;
        command.args(["-serial", "mon:stdio", "-serial", &format!("file:{}", results.display())]);
        ui::say("Ctrl-A X ends the guest");
        let status = command.status().with_context(|| format!("{QEMU}: cannot be run"))?;
        if !status.success() {
            bail!("{QEMU} failed ({status})");
        }
        Ok(())
    }

    fn qemu(&self, ctx: &Context) -> Result<Command> {
        let kvm = self.pace == Pace::Free && kvm_works(ctx, self.kernel)?;
        let cpu = match (self.cpu, kvm) {
            (Cpu::Max, true) => "max",
            // Emulated, these two copy a byte at a time.
            (Cpu::Max, false) => "max,-erms,-fsrm",
            (Cpu::Fxsr, _) => "qemu64",
        };
        let (accel, smp) = match self.pace {
            Pace::Free if kvm => ("kvm", "2"),
            Pace::Free => ("tcg,thread=multi", "2"),
            Pace::Counted => ("tcg,thread=single", "1"),
        };
        let mut command = qemu(accel, self.kernel);
        command.args(["-cpu", cpu, "-smp", smp, "-m", &self.memory.to_string(), "-initrd"]).arg(self.initramfs);
        if self.pace == Pace::Counted {
            command.args(["-icount", "shift=0,sleep=off"]);
        }
        for (disk, snapshot) in [(Some(self.debian), "on"), (self.scratch, "off")] {
            let Some(disk) = disk else { continue };
            let disk = disk.to_string_lossy().replace(',', ",,");
            command.arg("-drive").arg(format!("file={disk},format=raw,if=virtio,cache=unsafe,snapshot={snapshot}"));
        }
        command.args(["-device", "virtio-rng-pci", "-append", &self.command_line()]);
        Ok(command)
    }

    fn command_line(&self) -> String {
        let mode = match self.mode {
            Mode::Test => "test",
            Mode::Demo => "demo",
            Mode::Bench => "bench",
            Mode::Shell => "shell",
        };
        // The time limits of the kernel's watchdogs suit real processors; an emulated one may be slow, but not that slow.
        let mut words = vec![
            "console=ttyS0,115200 panic=-1 init_on_alloc=0 no_timer_check hugepages=16".to_owned(),
            "watchdog_thresh=60 rcupdate.rcu_cpu_stall_timeout=180 tsc=nowatchdog".to_owned(),
            format!("ckpt.mode={mode} ckpt.boot={}", self.number),
        ];
        if self.flavour == Flavour::Debug {
            // KASAN takes an interrupt that arrives while the kernel identifies the processor for a
            // wild access, as it goes by a flag for 5-level paging that is not set at that moment.
            words.push("acpi=noirq no5lvl".into());
        }
        words.extend(self.append.iter().cloned());
        words.join(" ")
    }
}

/// The part of the command line that all guests share.
fn qemu(accel: &str, kernel: &Path) -> Command {
    // QEMU goes when this process goes.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", QEMU, "-nodefaults", "-display", "none", "-monitor", "none", "-no-reboot"]);
    command.args(["-accel", accel, "-kernel"]).arg(kernel);
    command
}

struct Guest {
    child: Child,
    lines: mpsc::Receiver<String>,
    errors: thread::JoinHandle<String>,
}

fn spawn(mut command: Command) -> Result<Guest> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("{QEMU}: cannot be run"))?;
    let stdout = child.stdout.take().context("no standard output")?;
    let stderr = child.stderr.take().context("no standard error")?;
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || process::each_line(stdout, |line| sender.send(line).is_ok()));
    let errors = thread::spawn(move || std::io::read_to_string(stderr).unwrap_or_default());
    Ok(Guest { child, lines, errors })
}

impl Guest {
    fn kill(mut self) -> Result<Ended> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(Ended::TimedOut)
    }

    fn wait(mut self) -> Result<Ended> {
        let status = self.child.wait()?;
        if !status.success() {
            let errors = self.errors.join().unwrap_or_default();
            bail!("{QEMU} failed ({status}): {}", errors.lines().next().unwrap_or("no reason given"));
        }
        Ok(Ended::ByItself)
    }
}

/// What the probe of KVM found, good until the host boots again.
#[derive(PartialEq, Serialize, Deserialize)]
struct Probe {
    host_boot: String,
    works: bool,
}

/// Whether a guest boots under KVM; that the device exists says little where the host is itself a guest.
fn kvm_works(ctx: &Context, kernel: &Path) -> Result<bool> {
    if fs::File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return Ok(false);
    }
    let host_boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
    let stamp = ctx.work.join("kvm.json");
    if let Some(probe) = files::read_json::<Probe>(&stamp).filter(|probe| probe.host_boot == host_boot) {
        return Ok(probe.works);
    }
    // Without a root file system the kernel panics, and thereby ends the guest.
    let mut command = qemu("kvm", kernel);
    command.args(["-cpu", "max", "-m", "256", "-append", "console=ttyS0 panic=-1", "-serial", "stdio"]);
    let guest = spawn(command)?;
    let deadline = Instant::now() + PROBE_LIMIT;
    let mut panicked = false;
    let ended = loop {
        match guest.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => panicked |= line.contains("Kernel panic - not syncing: VFS"),
            Err(RecvTimeoutError::Timeout) => break guest.kill(),
            Err(RecvTimeoutError::Disconnected) => break guest.wait(),
        }
    };
    let works = panicked && ended.is_ok_and(|ended| ended == Ended::ByItself);
    ui::say(if works { "KVM works here" } else { "KVM does not work here: the guest is emulated" });
    files::write_json(&stamp, &Probe { host_boot, works })?;
    Ok(works)
}
