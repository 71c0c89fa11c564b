// SPDX-License-Identifier: GPL-2.0 OR MIT

//! How records describe themselves: one table that validation, inspector and specification share.

use zerocopy::{
    FromBytes,
    Immutable,
    IntoBytes,
    KnownLayout,
    Unaligned, //
};

use super::record::{
    Item,
    Kind, //
};

/// What a field may hold.
#[derive(Clone, Copy, Debug)]
pub enum Check {
    /// Anything, or what the record's own check says.
    Any,
    /// Zero: it is reserved.
    Zero,
    /// A set of these bits.
    Bits(u32),
    /// A number between these two, both included.
    Range(u32, u32),
    /// The id of an earlier object of one of these kinds.
    Id(&'static [Kind]),
    /// The same, or 0 for none.
    IdOrNone(&'static [Kind]),
}

/// One field of a record or item.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Its type, as Rust spells it: `U16`, `U32`, `U64`, `I32`, `I64`, or an array.
    pub ty: &'static str,
    /// Bytes from the start of the payload or item.
    pub offset: usize,
    /// Size in bytes.
    pub size: usize,
    /// What it may hold.
    pub check: Check,
}

impl Field {
    /// Returns the field's little-endian value in `bytes`, if it is there and fits.
    #[inline]
    pub fn value(&self, bytes: &[u8]) -> Option<u64> {
        let field = self.bytes(bytes)?;
        let mut word = [0; 8];
        word.get_mut(..field.len())?.copy_from_slice(field);
        Some(u64::from_le_bytes(word))
    }

    /// Returns the field's bytes.
    #[inline]
    pub fn bytes<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        bytes.get(self.offset..self.offset.checked_add(self.size)?)
    }
}

/// What a field has to be by itself: what is left of a [`Field`] where an image is read.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Bytes from the start of the payload or item.
    offset: u16,
    /// How many words of 32 bits it has.
    words: u16,
    /// Bits that any of them may have.
    bits: u32,
    /// The least that it may be.
    min: u32,
    /// The most.
    max: u32,
}

impl Rule {
    #[inline]
    const fn of(field: &Field) -> Option<Self> {
        let (bits, min, max) = match field.check {
            Check::Zero => (0, 0, 0),
            Check::Bits(bits) => (bits, 0, u32::MAX),
            Check::Range(min, max) => (u32::MAX, min, max),
            Check::Any | Check::Id(_) | Check::IdOrNone(_) => return None,
        };
        assert!(field.size == 4 || (field.size % 4 == 0 && bits == 0));
        assert!(field.offset <= 0xffff && field.size <= 0xffff);
        Some(Self {
            offset: field.offset as u16,
            words: field.size as u16 / 4,
            bits,
            min,
            max,
        })
    }

    /// Checks the field in `bytes`, whose length fits.
    pub(super) fn check(&self, bytes: &[u8]) -> Result<(), &'static str> {
        let mut offset = usize::from(self.offset);
        for _ in 0..self.words {
            let word = word(bytes, offset).ok_or("the record is too short")?;
            if word & !self.bits != 0 || word < self.min || word > self.max {
                return Err(match self.bits {
                    0 => "a reserved field is not zero",
                    u32::MAX => "a field is out of its range",
                    _ => "unknown flags in a field",
                });
            }
            offset += 4;
        }
        Ok(())
    }
}

/// Which objects a field may refer to.
#[derive(Clone, Copy, Debug)]
pub struct IdRule {
    /// Bytes from the start of the payload or item.
    offset: u16,
    /// It may be 0, for none.
    pub(super) optional: bool,
    /// Kinds of objects.
    pub(super) kinds: &'static [Kind],
}

impl IdRule {
    #[inline]
    const fn of(field: &Field) -> Option<Self> {
        let (optional, kinds) = match field.check {
            Check::Id(kinds) => (false, kinds),
            Check::IdOrNone(kinds) => (true, kinds),
            _ => return None,
        };
        assert!(field.size == 4 && field.offset <= 0xffff);
        Some(Self {
            offset: field.offset as u16,
            optional,
            kinds,
        })
    }

    /// Returns the id in `bytes`.
    pub(super) fn id(&self, bytes: &[u8]) -> Option<u32> {
        word(bytes, usize::from(self.offset))
    }
}

