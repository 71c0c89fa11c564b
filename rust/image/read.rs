// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Reading an image, all of which is taken for hostile.

use core::marker::PhantomData;

use zerocopy::{
    FromBytes,
    IntoBytes, //
};

use super::{
    crc::Crc32c,
    error::{
        ImageError,
        Place, //
    },
    frame::{
        padding,
        Frame,
        Header,
        CHUNK_PAGES,
        FRAME_LEN,
        HEADER_LEN,
        MAX_RECORD,
        OPTIONAL,
        PAGE_SIZE, //
    },
    layout::{
        items_len,
        word,
        ArrayRecord,
        IdRule,
        Record,
        Rule,
        Tail, //
    },
    record::{
        task_flags,
        vma_kind,
        Extent,
        Hugetlb,
        Item,
        Kind,
        Mm,
        Pages,
        PlanEnd,
        Process,
        Registers,
        Share,
        Shared,
        Shmem,
        Signals,
        Task,
        Trailer,
        Unnamed,
        Vmas,
        Xstate, //
    },
    write::Totals, //
};

/// The plan of an image: everything but the contents of memory.
///
/// # Invariants
///
/// `bytes` is a sequence of whole records, the last of which is the only PlanEnd and the first of
/// which is the only Machine. Every record
///
/// - has a matching checksum, and zeros as padding;
/// - is of a known kind that belongs into a plan, or else is marked as optional;
/// - has an id if and only if its kind describes an object; the ids ascend;
/// - if its kind is known, has fields and a tail that pass its description and its own check.
pub struct Plan<'a, C: Crc32c> {
    bytes: &'a [u8],
    header: Header,
    objects: u32,
    skipped: u32,
    totals: Totals<C>,
}

impl<'a, C: Crc32c> Plan<'a, C> {
    /// Reads a plan from the bytes that follow `header` in the stream, of which there are
    /// [`Header::plan_len`], or fewer if the stream ends there.
    ///
    /// # Errors
    ///
    /// Names the first record that is truncated, damaged, malformed or unknown.
    pub fn new(header: &Header, bytes: &'a [u8]) -> Result<Self, ImageError> {
        let given = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if given < header.plan_len.get() {
            let at = given.saturating_add(const { HEADER_LEN as u64 });
            return Err(ImageError::Truncated(at, "the plan"));
        }
        let bytes = bytes.get(..header.plan_len()).unwrap_or(bytes);

        let mut totals = Totals::<C>::new();
        let mut rest = bytes;
        let mut objects = 0;
        let mut tasks = 0u32;
        let mut skipped = 0;
        let mut last_id = 0;
        let mut ended = None;
        while !rest.is_empty() {
            let Ok((frame, after)) = Frame::read_from_prefix(rest) else {
                let reason = "the plan does not end with a record";
                return Err(ImageError::MalformedHeader(reason));
            };
            let place = Place {
                record: totals.records,
                kind: frame.kind.get(),
                offset: totals.bytes,
            };
            let bad = |reason| ImageError::Malformed(place, reason);

            if let Some(end) = ended {
                return Err(ImageError::Malformed(
                    end,
                    "more records follow in the plan",
                ));
            }
            let (payload, after) = split_payload(&frame, after).map_err(bad)?;
            verify::<C>(&frame, payload, place)?;

            let id = frame.id.get();
            match Kind::from_number(frame.kind.get()) {
                None if frame.flags.get() == OPTIONAL => skipped += 1,
                None => return Err(ImageError::UnknownRecord(place)),
                Some(kind) => {
                    if !kind.in_plan() {
                        return Err(bad("it does not belong into a plan"));
                    }
                    if frame.flags.get() != 0 {
                        return Err(bad("unknown flags"));
                    }
                    if kind.info().object != (id != 0) {
                        return Err(bad("it lacks an id, or has one"));
                    }
                    if (kind == Kind::Machine) != (totals.records == 0) {
                        return Err(bad("the first record, and no other, is of kind Machine"));
                    }
                    check_payload(kind, payload).map_err(bad)?;
                    match kind {
                        Kind::Task => tasks += 1,
                        Kind::PlanEnd => {
                            let (end, _) = PlanEnd::ref_from_prefix(payload)
                                .map_err(|_| bad("the record is too short"))?;
                            if end.records.get() != totals.records {
                                return Err(bad("the number of records is another"));
                            }
                            ended = Some(place);
                        }
                        _ => (),
                    }
                }
            }
            if id != 0 {
                if id <= last_id {
                    return Err(bad("the ids do not ascend"));
                }
                last_id = id;
                objects += 1;
            }
            totals.frame(&frame);
            totals.records += 1;
            rest = after;
        }
        if ended.is_none() {
            return Err(ImageError::MalformedHeader("the plan has no end"));
        }
        if tasks != header.tasks.get() {
            return Err(ImageError::MalformedHeader(
                "the number of tasks is another",
            ));
        }
        // INVARIANT: The loop has looked at every record up to the last byte.
        Ok(Self {
            bytes,
            header: *header,
            objects,
            skipped,
            totals,
        })
    }

