// SPDX-License-Identifier: GPL-2.0

//! What cannot be saved is refused by name, and the target goes on unharmed.
//!
//! When support for a resource lands, its victim moves to the program of that resource.

use libc::{
    MAP_PRIVATE,
    O_CLOEXEC,
    O_RDWR,
    PROT_READ,
    PROT_WRITE, //
};
use selftests::prelude::*;
use selftests::sys::{
    cvt,
    open,
    owned,
    Area, //
};
use selftests::{
    Bench,
    Process, //
};
use std::ffi::CString;
use std::fs;
use std::io;
use std::net::{
    TcpListener,
    TcpStream,
    UdpSocket, //
};
use std::os::fd::{
    AsRawFd,
    FromRawFd,
    OwnedFd, //
};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{
    Command,
    ExitCode,
    Stdio, //
};
use std::ptr;

const SUITE: Suite = Suite {
    refusals: &[
        Refusal::new("tcp", tcp, &["socket: AF_INET SOCK_STREAM"]),
        Refusal::new("udp", udp, &["socket: AF_INET SOCK_DGRAM"]),
        Refusal::new("netlink", netlink, &["socket: AF_NETLINK SOCK_RAW"]),
        Refusal::new("socket-mark", socket_mark, &["SO_MARK"]),
        Refusal::new("message-queue", message_queue, &["not reachable by a path"]),
        Refusal::new("userfaultfd", userfaultfd, &["userfaultfd"]),
        Refusal::new("sysv-shm", sysv_shm, &["sysv"]),
        Refusal::new("sysv-shm-made", sysv_shm_made, &["SysV shared memory"]),
        Refusal::new("semaphore-undo", semaphore_undo, &["SysV semaphore undo"]),
        Refusal::new("keyring", keyring, &["keyring"]),
        Refusal::new("device-memory", device_memory, &["device memory"]),
        Refusal::new("uts-namespace", uts_namespace, &["uts namespace"]),
        Refusal::new("user-namespace", user_namespace, &["user namespace"]),
        Refusal::new(
            "deleted-working-directory",
            deleted_working_directory,
            &["director"],
        ),
        Refusal::new("perf-event", perf_event, &["perf"]),
        Refusal::new("ldt", ldt, &["LDT"]),
        Refusal {
            case: Case::new("32-bit-call", call_of_32_bits)
                .settle(200)
                .wake(libc::SIGUSR1),
            expect: &["32-bit system call"],
        },
        Refusal::new("thread-area", thread_area, &["32-bit thread area"]),
        Refusal::new("io-ports", io_ports, &["I/O port permission"]),
        Refusal::new("cpuid", cpuid, &["ARCH_SET_CPUID"]),
        Refusal::new("speculation", speculation, &["PR_SET_SPECULATION_CTRL"]),
        Refusal::new("dnotify", dnotify, &["dnotify"]),
    ],
    customs: &[
        Custom {
            name: "ptraced",
            run: ptraced,
        },
        Custom {
            name: "tracer",
            run: tracer,
        },
        Custom {
            name: "another-root",
            run: another_root,
        },
        Custom {
            name: "another-users-process",
            run: another_users_process,
        },
        Custom {
            name: "kernel-thread",
            run: kernel_thread,
        },
        Custom {
            name: "32-bit-program",
            run: program_of_32_bits,
        },
        Custom {
            name: "no-such-process",
            run: no_such_process,
        },
        Custom {
            name: "several-blockers",
            run: several_blockers,
        },
        Custom {
            name: "nothing-to-refuse",
            run: nothing_to_refuse,
        },
        Custom {
            name: "image-kept",
            run: image_kept,
        },
    ],
    victims: &[
        Case::new("plain", |v| v.stand()),
        Case::new("several", several),
        Case::new("has-chrooted", has_chrooted).no_control(),
        Case::new("has-tracer", has_tracer).no_control(),
    ],
    ..Suite::new("refusal")
};

fn main() -> ExitCode {
    SUITE.main()
}

/// Names the descriptor that has to be refused and waits.
fn stand_with(v: &Victim, fd: &impl AsRawFd) -> Result<()> {
    v.ready_fd(fd.as_raw_fd())?;
    v.wait();
    Ok(())
}