/// What the fields of a record or item have to be. Most have no rule.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// By themselves.
    pub(super) own: &'static [Rule],
    /// As ids of objects.
    pub(super) ids: &'static [IdRule],
}

/// Makes lists of one type of rules, for those fields that have one.
macro_rules! lists {
    ($rule:ident, $none:expr) => {
        impl $rule {
            #[inline]
            pub(super) const fn count(mut fields: &[Field]) -> usize {
                let mut count = 0;
                while let [field, rest @ ..] = fields {
                    if Self::of(field).is_some() {
                        count += 1;
                    }
                    fields = rest;
                }
                count
            }

            #[inline]
            pub(super) const fn list<const N: usize>(mut fields: &[Field]) -> [Self; N] {
                let mut list = [$none; N];
                let mut free: &mut [Self] = &mut list;
                while let [field, rest @ ..] = fields {
                    if let Some(rule) = Self::of(field) {
                        let Some((first, others)) = free.split_first_mut() else {
                            break;
                        };
                        *first = rule;
                        free = others;
                    }
                    fields = rest;
                }
                list
            }
        }
    };
}

lists!(
    Rule,
    Self {
        offset: 0,
        words: 0,
        bits: 0,
        min: 0,
        max: 0,
    }
);
lists!(
    IdRule,
    Self {
        offset: 0,
        optional: true,
        kinds: &[],
    }
);

/// What follows the fixed part of a record, to the end of its payload.
#[derive(Clone, Copy, Debug)]
pub enum Tail {
    /// Nothing.
    None,
    /// An absolute path of 1 to 4095 bytes without NUL.
    Path,
    /// The same, or nothing.
    PathOrNone,
    /// Up to 4095 bytes without NUL.
    Text,
    /// So many strings, each with a NUL after it.
    Strings(u32),
    /// As many bytes as the `u32` at this offset of the record says.
    Bytes(usize),
    /// A set of bits, least significant first, in 1 to 128 little-endian words of 64 bits.
    Mask,
    /// An array of as many items as the `u32` at this offset of the record says.
    Items(Item, usize),
    /// The same, then as many bytes as the `u32` at the second offset says.
    ItemsAndBytes(Item, usize, usize),
}

impl Tail {
    /// Returns the items in the tail of a record with the fixed part `fixed`, and their kind.
    pub fn items<'a>(&self, fixed: &[u8], tail: &'a [u8]) -> Option<(Item, &'a [u8])> {
        match *self {
            Self::Items(item, _) => Some((item, tail)),
            Self::ItemsAndBytes(item, count, _) => {
                Some((item, tail.get(..items_len(item, count, fixed)?)?))
            }
            _ => None,
        }
    }
}

/// Returns the size of as many items as the `u32` at offset `count` of the fixed part says.
pub(super) fn items_len(item: Item, count: usize, fixed: &[u8]) -> Option<usize> {
    let count = usize::try_from(word(fixed, count)?).ok()?;
    count.checked_mul(item.size())
}

