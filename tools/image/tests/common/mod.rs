// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Images to test with, and a reader of whole ones.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::io;

use checkpoint_image::{
    record::*,
    Checksum,
    Crc32c,
    Encoder,
    Extent,
    Header,
    ImageError,
    Next,
    Objects,
    Plan,
    Sink,
    Slot,
    TooLong,
    FRAME_LEN,
    HEADER_LEN, //
};
use zerocopy::{
    FromZeros,
    IntoBytes, //
};

/// CRC-32C by the crate of that name.
pub enum Crc {}

impl Crc32c for Crc {
    fn crc32c(crc: u32, data: &[u8]) -> u32 {
        !crc32c::crc32c_append(!crc, data)
    }
}

/// Bytes in memory.
#[derive(Default)]
pub struct Bytes(pub Vec<u8>);

/// Too long for the format.
#[derive(Debug)]
pub struct BytesError;

impl From<TooLong> for BytesError {
    fn from(_: TooLong) -> Self {
        Self
    }
}

impl From<BytesError> for io::Error {
    fn from(_: BytesError) -> Self {
        io::ErrorKind::InvalidInput.into()
    }
}

impl Sink for Bytes {
    type Error = BytesError;

    fn put(&mut self, parts: &[&[u8]]) -> Result<(), BytesError> {
        for part in parts {
            self.0.extend_from_slice(part);
        }
        Ok(())
    }
}

/// An image in the making.
pub struct Builder {
    pub encoder: Encoder<Crc>,
    pub plan: Bytes,
}

impl Builder {
    pub fn new() -> Self {
        let mut builder = Self {
            encoder: Encoder::new(),
            plan: Bytes::default(),
        };
        let machine = Machine {
            xfeatures: 7.into(),
            boot_id: *b"0123456789abcdef",
            realtime_ns: 1_790_000_000_000_000_000.into(),
            monotonic_ns: 12_345_678_901.into(),
            boottime_ns: 12_345_678_902.into(),
            vdso_id: [0x5a; 20],
            vdso_id_len: 20.into(),
            cpus_online: 2.into(),
            reserved: [0; 20],
        };
        builder.put(&machine, &[b"7.3.4\0", b"node\0"]);
        builder
    }

    pub fn put<T: checkpoint_image::Record>(&mut self, record: &T, tail: &[&[u8]]) {
        self.encoder.put(&mut self.plan, record, tail).unwrap();
    }

    pub fn object<T: checkpoint_image::Record>(&mut self, record: &T, tail: &[&[u8]]) -> u32 {
        self.encoder.object(&mut self.plan, record, tail).unwrap()
    }

    /// A pty with a line in it, and its open slave.
    pub fn pty(&mut self) -> (u32, u32) {
        let pty = Pty {
            index: 3.into(),
            flags: pty_flags::PACKET.into(),
            mode: 0o020620.into(),
            session: 100.into(),
            pgrp: 100.into(),
            rows: 25.into(),
            columns: 80.into(),
            ..FromZeros::new_zeroed()
        };
        let pty = self.object(&pty, &[b"/dev/ptmx"]);
        let input = b"line\nli";
        let queue = TtyQueue {
            pty: pty.into(),
            flags: queue_flags::SLAVE.into(),
            len: 8.into(),
            read: 7.into(),
            canon: 5.into(),
            ..FromZeros::new_zeroed()
        };
        self.put(&queue, &[input, &[0x10]]);
        let slave = FileTty {
            flags: (file_flags::READ | file_flags::WRITE).into(),
            end: tty_end::SLAVE.into(),
            pty: pty.into(),
            mode: 0o020620.into(),
        };
        (pty, self.object(&slave, &[b"/dev/pts/3"]))
    }

