// SPDX-License-Identifier: GPL-2.0

//! Small wrappers of system calls, among them checkpoint(2), which no C library knows.

use crate::skip;
use crate::tool::{
    Process,
    LIMIT, //
};
use anyhow::{
    bail,
    ensure,
    Result, //
};
use std::ffi::CString;
use std::fs;
use std::io;
use std::mem;
use std::os::fd::{
    AsRawFd,
    FromRawFd,
    OwnedFd,
    RawFd, //
};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{
    Path,
    PathBuf, //
};
use std::ptr;
use std::time::{
    Duration,
    Instant, //
};

/// Turns the return value of a C library function into a result.
pub fn cvt<T: From<i8> + PartialEq>(ret: T) -> io::Result<T> {
    if ret == T::from(-1) {
        Err(io::Error::last_os_error())
    } else {
        Ok(ret)
    }
}

/// Takes ownership of a descriptor that a C library function returned.
pub fn owned(ret: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: `cvt` lets only descriptors pass, and the caller has just got it.
    cvt(ret).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The error of the last system call.
pub fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// A timespec of `duration`.
pub fn timespec(duration: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: duration.as_secs() as libc::time_t,
        tv_nsec: libc::c_long::from(duration.subsec_nanos() as i32),
    }
}

/// One nanosleep(2), without a loop around it.
pub fn nap(duration: Duration) {
    let request = timespec(duration);
    // SAFETY: `request` is valid; the remaining time is not asked for.
    unsafe { libc::nanosleep(&request, ptr::null_mut()) };
}

/// Whether the kernel checks each access of its own to memory, which makes it slow, and keeps freed memory
/// back.
pub fn has_kasan() -> Result<bool> {
    Ok(std::fs::read_to_string("/proc/kallsyms")?.contains(" kasan_quarantine_put\n"))
}

/// A wait for something that says nothing when it happens: looks often at first, and more and more rarely,
/// as each look takes time from others.
pub struct Wait(Instant);

impl Wait {
    /// It begins now.
    pub fn begin() -> Self {
        Self(Instant::now())
    }

    /// How long it has taken.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    /// Naps until the next look.
    pub fn nap(&self) {
        nap((self.elapsed() / 8).clamp(Duration::from_millis(2), Duration::from_millis(50)));
    }
}

/// Waits until `done`, at most for `limit`. Returns whether it was.
pub fn until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let wait = Wait::begin();
    loop {
        if done() {
            return true;
        }
        if wait.elapsed() > limit {
            return false;
        }
        wait.nap();
    }
}

/// Reads a clock.
pub fn clock(id: libc::clockid_t) -> Result<Duration> {
    // SAFETY: all zeroes is a timespec.
    let mut now: libc::timespec = unsafe { mem::zeroed() };
    // SAFETY: `now` is valid for writing.
    cvt(unsafe { libc::clock_gettime(id, &mut now) })?;
    Ok(Duration::new(now.tv_sec as u64, now.tv_nsec as u32))
}

/// Uses so much CPU time, most of it in user mode.
pub fn burn(time: Duration) -> Result<()> {
    burn_by(libc::CLOCK_THREAD_CPUTIME_ID, time)
}

/// As [`burn`], until `id`, a clock of CPU time, has gone on so far.
pub fn burn_by(id: libc::clockid_t, time: Duration) -> Result<()> {
    let begin = clock(id)?;
    while clock(id)?.saturating_sub(begin) < time {
        for _ in 0..20_000 {
            std::hint::black_box(0);
        }
    }
    Ok(())
}

/// A pipe as (read end, write end).
pub fn pipe(flags: libc::c_int) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: `fds` has room for two descriptors.
    cvt(unsafe { libc::pipe2(fds.as_mut_ptr(), flags) })?;
    Ok((owned(fds[0])?, owned(fds[1])?))
}

/// open(2) with any flags.
pub fn open(path: &Path, flags: libc::c_int) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: `path` is a C string.
    owned(unsafe { libc::open(path.as_ptr(), flags, 0o644) })
}

/// Makes `fd` descriptor `number` of what is executed next.
pub fn give(fd: RawFd, number: RawFd) -> io::Result<()> {
    // SAFETY: no memory is involved.
    cvt(unsafe {
        if fd == number {
            libc::fcntl(fd, libc::F_SETFD, 0)
        } else {
            libc::dup2(fd, number)
        }
    })
    .map(drop)
}

