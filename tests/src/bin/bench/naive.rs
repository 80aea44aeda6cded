//! Faults as they are easily made: a program of a dozen instructions on what leaves a device, with `sch_fq` where it
//! only writes the time of departure. What users get who write their own.

use std::process::Command;

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    programs::{SchedClassifier, TcAttachType, tc},
};
use chaos_tests::lab::netns::Netns;
use object::{
    Architecture, BinaryFormat, Endianness, RelocationFlags, SectionKind, SymbolFlags, SymbolKind,
    SymbolScope,
    write::{Object, Relocation, Symbol, SymbolId, SymbolSection},
};

/// The qdisc that keeps packets until their time of departure.
pub(crate) const FQ: &str = "fq limit 1000000 flow_limit 1000000 horizon 10s";

const NAME: &str = "naive";
// Offsets in `struct __sk_buff`, `include/uapi/linux/bpf.h`.
const LEN: i16 = 0;
const TSTAMP: i16 = 152;
// Numbers of helpers.
const MAP_LOOKUP: i32 = 1;
pub(crate) const KTIME_GET_NS: i32 = 5;
const PRANDOM: i32 = 7;
/// `TC_ACT_OK`.
pub(crate) const PASS: i32 = 0;
/// `TC_ACT_SHOT`.
const DROP: i32 = 2;
/// Type of a relocation of an address in 64 bits (`R_BPF_64_64`).
const ADDRESS: u32 = 1;

/// One instruction.
pub(crate) type Instruction = [u8; 8];

/// A program in force; it goes when this is dropped.
pub(crate) struct Naive {
    _ebpf: Ebpf,
    /// Takes away what it hangs on: where that is a filter, nothing else would.
    clean: Command,
}

impl Naive {
    /// Every packet leaves so much later. Needs [`FQ`] on the device.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub(crate) fn delay(netns: &Netns, device: &str, ms: u32) -> Result<Self> {
        Self::attach(netns, device, TcAttachType::Egress, &delay(i64::from(ms) * 1_000_000), None)
    }

    /// So many packets of a hundred are dropped.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub(crate) fn loss(netns: &Netns, device: &str, percent: u32) -> Result<Self> {
        Self::attach(netns, device, TcAttachType::Egress, &loss(percent), None)
    }

    /// A packet leaves when the one before it has been sent at this rate. Needs [`FQ`] on the device.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub(crate) fn rate(netns: &Netns, device: &str, mbit_s: u32) -> Result<Self> {
        let code = rate(8000 / i32::try_from(mbit_s)?);
        Self::attach(netns, device, TcAttachType::Egress, &code, Some(TABLE_AT))
    }

    /// Puts code on a device; `last` is where it has the address of a table with one `u64`, in bytes.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub(crate) fn attach(
        netns: &Netns,
        device: &str,
        way: TcAttachType,
        code: &[Instruction],
        last: Option<u64>,
    ) -> Result<Self> {
        let mut ebpf = Ebpf::load(&object(&code.concat(), last)?)?;
        let program: &mut SchedClassifier = ebpf.program_mut(NAME).context("no program")?.try_into()?;
        program.load()?;
        netns.enter(|| -> Result<()> {
            // Before Linux 6.6 a program hangs on this; where it is there already, an error says so.
            let _ = tc::qdisc_add_clsact(device);
            program.attach(device, way)?;
            Ok(())
        })??;
        let clean = netns.command(&format!("tc qdisc del dev {device} clsact"));
        Ok(Self { _ebpf: ebpf, clean })
    }
}

impl Drop for Naive {
    fn drop(&mut self) {
        let _ = self.clean.output();
    }
}

#[cfg(test)]
impl Naive {
    /// Writes the value of its table.
    ///
    /// # Errors
    /// When it has none.
    #[expect(clippy::used_underscore_binding, reason = "otherwise it is only kept")]
    pub(crate) fn set(&mut self, value: u64) -> Result<()> {
        let mut table: aya::maps::Array<_, u64> =
            self._ebpf.map_mut("LAST").context("no table")?.try_into()?;
        Ok(table.set(0, value, 0)?)
    }
}

/// Opcode, registers (source in the upper half), offset, constant: `include/uapi/linux/bpf.h`.
pub(crate) fn instruction(opcode: u8, registers: u8, offset: i16, constant: i32) -> Instruction {
    let ([o0, o1], [c0, c1, c2, c3]) = (offset.to_le_bytes(), constant.to_le_bytes());
    [opcode, registers, o0, o1, c0, c1, c2, c3]
}

/// `skb->tstamp = bpf_ktime_get_ns() + delay_ns; return TC_ACT_OK;`
fn delay(delay_ns: i64) -> Vec<Instruction> {
    let (low, high) = (delay_ns as i32, (delay_ns >> 32) as i32);
    vec![
        // r6 = r1, the packet: the call does not keep r1.
        instruction(0xbf, 0x16, 0, 0),
        instruction(0x85, 0, 0, KTIME_GET_NS),
        // r1 = delay, over two instructions.
        instruction(0x18, 0x01, 0, low),
        instruction(0, 0, 0, high),
        // r0 += r1
        instruction(0x0f, 0x10, 0, 0),
        // *(u64 *)(r6 + TSTAMP) = r0
        instruction(0x7b, 0x06, TSTAMP, 0),
        // r0 = PASS; exit
        instruction(0xb7, 0, 0, PASS),
        instruction(0x95, 0, 0, 0),
    ]
}

