//! The question of a query (RFC 1035, section 4.1), and the answer written over it.

use super::{code, shape};
use crate::{mask::masked, packet::unmapped, verdict::Answer};

/// Bytes of a message that are looked at: a question ends at 12 + 255 + 4 at the latest.
pub const MESSAGE_MAX: usize = 512;
/// Room for a name as text; the longest has 253 characters (RFC 1035, section 2.3.4).
pub const NAME_MAX: usize = 256;

/// Longest answer: one word less, so that its length can be masked.
pub const ANSWER_MAX: usize = MESSAGE_MAX - 4;

/// Bytes of a DNS header.
const HEADER: u32 = 12;
/// Longest name on the wire, with its length bytes.
const WIRE_NAME_MAX: u32 = 255;
/// Bytes of the name read in one step.
const BYTES_PER_STEP: u32 = 8;
/// Steps that read every name.
pub const STEPS: u32 = WIRE_NAME_MAX / BYTES_PER_STEP + 1;

/// Record types and the class of the Internet (RFC 1035, sections 3.2.2 and 3.2.4; RFC 3596).
mod record {
    pub(super) const A: u32 = 1;
    pub(super) const AAAA: u32 = 28;
    pub(super) const IN: u32 = 1;
}

/// Bits of the header's second word: response, recursion available, and what an answer repeats:
/// opcode, recursion desired, checking disabled (RFC 1035, section 4.1.1; RFC 4035, section 3.2.2).
mod flags {
    pub(super) const RESPONSE: u32 = 0x8000;
    pub(super) const OPCODE: u32 = 0x7800;
    pub(super) const RECURSION_AVAILABLE: u32 = 0x0080;
    pub(super) const REPEATED: u32 = 0x7910;
}

/// How far reading has come.
mod stage {
    /// It is no query, or none that is understood.
    pub(super) const NOTHING: u32 = 0;
    /// Within the name.
    pub(super) const READING: u32 = 1;
    /// The question is known.
    pub(super) const KNOWN: u32 = 2;
}

/// The beginning of a message, and its question.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// The first bytes of the message.
    pub message: [u8; MESSAGE_MAX],
    /// The name as lower-case text with dots, without a dot at its end.
    pub name: [u8; NAME_MAX],
    /// Bytes of `name`.
    pub name_len: u32,
    /// Bytes of `message`.
    pub loaded: u32,
    /// First byte after the question.
    pub end: u32,
    /// Record type asked for.
    pub qtype: u32,
    /// Class asked for.
    pub qclass: u32,
    stage: u32,
    at: u32,
    left: u32,
}

impl Default for Query {
    fn default() -> Self {
        Self {
            message: [0; MESSAGE_MAX],
            name: [0; NAME_MAX],
            name_len: 0,
            loaded: 0,
            end: 0,
            qtype: 0,
            qclass: 0,
            stage: stage::NOTHING,
            at: 0,
            left: 0,
        }
    }
}

impl Query {
    /// Begins to read the `loaded` bytes in `message`. False = no query with exactly one question.
    #[inline(always)]
    pub fn begin(&mut self, loaded: u32) -> bool {
        self.stage = stage::NOTHING;
        self.loaded = loaded;
        let is_query = loaded > HEADER
            && loaded <= MESSAGE_MAX as u32
            && self.half(2) & (flags::RESPONSE | flags::OPCODE) == 0
            && self.half(4) == 1
            && self.half(6) == 0;
        if is_query {
            self.stage = stage::READING;
            self.at = HEADER;
            self.left = 0;
            self.name_len = 0;
        }
        is_query
    }

    /// Reads some bytes of the name. False = there is no more to read.
    #[inline(always)]
    pub fn advance(&mut self) -> bool {
        for _ in 0..BYTES_PER_STEP {
            if self.stage != stage::READING {
                return false;
            }
            self.read_byte();
        }
        self.stage == stage::READING
    }

    /// The question is known.
    #[inline(always)]
    #[must_use]
    pub const fn is_known(&self) -> bool {
        self.stage == stage::KNOWN
    }

    /// The character at `index` of the name; 0 beyond its end.
    #[inline(always)]
    #[must_use]
    pub fn character(&self, index: u32) -> u8 {
        if index < self.name_len { self.name.get(masked::<NAME_MAX>(index)).copied().unwrap_or(0) } else { 0 }
    }

    #[inline(always)]
    fn read_byte(&mut self) {
        let byte = self.byte(self.at);
        // A name that ends beyond what is here, or is longer than any may be.
        if self.at >= self.loaded || self.at.wrapping_sub(HEADER) >= WIRE_NAME_MAX {
            self.stage = stage::NOTHING;
            return;
        }
        self.at = self.at.wrapping_add(1);
        if self.left != 0 {
            self.left = self.left.wrapping_sub(1);
            self.push(byte.to_ascii_lowercase());
        } else if byte == 0 {
            self.finish();
        } else if byte >> 6 != 0 {
            // A pointer, of which a first name has nothing to point to.
            self.stage = stage::NOTHING;
        } else {
            self.left = u32::from(byte);
            if self.name_len != 0 {
                self.push(b'.');
            }
        }
    }