    /// Returns the header of the image.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Returns the number of records that have an id: how many [`Slot`]s [`Objects::new`] needs.
    pub fn objects(&self) -> usize {
        usize::try_from(self.objects).unwrap_or(usize::MAX)
    }

    /// Returns the number of optional records that are of an unknown kind.
    pub fn skipped(&self) -> u32 {
        self.skipped
    }

    /// Returns the counts at the end of the plan.
    pub fn totals(&self) -> &Totals<C> {
        &self.totals
    }

    /// Iterates over the records of known kinds in the order of the plan.
    pub fn records(&self) -> Records<'a> {
        Records {
            bytes: self.bytes,
            offset: 0,
            record: 0,
        }
    }

    /// Returns the reader of what follows the plan in the stream.
    pub fn stream(&self) -> Stream<C> {
        Stream {
            totals: self.totals.clone(),
            last_id: 0,
            free: 0,
            free_shared: 0,
            pending: None,
        }
    }
}

/// The records of a [`Plan`].
///
/// # Invariants
///
/// `bytes` is the whole of a valid plan, and a record starts at `offset`, or it is the end.
#[derive(Clone)]
pub struct Records<'a> {
    bytes: &'a [u8],
    offset: usize,
    record: u64,
}

impl<'a> Iterator for Records<'a> {
    type Item = RecordRef<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let offset = self.offset;
            let record = self.record;
            let (frame, payload) = self.at(offset)?;
            let padding = usize::try_from(padding(frame.len.get())).ok()?;
            // INVARIANT: This is where the record ends.
            self.offset = offset + const { FRAME_LEN } + payload.len() + padding;
            self.record += 1;
            if let Some(kind) = Kind::from_number(frame.kind.get()) {
                return Some(RecordRef {
                    kind,
                    id: frame.id.get(),
                    offset: u64::try_from(offset).ok()? + const { HEADER_LEN as u64 },
                    record,
                    payload,
                });
            }
        }
    }
}

impl<'a> Records<'a> {
    /// Returns frame and payload of the record that starts at `offset`.
    fn at(&self, offset: usize) -> Option<(&'a Frame, &'a [u8])> {
        let (frame, after) = Frame::ref_from_prefix(self.bytes.get(offset..)?).ok()?;
        let len = usize::try_from(frame.len.get()).ok()?;
        Some((frame, after.get(..len)?))
    }
}

/// One record of a valid plan.
#[derive(Clone, Copy, Debug)]
pub struct RecordRef<'a> {
    /// Its kind.
    pub kind: Kind,
    /// Id of the object it describes, or 0.
    pub id: u32,
    /// Byte of the stream at which its frame starts.
    pub offset: u64,
    /// Its number, counted from 0.
    pub record: u64,
    /// Its payload: the fixed part and the tail.
    pub payload: &'a [u8],
}

impl<'a> RecordRef<'a> {
    /// Returns where it is, for messages.
    pub fn place(&self) -> Place {
        Place {
            record: self.record,
            kind: self.kind.number(),
            offset: self.offset,
        }
    }

    /// Returns the error that the record is malformed for `reason`.
    pub fn malformed(&self, reason: &'static str) -> ImageError {
        ImageError::Malformed(self.place(), reason)
    }

