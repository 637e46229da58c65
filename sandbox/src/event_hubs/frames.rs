//! Byte surgery on AMQP frames: what other client libraries need and the protocol library does not do.
//!
//! Owns two stream transformers. [`Padder`] writes out trailing fields that were left away; [`OpenLimiter`] lowers the
//! frame size that a client announced, so that padded frames still fit.

use bytes::{Buf, BufMut, BytesMut};

/// Bytes of a frame header.
const HEADER: usize = 8;

/// A protocol header (`AMQP`, id, version) instead of a frame.
const PROTOCOL: &[u8] = b"AMQP";

/// What padding may add to a frame: at most 14 nulls, and 6 bytes where a short list becomes a long one.
const GROWTH: u32 = 32;

/// Frame sizes below this are left alone (the protocol's least is 512).
const LEAST_FRAME: u32 = 1024;

/// Pads the performatives of a stream of frames with nulls to their full length.
///
/// The encoder leaves trailing nulls out, which is legal; pyamqp indexes fields unchecked and fails with "list index
/// out of range".
#[derive(Debug, Default)]
pub(super) struct Padder {
    pending: BytesMut,
    padded: BytesMut,
}

/// What the wire must know of a frame, with its channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameKind {
    /// A detach without an error: the answer to the client's own.
    DetachReply(u16),
    /// The settlement of what the client sent.
    Settlement(u16),
    /// The end of a session.
    End(u16),
    /// Anything else, protocol headers included (as channel 0).
    Other(u16),
}

impl Padder {
    /// Takes what the server wrote; hands on each frame that is complete, padded.
    pub(super) fn push(&mut self, bytes: &[u8], mut hand_on: impl FnMut(FrameKind, &[u8])) {
        self.pending.extend_from_slice(bytes);
        while let Some(frame) = take_frame(&mut self.pending) {
            let kind = kind_of(&frame);
            self.padded.clear();
            pad(&frame, &mut self.padded);
            hand_on(kind, &self.padded);
        }
    }
}

/// Lowers `max-frame-size` in the client's Open a little, then lets everything through.
#[derive(Debug, Default)]
pub(super) struct OpenLimiter {
    pending: BytesMut,
    done: bool,
}

impl OpenLimiter {
    /// Takes what the client wrote; returns what may go on.
    pub(super) fn push(&mut self, bytes: &[u8]) -> BytesMut {
        if self.done {
            return BytesMut::from(bytes);
        }
        self.pending.extend_from_slice(bytes);
        let mut out = BytesMut::with_capacity(self.pending.len());
        while !self.done {
            let Some(mut frame) = take_frame(&mut self.pending) else {
                break;
            };
            if performative(&frame).is_some_and(|found| found.code == 0x10) {
                lower_frame_size(&mut frame);
                self.done = true;
            }
            out.extend_from_slice(&frame);
        }
        if self.done {
            out.extend_from_slice(&self.pending.split());
        }
        out
    }
}

/// Takes one whole frame or protocol header off the front.
///
/// A size below a header's is no AMQP; all that there is then goes through for the receiver to refuse.
fn take_frame(pending: &mut BytesMut) -> Option<BytesMut> {
    if pending.len() < HEADER {
        return None;
    }
    if pending.starts_with(PROTOCOL) {
        return Some(pending.split_to(HEADER));
    }
    let size = (&pending[..4]).get_u32() as usize;
    if size < HEADER {
        return Some(pending.split());
    }
    (pending.len() >= size).then(|| pending.split_to(size))
}

/// Where a performative's list lies within a frame.
struct Performative {
    code: u8,
    /// Start of the list constructor.
    list: usize,
    /// Start of the first item.
    items: usize,
    /// End of the last item, where a transfer's payload begins.
    end: usize,
    count: usize,
}

fn performative(frame: &[u8]) -> Option<Performative> {
    if frame.starts_with(PROTOCOL) || *frame.get(5)? != 0 {
        return None;
    }
    let body = usize::from(*frame.get(4)?) * 4;
    if *frame.get(body)? != 0 {
        return None;
    }
    let (code, list) = match *frame.get(body + 1)? {
        0x53 => (*frame.get(body + 2)?, body + 3),
        0x80 => (*frame.get(body + 9)?, body + 10),
        _ => return None,
    };
    let (items, end, count) = match *frame.get(list)? {
        0x45 => (list + 1, list + 1, 0),
        0xc0 => {
            let size = usize::from(*frame.get(list + 1)?);
            (list + 3, list + 2 + size, usize::from(*frame.get(list + 2)?))
        }
        0xd0 => {
            let size = frame.get(list + 1..list + 5)?.get_u32() as usize;
            (list + 9, list + 5 + size, frame.get(list + 5..list + 9)?.get_u32() as usize)
        }
        _ => return None,
    };
    (items <= end && end <= frame.len()).then_some(Performative { code, list, items, end, count })
}

fn kind_of(frame: &[u8]) -> FrameKind {
    let Some(found) = performative(frame) else {
        return FrameKind::Other(0);
    };
    let channel = u16::from_be_bytes([frame[6], frame[7]]);
    match found.code {
        // Handle and closed; an error would be the third field.
        0x16 if found.count < 3 => FrameKind::DetachReply(channel),
        0x15 => FrameKind::Settlement(channel),
        0x17 => FrameKind::End(channel),
        _ => FrameKind::Other(channel),
    }
}

/// Number of fields of each performative (AMQP 1.0, part 2, section 2.7).
fn fields_of(code: u8) -> usize {
    match code {
        0x10 => 10,
        0x11 => 8,
        0x12 => 14,
        0x13 | 0x14 => 11,
        0x15 => 6,
        0x16 => 3,
        0x17 | 0x18 => 1,
        _ => 0,
    }
}