    /// A file of three pages without a name, and what is open to it.
    pub fn unnamed(&mut self, kind: u32, tail: &str) -> (u32, u32) {
        let memfd = kind == unnamed::MEMFD;
        let object = Unnamed {
            size: 0x2345.into(),
            kind: kind.into(),
            mode: 0o100600.into(),
            uid: 1000.into(),
            gid: 1000.into(),
            flags: if memfd { 0 } else { unnamed_flags::LINKABLE }.into(),
            seals: if memfd { seals::WRITE | seals::GROW } else { 0 }.into(),
            atime_sec: 1_789_999_997.into(),
            mtime_sec: 1_789_999_998.into(),
            atime_nsec: 7.into(),
            mtime_nsec: 8.into(),
        };
        let object = self.object(&object, &[tail.as_bytes()]);
        let file = FileUnnamed {
            flags: (file_flags::READ | file_flags::WRITE).into(),
            object: object.into(),
            pos: 17.into(),
        };
        (object, self.object(&file, &[]))
    }

    pub fn file(&mut self, path: &str) -> u32 {
        let file = FileRegular {
            flags: (file_flags::READ | file_flags::LARGEFILE).into(),
            mode: 0o100755.into(),
            size: 123_456.into(),
            mtime_sec: 1_789_999_999.into(),
            mtime_nsec: 5.into(),
            ..FromZeros::new_zeroed()
        };
        self.object(&file, &[path.as_bytes()])
    }

    pub fn sighand(&mut self) -> u32 {
        let action = Action {
            handler: 0x40_1000.into(),
            flags: 0x0400_0000.into(),
            signo: 2.into(),
            ..FromZeros::new_zeroed()
        };
        let sighand = Sighand {
            count: 1.into(),
            reserved: 0.into(),
        };
        self.object(&sighand, &[action.as_bytes()])
    }

    pub fn mm(&mut self, exe: u32, vmas: &[Vma]) -> u32 {
        let mm = Mm {
            start_code: 0x40_0000.into(),
            end_code: 0x40_1000.into(),
            start_stack: 0x7fff_ffff_e000.into(),
            exe: exe.into(),
            auxv_len: 32.into(),
            vmas: u32::try_from(vmas.len()).unwrap().into(),
            dumpable: 1.into(),
            coredump_filter: 0x33.into(),
            ..FromZeros::new_zeroed()
        };
        let id = self.object(&mm, &[&[1; 16], &[0; 16]]);
        for part in vmas.chunks(2) {
            let record = Vmas {
                mm: id.into(),
                count: u32::try_from(part.len()).unwrap().into(),
            };
            self.put(&record, &[part.as_bytes()]);
        }
        id
    }

    pub fn process(&mut self, tgid: i32, parent: u32, mm: u32, sighand: u32) -> u32 {
        let mut process = Process {
            tgid: tgid.into(),
            pgid: 100.into(),
            sid: 90.into(),
            flags: process_flags::SID_OUTSIDE.into(),
            parent: parent.into(),
            exit_signal: 17.into(),
            mm: mm.into(),
            sighand: sighand.into(),
            ..FromZeros::new_zeroed()
        };
        for limit in &mut process.rlimits {
            limit.cur = 1024.into();
            limit.max = u64::MAX.into();
        }
        self.object(&process, &[])
    }

    pub fn task(&mut self, tid: i32, process: u32, files: u32, fs: u32, cred: u32) -> u32 {
        let id = self.task_record(tid, process, files, fs, cred, 0);
        let registers = Registers {
            task: id.into(),
            rip: 0x40_0123.into(),
            cs: 0x33.into(),
            ss: 0x2b.into(),
            orig_rax: u64::MAX.into(),
            ..FromZeros::new_zeroed()
        };
        self.put(&registers, &[]);
        id
    }

    pub fn exited_task(&mut self, tid: i32, process: u32, cred: u32) -> u32 {
        self.task_record(tid, process, 0, 0, cred, task_flags::EXITED)
    }

    fn task_record(
        &mut self,
        tid: i32,
        process: u32,
        files: u32,
        fs: u32,
        cred: u32,
        flags: u32,
    ) -> u32 {
        let task = Task {
            tid: tid.into(),
            process: process.into(),
            flags: flags.into(),
            comm: *b"python3\0\0\0\0\0\0\0\0\0",
            files: files.into(),
            fs: fs.into(),
            cred: cred.into(),
            altstack_flags: 2.into(),
            timerslack_ns: 50_000.into(),
            default_timerslack_ns: 50_000.into(),
            ..FromZeros::new_zeroed()
        };
        self.object(&task, &[&3u64.to_le_bytes()])
    }

