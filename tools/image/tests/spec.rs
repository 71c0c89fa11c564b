// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The specification and the code say the same: its tables are made from the list of kinds.

use std::{
    fmt::Write,
    fs,
    path::PathBuf, //
};

use checkpoint_image::{
    record::*,
    Check,
    Field,
    Frame,
    Header,
    Layout,
    Tail,
    KINDS, //
};

fn specification() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../Documentation/image-format.rst")
}

/// Joins the lines of a doc comment.
fn text(lines: &[&str]) -> String {
    let joined = lines
        .iter()
        .map(|line| line.trim())
        .collect::<Vec<_>>()
        .join(" ");
    joined.replace('`', "``")
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().unwrap();
        if !last.is_empty() && last.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_string());
        } else {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines
}

fn paragraph(out: &mut String, text: &str) {
    for line in wrapped(text, 100) {
        writeln!(out, "{line}").unwrap();
    }
    out.push('\n');
}

/// Writes a simple table, the last column of which is wrapped.
fn table(out: &mut String, head: &[&str], rows: &[Vec<String>]) {
    let mut rows: Vec<Vec<String>> = rows.to_vec();
    rows.insert(0, head.iter().map(|cell| cell.to_string()).collect());
    let last = head.len() - 1;
    let mut width: Vec<usize> = (0..last)
        .map(|i| rows.iter().map(|row| row[i].chars().count()).max().unwrap())
        .collect();
    width.push(98 - width.iter().map(|width| width + 2).sum::<usize>());
    let rule = width
        .iter()
        .map(|width| "=".repeat(*width))
        .collect::<Vec<_>>()
        .join("  ");
    writeln!(out, "{rule}").unwrap();
    for (number, row) in rows.iter().enumerate() {
        for (i, line) in wrapped(&row[last], width[last]).iter().enumerate() {
            for (cell, width) in row.iter().zip(&width).take(last) {
                write!(out, "{:width$}  ", if i == 0 { cell } else { "" }).unwrap();
            }
            writeln!(out, "{line}").unwrap();
        }
        if number == 0 {
            writeln!(out, "{rule}").unwrap();
        }
    }
    writeln!(out, "{rule}\n").unwrap();
}

fn names(kinds: &[Kind]) -> String {
    kinds
        .iter()
        .map(|kind| kind.name())
        .collect::<Vec<_>>()
        .join(", ")
}

fn fields(out: &mut String, fields: &[Field], docs: &[&[&str]]) {
    let mut next = 0;
    let mut rows = vec![];
    assert_eq!(fields.len(), docs.len());
    for (field, doc) in fields.iter().zip(docs) {
        assert_eq!(field.offset, next, "a gap before {}", field.name);
        next += field.size;
        let mut meaning = text(doc);
        match field.check {
            Check::Any | Check::Zero => (),
            Check::Bits(0) => (),
            Check::Bits(bits) => write!(meaning, " No bits but {bits:#x}.").unwrap(),
            Check::Range(min, max) => write!(meaning, " From {min} to {max}.").unwrap(),
            Check::Id(kinds) | Check::IdOrNone(kinds) => {
                write!(meaning, " Refers to: {}.", names(kinds)).unwrap();
            }
        }
        let ty = field.ty.to_lowercase();
        rows.push(vec![
            field.offset.to_string(),
            ty,
            field.name.to_string(),
            meaning,
        ]);
    }
    table(out, &["Offset", "Type", "Field", "Meaning"], &rows);
}

fn heading(out: &mut String, text: &str, line: &str) {
    writeln!(out, "{text}\n{}\n", line.repeat(text.chars().count())).unwrap();
}

fn item<T: Layout>(out: &mut String) {
    heading(out, T::NAME, "-");
    paragraph(out, &text(T::DOC));
    paragraph(
        out,
        &format!("Not a record by itself. {} bytes.", size_of::<T>()),
    );
    fields(out, T::FIELDS, T::DOCS);
}

fn kinds() -> String {
    let mut out = String::new();
    for kind in KINDS {
        let info = kind.info();
        heading(
            &mut out,
            &format!("{} (kind {})", kind.name(), kind.number()),
            "-",
        );
        paragraph(&mut out, &text(kind.doc()));
        let id = match (kind, info.object) {
            (Kind::Pages, _) => "The frame has the id of the object that the pages belong to.",
            (_, true) => "An object, with an id.",
            (_, false) => "No object, the id is 0.",
        };
        let tail = match info.tail {
            Tail::None => "There is no tail.".into(),
            Tail::Path => "Tail: an absolute path of 1 to 4095 bytes, without NUL.".into(),
            Tail::PathOrNone => {
                "Tail: an absolute path of at most 4095 bytes, without NUL, or nothing.".into()
            }
            Tail::Text => "Tail: at most 4095 bytes, without NUL.".into(),
            Tail::Strings(n) => format!("Tail: {n} strings, each with a NUL after it."),
            Tail::Bytes(at) => format!("Tail: as many bytes as the field at {at} says."),
            Tail::Mask => "Tail: a set of bits, least significant first, in 1 to 128 words of 8 \
                           bytes."
                .into(),
            Tail::Items(item, at) => format!(
                "Tail: {} ({} bytes each), as many as the field at {at} says.",
                item.name(),
                item.size()
            ),
            Tail::ItemsAndBytes(item, at, bytes) => format!(
                "Tail: {} ({} bytes each), as many as the field at {at} says, then as many bytes \
                 as the field at {bytes} says.",
                item.name(),
                item.size()
            ),
        };
        paragraph(
            &mut out,
            &format!("{id} The fixed part has {} bytes. {tail}", info.size),
        );
        fields(&mut out, kind.fields(), kind.field_docs());
    }
    item::<Packet>(&mut out);
    item::<FileRef>(&mut out);
    item::<Fd>(&mut out);
    item::<Vma>(&mut out);
    item::<Action>(&mut out);
    item::<Rlimit>(&mut out);
    item::<Itimer>(&mut out);
    item::<Siginfo>(&mut out);
    item::<Timer>(&mut out);
    item::<SeccompInsn>(&mut out);
    item::<CpuTime>(&mut out);
    item::<Counts>(&mut out);
    item::<IoCounts>(&mut out);
    item::<Group>(&mut out);
    item::<Guard>(&mut out);
    item::<Extent>(&mut out);
    item::<Share>(&mut out);
    out
}