/// A system call that returns a descriptor, or skips the test where the kernel lacks it.
fn descriptor(what: &str, ret: libc::c_long) -> Result<OwnedFd> {
    match cvt(ret) {
        // SAFETY: the system call has just returned the descriptor.
        Ok(fd) => Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) }),
        Err(e) => match e.raw_os_error() {
            Some(libc::ENOSYS | libc::EPERM | libc::EOPNOTSUPP | libc::ENODEV | libc::ENOENT) => {
                skip(format!("{what}: {e}"))
            }
            _ => Err(e).with_context(|| what.to_owned()),
        },
    }
}

fn tcp(v: &Victim) -> Result<()> {
    let listener = match TcpListener::bind("127.0.0.1:0") {
        Ok(listener) => listener,
        Err(e) => return skip(format!("no TCP: {e}")),
    };
    stand_with(v, &listener)?;
    // The loopback device may be down; the name is proof enough then.
    let address = listener.local_addr()?;
    if TcpStream::connect(address).is_ok() {
        listener.accept()?;
    }
    Ok(())
}

fn udp(v: &Victim) -> Result<()> {
    let socket = match UdpSocket::bind("127.0.0.1:0") {
        Ok(socket) => socket,
        Err(e) => return skip(format!("no UDP: {e}")),
    };
    let address = socket.local_addr()?;
    stand_with(v, &socket)?;
    same("address", address, socket.local_addr()?)
}

fn netlink(v: &Victim) -> Result<()> {
    // SAFETY: no memory is involved.
    let fd = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    let socket = descriptor("netlink", fd.into())?;
    stand_with(v, &socket)
}

fn socket_mark(v: &Victim) -> Result<()> {
    let socket = UnixDatagram::unbound()?;
    let mark = 5i32;
    // SAFETY: the mark is valid.
    cvt(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MARK,
            ptr::from_ref(&mark).cast(),
            size_of_val(&mark) as libc::socklen_t,
        )
    })?;
    stand_with(v, &socket)
}

fn message_queue(v: &Victim) -> Result<()> {
    // Another victim may run at the same time.
    let name = CString::new(format!("/selftest-{}", sys::getpid()))?;
    let flags = libc::O_CREAT | libc::O_CLOEXEC | O_RDWR;
    // SAFETY: the name is valid, and no attributes are given.
    let fd = unsafe { libc::mq_open(name.as_ptr(), flags, 0o600, ptr::null::<libc::mq_attr>()) };
    let queue = descriptor("message queue", fd.into())?;
    stand_with(v, &queue)?;
    // SAFETY: the name is valid.
    cvt(unsafe { libc::mq_unlink(name.as_ptr()) })?;
    Ok(())
}

fn dnotify(v: &Victim) -> Result<()> {
    const DN_RENAME: libc::c_int = 0x10;
    let path = v.path("watched");
    fs::create_dir_all(&path)?;
    let dir = open(&path, O_CLOEXEC)?;
    sys::fcntl(&dir, libc::F_NOTIFY, DN_RENAME)?;
    stand_with(v, &dir)
}

fn userfaultfd(v: &Victim) -> Result<()> {
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK | 1;
    // SAFETY: no memory is involved.
    let ret = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
    stand_with(v, &descriptor("userfaultfd", ret)?)
}

fn sysv_shm(v: &Victim) -> Result<()> {
    // SAFETY: no memory is involved.
    let id = unsafe { libc::shmget(libc::IPC_PRIVATE, sys::PAGE, 0o600) };
    let id = match cvt(id) {
        Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => return skip("no System V IPC"),
        id => id?,
    };
    // SAFETY: the kernel chooses the address; the segment goes away with its last user.
    let addr = unsafe {
        let addr = libc::shmat(id, ptr::null(), 0).cast::<u8>();
        libc::shmctl(id, libc::IPC_RMID, ptr::null_mut());
        ensure!(addr as isize != -1, "shmat: {}", io::Error::last_os_error());
        addr.write_volatile(9);
        addr
    };
    v.stand()?;
    // SAFETY: it is attached there.
    same("byte", 9, unsafe { addr.read_volatile() })
}