/// mkfifo(3), for the owner.
pub fn mkfifo(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: `path` is a C string.
    cvt(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }).map(drop)
}

/// fcntl(2) with an integer argument.
pub fn fcntl(fd: &impl AsRawFd, cmd: libc::c_int, arg: libc::c_int) -> io::Result<libc::c_int> {
    // SAFETY: only commands with an integer argument are used here.
    cvt(unsafe { libc::fcntl(fd.as_raw_fd(), cmd, arg) })
}

/// read(2).
pub fn read(fd: &impl AsRawFd, buf: &mut [u8]) -> io::Result<usize> {
    // SAFETY: `buf` is valid for writing.
    cvt(unsafe { libc::read(fd.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len()) })
        .map(|n| n as usize)
}

/// write(2).
pub fn write(fd: &impl AsRawFd, buf: &[u8]) -> io::Result<usize> {
    // SAFETY: `buf` is valid for reading.
    cvt(unsafe { libc::write(fd.as_raw_fd(), buf.as_ptr().cast(), buf.len()) }).map(|n| n as usize)
}

/// lseek(2).
pub fn seek(fd: &impl AsRawFd, offset: i64, whence: libc::c_int) -> io::Result<i64> {
    // SAFETY: no memory is involved.
    cvt(unsafe { libc::lseek(fd.as_raw_fd(), offset, whence) })
}

/// Whether two results of a system call are the error `errno`.
pub fn fails_with<T>(result: io::Result<T>, errno: i32) -> bool {
    matches!(result, Err(e) if e.raw_os_error() == Some(errno))
}

/// Whether `addr` can be read, asked of the kernel instead of risking SIGSEGV.
pub fn readable(addr: *const u8) -> Result<bool> {
    let (_r, w) = pipe(libc::O_CLOEXEC)?;
    // SAFETY: write(2) answers EFAULT where `addr` is not readable.
    match cvt(unsafe { libc::write(w.as_raw_fd(), addr.cast(), 1) }) {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::EFAULT) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Whether `addr` can be written. Its byte is zero afterwards if so.
pub fn writable(addr: *mut u8) -> Result<bool> {
    let zero = fs::File::open("/dev/zero")?;
    // SAFETY: read(2) answers EFAULT where `addr` is not writable; the caller gives up the byte.
    match cvt(unsafe { libc::read(zero.as_raw_fd(), addr.cast(), 1) }) {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::EFAULT) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Runs `child` in a forked process and returns its wait status.
pub fn forked(child: impl FnOnce() -> i32) -> Result<libc::c_int> {
    use std::os::unix::process::ExitStatusExt;
    // Victims have one thread, so the child may do anything.
    let status = Process::fork(child)?.wait(LIMIT)?;
    Ok(status.into_raw())
}

/// clone(2) with a stack of its own, which stays. A child that shares memory must be content with
/// what does not use thread-local storage, unless its parent waits for it.
pub fn clone<T: Sync>(
    flags: libc::c_int,
    child: extern "C" fn(*mut libc::c_void) -> libc::c_int,
    arg: &T,
) -> Result<i32> {
    let arg = ptr::from_ref(arg).cast_mut().cast();
    let stack = Area::anon(
        256 << 10,
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE,
    )?;
    // SAFETY: the stack is a mapping of its own, and grows downwards from its end.
    let pid = cvt(unsafe { libc::clone(child, stack.addr.add(stack.len).cast(), flags, arg) })?;
    Ok(pid)
}

/// A file in memory.
pub fn memfd(name: &str, flags: u32) -> Result<OwnedFd> {
    let name = CString::new(name)?;
    // SAFETY: `name` is a string.
    Ok(owned(unsafe { libc::memfd_create(name.as_ptr(), flags) })?)
}

/// A file system in memory that goes away with the test.
pub struct Tmpfs(CString);

impl Tmpfs {
    /// Mounts one with options as mount(8) takes them, at a directory that is made for it.
    pub fn mount(path: &Path, options: &str) -> Result<Self> {
        fs::create_dir_all(path)?;
        let target = CString::new(path.as_os_str().as_bytes())?;
        let (kind, options) = (c"tmpfs".as_ptr(), CString::new(options)?);
        // SAFETY: all are C strings.
        cvt(unsafe { libc::mount(kind, target.as_ptr(), kind, 0, options.as_ptr().cast()) })?;
        Ok(Self(target))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // SAFETY: the target is a C string.
        unsafe { libc::umount2(self.0.as_ptr(), libc::MNT_DETACH) };
    }
}

/// Free blocks of the file system that `path` is in.
pub fn free_blocks(path: &Path) -> Result<u64> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: all zeroes is valid for a struct of numbers.
    let mut stat: libc::statvfs = unsafe { mem::zeroed() };
    // SAFETY: `path` is a C string, and `stat` is valid for writes.
    cvt(unsafe { libc::statvfs(path.as_ptr(), &mut stat) })?;
    Ok(stat.f_bfree)
}

/// Moves this process to a memory cgroup of its own, `NAME-PID`.
pub fn enter_cgroup(name: &str) -> Result<PathBuf> {
    let root = PathBuf::from("/sys/fs/cgroup");
    if fs::write(root.join("cgroup.subtree_control"), "+memory").is_err() {
        return skip("there is no memory cgroup");
    }
    let group = root.join(format!("{name}-{}", getpid()));
    match fs::create_dir(&group) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e.into()),
        _ => {}
    }
    fs::write(group.join("cgroup.procs"), "0")?;
    Ok(group)
}