    #[inline(always)]
    fn push(&mut self, character: u8) {
        if let Some(place) = self.name.get_mut(masked::<NAME_MAX>(self.name_len)) {
            *place = character;
        }
        self.name_len = self.name_len.wrapping_add(1);
    }

    /// Type and class follow the name.
    #[inline(always)]
    fn finish(&mut self) {
        self.end = self.at.wrapping_add(4);
        self.qtype = self.half(self.at);
        self.qclass = self.half(self.at.wrapping_add(2));
        self.stage = if self.end <= self.loaded { stage::KNOWN } else { stage::NOTHING };
    }

    #[inline(always)]
    fn byte(&self, at: u32) -> u8 {
        self.message.get(masked::<MESSAGE_MAX>(at)).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn half(&self, at: u32) -> u32 {
        u32::from(self.byte(at)) << 8 | u32::from(self.byte(at.wrapping_add(1)))
    }
}

impl Query {
    /// Turns the query in `message` into the answer; `len` = bytes of the whole query. Returns the
    /// bytes of the answer. Up to three zeros follow it, so that it can be summed in words.
    ///
    /// An error goes back with all that came with the question. An address takes the place of
    /// what followed the question (EDNS), and so does nothing where the name has no such address.
    #[inline(always)]
    pub fn answer(&mut self, answer: &Answer, len: u32) -> u32 {
        let repeated = self.half(2) & flags::REPEATED;
        self.set_half(2, repeated | flags::RESPONSE | flags::RECURSION_AVAILABLE | answer.code);
        let mut end = len;
        if answer.code6 & shape::ADDRESS != 0 || len > self.loaded || len > ANSWER_MAX as u32 {
            self.set_half(8, 0);
            self.set_half(10, 0);
            end = self.end;
            if self.wants(answer, record::A, shape::V4) {
                end = self.record(end, record::A, &[unmapped(&answer.address).unwrap_or(0)]);
            } else if self.wants(answer, record::AAAA, shape::V6) {
                end = self.record(end, record::AAAA, &answer.address6);
            }
        }
        for padding in 0..3 {
            self.set_byte_if(end.wrapping_add(padding), 0);
        }
        end
    }

    #[inline(always)]
    const fn wants(&self, answer: &Answer, qtype: u32, family: u32) -> bool {
        answer.code == code::NOERROR
            && answer.code6 & family != 0
            && self.qtype == qtype
            && self.qclass == record::IN
    }

    /// Appends the answer: the question's name, type, class IN, no time to live, the address.
    #[inline(always)]
    fn record<const N: usize>(&mut self, at: u32, qtype: u32, address: &[u32; N]) -> u32 {
        self.set_half(6, 1);
        let fixed = [0xc000 | HEADER, qtype, record::IN, 0, 0, (N as u32).wrapping_mul(4)];
        let mut at = at;
        for half in fixed {
            self.set_half(at, half);
            at = at.wrapping_add(2);
        }
        for word in address {
            let word = u32::from_be(*word);
            self.set_half(at, word >> 16);
            self.set_half(at.wrapping_add(2), word & 0xffff);
            at = at.wrapping_add(4);
        }
        at
    }

    #[inline(always)]
    fn set_half(&mut self, at: u32, value: u32) {
        self.set_byte(at, (value >> 8) as u8);
        self.set_byte(at.wrapping_add(1), value as u8);
    }

    #[inline(always)]
    fn set_byte(&mut self, at: u32, value: u8) {
        if let Some(place) = self.message.get_mut(masked::<MESSAGE_MAX>(at)) {
            *place = value;
        }
    }

    /// The same, unless `at` lies beyond the buffer.
    #[inline(always)]
    fn set_byte_if(&mut self, at: u32, value: u8) {
        if at < MESSAGE_MAX as u32 {
            self.set_byte(at, value);
        }
    }
}

#[cfg(feature = "user")]
impl Query {
    /// The question of a message, read in one go.
    #[must_use]
    pub fn read(message: &[u8]) -> Option<Self> {
        let mut query = Self::default();
        let loaded = message.len().min(MESSAGE_MAX);
        query.message.get_mut(..loaded)?.copy_from_slice(message.get(..loaded)?);
        if query.begin(loaded as u32) {
            while query.advance() {}
        }
        query.is_known().then_some(query)
    }

    /// The name.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        self.name.get(..self.name_len as usize).unwrap_or_default()
    }
}
