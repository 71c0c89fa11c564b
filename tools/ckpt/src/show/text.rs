// SPDX-License-Identifier: GPL-2.0 OR MIT

//! An image for people.

use std::{
    collections::BTreeMap,
    fmt::Write, //
};

use checkpoint::{
    progress::Size,
    stream::{
        Crc,
        Whole, //
    }, //
};
use checkpoint_image::{
    record::*,
    Objects,
    Plan,
    RecordRef, //
};

use super::Contents;

/// Returns text of the image without what a terminal might obey.
fn clean(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let end = text.find('\0').unwrap_or(text.len());
    let text = text.get(..end).unwrap_or(&text);
    text.chars()
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default());
            let plain = escaped.is_none().then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

/// A date in UTC from seconds since 1970.
fn date(seconds: i64) -> String {
    let days = seconds.div_euclid(86400);
    let time = seconds.rem_euclid(86400);
    // Civil from days, by eras of 400 years from 1 March of year 0.
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day = z.rem_euclid(146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let rest = day - (365 * year + year / 4 - year / 100);
    let month = (5 * rest + 2) / 153;
    let date = rest - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{year}-{month:02}-{date:02} {hour:02}:{minute:02}:{second:02} UTC")
}

struct Show<'a, 's> {
    out: String,
    objects: &'a Objects<'a, 's>,
    contents: &'a BTreeMap<u32, Contents>,
    /// How many descriptors each epoll instance watches.
    watched: BTreeMap<u32, u32>,
}

/// A process and what belongs to it.
struct Entry<'a> {
    id: u32,
    process: &'a Process,
    tasks: Vec<(u32, &'a Task)>,
    timers: usize,
}

pub fn image(
    plan: &Plan<'_, Crc>,
    objects: &Objects<'_, '_>,
    contents: &BTreeMap<u32, Contents>,
    whole: Option<&Whole>,
) -> String {
    let mut show = Show {
        out: String::new(),
        objects,
        contents,
        watched: BTreeMap::new(),
    };
    show.head(plan, whole);
    let mut processes = Vec::<Entry<'_>>::new();
    let mut number_of = BTreeMap::new();
    let mut vmas = BTreeMap::<u32, Vec<&Vma>>::new();
    for record in plan.records() {
        match record.kind {
            Kind::Process => {
                if let Ok((process, _)) = record.get::<Process>() {
                    number_of.insert(record.id, processes.len());
                    processes.push(Entry {
                        id: record.id,
                        process,
                        tasks: vec![],
                        timers: 0,
                    });
                }
            }
            Kind::Task => {
                if let Ok((task, _)) = record.get::<Task>() {
                    let of = number_of.get(&task.process.get());
                    if let Some(entry) = of.and_then(|of| processes.get_mut(*of)) {
                        entry.tasks.push((record.id, task));
                    }
                }
            }
            Kind::Timers => {
                if let Ok((of, timers)) = record.get_array::<Timers>() {
                    let of = processes
                        .iter_mut()
                        .find(|entry| entry.id == of.process.get());
                    if let Some(entry) = of {
                        entry.timers = timers.len();
                    }
                }
            }
            Kind::Vmas => {
                if let Ok((of, part)) = record.get_array::<Vmas>() {
                    vmas.entry(of.mm.get()).or_default().extend(part);
                }
            }
            Kind::EpollItems => {
                if let Ok((of, items)) = record.get_array::<EpollItems>() {
                    let count = u32::try_from(items.len()).unwrap_or(u32::MAX);
                    let watched = show.watched.entry(of.epoll.get()).or_default();
                    *watched = watched.saturating_add(count);
                }
            }
            _ => (),
        }
    }
    show.tree(&processes);
    show.memory(&processes, &vmas);
    show.files(&processes);
    show.out
}

impl Show<'_, '_> {
    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        // A string takes everything.
        let _ = self.out.write_fmt(text);
        self.out.push('\n');
    }

    fn head(&mut self, plan: &Plan<'_, Crc>, whole: Option<&Whole>) {
        let header = plan.header();
        let (major, minor) = (header.major.get(), header.minor.get());
        self.line(format_args!("Image, format {major}.{minor}, x86-64"));
        let machine = plan.records().next();
        if let Some((machine, tail)) = machine.and_then(|record| record.get::<Machine>().ok()) {
            let mut strings = tail.split(|byte| *byte == 0).map(clean);
            let release = strings.next().unwrap_or_default();
            let node = strings.next().unwrap_or_default();
            let date = date(machine.realtime_ns.get().div_euclid(1_000_000_000));
            self.line(format_args!("  taken    {date} on {node}, Linux {release}"));
        }
        match whole {
            Some(whole) => self.line(format_args!(
                "  holds    {} tasks, {} pages, {} in all",
                header.tasks.get(),
                whole.pages,
                Size(whole.bytes),
            )),
            None => self.line(format_args!(
                "  holds    {} tasks, and is defective",
                header.tasks
            )),
        }
        if plan.skipped() != 0 {
            self.line(format_args!(
                "  skipped  {} optional records, unknown",
                plan.skipped()
            ));
        }
    }

    fn tree(&mut self, processes: &[Entry<'_>]) {
        self.line(format_args!("\nTree"));
        // Parents come before their children; the depth of each is known when it is needed.
        let mut children = BTreeMap::<u32, Vec<&Entry<'_>>>::new();
        let mut process_of = BTreeMap::new();
        for entry in processes {
            process_of.extend(entry.tasks.iter().map(|(id, _)| (*id, entry.id)));
            let parent = process_of.get(&entry.process.parent.get()).unwrap_or(&0);
            children.entry(*parent).or_default().push(entry);
        }
        let mut todo: Vec<(usize, &Entry<'_>)> = children
            .get(&0)
            .into_iter()
            .flatten()
            .map(|entry| (1, *entry))
            .collect();
        while let Some((depth, entry)) = todo.pop() {
            let process = entry.process;
            let name = entry
                .tasks
                .first()
                .map(|(_, task)| clean(&task.comm))
                .unwrap_or_default();
            let flags = process.flags.get();
            let outside = |bit: u32| if flags & bit != 0 { " (outside)" } else { "" };
            let mut notes = String::new();
            if entry.tasks.len() > 1 {
                let _ = write!(notes, ", {} threads", entry.tasks.len());
            }
            if flags & process_flags::STOPPED != 0 {
                notes.push_str(", stopped");
            }
            if let Some((_, task)) = entry.tasks.first() {
                if let Some((cred, _)) = self.objects.get_as::<Cred>(task.cred.get()) {
                    let _ = write!(notes, ", user {}", cred.uid);
                }
                if task.seccomp_filter.get() != 0
                    || task.flags.get() & task_flags::SECCOMP_STRICT != 0
                {
                    notes.push_str(", seccomp");
                }
            }
            match entry.timers {
                0 => {}
                1 => notes.push_str(", 1 timer"),
                timers => {
                    let _ = write!(notes, ", {timers} timers");
                }
            }
            if process.mm.get() == 0 {
                notes.push_str(", zombie");
            }
            let indent = depth * 2;
            self.line(format_args!(
                "{:indent$}{} {name}  pgid {}{}, sid {}{}{notes}",
                "",
                process.tgid,
                process.pgid,
                outside(process_flags::PGID_OUTSIDE),
                process.sid,
                outside(process_flags::SID_OUTSIDE),
            ));
            for (_, task) in entry.tasks.iter().skip(1) {
                let name = clean(&task.comm);
                self.line(format_args!("{:indent$}  thread {} {name}", "", task.tid));
            }
            let next = children.get(&entry.id).into_iter().flatten().rev();
            todo.extend(next.map(|child| (depth + 1, *child)));
        }
    }

    fn memory(&mut self, processes: &[Entry<'_>], vmas: &BTreeMap<u32, Vec<&Vma>>) {
        let mut users = BTreeMap::<u32, Vec<String>>::new();
        for entry in processes {
            let tgid = entry.process.tgid.to_string();
            users.entry(entry.process.mm.get()).or_default().push(tgid);
        }
        for entry in processes {
            let mm = entry.process.mm.get();
            let Some(users) = users.remove(&mm).filter(|_| mm != 0) else {
                continue;
            };
            let contents = self.contents.get(&mm).cloned().unwrap_or_default();
            let saved = Size(contents.pages * 4096);
            self.line(format_args!(
                "\nMemory of {}: {saved} saved",
                users.join(", ")
            ));
            for vma in vmas.get(&mm).into_iter().flatten() {
                self.vma(vma, &contents);
            }
        }
    }

    fn vma(&mut self, vma: &Vma, contents: &Contents) {
        let (start, end) = (vma.start.get(), vma.end.get());
        let flags = vma.flags.get();
        let mode: String = [
            (vma_flags::READ, 'r', '-'),
            (vma_flags::WRITE, 'w', '-'),
            (vma_flags::EXEC, 'x', '-'),
            (vma_flags::SHARED, 's', 'p'),
        ]
        .iter()
        .map(|(bit, on, off)| if flags & bit != 0 { on } else { off })
        .collect();
        let what = match vma.kind.get() {
            vma_kind::FILE => self.path(vma.object.get()),
            vma_kind::SHMEM => {
                let id = vma.object.get();
                let pages = self.contents.get(&id).map_or(0, |contents| contents.pages);
                format!("[shared memory {id}, {} saved]", Size(pages * 4096))
            }
            vma_kind::HUGETLB => match self.objects.get_as::<Hugetlb>(vma.object.get()) {
                Some((huge, _)) => {
                    let size = 1u64.checked_shl(huge.page_shift.get()).unwrap_or(0);
                    format!("[pages of {}]", Size(size))
                }
                None => String::new(),
            },
            vma_kind::AIO => match self.objects.get_as::<AioContext>(vma.object.get()) {
                Some((context, _)) => format!("[aio] {} requests", context.max_reqs),
                None => "[aio]".into(),
            },
            vma_kind::VDSO => "[vdso]".into(),
            vma_kind::SPECIAL => "[special]".into(),
            _ if flags & vma_flags::GROWSDOWN != 0 => "[stack]".into(),
            _ => match self.objects.get_as::<AnonName>(vma.name.get()) {
                Some((_, name)) => format!("[anon:{}]", clean(name)),
                None => String::new(),
            },
        };
        let pages = contents.pages_in(start, end);
        let line = format!(
            "  {start:012x}-{end:012x} {mode} {:>10} {:>10}  {what}",
            Size(end - start).to_string(),
            Size(pages * 4096).to_string(),
        );
        self.line(format_args!("{}", line.trim_end()));
    }

    fn file(&self, id: u32) -> String {
        let Some(record) = self.objects.get(id) else {
            return String::new();
        };
        if record.kind == Kind::FileEpoll {
            let watched = self.watched.get(&id).unwrap_or(&0);
            return format!("epoll  watches {watched}");
        }
        file(&record, self.objects)
    }

    fn path(&self, id: u32) -> String {
        match self.objects.get_as::<FileRegular>(id) {
            Some((_, path)) => clean(path),
            None => self.file(id),
        }
    }

    fn files(&mut self, processes: &[Entry<'_>]) {
        let tasks = || processes.iter().flat_map(|entry| &entry.tasks);
        let mut users = BTreeMap::<u32, Vec<String>>::new();
        for (_, task) in tasks() {
            let tid = task.tid.to_string();
            users.entry(task.files.get()).or_default().push(tid);
        }
        for (_, task) in tasks() {
            let files = task.files.get();
            let Some(users) = users.remove(&files).filter(|_| files != 0) else {
                continue;
            };
            self.line(format_args!("\nFiles of {}", users.join(", ")));
            if let Some((_, cwd)) = self.objects.get_as::<Fs>(task.fs.get()) {
                self.line(format_args!("   cwd  {}", clean(cwd)));
            }
            let fds = self
                .objects
                .get(files)
                .and_then(|record| record.get_array::<Files>().ok())
                .map_or(&[][..], |(_, fds)| fds);
            for fd in fds {
                let what = self.file(fd.file.get());
                let note = if fd.flags.get() & fd_flags::CLOEXEC != 0 {
                    "  cloexec"
                } else {
                    ""
                };
                self.line(format_args!("  {:>4}  {what}{note}", fd.fd));
            }
        }
    }
}

fn mode(flags: u32) -> &'static str {
    match (
        flags & file_flags::READ != 0,
        flags & file_flags::WRITE != 0,
    ) {
        (true, true) => "read and write",
        (true, false) => "read",
        (false, true) if flags & file_flags::APPEND != 0 => "append",
        (false, true) => "write",
        (false, false) => "no access",
    }
}

fn file(record: &RecordRef<'_>, objects: &Objects<'_, '_>) -> String {
    match record.kind {
        Kind::FileRegular => record.get::<FileRegular>().map(|(file, path)| {
            let (pos, size) = (file.pos, file.size);
            format!(
                "{}  {} at {pos} of {size}",
                clean(path),
                mode(file.flags.get())
            )
        }),
        Kind::FileDirectory => record.get::<FileDirectory>().map(|(_, path)| clean(path)),
        Kind::FileDevice => record
            .get::<FileDevice>()
            .map(|(file, path)| format!("{}  {}", clean(path), mode(file.flags.get()))),
        Kind::FilePipe => record.get::<FilePipe>().map(|(file, path)| {
            let id = file.pipe.get();
            let bytes = objects
                .get_as::<Pipe>(id)
                .map_or(0, |(pipe, _)| pipe.bytes.get());
            let name = if path.is_empty() {
                format!("pipe {id}")
            } else {
                clean(path)
            };
            format!("{name}  {}, {bytes} bytes in it", mode(file.flags.get()))
        }),
        Kind::FileExternal => record.get::<FileExternal>().map(|(file, text)| {
            let kind = usize::try_from(file.kind.get()).unwrap_or_default();
            let kind = external::NAMES.get(kind.wrapping_sub(1)).unwrap_or(&"?");
            format!("{}  {kind}, to be supplied", clean(text))
        }),
        Kind::UnixSocket => record
            .get::<UnixSocket>()
            .map(|(socket, tail)| unix(record.id, socket, tail)),
        Kind::FileUnnamed => record.get::<FileUnnamed>().map(|(file, _)| {
            let (size, name) = objects.get_as::<Unnamed>(file.object.get()).map_or(
                (0, String::new()),
                |(object, tail)| {
                    let name = match object.kind.get() {
                        unnamed::MEMFD => format!("memfd:{}", clean(tail)),
                        unnamed::CONTENTS => format!("{} (saved)", clean(tail)),
                        _ => format!("{} (unlinked)", clean(tail)),
                    };
                    (object.size.get(), name)
                },
            );
            format!(
                "{name}  {} at {} of {size}",
                mode(file.flags.get()),
                file.pos
            )
        }),
        Kind::FileProc => record
            .get::<FileProc>()
            .map(|(file, path)| format!("{}  {}", clean(path), mode(file.flags.get()))),
        Kind::FileNamespace => record.get::<FileNamespace>().map(|(file, path)| {
            let kind = usize::try_from(file.kind.get()).unwrap_or_default();
            let name = namespace_kind::NAMES
                .get(kind.wrapping_sub(1))
                .unwrap_or(&"?");
            let at = if path.is_empty() { "" } else { ", at " };
            format!("{name} namespace{at}{}", clean(path))
        }),
        Kind::FileTty => record.get::<FileTty>().map(|(file, path)| {
            let index = objects
                .get_as::<Pty>(file.pty.get())
                .map_or(0, |(pty, _)| pty.index.get());
            let end = if file.end.get() == tty_end::MASTER {
                "master"
            } else {
                "slave"
            };
            format!("{}  {end} of pty {index}", clean(path))
        }),
        Kind::FilePidfd => record
            .get::<FilePidfd>()
            .map(|(file, _)| match file.pid.get() {
                0 => "pidfd of a reaped task".into(),
                pid => format!("pidfd of task {pid}"),
            }),
        Kind::FileEventfd => record.get::<FileEventfd>().map(|(file, _)| {
            let semaphore = match file.semaphore.get() {
                0 => "",
                _ => ", semaphore",
            };
            format!("eventfd  {}{semaphore}", file.count)
        }),
        Kind::FileTimerfd => record.get::<FileTimerfd>().map(|(file, _)| {
            let clock = usize::try_from(file.clock.get()).unwrap_or_default();
            let names = timerfd_clock::NAMES;
            let clock = names.get(clock.wrapping_sub(1)).unwrap_or(&"?");
            let state = match file.state.get() {
                timerfd_state::ARMED => "armed",
                timerfd_state::EXPIRED => "expired",
                _ => "idle",
            };
            format!("timerfd  {clock}, {state}")
        }),
        Kind::FileInotify => Ok("inotify".into()),
        Kind::FileFanotify => Ok("fanotify".into()),
        Kind::FileUring => record.get::<FileUring>().map(|(file, _)| {
            let (sq, cq) = (file.sq_entries, file.cq_entries);
            format!("io_uring  {sq} entries, {cq} completions")
        }),
        Kind::FileSignalfd => record
            .get::<FileSignalfd>()
            .map(|(file, _)| format!("signalfd  {:#018x}", file.mask.get())),
        _ => Ok(record.kind.name().into()),
    }
    .unwrap_or_default()
}

/// A unix socket: type, name, state.
fn unix(id: u32, socket: &UnixSocket, tail: &[u8]) -> String {
    let kind = usize::try_from(socket.socket_type.get()).unwrap_or_default();
    let kind = socket_type::NAMES.get(kind.wrapping_sub(1)).unwrap_or(&"?");
    let name = match socket.split(tail) {
        Some(([0, name @ ..], _)) => format!(" @{}", clean(name)),
        Some((name, _)) if !name.is_empty() => format!(" {}", clean(name)),
        _ => String::new(),
    };
    let state = match socket.state.get() {
        socket_state::CONNECTED => "connected",
        socket_state::LISTENING => "listening",
        _ => "not connected",
    };
    format!("unix {kind} socket {id}{name}, {state}")
}