/// A segment that is not attached anywhere goes with who has made it.
fn sysv_shm_made(v: &Victim) -> Result<()> {
    // SAFETY: no memory is involved.
    let id = unsafe { libc::shmget(libc::IPC_PRIVATE, sys::PAGE, 0o600) };
    let id = match cvt(id) {
        Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => return skip("no System V IPC"),
        id => id?,
    };
    v.stand()?;
    // SAFETY: the command has no argument.
    cvt(unsafe { libc::shmctl(id, libc::IPC_RMID, ptr::null_mut()) })?;
    Ok(())
}

fn semaphore_undo(v: &Victim) -> Result<()> {
    // SAFETY: no memory is involved.
    let id = unsafe { libc::semget(libc::IPC_PRIVATE, 1, 0o600) };
    let id = match cvt(id) {
        Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => return skip("no System V IPC"),
        id => id?,
    };
    let mut up = libc::sembuf {
        sem_num: 0,
        sem_op: 1,
        sem_flg: libc::SEM_UNDO as libc::c_short,
    };
    // SAFETY: there is one operation; the commands have no argument.
    let value = unsafe {
        cvt(libc::semop(id, &mut up, 1))?;
        v.stand()?;
        let value = cvt(libc::semctl(id, 0, libc::GETVAL))?;
        cvt(libc::semctl(id, 0, libc::IPC_RMID))?;
        value
    };
    same("semaphore", 1, value)
}

/// A session keyring that the caller of ckpt does not have.
fn keyring(v: &Victim) -> Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: without a name there is no memory involved.
    let id = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, 0) };
    match cvt(id) {
        Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => return skip("no keyrings"),
        id => id?,
    };
    v.stand()
}

/// Memory of a PCI device, which is mapped and not touched.
fn device_memory(v: &Victim) -> Result<()> {
    let devices = match fs::read_dir("/sys/bus/pci/devices") {
        Ok(devices) => devices,
        Err(e) => return skip(format!("no PCI devices: {e}")),
    };
    for device in devices {
        let device = device?.path();
        for number in 0..6 {
            // Many have none, or one of I/O ports.
            let path = device.join(format!("resource{number}"));
            let Ok(fd) = open(&path, O_RDWR | O_CLOEXEC) else {
                continue;
            };
            let mapped = Area::map(sys::PAGE, PROT_READ, libc::MAP_SHARED, fd.as_raw_fd(), 0);
            if mapped.is_ok() {
                drop(fd);
                return v.stand();
            }
        }
    }
    skip("no PCI device has memory")
}

fn uts_namespace(v: &Victim) -> Result<()> {
    // SAFETY: no memory is involved.
    match cvt(unsafe { libc::unshare(libc::CLONE_NEWUTS) }) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => return skip("no uts namespaces"),
        other => other?,
    };
    // SAFETY: the name is valid.
    cvt(unsafe { libc::sethostname(c"elsewhere".as_ptr(), 9) })?;
    v.stand()?;
    same(
        "host name",
        "elsewhere",
        fs::read_to_string("/proc/sys/kernel/hostname")?.trim(),
    )
}

fn user_namespace(v: &Victim) -> Result<()> {
    // SAFETY: no memory is involved.
    match cvt(unsafe { libc::unshare(libc::CLONE_NEWUSER) }) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => return skip("no user namespaces"),
        other => other?,
    };
    v.stand()
}

fn deleted_working_directory(v: &Victim) -> Result<()> {
    let dir = v.path("here");
    fs::create_dir_all(&dir)?;
    std::env::set_current_dir(&dir)?;
    fs::remove_dir(&dir)?;
    v.stand()?;
    ensure!(
        std::env::current_dir().is_err(),
        "the directory is there again"
    );
    Ok(())
}

fn perf_event(v: &Victim) -> Result<()> {
    // struct perf_event_attr: PERF_TYPE_SOFTWARE, its size in the first version, PERF_COUNT_SW_DUMMY.
    let mut attr = [0u64; 8];
    attr[0] = 1 | 64 << 32;
    attr[1] = 9;
    // SAFETY: the attributes are valid.
    let ret = unsafe { libc::syscall(libc::SYS_perf_event_open, attr.as_ptr(), 0, -1, -1, 8) };
    stand_with(v, &descriptor("perf", ret)?)
}