fn bits() -> String {
    let mut out = String::new();
    for (name, bits) in [
        ("Open files: ``flags``", file_flags::BITS),
        ("Pipe: ``flags``", pipe_flags::BITS),
        ("Packet: ``flags``", packet_flags::BITS),
        ("FilePipe: ``end_flags``", end_flags::BITS),
        ("UnixSocket: ``flags``", socket_flags::BITS),
        ("UnixMessage: ``flags``", message_flags::BITS),
        ("Fd: ``flags``", fd_flags::BITS),
        ("Mm: ``flags``", mm_flags::BITS),
        ("Vma: ``flags``", vma_flags::BITS),
        ("MemPolicy: ``flags``", mem_policy_flags::BITS),
        ("Process: ``flags``", process_flags::BITS),
        ("Task: ``flags``", task_flags::BITS),
        ("Timer: ``flags``", timer_flags::BITS),
        ("SeccompFilter: ``flags``", seccomp_flags::BITS),
        ("Scheduling: ``flags``", scheduling_flags::BITS),
        ("MmOptions: ``flags``", mm_options::BITS),
    ] {
        heading(&mut out, name, "-");
        let rows: Vec<_> = bits
            .iter()
            .map(|(bit, name, docs)| vec![bit.to_string(), name.to_string(), text(docs)])
            .collect();
        table(&mut out, &["Bit", "Name", "Meaning"], &rows);
    }
    out
}

/// Header and frame, which are no records: by their documented layout.
fn plain(size: usize, rows: &[(usize, &str, &str, &str)]) -> String {
    let mut out = String::new();
    let mut next = 0;
    let mut cells = vec![];
    for (size, ty, name, meaning) in rows {
        cells.push(vec![
            next.to_string(),
            ty.to_string(),
            name.to_string(),
            meaning.to_string(),
        ]);
        next += size;
    }
    assert_eq!(next, size);
    table(&mut out, &["Offset", "Type", "Field", "Meaning"], &cells);
    out
}

fn header() -> String {
    assert_eq!(std::mem::offset_of!(Header, required), 24);
    assert_eq!(std::mem::offset_of!(Header, page_size), 40);
    assert_eq!(std::mem::offset_of!(Header, crc), 60);
    plain(
        size_of::<Header>(),
        &[
            (
                8,
                "[u8; 8]",
                "magic",
                "``89 43 4b 50 54 0d 0a 1a``: a byte, CKPT, CR, LF, a byte.",
            ),
            (2, "u16", "major", "Always 1."),
            (2, "u16", "minor", "Written as 0."),
            (2, "u16", "arch", "ELF machine number: 62 for x86-64."),
            (2, "u16", "header_len", "Always 64."),
            (4, "u32", "flags", "Zero."),
            (4, "u32", "tasks", "Number of Task records in the plan."),
            (8, "u64", "required", "Features that a reader must know."),
            (
                8,
                "u64",
                "plan_len",
                "Length of the plan, from the first record to PlanEnd.",
            ),
            (4, "u32", "page_size", "Always 4096."),
            (16, "[u8; 16]", "reserved", "Zero."),
            (
                4,
                "u32",
                "crc",
                "CRC-32C of the header with this field zero.",
            ),
        ],
    )
}

fn frame() -> String {
    assert_eq!(std::mem::offset_of!(Frame, crc), 12);
    plain(
        size_of::<Frame>(),
        &[
            (2, "u16", "kind", "Number of the kind."),
            (2, "u16", "flags", "1 OPTIONAL, or 0."),
            (
                4,
                "u32",
                "len",
                "Length of the payload without the zeros after it.",
            ),
            (4, "u32", "id", "Id of the object, or 0."),
            (
                4,
                "u32",
                "crc",
                "CRC-32C of the 12 bytes before it and the payload.",
            ),
        ],
    )
}

/// Puts the tables in where their marks are.
fn generated(old: &str) -> String {
    let mut new = old.to_string();
    for (mark, contents) in [
        ("header", header()),
        ("frame", frame()),
        ("kinds", kinds()),
        ("bits", bits()),
    ] {
        let begin = format!(".. {mark}\n\n");
        let end = format!(".. end {mark}\n\n");
        let start = new.find(&begin).unwrap_or_else(|| panic!("no mark {mark}")) + begin.len();
        let stop = new[start..]
            .find(&end)
            .map_or(start, |at| start + at + end.len());
        new.replace_range(start..stop, &format!("{contents}{end}"));
    }
    new
}

#[test]
fn specification_is_in_step() {
    let old = fs::read_to_string(specification()).unwrap();
    assert!(
        generated(&old) == old,
        "run: cargo test -p checkpoint-image --test spec -- --ignored"
    );
}

#[test]
#[ignore = "writes the tables of the specification anew"]
fn write_specification() {
    let old = fs::read_to_string(specification()).unwrap();
    fs::write(specification(), generated(&old)).unwrap();
}
