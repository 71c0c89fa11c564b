// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Whatever is done to an image is found, and nothing makes the reader panic.

mod common;

use checkpoint_image::{
    Check,
    ErrorKind,
    Field,
    Header,
    Kind,
    Tail,
    HEADER_LEN,
    KINDS, //
};
use common::{
    frames,
    minimal,
    reseal,
    tree,
    verify,
    with_chunk,
    Crc, //
};
use proptest::prelude::*;
use zerocopy::{
    FromBytes,
    IntoBytes, //
};

#[test]
fn whole_images_are_good() {
    verify(&minimal()).unwrap();
    verify(&tree()).unwrap();
}

#[test]
fn every_flipped_bit_is_found() {
    let good = tree();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        let error = verify(&bad).expect_err(&format!("byte {at}"));
        assert!(error.to_string().len() < 200);
    }
}

#[test]
fn every_truncation_is_found() {
    let good = tree();
    for len in 0..good.len() {
        let kind = verify(&good[..len]).unwrap_err().kind();
        let expected = if len == 0 {
            ErrorKind::Empty
        } else {
            ErrorKind::Truncated
        };
        assert_eq!(kind, expected, "{len} bytes");
    }
}

#[test]
fn every_removed_or_repeated_record_is_found() {
    let good = tree();
    let frames = frames(&good);
    let mut starts: Vec<usize> = frames.iter().map(|(start, ..)| *start).collect();
    starts.push(good.len());
    for pair in starts.windows(2) {
        let (start, end) = (pair[0], pair[1]);
        let mut less = good.clone();
        less.drain(start..end);
        verify(&less).unwrap_err();
        let mut more = good.clone();
        more.splice(end..end, good[start..end].iter().copied());
        // What comes after the trailer is not part of the image.
        assert_eq!(verify(&more).is_ok(), end == good.len());
    }
}

#[test]
fn large_chunks_lie_on_pages() {
    for (pages, aligned) in [(7, false), (8, true), (9, true)] {
        let mut bytes = with_chunk(pages);
        let (start, payload, len) = *frames(&bytes).iter().rev().nth(1).unwrap();
        verify(&bytes).unwrap();
        let data = payload + len.next_multiple_of(8);
        assert_eq!(data % 4096 == 0, aligned, "{pages} pages");
        let seven = bytes[data..].iter().take_while(|byte| **byte == 7);
        assert_eq!(seven.count(), pages as usize * 4096);
        if aligned {
            // What is between is nothing but zeroes.
            bytes[data - 1] = 1;
            reseal(&mut bytes, start);
            let error = verify(&bytes).unwrap_err();
            assert!(error.to_string().contains("before the data"), "{error}");
        }
    }
}

fn with_header(change: impl FnOnce(&mut Header)) -> Vec<u8> {
    let mut bytes = minimal();
    let mut header = Header::read_from_bytes(&bytes[..HEADER_LEN]).unwrap();
    change(&mut header);
    bytes[..HEADER_LEN].copy_from_slice(header.seal::<Crc>().as_bytes());
    bytes
}

#[test]
fn headers_are_told_apart() {
    let kind = |bytes: &[u8]| verify(bytes).unwrap_err().kind();
    assert_eq!(kind(b""), ErrorKind::Empty);
    assert_eq!(kind(b"\x7fELF"), ErrorKind::NotAnImage);
    assert_eq!(kind(&[0; 4096]), ErrorKind::NotAnImage);
    assert_eq!(kind(&with_header(|h| h.major = 2.into())), ErrorKind::Newer);
    assert_eq!(
        kind(&with_header(|h| h.required = 8.into())),
        ErrorKind::Newer
    );
    assert_eq!(
        kind(&with_header(|h| h.arch = 183.into())),
        ErrorKind::Foreign
    );
    assert_eq!(
        kind(&with_header(|h| h.page_size = 65536.into())),
        ErrorKind::Foreign
    );
    assert_eq!(
        kind(&with_header(|h| h.flags = 1.into())),
        ErrorKind::Malformed
    );
    assert_eq!(
        kind(&with_header(|h| h.tasks = 2.into())),
        ErrorKind::Malformed
    );
    assert_eq!(
        kind(&with_header(|h| h.plan_len = u64::MAX.into())),
        ErrorKind::Malformed
    );
    verify(&with_header(|h| h.minor = 9.into())).unwrap();
    let error = verify(&with_header(|h| h.required = 8.into()))
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "the image needs feature bit 3, which this reader does not know"
    );
}