fn pad(frame: &[u8], out: &mut BytesMut) {
    let Some(found) = performative(frame) else {
        return out.extend_from_slice(frame);
    };
    let missing = fields_of(found.code).saturating_sub(found.count);
    if missing == 0 {
        return out.extend_from_slice(frame);
    }
    let start = out.len();
    out.extend_from_slice(&frame[..found.list]);
    let size = found.end - found.items + missing;
    let count = found.count + missing;
    if let (Ok(size), Ok(count)) = (u8::try_from(size + 1), u8::try_from(count)) {
        out.extend_from_slice(&[0xc0, size, count]);
    } else {
        out.put_u8(0xd0);
        out.put_u32(u32::try_from(size + 4).unwrap_or(u32::MAX));
        out.put_u32(u32::try_from(count).unwrap_or(u32::MAX));
    }
    out.extend_from_slice(&frame[found.items..found.end]);
    out.put_bytes(0x40, missing);
    out.extend_from_slice(&frame[found.end..]);
    let total = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&total.to_be_bytes());
}

/// Changes the third field of an Open in place; other encodings than a four-byte number are left as they are.
fn lower_frame_size(frame: &mut [u8]) {
    let Some(found) = performative(frame) else { return };
    let place = skip_value(frame, found.items).and_then(|hostname| skip_value(frame, hostname));
    if let Some(place) = place
        && frame.get(place) == Some(&0x70)
        && let Some(bytes) = frame.get_mut(place + 1..place + 5)
    {
        let announced = (&*bytes).get_u32();
        if announced >= LEAST_FRAME {
            bytes.copy_from_slice(&(announced - GROWTH).to_be_bytes());
        }
    }
}

/// Returns where the value after this one starts; knows null, strings and symbols only.
fn skip_value(frame: &[u8], at: usize) -> Option<usize> {
    match *frame.get(at)? {
        0x40 => Some(at + 1),
        0xa1 | 0xa3 => Some(at + 2 + usize::from(*frame.get(at + 1)?)),
        0xb1 | 0xb3 => Some(at + 5 + frame.get(at + 1..at + 5)?.get_u32() as usize),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(body: &[u8]) -> Vec<u8> {
        let mut frame = u32::try_from(body.len() + HEADER).unwrap().to_be_bytes().to_vec();
        frame.extend([2, 0, 0, 1]);
        frame.extend(body);
        frame
    }

    fn padded(bytes: &[u8]) -> (Vec<FrameKind>, Vec<u8>) {
        let mut padder = Padder::default();
        let (mut kinds, mut out) = (Vec::new(), Vec::new());
        for part in bytes.chunks(3) {
            padder.push(part, |kind, frame| {
                kinds.push(kind);
                out.extend_from_slice(frame);
            });
        }
        (kinds, out)
    }

    #[test]
    fn an_empty_end_grows_its_one_field() {
        let (kinds, out) = padded(&frame(&[0, 0x53, 0x17, 0x45]));
        assert_eq!(kinds, [FrameKind::End(1)]);
        assert_eq!(out, frame(&[0, 0x53, 0x17, 0xc0, 2, 1, 0x40]));
    }

    #[test]
    fn a_transfer_keeps_its_payload_behind_the_padding() {
        let (_, out) = padded(&frame(&[0, 0x53, 0x14, 0xc0, 3, 2, 0x43, 0x43, b'p', b'q']));
        let mut expected = vec![0, 0x53, 0x14, 0xc0, 12, 11, 0x43, 0x43];
        expected.extend([0x40; 9]);
        expected.extend(b"pq");
        assert_eq!(out, frame(&expected));
    }

    #[test]
    fn a_short_list_becomes_long_when_it_must() {
        let mut body = vec![0, 0x53, 0x16, 0xc0, 254, 1, 0xa1, 251];
        body.extend([b'x'; 251]);
        let (kinds, out) = padded(&frame(&body));
        assert_eq!(kinds, [FrameKind::DetachReply(1)]);
        let found = performative(&out).unwrap();
        assert_eq!((found.count, out[found.list]), (3, 0xd0));
        assert_eq!(out.len(), (&out[..4]).get_u32() as usize);
    }

    #[test]
    fn split_input_and_protocol_headers_and_sasl_pass() {
        let mut input = b"AMQP\x03\x01\x00\x00".to_vec();
        let mut sasl = frame(&[0, 0x53, 0x44, 0xc0, 3, 1, 0x50, 0]);
        sasl[5] = 1;
        input.extend(&sasl);
        let heartbeat = frame(&[]);
        input.extend(&heartbeat);
        let (kinds, out) = padded(&input);
        assert_eq!(out, input);
        assert_eq!(kinds, [FrameKind::Other(0); 3]);
    }

    #[test]
    fn only_the_open_is_changed_on_the_way_in() {
        let mut open = vec![0, 0x53, 0x10, 0xc0, 13, 3, 0xa1, 1, b'c', 0xa1, 1, b'h', 0x70, 0, 1, 0, 0];
        open[4] = u8::try_from(open.len() - 5).unwrap();
        let begin = frame(&[0, 0x53, 0x11, 0x45]);
        let mut input = b"AMQP\x00\x01\x00\x00".to_vec();
        input.extend(frame(&open));
        input.extend(&begin);
        let mut limiter = OpenLimiter::default();
        let out: Vec<u8> = input.chunks(5).flat_map(|part| limiter.push(part).to_vec()).collect();
        open[13..17].copy_from_slice(&(65_536_u32 - GROWTH).to_be_bytes());
        let mut expected = b"AMQP\x00\x01\x00\x00".to_vec();
        expected.extend(frame(&open));
        expected.extend(&begin);
        assert_eq!(out, expected);
    }
}