    pub fn cred(&mut self) -> u32 {
        let cred = Cred {
            uid: 1000.into(),
            euid: 1000.into(),
            ngroups: 2.into(),
            cap_bset: 0x1ff_ffff_ffff.into(),
            ..FromZeros::new_zeroed()
        };
        let groups = [Group { gid: 10.into() }, Group { gid: 1000.into() }];
        self.object(&cred, &[groups.as_bytes()])
    }

    pub fn finish(self, chunks: &[(u32, &[Extent], Vec<u8>)]) -> Vec<u8> {
        self.finish_shared(chunks, &[])
    }

    pub fn finish_shared(
        mut self,
        chunks: &[(u32, &[Extent], Vec<u8>)],
        shared: &[(u32, &[Share])],
    ) -> Vec<u8> {
        self.encoder.plan_end(&mut self.plan).unwrap();
        let header = Header::new(self.encoder.tasks(), 0, self.encoder.plan_len()).seal::<Crc>();
        let mut stream = Bytes(header.as_bytes().to_vec());
        stream.0.extend_from_slice(&self.plan.0);
        for (id, extents, data) in chunks {
            let crc = Checksum::<Crc>::of(data);
            self.encoder
                .chunk_header(&mut stream, *id, extents, crc)
                .unwrap();
            stream.0.extend_from_slice(data);
        }
        for (id, shares) in shared {
            self.encoder.shared(&mut stream, *id, shares).unwrap();
        }
        self.encoder.trailer(&mut stream).unwrap();
        stream.0
    }
}

pub fn vma(start: u64, pages: u64, kind: u32, object: u32, flags: u32) -> Vma {
    Vma {
        start: start.into(),
        end: (start + pages * 4096).into(),
        offset: 0.into(),
        flags: flags.into(),
        kind: kind.into(),
        object: object.into(),
        name: 0.into(),
        policy: 0.into(),
        family: 0.into(),
    }
}

/// The smallest image: one process with nothing open and no memory of its own.
pub fn minimal() -> Vec<u8> {
    with_chunk(0)
}

/// The same with one chunk of so many pages, whose bytes are all 7, or without one.
pub fn with_chunk(pages: u32) -> Vec<u8> {
    let mut b = Builder::new();
    let exe = b.file("/bin/true");
    let cred = b.cred();
    let fs = b.object(
        &Fs {
            umask: 0o022.into(),
            reserved: 0.into(),
        },
        &[b"/"],
    );
    let files = b.object(&Files::new_zeroed(), &[]);
    let sighand = b.sighand();
    let mm = b.mm(exe, &[]);
    let process = b.process(100, 0, mm, sighand);
    b.task(100, process, files, fs, cred);
    let extents = [Extent::new(0x10000, pages)];
    let data = vec![7; pages as usize * 4096];
    match pages {
        0 => b.finish(&[]),
        _ => b.finish(&[(mm, &extents, data)]),
    }
}