/// A memory mapping that stays until the process ends.
#[derive(Clone, Copy)]
pub struct Area {
    /// First byte.
    pub addr: *mut u8,
    /// Length in bytes.
    pub len: usize,
}

impl Area {
    /// mmap(2) of anonymous memory, `flags` in addition to MAP_ANONYMOUS.
    pub fn anon(len: usize, prot: libc::c_int, flags: libc::c_int) -> Result<Self> {
        Self::map(len, prot, flags | libc::MAP_ANONYMOUS, -1, 0)
    }

    /// mmap(2).
    pub fn map(
        len: usize,
        prot: libc::c_int,
        flags: libc::c_int,
        fd: RawFd,
        offset: i64,
    ) -> Result<Self> {
        // SAFETY: the kernel chooses an address that is free.
        let addr = unsafe { libc::mmap(ptr::null_mut(), len, prot, flags, fd, offset) };
        if addr == libc::MAP_FAILED {
            bail!("mmap of {len} bytes: {}", io::Error::last_os_error());
        }
        Ok(Self {
            addr: addr.cast(),
            len,
        })
    }

    /// mprotect(2) of a part.
    pub fn protect(&self, at: usize, len: usize, prot: libc::c_int) -> io::Result<()> {
        assert!(at + len <= self.len);
        // SAFETY: the part is inside of this mapping, which nothing else refers to.
        cvt(unsafe { libc::mprotect(self.addr.add(at).cast(), len, prot) }).map(drop)
    }

    /// The bytes; they must be readable and writable.
    pub fn bytes(&self) -> &'static mut [u8] {
        // SAFETY: the mapping lives as long as the process, and victims have one thread and do not
        // hold two slices of one area across a write.
        unsafe { std::slice::from_raw_parts_mut(self.addr, self.len) }
    }

    /// Number of pages.
    pub fn pages(&self) -> usize {
        self.len / PAGE
    }

    /// Which pages are there, in memory or in swap.
    pub fn present(&self) -> Result<Vec<bool>> {
        use std::os::unix::fs::FileExt;
        let mut entries = vec![0; self.pages() * 8];
        let index = (self.addr as usize / PAGE * 8) as u64;
        fs::File::open("/proc/self/pagemap")?.read_exact_at(&mut entries, index)?;
        let present = |e: &[u8]| e[7] & 0xc0 != 0;
        Ok(entries.chunks_exact(8).map(present).collect())
    }
}

/// Size of a page on x86-64.
pub const PAGE: usize = 4096;

/// Bytes that tell every page, and every place in a page, from the others.
pub fn fill(bytes: &mut [u8], seed: u64) {
    for (i, word) in bytes.chunks_mut(8).enumerate() {
        let value = mix(seed, i as u64).to_le_bytes();
        word.copy_from_slice(&value[..word.len()]);
    }
}