/// `return bpf_get_prandom_u32() < share ? TC_ACT_SHOT : TC_ACT_OK;`
fn loss(percent: u32) -> Vec<Instruction> {
    // A constant is signed: half of the range is the most.
    let share = i32::try_from(u64::from(percent) * (1 << 32) / 100).unwrap_or(i32::MAX);
    vec![
        instruction(0x85, 0, 0, PRANDOM),
        // r1 = r0; r0 = DROP; if r1 < share goto exit; r0 = PASS; exit
        instruction(0xbf, 0x01, 0, 0),
        instruction(0xb7, 0, 0, DROP),
        instruction(0xa5, 0x01, 1, share),
        instruction(0xb7, 0, 0, PASS),
        instruction(0x95, 0, 0, 0),
    ]
}

/// Where [`lookup`] has the address of the table, in bytes.
pub(crate) const TABLE_AT: u64 = 4 * 8;

/// How a program with a table begins: r6 = the packet, r0 = the address of what is in the table, or 0.
pub(crate) fn lookup() -> [Instruction; 7] {
    [
        // r6 = r1; the key: *(u32 *)(r10 - 4) = 0; r2 = r10 - 4
        instruction(0xbf, 0x16, 0, 0),
        instruction(0x62, 0x0a, -4, 0),
        instruction(0xbf, 0xa2, 0, 0),
        instruction(0x07, 0x02, 0, -4),
        // r1 = the table
        instruction(0x18, 0x01, 0, 0),
        instruction(0, 0, 0, 0),
        instruction(0x85, 0, 0, MAP_LOOKUP),
    ]
}

/// `last = max(last, bpf_ktime_get_ns()) + skb->len * ns_per_byte; skb->tstamp = last; return TC_ACT_OK;`
fn rate(ns_per_byte: i32) -> Vec<Instruction> {
    let mut code = lookup().to_vec();
    code.extend([
        // if r0 == 0 goto exit; r7 = r0
        instruction(0x15, 0x00, 10, 0),
        instruction(0xbf, 0x07, 0, 0),
        instruction(0x85, 0, 0, KTIME_GET_NS),
        // r8 = *(u64 *)r7; if r8 > r0 goto +1; r8 = r0
        instruction(0x79, 0x78, 0, 0),
        instruction(0x2d, 0x08, 1, 0),
        instruction(0xbf, 0x08, 0, 0),
        // r1 = skb->len; r1 *= ns_per_byte; r8 += r1
        instruction(0x61, 0x61, LEN, 0),
        instruction(0x27, 0x01, 0, ns_per_byte),
        instruction(0x0f, 0x18, 0, 0),
        // *(u64 *)r7 = r8; skb->tstamp = r8
        instruction(0x7b, 0x87, 0, 0),
        instruction(0x7b, 0x86, TSTAMP, 0),
        // exit: r0 = PASS; exit
        instruction(0xb7, 0, 0, PASS),
        instruction(0x95, 0, 0, 0),
    ]);
    code
}

/// An ELF object as a compiler would have made it; `last` is where the code has the address of a table with one `u64`.
fn object(code: &[u8], last: Option<u64>) -> Result<Vec<u8>> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let section = object.add_section(Vec::new(), b"classifier".to_vec(), SectionKind::Text);
    object.append_section_data(section, code, 8);
    object.add_symbol(Symbol {
        name: NAME.as_bytes().to_vec(),
        value: 0,
        size: code.len() as u64,
        kind: SymbolKind::Text,
        scope: SymbolScope::Dynamic,
        weak: false,
        section: SymbolSection::Section(section),
        flags: SymbolFlags::None,
    });
    if let Some(offset) = last {
        let symbol = table(&mut object);
        let flags = RelocationFlags::Elf { r_type: ADDRESS };
        object.add_relocation(section, Relocation { offset, symbol, addend: 0, flags })?;
    }
    let license = object.add_section(Vec::new(), b"license".to_vec(), SectionKind::Data);
    object.append_section_data(license, b"GPL\0", 1);
    object.write().context("writing the object")
}

/// An array of one `u64`.
fn table(object: &mut Object<'_>) -> SymbolId {
    // `BPF_MAP_TYPE_ARRAY`; bytes of a key, of a value; entries; flags.
    let definition = [2u32, 4, 8, 1, 0].map(u32::to_le_bytes).concat();
    let section = object.add_section(Vec::new(), b"maps".to_vec(), SectionKind::Data);
    object.append_section_data(section, &definition, 4);
    object.add_symbol(Symbol {
        name: b"LAST".to_vec(),
        value: 0,
        size: definition.len() as u64,
        kind: SymbolKind::Data,
        scope: SymbolScope::Dynamic,
        weak: false,
        section: SymbolSection::Section(section),
        flags: SymbolFlags::None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use chaos_tests::{lab::shapes::Pair, require_root};

    #[test]
    fn the_kernel_takes_the_programs() {
        require_root!();
        let pair = Pair::new().expect("a pair");
        Naive::delay(&pair.a, "va", 20).expect("a delay");
        Naive::loss(&pair.a, "va", 20).expect("a loss");
        Naive::rate(&pair.a, "va", 10).expect("a rate");
    }
}