/// An image with a record of every kind.
pub fn tree() -> Vec<u8> {
    let mut b = Builder::new();
    let exe = b.file("/usr/bin/python3.13");
    let tty = b.object(
        &FileExternal {
            flags: (file_flags::READ | file_flags::WRITE).into(),
            kind: external::TTY.into(),
            mode: 0o020620.into(),
            reserved: 0.into(),
        },
        &[b"/dev/pts/0"],
    );
    let log = FileRegular {
        flags: (file_flags::WRITE | file_flags::APPEND).into(),
        mode: 0o100644.into(),
        pos: 4711.into(),
        size: 4711.into(),
        ..FromZeros::new_zeroed()
    };
    let log = b.object(&log, &["/home/käfer/pi.txt".as_bytes()]);
    let null = FileDevice {
        flags: file_flags::READ.into(),
        mode: 0o020666.into(),
        major: 1.into(),
        minor: 3.into(),
        pos: 0.into(),
    };
    let null = b.object(&null, &[b"/dev/null"]);
    let dir = FileDirectory {
        flags: (file_flags::READ | file_flags::DIRECTORY).into(),
        mode: 0o040755.into(),
        pos: 12.into(),
    };
    let dir = b.object(&dir, &[b"/home"]);
    let packets = [3, 5].map(|len| Packet {
        len: len.into(),
        flags: 0.into(),
    });
    let pipe = Pipe {
        size: 16.into(),
        packets: 2.into(),
        bytes: 8.into(),
        flags: 0.into(),
    };
    let pipe = b.object(&pipe, &[packets.as_bytes(), b"abcdefgh"]);
    let [read, write] = [file_flags::READ, file_flags::WRITE].map(|flags| {
        let end = FilePipe {
            flags: flags.into(),
            pipe: pipe.into(),
            mode: 0o010600.into(),
            end_flags: 0.into(),
        };
        b.object(&end, &[])
    });
    let mut socket = |role: u32, kind: u32, state: u32, tail: &str, mate: u32| {
        let bound = if role == socket_role::OPEN && !tail.is_empty() {
            socket_flags::BOUND
        } else {
            0
        };
        let open = role == socket_role::OPEN;
        let socket = UnixSocket {
            socket_type: kind.into(),
            role: role.into(),
            state: state.into(),
            flags: (bound | socket_flags::PEERCRED).into(),
            rcvtimeo_ns: u64::MAX.into(),
            sndtimeo_ns: u64::MAX.into(),
            rcvlowat: 1.into(),
            peek_off: (-1).into(),
            peer_pid: 100.into(),
            mode: 0o140755.into(),
            name_len: u32::try_from(tail.find('\0').map_or(0, |nul| nul + 1))
                .unwrap()
                .into(),
            tail_len: u32::try_from(tail.len()).unwrap().into(),
            file_flags: if open { READ_WRITE } else { 0 }.into(),
            file_mode: if open { 0o140777 } else { 0 }.into(),
            mate: mate.into(),
            ..FromZeros::new_zeroed()
        };
        b.object(&socket, &[tail.as_bytes()])
    };
    const READ_WRITE: u32 = file_flags::READ | file_flags::WRITE;
    let (stream, connected) = (socket_type::STREAM, socket_state::CONNECTED);
    let name = "/run/job\0/run/job";
    let listener = socket(socket_role::OPEN, stream, socket_state::LISTENING, name, 0);
    let client = socket(socket_role::OPEN, stream, connected, "", 0);
    let name = "/run/job\0";
    let waiting = socket(socket_role::PENDING, stream, connected, name, client);
    let echo = socket(socket_role::OPEN, socket_type::DGRAM, connected, "", 0);
    let pidfd = b.object(
        &FilePidfd {
            flags: (file_flags::READ | file_flags::WRITE).into(),
            pid: 4711.into(),
            ..FromZeros::new_zeroed()
        },
        &[],
    );
    let (contents, unlinked) = b.unnamed(unnamed::UNLINKED, "/tmp");
    let (_, memfd) = b.unnamed(unnamed::MEMFD, "buffer");
    let (pty, terminal) = b.pty();
    let status = b.object(
        &FileProc {
            flags: file_flags::READ.into(),
            mode: 0o100444.into(),
            pos: 5.into(),
        },
        &[b"/proc/100/status"],
    );
    let namespace = b.object(
        &FileNamespace {
            flags: file_flags::READ.into(),
            kind: namespace_kind::NET.into(),
        },
        &[],
    );
    let reaped = b.object(
        &ReapedTask {
            flags: reaped_flags::EXITED.into(),
            exit_code: 9.into(),
            cgroup: 1.into(),
            ..FromZeros::new_zeroed()
        },
        &[],
    );
    let reaped = b.object(
        &FilePidfd {
            flags: (file_flags::READ | file_flags::WRITE).into(),
            reaped: reaped.into(),
            ..FromZeros::new_zeroed()
        },
        &[],
    );
    let eventfd = b.object(
        &FileEventfd {
            flags: (file_flags::READ | file_flags::WRITE).into(),
            semaphore: 1.into(),
            count: 3.into(),
        },
        &[],
    );
    let timerfd = b.object(
        &FileTimerfd {
            clock: timerfd_clock::REALTIME.into(),
            timer_flags: (timerfd_flags::ABSTIME | timerfd_flags::CANCEL_ON_SET).into(),
            state: timerfd_state::ARMED.into(),
            interval_ns: 1_000_000.into(),
            ticks: 2.into(),
            time_ns: 1_790_000_001_000_000_000.into(),
            ..FromZeros::new_zeroed()
        },
        &[],
    );
    let ring = b.object(
        &FileUring {
            flags: (file_flags::READ | file_flags::WRITE).into(),
            setup: (uring_setup::SINGLE_ISSUER | uring_setup::NO_SQARRAY).into(),
            sq_entries: 4.into(),
            cq_entries: 8.into(),
        },
        &[],
    );
    let signalfd = b.object(
        &FileSignalfd {
            mask: 0x8000_0000_0000_0201.into(),
            ..FromZeros::new_zeroed()
        },
        &[],
    );
    let inotify = b.object(
        &FileInotify {
            flags: file_flags::READ.into(),
            next_wd: 3.into(),
        },
        &[],
    );
    let event = InotifyEvent {
        inotify: inotify.into(),
        wd: 2.into(),
        mask: inotify_mask::CREATE.into(),
        cookie: 0.into(),
    };
    b.put(&event, &["käfer".as_bytes()]);
    let watch = InotifyWatch {
        inotify: inotify.into(),
        wd: 2.into(),
        mask: (inotify_mask::CREATE | inotify_mask::ONESHOT).into(),
        mode: 0o040755.into(),
    };
    b.object(&watch, &[b"/home"]);
    let fanotify = b.object(
        &FileFanotify {
            flags: (file_flags::READ | file_flags::WRITE).into(),
            init_flags: (fanotify_flags::REPORT_FID | fanotify_flags::CLOEXEC).into(),
            event_flags: file_flags::READ.into(),
            ..FromZeros::new_zeroed()
        },
        &[],
    );
    let mark = FanotifyMark {
        fanotify: fanotify.into(),
        ty: fanotify_mark::MOUNT.into(),
        mask: (fanotify_mask::OPEN | fanotify_mask::ONDIR).into(),
        ignore_mask: fanotify_mask::ACCESS.into(),
        flags: fanotify_mark_flags::SURV_MODIFY.into(),
        mode: 0o040755.into(),
    };
    b.object(&mark, &[b"/home"]);
    let epoll = b.object(
        &FileEpoll {
            flags: (file_flags::READ | file_flags::WRITE).into(),
            ..FromZeros::new_zeroed()
        },
        &[],
    );
    let shmem = b.object(
        &Shmem {
            size: 0x2000.into(),
            ..FromZeros::new_zeroed()
        },
        &[],
    );
    let cred = b.cred();
    let fs = b.object(
        &Fs {
            umask: 0o022.into(),
            reserved: 0.into(),
        },
        &["/home/käfer".as_bytes()],
    );
    let fds: Vec<Fd> = [
        (0, null),
        (1, tty),
        (2, tty),
        (3, log),
        (4, dir),
        (5, read),
        (6, write),
        (7, pidfd),
        (8, listener),
        (9, client),
        (10, echo),
        (11, unlinked),
        (12, memfd),
        (13, terminal),
        (14, status),
        (15, eventfd),
        (16, epoll),
        (17, timerfd),
        (18, signalfd),
        (19, inotify),
        (20, reaped),
        (21, namespace),
        (22, fanotify),
        (23, ring),
    ]
    .map(|(fd, file)| Fd {
        fd: fd.into(),
        flags: u32::from(fd > 3).into(),
        file: file.into(),
        reserved: 0.into(),
    })
    .to_vec();
    let files = b.object(
        &Files {
            count: (fds.len() as u32).into(),
            reserved: 0.into(),
        },
        &[fds.as_bytes()],
    );
    let allow = SeccompInsn {
        code: 6.into(),
        jt: 0,
        jf: 0,
        k: 0x7fff_0000.into(),
    };
    let filter = SeccompFilter {
        prev: 0.into(),
        flags: seccomp_flags::LOG.into(),
        count: 1.into(),
        reserved: 0.into(),
    };
    b.object(&filter, &[allow.as_bytes()]);
    let link = UnixLink {
        socket: echo.into(),
        peer: echo.into(),
    };
    b.put(&link, &[]);
    let pending = UnixPending {
        listener: listener.into(),
        socket: waiting.into(),
    };
    b.put(&pending, &[]);
    let message = UnixMessage {
        socket: waiting.into(),
        sender: client.into(),
        flags: message_flags::CREDS.into(),
        pid: 100.into(),
        files: 1.into(),
        bytes: 5.into(),
        ..FromZeros::new_zeroed()
    };
    b.put(&message, &[&log.to_le_bytes(), b"hello"]);
    for (kind, files) in [(lock_kind::POSIX, files), (lock_kind::FLOCK, 0)] {
        let lock = Lock {
            kind: kind.into(),
            ty: lock_type::WRITE.into(),
            file: log.into(),
            files: files.into(),
            start: 0.into(),
            end: i64::MAX.into(),
            ..FromZeros::new_zeroed()
        };
        b.put(&lock, &[]);
    }
    let owner = Owner {
        file: read.into(),
        flags: owner_flags::ASYNC.into(),
        kind: owner_kind::PROCESS.into(),
        pid: 100.into(),
        signum: 34.into(),
        uid: 1000.into(),
        euid: 1000.into(),
        fd: 5.into(),
    };
    b.put(&owner, &[]);
    let sighand = b.sighand();
    let rw = vma_flags::READ | vma_flags::WRITE | vma_flags::MAYREAD | vma_flags::MAYWRITE;
    let rx = vma_flags::READ | vma_flags::EXEC | vma_flags::MAYREAD | vma_flags::MAYEXEC;
    let shared = rw | vma_flags::SHARED | vma_flags::MAYSHARE;
    let event = AioEvent {
        slot: 3.into(),
        data: 7.into(),
        obj: 0x1000.into(),
        res: 512.into(),
        ..FromZeros::new_zeroed()
    };
    let aio = b.object(
        &AioContext {
            max_reqs: 8.into(),
            slots: 127.into(),
            head: 3.into(),
            tail: 4.into(),
            count: 1.into(),
            ..FromZeros::new_zeroed()
        },
        &[event.as_bytes()],
    );
    let huge = b.object(
        &Hugetlb {
            size: (4 << 20).into(),
            page_shift: 21.into(),
            reserved: 0.into(),
        },
        &[],
    );
    let name = b.object(&AnonName { reserved: 0.into() }, &[b"scratch buffer"]);
    let policy = MemPolicy {
        mode: mem_policy::INTERLEAVE.into(),
        flags: mem_policy_flags::STATIC_NODES.into(),
        home_node: (-1).into(),
        reserved: 0.into(),
    };
    let policy = b.object(&policy, &[&3u64.to_le_bytes()]);
    let mut vmas = [
        vma(0x40_0000, 4, vma_kind::FILE, exe, rx),
        vma(0x50_0000, 32, vma_kind::ANON, 0, rw),
        vma(0x7d00_0000_0000, 1, vma_kind::AIO, aio, rw),
        vma(0x7e00_0000_0000, 1024, vma_kind::HUGETLB, huge, rw),
        vma(0x7f00_0000_0000, 2, vma_kind::SHMEM, shmem, shared),
        vma(0x7f00_0000_2000, 1, vma_kind::FILE, memfd, shared),
        vma(
            0x7fff_ffff_0000,
            8,
            vma_kind::ANON,
            0,
            rw | vma_flags::GROWSDOWN,
        ),
        vma(0x7fff_ffff_c000, 1, vma_kind::VDSO, 0, rx),
    ];
    vmas[1].name = name.into();
    vmas[1].policy = policy.into();
    vmas[1].flags = (rw | vma_flags::GUARDED).into();
    vmas[1].family = 1.into();
    let mm = b.mm(exe, &vmas);
    let guards = Guards {
        mm: mm.into(),
        count: 1.into(),
    };
    let guard = Guard {
        start: 0x50_4000.into(),
        end: 0x50_5000.into(),
    };
    b.put(&guards, &[guard.as_bytes()]);
    let child_mm = b.mm(exe, &vmas[..2]);
    let root = b.process(100, 0, mm, sighand);
    let controlling = ControllingTty {
        process: root.into(),
        pty: pty.into(),
    };
    b.put(&controlling, &[]);
    let leader = b.task(100, root, files, fs, cred);
    let child = b.process(101, leader, child_mm, sighand);
    for (feature, size) in [(0, 512), (2, 256)] {
        let xstate = Xstate {
            task: leader.into(),
            feature: feature.into(),
            size: size.into(),
            reserved: 0.into(),
        };
        let size = usize::try_from(size).unwrap();
        b.put(&xstate, &[&vec![0x11; size]]);
    }
    b.task(102, root, files, fs, cred);
    b.task(101, child, files, fs, cred);
    let ended = b.process(103, leader, 0, 0);
    b.exited_task(103, ended, cred);
    let siginfo = Siginfo {
        signo: 10.into(),
        ..FromZeros::new_zeroed()
    };
    for (task, process) in [(leader, 0), (0, root)] {
        let signals = Signals {
            task: task.into(),
            process: process.into(),
            count: 1.into(),
            reserved: 0.into(),
        };
        b.put(&signals, &[siginfo.as_bytes()]);
    }
    let timer = Timer {
        id: 3.into(),
        clock: timer_clock::THREAD_SCHED.into(),
        clock_task: 102.into(),
        notify: timer_notify::THREAD_ID.into(),
        signo: 14.into(),
        notify_task: 102.into(),
        flags: timer_flags::ARMED.into(),
        value: 0x1234.into(),
        interval_ns: 1_000_000.into(),
        expires_ns: 77_000_000.into(),
        overrun: (-1).into(),
        ..FromZeros::new_zeroed()
    };
    let timers = Timers {
        process: root.into(),
        count: 1.into(),
        next_id: 4.into(),
        chooses_ids: 0.into(),
    };
    b.put(&timers, &[timer.as_bytes()]);
    let dispatch = Dispatch {
        task: leader.into(),
        len: 0x1000.into(),
        selector: 0x50_0000.into(),
        ..FromZeros::new_zeroed()
    };
    b.put(&dispatch, &[]);
    let scheduling = Scheduling {
        task: leader.into(),
        runtime_ns: 3_000_000.into(),
        ..FromZeros::new_zeroed()
    };
    b.put(&scheduling, &[]);
    let options = MmOptions {
        process: root.into(),
        flags: mm_options::NO_THP.into(),
        ..FromZeros::new_zeroed()
    };
    b.put(&options, &[]);
    let usage = Usage {
        task: leader.into(),
        start_boottime_ns: 12_000_000_000i64.into(),
        runtime_ns: 76_000_000.into(),
        ..FromZeros::new_zeroed()
    };
    b.put(&usage, &[]);
    let usage = ProcessUsage {
        process: root.into(),
        max_rss: 0x12_3000.into(),
        ..FromZeros::new_zeroed()
    };
    b.put(&usage, &[]);
    let always = epoll_events::ERR | epoll_events::HUP;
    let items = [
        (
            read,
            5,
            always | epoll_events::IN,
            epoll_item_flags::READY,
            0,
        ),
        (eventfd, 8, epoll_events::ONESHOT | epoll_events::ET, 0, 0),
        (signalfd, 11, always | epoll_events::IN, 0, sighand),
    ]
    .map(|(file, fd, events, flags, sighand)| EpollItem {
        file: file.into(),
        fd: fd.into(),
        events: events.into(),
        flags: flags.into(),
        data: u64::MAX.into(),
        sighand: sighand.into(),
        reserved: 0.into(),
    });
    let record = EpollItems {
        epoll: epoll.into(),
        count: 3.into(),
    };
    b.put(&record, &[items.as_bytes()]);
    let user = UringUser {
        tid: 100.into(),
        slots: 1.into(),
        max_bounded: 4.into(),
        max_unbounded: 1000.into(),
    };
    let state = UringState {
        ring: ring.into(),
        state: (uring_state::BOOTTIME | uring_state::LIMITED | uring_state::ACCOUNTED).into(),
        sq_head: 7.into(),
        cq_tail: 9.into(),
        max_bounded: 4.into(),
        max_unbounded: 0.into(),
        uid: 1000.into(),
        issuer: 100.into(),
        mm: mm.into(),
        count: 1.into(),
    };
    b.put(&state, &[user.as_bytes()]);
    let memory = UringMemory {
        ring: ring.into(),
        region: uring_region::ENTRIES.into(),
        offset: 64.into(),
        len: 3.into(),
        reserved: 0.into(),
    };
    b.put(&memory, &[b"sqe"]);
    let chunks: &[(u32, &[Extent], Vec<u8>)] = &[
        (shmem, &[Extent::new(0x1000, 1)], vec![b's'; 4096]),
        (
            mm,
            &[Extent::new(0x50_0000, 1), Extent::new(0x50_2000, 1)],
            [[b'a'; 4096], [b'b'; 4096]].concat(),
        ),
        (contents, &[Extent::new(0x2000, 1)], vec![b'u'; 4096]),
    ];
    let share = Share {
        addr: 0x50_2000.into(),
        from_addr: 0x50_2000.into(),
        from: mm.into(),
        pages: 1.into(),
    };
    b.finish_shared(chunks, &[(child_mm, &[share])])
}