/// Requires what [`fill`] wrote.
pub fn verify(what: &str, bytes: &[u8], seed: u64) -> Result<()> {
    for (i, word) in bytes.chunks(8).enumerate() {
        let value = mix(seed, i as u64).to_le_bytes();
        if word != &value[..word.len()] {
            bail!(
                "{what}: byte {}: expected {:x?}, is {word:x?}",
                i * 8,
                &value[..word.len()]
            );
        }
    }
    Ok(())
}

/// A copy of a descriptor, for the calls of the standard library.
pub fn file(fd: &OwnedFd) -> Result<fs::File> {
    Ok(fd.try_clone()?.into())
}

/// Writes `len` bytes as [`fill`] makes them to the start of a file.
pub fn fill_file(fd: &OwnedFd, len: usize, seed: u64) -> Result<()> {
    let mut bytes = vec![0; len];
    fill(&mut bytes, seed);
    Ok(file(fd)?.write_all_at(&bytes, 0)?)
}

/// Requires that a file has what [`fill_file`] wrote, and no more.
pub fn verify_file(what: &str, fd: &OwnedFd, len: usize, seed: u64) -> Result<()> {
    let file = file(fd)?;
    let size = file.metadata()?.len();
    ensure!(size == len as u64, "{what}: {size} bytes instead of {len}");
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0)?;
    verify(what, &bytes, seed)
}

/// Sends a byte to somebody who answers with the next one.
pub fn answers(to: &OwnedFd, from: &OwnedFd, byte: u8) -> Result<()> {
    write(to, &[byte])?;
    let mut answer = [0];
    let len = read(from, &mut answer)?;
    ensure!(
        len == 1 && answer[0] == byte + 1,
        "answer to {byte}: {len} bytes, {answer:?}"
    );
    Ok(())
}

fn mix(seed: u64, i: u64) -> u64 {
    let x = (seed << 32 ^ i)
        .wrapping_add(1)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (x ^ x >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) | 1
}

/// All links of /proc/self/fd, by number.
pub fn descriptors() -> Result<Vec<(RawFd, String)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let path = entry?.path();
        // The descriptor of the listing itself is closed by now or has no stable number.
        if let (Some(n), Ok(to)) = (
            path.file_name().and_then(|n| n.to_str()),
            fs::read_link(&path),
        ) {
            let to = to.display().to_string();
            if !to.ends_with("/fd") {
                all.push((n.parse()?, to));
            }
        }
    }
    all.sort();
    Ok(all)
}

/// checkpoint(2), number 473 on x86-64.
pub mod checkpoint {
    use super::*;

    const NR: libc::c_long = 473;

    /// Only stop the tree; returns a hold descriptor.
    pub const HOLD: u64 = 1 << 0;
    /// The target is a hold descriptor.
    pub const HELD: u64 = 1 << 1;
    /// Write no image, only list what blocks one.
    pub const CHECK: u64 = 1 << 2;
    /// The process group of the target.
    pub const GROUP: u64 = 1 << 5;
    /// Its session.
    pub const SESSION: u64 = 1 << 6;
    /// Its pid namespace.
    pub const PID_NS: u64 = 1 << 7;
    /// The target is the directory of a cgroup.
    pub const CGROUP: u64 = 1 << 8;
    /// Kill the tree when its image is complete.
    pub const KILL: u64 = 1 << 10;

    const IOC_RENEW: libc::c_ulong = 0xcb00;
    const IOC_RELEASE: libc::c_ulong = 0xcb01;
    const IOC_KILL: libc::c_ulong = 0xcb02;
    const IOC_STOP: libc::c_ulong = 0xcb03;

    /// struct checkpoint_args, version 1.
    #[repr(C)]
    #[derive(Clone, Copy, Debug, Default)]
    pub struct Args {
        /// Flags of the call.
        pub flags: u64,
        /// pidfd of the root of the tree.
        pub target: i32,
        /// Stream of the image.
        pub fd: i32,
        /// Stream of the problems.
        pub log_fd: i32,
        /// How long to wait for all tasks to stand still.
        pub timeout_ms: u32,
        /// How long a hold lasts without being used.
        pub lease_ms: u32,
        /// Zero.
        pub reserved: u32,
        /// User pointer of the statistics.
        pub stats: u64,
        /// User pointer of what leads outside.
        pub external: u64,
        /// How much that is.
        pub nr_external: u32,
        /// Zero.
        pub reserved2: u32,
    }