    /// Returns the fixed part and the tail.
    ///
    /// # Errors
    ///
    /// [`ImageError::Malformed`] if the record is of another kind.
    pub fn get<T: Record>(&self) -> Result<(&'a T, &'a [u8]), ImageError> {
        if self.kind != T::KIND {
            return Err(self.malformed("it is of another kind than expected"));
        }
        T::ref_from_prefix(self.payload).map_err(|_| self.malformed("the record is too short"))
    }

    /// Returns the fixed part and the array that follows it.
    ///
    /// # Errors
    ///
    /// [`ImageError::Malformed`] if the record is of another kind.
    pub fn get_array<T: ArrayRecord>(&self) -> Result<(&'a T, &'a [T::Item]), ImageError> {
        let (record, tail) = self.get::<T>()?;
        let items = <[T::Item]>::ref_from_bytes(tail)
            .map_err(|_| self.malformed("the tail has a wrong length"))?;
        Ok((record, items))
    }
}

/// What [`Objects`] keeps of one object. The caller provides the memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slot {
    id: u32,
    kind: Option<Kind>,
    /// Byte of the plan at which the record starts.
    offset: u32,
    /// Number of the record.
    record: u32,
    /// The process of a task.
    owner: u32,
    /// What was seen of the object: of a Task, bit n for component n of the extended registers and
    /// bit 63 for the general ones; of a Process, bit 63 for its leader, bit 62 for a task that has
    /// not ended.
    seen: u64,
}

const SEEN: u64 = 1 << 63;
const LIVE: u64 = 1 << 62;

/// The objects of a plan by their ids.
///
/// # Invariants
///
/// `slots` has one entry for each record of a known kind with an id, ascending by id. Every reference
/// in a record of the plan is to an earlier object of a kind that belongs there. Moreover
///
/// - the Vmas of an Mm follow it directly, ascend and are as many as it says;
/// - the first Process has no parent, every Process has a leader, and its leader comes before its
///   other Tasks;
/// - only leaders are EXITED, and a Process has a Task that is not if, and only if, it has an Mm;
/// - every Task has one Registers record, unless it is EXITED, and no Xstate twice.
pub struct Objects<'a, 's> {
    records: Records<'a>,
    slots: &'s [Slot],
}