/// Returns the `u32` at an offset of the fixed part of a record.
pub(super) fn word(fixed: &[u8], offset: usize) -> Option<u32> {
    let bytes = fixed.get(offset..offset.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

/// One row of [`KINDS`](super::KINDS).
#[derive(Clone, Copy)]
pub struct KindInfo {
    /// The kind.
    pub kind: Kind,
    /// Size of the fixed part in bytes.
    pub size: usize,
    /// Whether the record describes an object, and so has an id.
    pub object: bool,
    /// What the fields of the fixed part have to be.
    pub rules: Rules,
    /// What follows the fixed part.
    pub tail: Tail,
    /// What the table cannot say.
    pub check: fn(&[u8]) -> Result<(), &'static str>,
}

/// What describes itself by a table of its fields.
pub trait Layout: Copy + FromBytes + Immutable + IntoBytes + KnownLayout + Unaligned {
    /// Its name.
    const NAME: &'static str;
    /// Its fields, in order, without a gap. No part of the tables that the kernel carries; nor is
    /// what the fields mean.
    const FIELDS: &'static [Field];
    /// What its fields have to be.
    const RULES: Rules;
    /// What it is, by lines.
    const DOC: &'static [&'static str];
    /// What its fields mean, by lines, in the order of `FIELDS`.
    const DOCS: &'static [&'static [&'static str]];
}

/// The fixed part of a record.
pub trait Record: Layout {
    /// Its kind.
    const KIND: Kind;
    /// Whether it describes an object, and so has an id.
    const OBJECT: bool;
    /// What follows the fixed part.
    const TAIL: Tail;
    /// What the table cannot say about the fixed part and the tail, which have passed it.
    const CHECK: fn(&Self, &[u8]) -> Result<(), &'static str>;
}

/// A [`Record`] with an array as its tail.
pub trait ArrayRecord: Record {
    /// What the array consists of.
    type Item: Layout;
}

/// Returns the row of a record in the table of kinds.
pub(super) const fn row<T: Record>() -> KindInfo {
    KindInfo {
        kind: T::KIND,
        size: size_of::<T>(),
        object: T::OBJECT,
        rules: T::RULES,
        tail: T::TAIL,
        check: check::<T>,
    }
}

fn check<T: Record>(payload: &[u8]) -> Result<(), &'static str> {
    let (record, tail) = T::ref_from_prefix(payload).map_err(|_| "the record is too short")?;
    (T::CHECK)(record, tail)
}

/// Declares a struct of the format together with its description.
macro_rules! layout {
    (
        $(#[doc = $doc:literal])*
        pub struct $name:ident {
            $(
                $(#[doc = $fdoc:literal])*
                pub $field:ident: $ty:ty $(=> $check:expr)?,
            )*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(
            Clone,
            Copy,
            Debug,
            PartialEq,
            Eq,
            zerocopy_derive::FromBytes,
            zerocopy_derive::Immutable,
            zerocopy_derive::IntoBytes,
            zerocopy_derive::KnownLayout,
            zerocopy_derive::Unaligned,
        )]
        #[repr(C)]
        pub struct $name {
            $(
                $(#[doc = $fdoc])*
                pub $field: $ty,
            )*
        }

        impl Layout for $name {
            const NAME: &'static str = stringify!($name);
            const FIELDS: &'static [Field] = &[
                $(
                    Field {
                        name: stringify!($field),
                        ty: stringify!($ty),
                        offset: core::mem::offset_of!($name, $field),
                        size: size_of::<$ty>(),
                        check: layout!(@check $($check)?),
                    },
                )*
            ];
            const RULES: Rules = Rules {
                own: &Rule::list::<{ Rule::count(<$name as Layout>::FIELDS) }>(
                    <$name as Layout>::FIELDS,
                ),
                ids: &IdRule::list::<{ IdRule::count(<$name as Layout>::FIELDS) }>(
                    <$name as Layout>::FIELDS,
                ),
            };
            const DOC: &'static [&'static str] = &[$($doc),*];
            const DOCS: &'static [&'static [&'static str]] = &[$(&[$($fdoc),*]),*];
        }
    };
    (@check) => { Check::Any };
    (@check $check:expr) => { $check };
}

/// Says how a struct declared by `layout!` is used as a record.
macro_rules! record {
    ($name:ident, object: $object:literal, tail: $tail:expr $(, check: $check:expr)?) => {
        impl Record for $name {
            const KIND: Kind = Kind::$name;
            const OBJECT: bool = $object;
            const TAIL: Tail = $tail;
            const CHECK: fn(&Self, &[u8]) -> Result<(), &'static str> = record!(@check $($check)?);
        }
    };
    (@check) => { |_, _| Ok(()) };
    (@check $check:expr) => { $check };
}

/// Declares the bits of a field as a module of constants, with their names and meanings by number.
macro_rules! bits {
    (
        $(#[doc = $doc:literal])*
        pub mod $name:ident {
            $($(#[doc = $bdoc:literal])* $bit:ident = $number:literal,)*
        }
    ) => {
        $(#[doc = $doc])*
        pub mod $name {
            $($(#[doc = $bdoc])* pub const $bit: u32 = 1 << $number;)*
            /// All of them.
            pub const ALL: u32 = 0 $(| $bit)*;
            /// Numbers, names and meanings, by lines.
            pub const BITS: &[(u32, &str, &[&str])] =
                &[$(($number, stringify!($bit), &[$($bdoc),*])),*];
        }
    };
}