    /// The system call; returns what the kernel returned.
    pub fn call(args: &Args, size: usize) -> io::Result<libc::c_long> {
        // SAFETY: `args` is valid for reading; sizes beyond it are refused before they are read
        // or are read from the zeroes that the tests put there.
        cvt(unsafe { libc::syscall(NR, ptr::from_ref(args), size) })
    }

    /// Whether the running kernel has the system call.
    pub fn exists() -> bool {
        !fails_with(call(&Args::default(), 0), libc::ENOSYS)
    }

    /// A tree that stands still.
    #[derive(Debug)]
    pub struct Hold(OwnedFd);

    impl Hold {
        /// Stops the tree below `pid` for at most `lease` without use.
        pub fn new(pid: i32, lease: Duration) -> io::Result<Self> {
            let target = pidfd(pid)?;
            let args = Args {
                flags: HOLD,
                target: target.as_raw_fd(),
                fd: -1,
                log_fd: -1,
                lease_ms: lease.as_millis() as u32,
                ..Args::default()
            };
            let fd = call(&args, mem::size_of::<Args>())?;
            Ok(Self(owned(fd as libc::c_int)?))
        }

        /// Asks what would be in the way of an image.
        pub fn check(&self) -> io::Result<()> {
            let args = Args {
                flags: HELD | CHECK,
                target: self.0.as_raw_fd(),
                fd: -1,
                log_fd: -1,
                ..Args::default()
            };
            call(&args, mem::size_of::<Args>()).map(drop)
        }

        fn op(&self, request: libc::c_ulong) -> io::Result<()> {
            // SAFETY: the requests take no argument.
            cvt(unsafe { libc::ioctl(self.0.as_raw_fd(), request, 0) }).map(drop)
        }

        /// Starts the lease anew.
        pub fn renew(&self) -> io::Result<()> {
            self.op(IOC_RENEW)
        }

        /// Lets the tree go on.
        pub fn release(&self) -> io::Result<()> {
            self.op(IOC_RELEASE)
        }

        /// Kills every task of the tree.
        pub fn kill(&self) -> io::Result<()> {
            self.op(IOC_KILL)
        }

        /// Leaves every process of the tree stopped, as by SIGSTOP.
        pub fn stop(&self) -> io::Result<()> {
            self.op(IOC_STOP)
        }

        /// The descriptor behind it.
        pub fn fd(&self) -> RawFd {
            self.0.as_raw_fd()
        }
    }
}

/// Gives up a capability for good, also for what this process executes.
pub fn give_up(capability: u32) -> io::Result<()> {
    let mut header = [0x2008_0522u32, 0];
    // Effective, permitted, inheritable; of the lower 32 capabilities, then of the others.
    let mut sets = [[0u32; 3]; 2];
    // SAFETY: header and sets have the layout of version 3.
    unsafe {
        cvt(libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0))?;
        cvt(libc::syscall(
            libc::SYS_capget,
            header.as_mut_ptr(),
            sets.as_mut_ptr(),
        ))?;
        for set in &mut sets[capability as usize / 32] {
            *set &= !(1 << (capability % 32));
        }
        cvt(libc::syscall(
            libc::SYS_capset,
            header.as_mut_ptr(),
            sets.as_ptr(),
        ))
        .map(drop)
    }
}

/// The number of this process.
pub fn getpid() -> i32 {
    // SAFETY: no memory is involved.
    unsafe { libc::getpid() }
}

/// The number of this thread.
pub fn gettid() -> i32 {
    // SAFETY: no memory is involved.
    unsafe { libc::gettid() }
}