/// struct user_desc: an entry with this number, of the first 64 KiB, as data.
fn descriptor_of_data(number: u32) -> [u32; 4] {
    const IN_USE_32_BIT_PRESENT: u32 = 1 | 1 << 6;
    [number, 0, 0xffff, IN_USE_32_BIT_PRESENT]
}

fn ldt(v: &Victim) -> Result<()> {
    const WRITE: libc::c_long = 1;
    let entry = descriptor_of_data(0);
    // SAFETY: the entry is valid, and nobody loads its selector.
    let ret = unsafe { libc::syscall(libc::SYS_modify_ldt, WRITE, entry.as_ptr(), 16) };
    match cvt(ret) {
        Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => return skip("no LDT"),
        other => other?,
    };
    v.stand()?;
    let mut table = [0u64; 1];
    // SAFETY: the table is valid for writing.
    let len = unsafe { libc::syscall(libc::SYS_modify_ldt, 0, table.as_mut_ptr(), 8) };
    ensure!(len == 8 && table[0] != 0, "the entry is gone: {len}");
    Ok(())
}

/// A system call of the 32-bit ABI with one argument, or an error where there is none.
fn int80(number: u32, argument: u32) -> Result<i32> {
    if !Path::new("/proc/sys/abi/vsyscall32").exists() {
        return skip("no 32-bit system calls");
    }
    let ret: u32;
    // SAFETY: the callers vouch for what the call does; rbx is put back.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {arg}",
            "int 0x80",
            "xchg rbx, {arg}",
            arg = inout(reg) u64::from(argument) => _,
            inlateout("eax") number => ret,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    Ok(ret as i32)
}

extern "C" fn nothing(_: i32) {}

/// It sleeps in pause() of the 32-bit ABI.
fn call_of_32_bits(v: &Victim) -> Result<()> {
    const PAUSE: u32 = 29;
    const GETPID: u32 = 20;
    sys::handle(libc::SIGUSR1, nothing, 0)?;
    same("getpid", sys::getpid(), int80(GETPID, 0)?)?;
    v.ready()?;
    same("pause", -libc::EINTR, int80(PAUSE, 0)?)?;
    v.woke()
}

fn thread_area(v: &Victim) -> Result<()> {
    const SET_THREAD_AREA: u32 = 243;
    let low = Area::anon(
        sys::PAGE,
        PROT_READ | PROT_WRITE,
        MAP_PRIVATE | libc::MAP_32BIT,
    )?;
    let entry = descriptor_of_data(!0);
    for (to, word) in low.bytes().chunks_exact_mut(4).zip(entry) {
        to.copy_from_slice(&word.to_ne_bytes());
    }
    same(
        "set_thread_area",
        0,
        int80(SET_THREAD_AREA, low.addr as u32)?,
    )?;
    v.stand()
}

fn io_ports(v: &Victim) -> Result<()> {
    // SAFETY: nobody uses the port.
    match cvt(unsafe { libc::ioperm(0x80, 1, 1) }) {
        Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => return skip("no I/O ports"),
        other => other?,
    };
    v.stand()
}

fn cpuid(v: &Victim) -> Result<()> {
    const ARCH_SET_CPUID: libc::c_long = 0x1012;
    // SAFETY: nobody uses the instruction before it is allowed again.
    if unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_SET_CPUID, 0) } != 0 {
        return skip("CPUID cannot be made to fault here");
    }
    v.stand()?;
    // SAFETY: as above.
    cvt(unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_SET_CPUID, 1) })?;
    Ok(())
}

fn speculation(v: &Victim) -> Result<()> {
    const PR_SET_SPECULATION_CTRL: i32 = 53;
    const STORE_BYPASS: libc::c_ulong = 0;
    const DISABLE: libc::c_ulong = 4;
    // SAFETY: no memory is involved.
    if unsafe { libc::prctl(PR_SET_SPECULATION_CTRL, STORE_BYPASS, DISABLE, 0, 0) } != 0 {
        return skip("speculation cannot be controlled here");
    }
    v.stand()
}