impl<'a, 's> Objects<'a, 's> {
    /// Checks what refers to what in `plan`. `slots` has room for [`Plan::objects`] objects.
    ///
    /// # Errors
    ///
    /// Names the first record that breaks an invariant of [`Objects`].
    pub fn new<C: Crc32c>(plan: &Plan<'a, C>, slots: &'s mut [Slot]) -> Result<Self, ImageError> {
        let mut used = 0;
        // The Mm whose mappings come now: its record and id, how many are missing, and where they
        // may go on.
        let mut mm: Option<(RecordRef<'a>, u64, u64)> = None;
        let mut processes = 0u32;

        for record in plan.records() {
            let bad = |reason| record.malformed(reason);
            let earlier = slots.get_mut(..used).unwrap_or_default();
            let info = record.kind.info();
            check_ids(earlier, info.rules.ids, record.payload).map_err(bad)?;
            let (fixed, tail) = record
                .payload
                .split_at_checked(info.size)
                .unwrap_or_default();
            if let Some((item, items)) = info.tail.items(fixed, tail) {
                let rules = item.rules().ids;
                if !rules.is_empty() {
                    for item_bytes in items.chunks_exact(item.size()) {
                        check_ids(earlier, rules, item_bytes).map_err(bad)?;
                    }
                }
            }

            if record.kind != Kind::Vmas {
                finish_mm(mm.take())?;
            }
            let mut owner = 0;
            match record.kind {
                Kind::Mm => {
                    let (fixed, _) = record.get::<Mm>()?;
                    mm = Some((record, u64::from(fixed.vmas.get()), 0));
                }
                Kind::Vmas => {
                    let (fixed, vmas) = record.get_array::<Vmas>()?;
                    let Some((of, missing, free)) = &mut mm else {
                        return Err(bad("it does not follow its Mm"));
                    };
                    if of.id != fixed.mm.get() {
                        return Err(bad("it follows another Mm"));
                    }
                    for vma in vmas {
                        if vma.start.get() < *free {
                            return Err(bad("the mappings do not ascend"));
                        }
                        *free = vma.end.get();
                        *missing = missing
                            .checked_sub(1)
                            .ok_or(bad("more mappings than said"))?;
                        if vma.object.get() != 0 {
                            let kind = find(earlier, vma.object.get()).and_then(|slot| slot.kind);
                            let expected = match kind {
                                Some(Kind::Shmem) => vma_kind::SHMEM,
                                Some(Kind::Hugetlb) => vma_kind::HUGETLB,
                                Some(Kind::AioContext) => vma_kind::AIO,
                                _ => vma_kind::FILE,
                            };
                            if vma.kind.get() != expected {
                                return Err(bad("a mapping and its object do not match"));
                            }
                        }
                    }
                }
                Kind::Process => {
                    let (fixed, _) = record.get::<Process>()?;
                    if fixed.parent.get() != 0 && processes == 0 {
                        return Err(bad("the first process has a parent"));
                    }
                    processes += 1;
                }
                Kind::Task => {
                    let (task, _) = record.get::<Task>()?;
                    owner = task.process.get();
                    let slot = find_mut(earlier, owner).ok_or(bad("no such process"))?;
                    let process = process_at(plan, slot).ok_or(bad("no such process"))?;
                    let leads = process.tgid.get() == task.tid.get();
                    if leads == (slot.seen & SEEN != 0) {
                        return Err(bad("the leader comes first among the tasks of a process"));
                    }
                    let exited = is_exited(task);
                    if exited && !leads {
                        return Err(bad("it has ended and leads no process"));
                    }
                    if !exited && process.mm.get() == 0 {
                        return Err(bad("its process has ended"));
                    }
                    slot.seen |= if exited { SEEN } else { SEEN | LIVE };
                }
                Kind::Registers => {
                    let (fixed, _) = record.get::<Registers>()?;
                    let slot = find_mut(earlier, fixed.task.get()).ok_or(bad("no such task"))?;
                    if slot.seen & SEEN != 0 || task_at(plan, slot).is_none_or(is_exited) {
                        return Err(bad("a task has registers twice, or has ended"));
                    }
                    slot.seen |= SEEN;
                }
                Kind::Xstate => {
                    let (fixed, _) = record.get::<Xstate>()?;
                    let slot = find_mut(earlier, fixed.task.get()).ok_or(bad("no such task"))?;
                    let bit = 1 << (fixed.feature.get() & 63);
                    if slot.seen & bit != 0 {
                        return Err(bad("a task has a component twice"));
                    }
                    slot.seen |= bit;
                }
                _ => (),
            }

            if record.id != 0 {
                let Some(slot) = slots.get_mut(used) else {
                    return Err(bad("there are more objects than slots"));
                };
                let start = record.offset.wrapping_sub(const { HEADER_LEN as u64 });
                *slot = Slot {
                    id: record.id,
                    kind: Some(record.kind),
                    offset: u32::try_from(start).map_err(|_| bad("the plan is too long"))?,
                    record: u32::try_from(record.record).map_err(|_| bad("too many records"))?,
                    owner,
                    seen: 0,
                };
                used += 1;
            }
        }
        finish_mm(mm.take())?;
        if processes == 0 {
            return Err(ImageError::MalformedHeader("there is no process"));
        }

        let slots: &'s [Slot] = slots;
        let slots = slots.get(..used).unwrap_or_default();
        for slot in slots {
            let Some(record) = record_at(&plan.records(), slot) else {
                continue;
            };
            match record.kind {
                Kind::Process if slot.seen & SEEN == 0 => {
                    return Err(record.malformed("it has no leading task"));
                }
                Kind::Process
                    if slot.seen & LIVE == 0 && record.get::<Process>()?.0.mm.get() != 0 =>
                {
                    return Err(record.malformed("all its tasks have ended"));
                }
                Kind::Task if slot.seen & SEEN == 0 && !is_exited(record.get::<Task>()?.0) => {
                    return Err(record.malformed("it has no registers"));
                }
                _ => (),
            }
        }
        // INVARIANT: All of it was checked above.
        Ok(Self {
            records: plan.records(),
            slots,
        })
    }

    /// Returns the record of an object.
    pub fn get(&self, id: u32) -> Option<RecordRef<'a>> {
        record_at(&self.records, find(self.slots, id)?)
    }

