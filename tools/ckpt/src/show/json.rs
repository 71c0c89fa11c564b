// SPDX-License-Identifier: GPL-2.0 OR MIT

//! An image as JSON: every record, by the table that describes it.

use std::{
    collections::BTreeMap,
    fmt::Write, //
};

use checkpoint::stream::{
    Crc,
    Whole, //
};
use checkpoint_image::{
    record::*,
    Check,
    Field,
    Item,
    Plan,
    RecordRef,
    Tail, //
};
use serde_json::{
    json,
    Map,
    Value, //
};

use super::Contents;

type Bits = &'static [(u32, &'static str, &'static [&'static str])];

/// Returns the names of the bits of a field `flags`.
fn bits(record: &str) -> Option<Bits> {
    Some(match record {
        open if open.starts_with("File") => file_flags::BITS,
        "Pipe" => pipe_flags::BITS,
        "Packet" => packet_flags::BITS,
        "UnixSocket" => socket_flags::BITS,
        "UnixMessage" => message_flags::BITS,
        "Fd" => fd_flags::BITS,
        "Mm" => mm_flags::BITS,
        "Vma" => vma_flags::BITS,
        "MemPolicy" => mem_policy_flags::BITS,
        "Process" => process_flags::BITS,
        "Task" => task_flags::BITS,
        "Timer" => timer_flags::BITS,
        "SeccompFilter" => seccomp_flags::BITS,
        "Scheduling" => scheduling_flags::BITS,
        "MmOptions" => mm_options::BITS,
        _ => return None,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn text(bytes: &[u8]) -> String {
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or(bytes)).into_owned()
}

fn words(bytes: &[u8]) -> Vec<u64> {
    let word = |chunk: &[u8]| Some(u64::from_le_bytes(chunk.try_into().ok()?));
    bytes.chunks_exact(8).filter_map(word).collect()
}

fn value(record: &str, field: &Field, bytes: &[u8]) -> Value {
    let raw = field.bytes(bytes).unwrap_or_default();
    let number = field.value(bytes).unwrap_or_default();
    match field.ty {
        "I32" => json!(raw.try_into().map_or(0, i32::from_le_bytes)),
        "I64" => json!(raw.try_into().map_or(0, i64::from_le_bytes)),
        "U16" | "U32" | "U64" => match bits(record) {
            Some(bits) if field.name == "flags" => bits
                .iter()
                .filter(|(bit, ..)| number >> bit & 1 != 0)
                .map(|(_, name, _)| *name)
                .collect(),
            _ => json!(number),
        },
        "Counts" | "CpuTime" | "IoCounts" | "Itimer" | "[Rlimit; 16]" | "[U64; 6]" => {
            json!(words(raw))
        }
        _ if field.name == "comm" => json!(text(raw)),
        _ => json!(hex(raw)),
    }
}

fn fields(record: &str, fields: &[Field], bytes: &[u8]) -> Map<String, Value> {
    fields
        .iter()
        .filter(|field| !matches!(field.check, Check::Zero))
        .map(|field| (field.name.to_string(), value(record, field, bytes)))
        .collect()
}

fn items(item: Item, bytes: &[u8]) -> Vec<Value> {
    bytes
        .chunks_exact(item.size())
        .map(|bytes| Value::Object(fields(item.name(), item.fields(), bytes)))
        .collect()
}

fn record(record: &RecordRef<'_>) -> Value {
    let info = record.kind.info();
    let name = record.kind.name();
    let (fixed, tail) = record
        .payload
        .split_at_checked(info.size)
        .unwrap_or_default();
    let mut object = Map::new();
    object.insert("record".into(), json!(name));
    if record.id != 0 {
        object.insert("id".into(), json!(record.id));
    }
    object.insert("offset".into(), json!(record.offset));
    object.append(&mut fields(name, record.kind.fields(), fixed));
    let (key, tail) = match info.tail {
        Tail::None => return Value::Object(object),
        Tail::Path | Tail::PathOrNone => ("path", json!(text(tail))),
        Tail::Text => ("description", json!(text(tail))),
        Tail::Strings(_) => (
            "strings",
            tail.split(|byte| *byte == 0)
                .filter(|part| !part.is_empty())
                .map(|part| String::from_utf8_lossy(part))
                .collect(),
        ),
        Tail::Bytes(_) => ("data", json!(hex(tail))),
        Tail::Mask => ("mask", json!(words(tail))),
        Tail::Items(item, _) => ("items", json!(items(item, tail))),
        Tail::ItemsAndBytes(item, ..) => {
            let len = info
                .tail
                .items(fixed, tail)
                .map_or(0, |(_, items)| items.len());
            let (front, data) = tail.split_at_checked(len).unwrap_or_default();
            object.insert("items".into(), json!(items(item, front)));
            ("data", json!(hex(data)))
        }
    };
    object.insert(key.into(), tail);
    Value::Object(object)
}

pub fn image(
    plan: &Plan<'_, Crc>,
    contents: &BTreeMap<u32, Contents>,
    whole: Option<&Whole>,
) -> String {
    let header = plan.header();
    let memory: Vec<Value> = contents
        .iter()
        .map(|(id, contents)| {
            json!({"id": id, "pages": contents.pages, "extents": contents.extents})
        })
        .collect();
    let image = json!({
        "version": [header.major.get(), header.minor.get()],
        "arch": "x86_64",
        "tasks": header.tasks.get(),
        "complete": whole.is_some(),
        "bytes": whole.map(|whole| whole.bytes),
        "pages": whole.map(|whole| whole.pages),
        "skipped_records": plan.skipped(),
        "records": plan.records().map(|each| record(&each)).collect::<Vec<_>>(),
        "memory": memory,
    });
    format!("{image:#}\n")
}
