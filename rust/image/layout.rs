// SPDX-License-Identifier: GPL-2.0 OR MIT

//! How records describe themselves: one table that validation, inspector and specification share.

use zerocopy::{
    FromBytes,
    Immutable,
    IntoBytes,
    KnownLayout,
    Unaligned, //
};

use super::record::Kind;

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
    pub fn value(&self, bytes: &[u8]) -> Option<u64> {
        let field = self.bytes(bytes)?;
        if let Ok(word) = field.try_into() {
            return Some(u32::from_le_bytes(word).into());
        }
        let mut word = [0; 8];
        word.get_mut(..field.len())?.copy_from_slice(field);
        Some(u64::from_le_bytes(word))
    }

    /// Returns the field's bytes.
    pub fn bytes<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        bytes.get(self.offset..self.offset.checked_add(self.size)?)
    }
}

/// Whether any field asks for anything: most items have nothing but numbers.
#[derive(Clone, Copy, Debug)]
pub struct Needs {
    /// One is checked by itself.
    pub check: bool,
    /// One is the id of an object.
    pub ids: bool,
}

impl Needs {
    const fn of(mut fields: &[Field]) -> Self {
        let mut needs = Self {
            check: false,
            ids: false,
        };
        while let [field, rest @ ..] = fields {
            match field.check {
                Check::Any => (),
                Check::Zero | Check::Bits(_) | Check::Range(..) => needs.check = true,
                Check::Id(_) | Check::IdOrNone(_) => needs.ids = true,
            }
            fields = rest;
        }
        needs
    }
}

/// How many items a tail has.
#[derive(Clone, Copy, Debug)]
pub enum Count {
    /// Always this many.
    Fixed(u32),
    /// As many as the `u32` at this offset of the record says.
    Field(usize),
}

/// One type of item in tails.
#[derive(Clone, Copy, Debug)]
pub struct ItemInfo {
    /// Its name.
    pub name: &'static str,
    /// Its size in bytes.
    pub size: usize,
    /// Its fields.
    pub fields: &'static [Field],
    /// What they ask for.
    pub needs: Needs,
}

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
    /// An array of items.
    Items(&'static ItemInfo, Count),
    /// An array of items, then as many bytes as the `u32` at this offset of the record says.
    ItemsAndBytes(&'static ItemInfo, Count, usize),
}

impl Tail {
    /// Returns the items in the tail of a record with the fixed part `fixed`, and their kind.
    pub fn items<'a>(&self, fixed: &[u8], tail: &'a [u8]) -> Option<(&'static ItemInfo, &'a [u8])> {
        match *self {
            Self::Items(item, _) => Some((item, tail)),
            Self::ItemsAndBytes(item, count, _) => {
                Some((item, tail.get(..count.bytes(item, fixed)?)?))
            }
            _ => None,
        }
    }
}

impl Count {
    /// Returns the size of so many items after the fixed part `fixed`.
    pub(super) fn bytes(self, item: &ItemInfo, fixed: &[u8]) -> Option<usize> {
        let count = match self {
            Self::Fixed(count) => count,
            Self::Field(offset) => word(fixed, offset)?,
        };
        usize::try_from(count).ok()?.checked_mul(item.size)
    }
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
    /// The fields of the fixed part.
    pub fields: &'static [Field],
    /// What they ask for.
    pub needs: Needs,
    /// What follows the fixed part.
    pub tail: Tail,
    /// What the table cannot say.
    pub check: fn(&[u8]) -> Result<(), &'static str>,
}

/// What describes itself by a table of its fields.
pub trait Layout: Copy + FromBytes + Immutable + IntoBytes + KnownLayout + Unaligned {
    /// Its name.
    const NAME: &'static str;
    /// Its fields, in order, without a gap.
    const FIELDS: &'static [Field];
    /// What it is, by lines.
    const DOC: &'static [&'static str];
    /// What its fields mean, by lines, in the order of `FIELDS`. Not part of the table, so that
    /// the kernel does not carry it.
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
        fields: T::FIELDS,
        needs: const { Needs::of(T::FIELDS) },
        tail: T::TAIL,
        check: check::<T>,
    }
}

fn check<T: Record>(payload: &[u8]) -> Result<(), &'static str> {
    let (record, tail) = T::ref_from_prefix(payload).map_err(|_| "the record is too short")?;
    (T::CHECK)(record, tail)
}

/// Returns the description of a type of items.
pub(super) const fn item<T: Layout>() -> ItemInfo {
    ItemInfo {
        name: T::NAME,
        size: size_of::<T>(),
        fields: T::FIELDS,
        needs: const { Needs::of(T::FIELDS) },
    }
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