/// A pidfd of a process.
pub fn pidfd(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: no memory is involved.
    let fd = cvt(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    owned(fd as libc::c_int)
}

/// kill(2).
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: no memory is involved.
    cvt(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// What a pending signal carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    /// si_signo.
    pub number: i32,
    /// si_code.
    pub code: i32,
    /// si_value of queued signals and timers.
    pub value: i32,
    /// si_timerid of timers.
    pub timer: i32,
    /// si_overrun of timers.
    pub overrun: i32,
}

/// Takes one of `signals`, which are blocked, or `None` when none comes within `limit`.
pub fn take_signal(signals: &[i32], limit: Duration) -> Result<Option<Signal>> {
    // struct siginfo, in words of 32 bits.
    let mut info = [0i32; 32];
    let (set, limit) = (sigset(signals), timespec(limit));
    // SAFETY: all three are valid, and the information has the size of a siginfo.
    match cvt(unsafe { libc::sigtimedwait(&set, info.as_mut_ptr().cast(), &limit) }) {
        Ok(number) => Ok(Some(Signal {
            number,
            code: info[2],
            timer: info[4],
            overrun: info[5],
            value: info[6],
        })),
        Err(e) if e.raw_os_error() == Some(libc::EAGAIN) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Signals that are pending, for this thread or the process.
pub fn pending() -> Result<Vec<i32>> {
    let mut set = sigset(&[]);
    // SAFETY: the set is valid for writing.
    cvt(unsafe { libc::sigpending(&mut set) })?;
    Ok(members(&set))
}

/// Installs a handler for `signal`.
pub fn handle(signal: i32, handler: extern "C" fn(i32), flags: i32) -> io::Result<()> {
    // SAFETY: all zeroes is a sigaction, and `handler` has the right type for the flags used here.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = handler as usize;
        action.sa_flags = flags;
        cvt(libc::sigaction(signal, &action, ptr::null_mut())).map(drop)
    }
}

/// A set of signals.
pub fn sigset(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: sigemptyset initialises the set, and the numbers are valid.
    unsafe {
        let mut set = mem::zeroed();
        libc::sigemptyset(&mut set);
        for &signal in signals {
            libc::sigaddset(&mut set, signal);
        }
        set
    }
}

/// Changes the signal mask and returns the old one as the list of its members.
pub fn mask(how: i32, signals: &[i32]) -> io::Result<Vec<i32>> {
    let mut old = sigset(&[]);
    // SAFETY: both sets are valid.
    cvt(unsafe { libc::sigprocmask(how, &sigset(signals), &mut old) })?;
    Ok(members(&old))
}

/// The members of a set of signals.
pub fn members(set: &libc::sigset_t) -> Vec<i32> {
    // SAFETY: `set` is valid and the numbers are in range.
    (1..=64)
        .filter(|&s| unsafe { libc::sigismember(set, s) } == 1)
        .collect()
}

/// Starts the interval timer `which`, to end in an hour.
pub fn start_hour(which: libc::c_int) -> Result<()> {
    let zero = libc::timeval {
        tv_sec: 0,
        tv_usec: 0,
    };
    let hour = libc::itimerval {
        it_interval: zero,
        it_value: libc::timeval {
            tv_sec: 3600,
            tv_usec: 0,
        },
    };
    // SAFETY: the times are valid.
    cvt(unsafe { libc::setitimer(which, &hour, ptr::null_mut()) })?;
    Ok(())
}

/// Checks that the interval timer `which` still runs, and that most of its hour is left.
pub fn check_hour(which: libc::c_int) -> Result<()> {
    // SAFETY: all zeroes is an itimerval, valid for writing.
    let left = unsafe {
        let mut left: libc::itimerval = mem::zeroed();
        cvt(libc::getitimer(which, &mut left))?;
        left.it_value.tv_sec
    };
    ensure!(
        (3000..=3600).contains(&left),
        "{left} s are left of an hour"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_pattern_is_found() {
        let mut bytes = vec![0; 1003];
        fill(&mut bytes, 7);
        verify("intact", &bytes, 7).expect("what was filled verifies");
        assert!(verify("other seed", &bytes, 8).is_err());
        for at in [0, 500, 1002] {
            bytes[at] ^= 0x10;
            assert!(verify("flipped", &bytes, 7).is_err());
            bytes[at] ^= 0x10;
        }
    }

    #[test]
    fn protection_is_asked_of_the_kernel() {
        let area = Area::anon(PAGE, libc::PROT_READ, libc::MAP_PRIVATE).expect("a page");
        assert!(readable(area.addr).expect("pipe"));
        assert!(!writable(area.addr).expect("/dev/zero"));
    }
}