    /// Returns the fixed part and the tail of the record of an object, which is of kind `T`.
    pub fn get_as<T: Record>(&self, id: u32) -> Option<(&'a T, &'a [u8])> {
        let slot = find(self.slots, id)?;
        if slot.kind != Some(T::KIND) {
            return None;
        }
        record_at(&self.records, slot)?.get::<T>().ok()
    }

    /// Returns the place of an object among all objects, counted from 0: a dense number for tables
    /// of one's own, below [`Plan::objects`].
    pub fn index(&self, id: u32) -> Option<usize> {
        position(self.slots, id)
    }

    /// Iterates over the records of all objects, in their order.
    pub fn iter(&self) -> impl Iterator<Item = RecordRef<'a>> + '_ {
        self.slots
            .iter()
            .filter_map(|slot| record_at(&self.records, slot))
    }
}

/// Returns the place of an object among `slots`, which ascend by their ids.
fn position(slots: &[Slot], id: u32) -> Option<usize> {
    // The ids of an image as a checkpoint writes it count from 1.
    let direct = usize::try_from(id).ok()?.checked_sub(1)?;
    if slots.get(direct).is_some_and(|slot| slot.id == id) {
        return Some(direct);
    }
    slots.binary_search_by_key(&id, |slot| slot.id).ok()
}

fn find(slots: &[Slot], id: u32) -> Option<&Slot> {
    slots.get(position(slots, id)?)
}

fn find_mut(slots: &mut [Slot], id: u32) -> Option<&mut Slot> {
    slots.get_mut(position(slots, id)?)
}

/// Returns the record in `slot` of the plan that `records` iterates over.
fn record_at<'a>(records: &Records<'a>, slot: &Slot) -> Option<RecordRef<'a>> {
    let (_, payload) = records.at(usize::try_from(slot.offset).ok()?)?;
    Some(RecordRef {
        kind: slot.kind?,
        id: slot.id,
        offset: u64::from(slot.offset) + const { HEADER_LEN as u64 },
        record: u64::from(slot.record),
        payload,
    })
}

fn process_at<'a, C: Crc32c>(plan: &Plan<'a, C>, slot: &Slot) -> Option<&'a Process> {
    let (process, _) = record_at(&plan.records(), slot)?.get::<Process>().ok()?;
    Some(process)
}

fn task_at<'a, C: Crc32c>(plan: &Plan<'a, C>, slot: &Slot) -> Option<&'a Task> {
    let (task, _) = record_at(&plan.records(), slot)?.get::<Task>().ok()?;
    Some(task)
}

fn is_exited(task: &Task) -> bool {
    task.flags.get() & task_flags::EXITED != 0
}

fn finish_mm(mm: Option<(RecordRef<'_>, u64, u64)>) -> Result<(), ImageError> {
    match mm {
        Some((record, missing, _)) if missing != 0 => {
            Err(record.malformed("fewer mappings follow than said"))
        }
        _ => Ok(()),
    }
}

/// Checks that the fields which refer to objects refer to `earlier` ones of the right kind.
fn check_ids(earlier: &[Slot], rules: &[IdRule], bytes: &[u8]) -> Result<(), &'static str> {
    for rule in rules {
        let id = rule.id(bytes).unwrap_or(0);
        if id == 0 {
            if !rule.optional {
                return Err("a reference is missing");
            }
            continue;
        }
        let kind = find(earlier, id).and_then(|slot| slot.kind);
        if !kind.is_some_and(|kind| rule.kinds.contains(&kind)) {
            return Err("a reference is to no earlier object of the right kind");
        }
    }
    Ok(())
}

/// What a frame after the plan announces. The number is the length of the payload with its
/// padding, to be read next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A chunk; at most 16 + 16 * [`CHUNK_PAGES`] + [`PAGE_SIZE`] bytes.
    Chunk(usize),
    /// Pages in common; at most 8 + 24 * [`CHUNK_PAGES`] bytes.
    Shared(usize),
    /// The trailer.
    Trailer(usize),
}