/// The smallest program for i386: it sleeps in pause() for ever.
fn program_of_32_bits(b: &Bench<'_>) -> Result<()> {
    const BASE: u32 = 0x0804_8000;
    const CODE: [u8; 9] = [0xb8, 29, 0, 0, 0, 0xcd, 0x80, 0xeb, 0xf7];
    let mut elf = vec![0x7f, b'E', b'L', b'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let size = 52 + 32 + CODE.len() as u32;
    // Type, machine; version, entry, program headers, no sections, flags; sizes and counts.
    for half in [2u16, 3] {
        elf.extend(half.to_le_bytes());
    }
    for word in [1, BASE + 84, 52, 0, 0] {
        elf.extend(u32::to_le_bytes(word));
    }
    for half in [52u16, 32, 1, 40, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    // One segment: loaded, from the start of the file, executable.
    for word in [1, 0, BASE, BASE, size, size, 5, 0x1000] {
        elf.extend(u32::to_le_bytes(word));
    }
    elf.extend(CODE);
    let path = b.path("program");
    fs::write(&path, elf)?;
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let mut command = Command::new(&path);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(Stdio::null());
    let mut spawned = command.spawn();
    // A process that another test starts has a copy of the descriptor that the file was written by,
    // until it runs its own program.
    sys::until(Duration::from_secs(10), || {
        let busy = matches!(&spawned, Err(e) if e.raw_os_error() == Some(libc::ETXTBSY));
        if busy {
            spawned = command.spawn();
        }
        !busy
    });
    let mut child = match spawned {
        Err(e) if e.raw_os_error() == Some(libc::ENOEXEC) => return skip("no 32-bit programs"),
        child => child?,
    };
    let pid = child.id() as i32;
    let result = b.refuses(pid, &["32-bit task", "32-bit address space"]);
    child.kill()?;
    child.wait()?;
    result
}

fn ptraced(b: &Bench<'_>) -> Result<()> {
    let mut life = b.start("plain")?;
    // SAFETY: no memory is involved; PTRACE_SEIZE does not stop the victim.
    unsafe { cvt(libc::ptrace(libc::PTRACE_SEIZE, life.pid, 0, 0))? };
    let object = format!("task {}", life.pid);
    b.refuses(life.pid, &[&object, "trace"])?;
    // SAFETY: as above; a tracee must be stopped to be detached.
    unsafe {
        cvt(libc::ptrace(libc::PTRACE_INTERRUPT, life.pid, 0, 0))?;
        let mut status = 0;
        cvt(libc::waitpid(life.pid, &mut status, libc::__WALL))?;
        cvt(libc::ptrace(libc::PTRACE_DETACH, life.pid, 0, 0))?;
    }
    life.passes()
}

/// Has a child that traces another.
fn has_tracer(v: &Victim) -> Result<()> {
    let sleep = || loop {
        sys::nap(Duration::from_secs(1));
    };
    let tracee = Process::fork(sleep)?;
    let tracer = Process::fork(|| {
        // SAFETY: no memory is involved; PTRACE_SEIZE does not stop the tracee.
        if unsafe { libc::ptrace(libc::PTRACE_SEIZE, tracee.pid, 0, 0) } != 0 {
            return 1;
        }
        sleep()
    })?;
    let (status, traced) = (
        format!("/proc/{}/status", tracee.pid),
        format!("TracerPid:\t{}\n", tracer.pid),
    );
    ensure!(
        sys::until(Duration::from_secs(10), || {
            fs::read_to_string(&status).is_ok_and(|status| status.contains(&traced))
        }),
        "the child traces nobody"
    );
    fs::write(v.path("tracer"), tracer.pid.to_string())?;
    v.stand()
}

/// A tree that has the tracer, and not who is traced.
fn tracer(b: &Bench<'_>) -> Result<()> {
    let mut life = b.start("has-tracer")?;
    let tracer = fs::read_to_string(b.path("tracer"))?;
    let task = format!("task {tracer}");
    b.refuses(tracer.parse()?, &[&task, "traces other tasks"])?;
    life.passes()
}

/// Has a child with another root directory.
fn has_chrooted(v: &Victim) -> Result<()> {
    let dir = v.path("root");
    fs::create_dir_all(&dir)?;
    let path = CString::new(dir.as_os_str().as_bytes())?;
    let child = Process::fork(|| {
        // SAFETY: the path is a C string.
        if unsafe { libc::chroot(path.as_ptr()) } != 0 {
            return 1;
        }
        loop {
            sys::nap(Duration::from_secs(1));
        }
    })?;
    let root = format!("/proc/{}/root", child.pid);
    ensure!(
        sys::until(Duration::from_secs(10), || {
            fs::read_link(&root).is_ok_and(|root| root == dir)
        }),
        "the child has no root directory of its own"
    );
    v.stand()
}

fn another_root(b: &Bench<'_>) -> Result<()> {
    let mut life = b.start("has-chrooted")?;
    b.refuses(life.pid, &["another root directory than the caller's"])?;
    life.passes()
}

/// Where an ordinary user may write.
fn user_image(b: &Bench<'_>) -> Result<fs::File> {
    Ok(fs::File::create(b.path("stream"))?)
}

fn another_users_process(b: &Bench<'_>) -> Result<()> {
    let mut life = b.start("plain")?;
    let pid = life.pid.to_string();
    for check in [false, true] {
        let ckpt = b
            .ckpt()
            .args(check.then_some("--check"))
            .arg(&pid)
            .as_user(1000);
        ckpt.stdout(user_image(b)?)
            .run()?
            .refused("ckpt as user 1000", &[&pid, "permi"])?;
    }
    same("bytes written", 0, fs::metadata(b.path("stream"))?.len())?;
    life.passes()
}

fn kernel_thread(b: &Bench<'_>) -> Result<()> {
    let Some(pid) = selftests::a_kernel_thread()? else {
        return skip("no kernel thread can be seen");
    };
    b.refuses(pid, &[&pid.to_string(), "kernel thread"])
}

fn no_such_process(b: &Bench<'_>) -> Result<()> {
    let life = b.start("plain")?;
    let pid = life.pid;
    drop(life);
    b.refuses(pid, &[&pid.to_string()])
}

fn several(v: &Victim) -> Result<()> {
    let log = open(Path::new("/dev/kmsg"), O_CLOEXEC)?;
    // SAFETY: no memory is involved.
    let _log = owned(unsafe { libc::dup3(log.as_raw_fd(), 10, 0) })?;
    let setting = open(
        Path::new("/sys/kernel/mm/transparent_hugepage/enabled"),
        O_CLOEXEC | libc::O_WRONLY,
    )?;
    // SAFETY: no memory is involved.
    let _setting = owned(unsafe { libc::dup3(setting.as_raw_fd(), 20, 0) })?;
    // SAFETY: no memory is involved.
    let raw = owned(unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW, 0) })?;
    // SAFETY: no memory is involved.
    let _socket = owned(unsafe { libc::dup3(raw.as_raw_fd(), 30, 0) })?;
    v.stand()
}