#[test]
fn unknown_records_are_skipped_only_if_they_may() {
    let good = minimal();
    let (second, ..) = frames(&good)[1];
    for (flags, expected) in [
        (0u16, Some(ErrorKind::Newer)),
        (1, None),
        (2, Some(ErrorKind::Newer)),
    ] {
        let mut bytes = good.clone();
        let mut frame = [0u8; 24];
        frame[..2].copy_from_slice(&0x77u16.to_le_bytes());
        frame[2..4].copy_from_slice(&flags.to_le_bytes());
        frame[4..8].copy_from_slice(&8u32.to_le_bytes());
        bytes.splice(second..second, frame);
        reseal(&mut bytes, second);
        // PlanEnd counts one record more, the header 24 bytes.
        let all = frames(&bytes);
        let (end, payload, _) = all[all.len() - 2];
        let records = u64::try_from(all.len() - 2).unwrap();
        bytes[payload..payload + 8].copy_from_slice(&records.to_le_bytes());
        reseal(&mut bytes, end);
        let mut header = Header::read_from_bytes(&bytes[..HEADER_LEN]).unwrap();
        header.plan_len += 24;
        bytes[..HEADER_LEN].copy_from_slice(header.seal::<Crc>().as_bytes());
        let error = verify(&bytes).unwrap_err();
        match expected {
            Some(kind) => assert_eq!(error.kind(), kind),
            // Only the trailer does not know of it.
            None => assert!(error.to_string().contains("(Trailer)"), "{error}"),
        }
    }
}

#[test]
fn every_check_of_the_table_bites() {
    let good = tree();
    let mut seen = Vec::new();
    for (start, payload, len) in frames(&good) {
        let number = u16::from_le_bytes([good[start], good[start + 1]]);
        let kind = Kind::from_number(number).unwrap();
        let info = kind.info();
        seen.push(kind);
        let mut fields: Vec<(usize, &Field)> =
            kind.fields().iter().map(|field| (payload, field)).collect();
        if let Tail::Items(item, _) = info.tail {
            if len > info.size {
                fields.extend(
                    item.fields()
                        .iter()
                        .map(|field| (payload + info.size, field)),
                );
            }
        }
        for (base, field) in fields {
            let value: u64 = match field.check {
                Check::Any => continue,
                Check::Zero => 1,
                Check::Bits(bits) if bits == u32::MAX => continue,
                Check::Bits(bits) => 1 << (!bits).trailing_zeros(),
                Check::Range(_, max) => u64::from(max) + 1,
                // No object has this id.
                Check::Id(_) | Check::IdOrNone(_) => 0x7fff_ffff,
            };
            let mut bytes = good.clone();
            let at = base + field.offset;
            let size = field.size.min(8);
            bytes[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
            reseal(&mut bytes, start);
            let error = verify(&bytes).expect_err(&format!("{kind} {}", field.name));
            assert_eq!(
                error.kind(),
                ErrorKind::Malformed,
                "{kind} {}: {error}",
                field.name
            );
            assert!(error.to_string().contains(&format!("({kind})")), "{error}");
        }
    }
    for kind in KINDS {
        assert!(seen.contains(kind), "the image to test with lacks {kind}");
    }
}

/// Damage with checksums that match: what somebody would do on purpose.
fn forge(bytes: &mut [u8], record: usize, at: usize, value: u8) {
    let frames = frames(bytes);
    let (start, payload, len) = frames[record % frames.len()];
    let at = at % (len + 12);
    // The frame's first 12 bytes, or the payload.
    bytes[if at < 12 {
        start + at
    } else {
        payload + at - 12
    }] = value;
    reseal(bytes, start);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn forged_images_do_not_panic(
        record in any::<usize>(),
        changes in prop::collection::vec((any::<usize>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = tree();
        for (at, value) in changes {
            let good = bytes.clone();
            forge(&mut bytes, record, at, value);
            // A length that changed moves all that follows: that is for the last change only.
            if frames_len(&bytes) != frames_len(&good) {
                break;
            }
        }
        let _ = verify(&bytes);
    }

    #[test]
    fn noise_does_not_panic(noise in prop::collection::vec(any::<u8>(), 0..2000)) {
        let _ = verify(&noise);
        let mut bytes = minimal();
        let keep = HEADER_LEN + noise.len() % (bytes.len() - HEADER_LEN);
        bytes.truncate(keep);
        bytes.extend_from_slice(&noise);
        prop_assert!(verify(&bytes).is_err());
    }
}

fn frames_len(bytes: &[u8]) -> Option<Vec<usize>> {
    std::panic::catch_unwind(|| frames(bytes))
        .ok()
        .map(|f| f.iter().map(|(.., len)| *len).collect())
}