/// Reads what follows the plan: chunks, then the trailer.
///
/// For each frame: [`Stream::next`], then read the payload; for a chunk [`Stream::chunk`], then
/// read the data and [`Stream::data`]; for pages in common [`Stream::shared`]; for the trailer
/// [`Stream::trailer`], and that is the end.
pub struct Stream<C: Crc32c> {
    totals: Totals<C>,
    last_id: u32,
    free: u64,
    free_shared: u64,
    pending: Option<Pages>,
}

/// A run of pages that the stream holds next.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// Id of the Mm, Shmem, Unnamed or Hugetlb that the pages belong to.
    pub id: u32,
    /// Number of pages, from 1 to [`CHUNK_PAGES`].
    pub pages: u32,
    /// Where they belong: ascending, apart, on page boundaries, within the object unless it is a Mm;
    /// with as many pages as `pages` together.
    pub extents: &'a [Extent],
    /// CRC-32C that the data must have.
    pub data_crc: u32,
    place: Place,
}

impl<C: Crc32c> Stream<C> {
    /// Returns what has gone by.
    pub fn totals(&self) -> &Totals<C> {
        &self.totals
    }

    /// Returns the error that the stream ends `got` bytes after what has gone by.
    pub fn truncated(&self, got: u64) -> ImageError {
        let at = self.totals.bytes.saturating_add(got);
        let what = if got == 0 {
            "the stream: the trailer is missing"
        } else {
            "a record or its pages"
        };
        ImageError::Truncated(at, what)
    }

    /// Looks at the next frame.
    ///
    /// # Errors
    ///
    /// If it is neither that of a chunk nor that of the trailer.
    pub fn next(&self, frame: &[u8; FRAME_LEN]) -> Result<Next, ImageError> {
        let frame: Frame = zerocopy::transmute!(*frame);
        let place = self.place(&frame);
        let len = frame.len.get();
        let most = match Kind::from_number(frame.kind.get()) {
            Some(Kind::Pages) => const { 16 + 16 * CHUNK_PAGES + PAGE_SIZE },
            Some(Kind::Shared) => const { 8 + 24 * CHUNK_PAGES },
            Some(Kind::Trailer) => const { size_of::<Trailer>() as u32 },
            Some(_) => return Err(ImageError::Malformed(place, "it belongs into the plan")),
            None => return Err(ImageError::UnknownRecord(place)),
        };
        if len > most {
            return Err(ImageError::Malformed(place, "the record is too long"));
        }
        let padded = usize::try_from(len + padding(len)).unwrap_or(usize::MAX);
        Ok(match Kind::from_number(place.kind) {
            Some(Kind::Pages) => Next::Chunk(padded),
            Some(Kind::Shared) => Next::Shared(padded),
            _ => Next::Trailer(padded),
        })
    }