/// Reads a whole image, as the kernel and the tools do.
pub fn verify(bytes: &[u8]) -> Result<(), ImageError> {
    let header = Header::parse::<Crc>(bytes)?;
    let mut rest = &bytes[HEADER_LEN..];
    let plan = Plan::<Crc>::new(&header, rest)?;
    rest = &rest[header.plan_len()..];
    let mut slots = vec![Slot::default(); plan.objects()];
    let objects = Objects::new(&plan, &mut slots)?;
    for record in plan.records() {
        assert_eq!(record.id != 0, record.kind.info().object);
    }
    for record in objects.iter() {
        assert_eq!(objects.get(record.id).unwrap().offset, record.offset);
    }
    let mut stream = plan.stream();
    loop {
        let Some((frame, after)) = rest.split_first_chunk::<FRAME_LEN>() else {
            return Err(stream.truncated(rest.len() as u64));
        };
        let next = stream.next(frame)?;
        let (Next::Chunk(len) | Next::Shared(len) | Next::Trailer(len)) = next;
        let Some((payload, after)) = after.split_at_checked(len) else {
            return Err(stream.truncated(rest.len() as u64));
        };
        if let Next::Trailer(_) = next {
            return stream.trailer(frame, payload);
        }
        if let Next::Shared(_) = next {
            stream.shared(&objects, frame, payload)?;
            rest = after;
            continue;
        }
        let chunk = stream.chunk(&objects, frame, payload)?;
        let Some((data, after)) = after.split_at_checked(chunk.pages as usize * 4096) else {
            return Err(stream.truncated(rest.len() as u64));
        };
        stream.data(&chunk, Checksum::<Crc>::of(data))?;
        rest = after;
    }
}

/// The places of all frames of a valid image: start, start of the payload, length of the payload.
pub fn frames(bytes: &[u8]) -> Vec<(usize, usize, usize)> {
    let mut frames = vec![];
    let mut at = HEADER_LEN;
    while at < bytes.len() {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let len = word(at + 4) as usize;
        frames.push((at, at + FRAME_LEN, len));
        let pages = if word(at) & 0xffff == 0x100 {
            word(at + FRAME_LEN) as usize
        } else {
            0
        };
        at += FRAME_LEN + len.next_multiple_of(8) + pages * 4096;
    }
    frames
}

/// Makes the checksum of the frame at `at` match again.
pub fn reseal(bytes: &mut [u8], at: usize) {
    let len = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
    let end = (at + FRAME_LEN + len).min(bytes.len());
    let mut sum = Checksum::<Crc>::new();
    sum.update(&bytes[at..at + 12]);
    sum.update(&bytes[at + FRAME_LEN..end]);
    bytes[at + 12..at + 16].copy_from_slice(&sum.finish().to_le_bytes());
}