/// --check lists all that stands in the way, not only the first.
fn several_blockers(b: &Bench<'_>) -> Result<()> {
    let mut life = b.start("several")?;
    let objects = [10, 20, 30].map(|fd| format!("task {}/fd {fd}", life.pid));
    let words: Vec<&str> = objects
        .iter()
        .map(String::as_str)
        .chain(["/dev/kmsg", "/sys/", "socket"])
        .collect();
    b.refuses(life.pid, &words)?;
    life.passes()
}

/// --check of a victim without blockers succeeds and leaves nothing.
fn nothing_to_refuse(b: &Bench<'_>) -> Result<()> {
    let mut life = b.start("plain")?;
    let pid = life.pid.to_string();
    b.ckpt()
        .args(["--check", &pid])
        .stdout(Stdio::null())
        .run()?
        .succeeded("ckpt --check")?;
    b.no_image()?;
    life.passes()
}

/// A refused checkpoint does not harm the image of an earlier one.
fn image_kept(b: &Bench<'_>) -> Result<()> {
    let image = b.path("image");
    let mut good = b.start("plain")?;
    good.checkpoint(&[], &image)?;
    good.passes()?;
    b.forget()?;
    let before = fs::read(&image)?;
    fs::remove_file(b.path("ready"))?;
    let mut bad = b.start("several")?;
    b.ckpt()
        .arg(bad.pid.to_string())
        .arg("-o")
        .arg(&image)
        .run()?
        .refused("ckpt", &[])?;
    ensure!(fs::read(&image)? == before, "the earlier image changed");
    bad.passes()
}