    /// Checks the chunk with this frame and padded payload, whose data comes next.
    ///
    /// # Errors
    ///
    /// If it is damaged or malformed, or if it belongs to no memory of the plan.
    pub fn chunk<'p>(
        &mut self,
        objects: &Objects<'_, '_>,
        frame: &[u8; FRAME_LEN],
        payload: &'p [u8],
    ) -> Result<Chunk<'p>, ImageError> {
        let frame: Frame = zerocopy::transmute!(*frame);
        let place = self.place(&frame);
        let bad = |reason| ImageError::Malformed(place, reason);
        let payload = self.frame(&frame, Kind::Pages, payload)?;
        let (fixed, tail) =
            Pages::ref_from_prefix(payload).map_err(|_| bad("the record is too short"))?;
        let (extents, _) = fixed
            .split(tail)
            .ok_or(bad("the tail has a wrong length"))?;

        let id = frame.id.get();
        let object = objects
            .get(id)
            .ok_or(bad("it belongs to no object of the plan"))?;
        let end = match object.kind {
            Kind::Mm => u64::MAX,
            Kind::Shmem => object.get::<Shmem>()?.0.size.get(),
            Kind::Unnamed => {
                let size = object.get::<Unnamed>()?.0.size.get();
                size.next_multiple_of(u64::from(PAGE_SIZE))
            }
            Kind::Hugetlb => object.get::<Hugetlb>()?.0.size.get(),
            _ => return Err(bad("it belongs to no memory")),
        };
        self.memory(id);
        for extent in extents {
            if extent.addr.get() < self.free {
                return Err(bad("the pages do not ascend"));
            }
            self.free = extent.addr.get().saturating_add(extent.len());
        }
        if self.free > end {
            return Err(bad("the pages reach past their object"));
        }
        self.totals.frame(&frame);
        self.pending = Some(*fixed);
        Ok(Chunk {
            id,
            pages: fixed.pages.get(),
            extents,
            data_crc: fixed.data_crc.get(),
            place,
        })
    }

    /// Takes note of whose memory comes.
    fn memory(&mut self, id: u32) {
        if id != self.last_id {
            self.last_id = id;
            self.free = 0;
            self.free_shared = 0;
        }
    }

    /// Checks the record of pages in common with this frame and padded payload, and returns to
    /// which Mm they belong, and the runs.
    ///
    /// # Errors
    ///
    /// If it is damaged or malformed, or if it refers to what is no Mm of the plan.
    pub fn shared<'p>(
        &mut self,
        objects: &Objects<'_, '_>,
        frame: &[u8; FRAME_LEN],
        payload: &'p [u8],
    ) -> Result<(u32, &'p [Share]), ImageError> {
        let frame: Frame = zerocopy::transmute!(*frame);
        let place = self.place(&frame);
        let bad = |reason| ImageError::Malformed(place, reason);
        let payload = self.frame(&frame, Kind::Shared, payload)?;
        let (_, tail) =
            Shared::ref_from_prefix(payload).map_err(|_| bad("the record is too short"))?;
        let shares =
            <[Share]>::ref_from_bytes(tail).map_err(|_| bad("the tail has a wrong length"))?;

        let id = frame.id.get();
        if objects.get_as::<Mm>(id).is_none() {
            return Err(bad("it belongs to no address space of the plan"));
        }
        self.memory(id);
        for share in shares {
            if share.addr.get() < self.free_shared {
                return Err(bad("the runs do not ascend"));
            }
            self.free_shared = share.addr.get().saturating_add(share.len());
            let from = share.from.get();
            if from == id || objects.get_as::<Mm>(from).is_none() {
                return Err(bad("it refers to no other address space of the plan"));
            }
        }
        self.totals.frame(&frame);
        self.totals.chunks += 1;
        Ok((id, shares))
    }

    /// Takes note that the data of `chunk` was read and has the CRC-32C `crc`.
    ///
    /// # Errors
    ///
    /// [`ImageError::DamagedData`].
    pub fn data(&mut self, chunk: &Chunk<'_>, crc: u32) -> Result<(), ImageError> {
        match self.pending.take() {
            Some(pages) if crc == chunk.data_crc => self.totals.data(&pages),
            _ => return Err(ImageError::DamagedData(chunk.place)),
        }
        Ok(())
    }

    /// Checks the trailer with this frame and padded payload, after which nothing comes.
    ///
    /// # Errors
    ///
    /// If it is damaged, or if it does not match what went by.
    pub fn trailer(&mut self, frame: &[u8; FRAME_LEN], payload: &[u8]) -> Result<(), ImageError> {
        let frame: Frame = zerocopy::transmute!(*frame);
        let place = self.place(&frame);
        let payload = self.frame(&frame, Kind::Trailer, payload)?;
        if payload != self.totals.trailer().as_bytes() {
            return Err(ImageError::Malformed(
                place,
                "it does not match what comes before it",
            ));
        }
        self.totals.frame(&frame);
        Ok(())
    }

    fn place(&self, frame: &Frame) -> Place {
        Place {
            record: self.totals.records + self.totals.chunks,
            kind: frame.kind.get(),
            offset: self.totals.bytes,
        }
    }

    /// Checks a frame and its padded payload, and returns the payload alone.
    fn frame<'p>(
        &self,
        frame: &Frame,
        kind: Kind,
        padded: &'p [u8],
    ) -> Result<&'p [u8], ImageError> {
        let place = self.place(frame);
        let bad = |reason| ImageError::Malformed(place, reason);
        if self.pending.is_some() {
            return Err(bad("the pages before it were not read"));
        }
        let (payload, rest) = split_payload(frame, padded).map_err(bad)?;
        verify::<C>(frame, payload, place)?;
        if Kind::from_number(frame.kind.get()) != Some(kind) || !rest.is_empty() {
            return Err(bad("it is of another kind than expected"));
        }
        if frame.flags.get() != 0 {
            return Err(bad("unknown flags"));
        }
        if kind.info().object != (frame.id.get() != 0) {
            return Err(bad("it lacks an id, or has one"));
        }
        check_payload(kind, payload).map_err(bad)?;
        Ok(payload)
    }
}

/// Splits the payload of a record from what follows its padding, which is zero.
fn split_payload<'a>(frame: &Frame, bytes: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), &'static str> {
    let len = frame.len.get();
    if len > MAX_RECORD {
        return Err("the record is too long");
    }
    let take = |bytes: &'a [u8], len: u32| bytes.split_at_checked(usize::try_from(len).ok()?);
    let reason = "the record is longer than what holds it";
    let (payload, rest) = take(bytes, len).ok_or(reason)?;
    let (pad, rest) = take(rest, padding(len)).ok_or(reason)?;
    if pad.iter().any(|byte| *byte != 0) {
        return Err("the padding is not zero");
    }
    Ok((payload, rest))
}

fn verify<C: Crc32c>(frame: &Frame, payload: &[u8], place: Place) -> Result<(), ImageError> {
    if frame.checksum::<C>(payload, &[]) != frame.crc.get() {
        return Err(ImageError::Damaged(place));
    }
    Ok(())
}

/// Checks the payload of a record by the description of its kind.
fn check_payload(kind: Kind, payload: &[u8]) -> Result<(), &'static str> {
    let info = kind.info();
    let (fixed, tail) = payload
        .split_at_checked(info.size)
        .ok_or("the record is too short")?;
    check_fields(info.rules.own, fixed)?;
    check_tail(&info.tail, fixed, tail)?;
    (info.check)(payload)
}

fn check_fields(rules: &[Rule], bytes: &[u8]) -> Result<(), &'static str> {
    rules.iter().try_for_each(|rule| rule.check(bytes))
}

fn check_tail(rule: &Tail, fixed: &[u8], tail: &[u8]) -> Result<(), &'static str> {
    let wrong = Err("the tail has a wrong length");
    match *rule {
        Tail::None if tail.is_empty() => Ok(()),
        Tail::None => wrong,
        Tail::PathOrNone if tail.is_empty() => Ok(()),
        Tail::Path | Tail::PathOrNone => {
            if tail.first() != Some(&b'/') {
                return Err("the path is not absolute");
            }
            if tail.len() >= 4096 {
                return Err("the path is too long");
            }
            if tail.contains(&0) {
                return Err("there is a NUL in the path");
            }
            Ok(())
        }
        Tail::Text if tail.len() >= 4096 || tail.contains(&0) => Err("the text is no text"),
        Tail::Text => Ok(()),
        Tail::Strings(count) => {
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            let nuls = tail.iter().filter(|byte| **byte == 0).count();
            if nuls != count || !matches!(tail, [.., 0]) || tail.len() > 4096 {
                return Err("the strings do not add up");
            }
            Ok(())
        }
        Tail::Bytes(offset) => match word(fixed, offset) {
            Some(len) if usize::try_from(len) == Ok(tail.len()) => Ok(()),
            _ => wrong,
        },
        Tail::Mask if tail.is_empty() || tail.len() > 1024 || tail.len() % 8 != 0 => wrong,
        Tail::Mask => Ok(()),
        Tail::Items(item, count) if items_len(item, count, fixed) == Some(tail.len()) => {
            check_items(item, tail)
        }
        Tail::Items(..) => wrong,
        Tail::ItemsAndBytes(item, count, bytes) => {
            let parts = items_len(item, count, fixed).and_then(|len| tail.split_at_checked(len));
            match parts {
                Some((items, rest))
                    if word(fixed, bytes).and_then(|len| usize::try_from(len).ok())
                        == Some(rest.len()) =>
                {
                    check_items(item, items)
                }
                _ => wrong,
            }
        }
    }
}

fn check_items(item: Item, items: &[u8]) -> Result<(), &'static str> {
    let rules = item.rules().own;
    if rules.is_empty() {
        return Ok(());
    }
    items
        .chunks_exact(item.size())
        .try_for_each(|bytes| check_fields(rules, bytes))
}
