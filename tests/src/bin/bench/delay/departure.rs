//! A program that writes the time of departure into a packet and does nothing else: the delay that is easily made,
//! where the device has `sch_fq`.

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    programs::{SchedClassifier, TcAttachType, tc},
};
use chaos_tests::lab::netns::Netns;
use object::{
    Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
    write::{Object, Symbol, SymbolSection},
};

const NAME: &str = "departure";
/// Where `tstamp` is in `struct __sk_buff`, `include/uapi/linux/bpf.h`.
const TSTAMP: i16 = 152;
/// Number of `bpf_ktime_get_ns`.
const KTIME_GET_NS: i32 = 5;
/// `TC_ACT_OK`.
const PASS: i32 = 0;

/// The program in force; it goes when this is dropped.
pub(super) struct Departure {
    _ebpf: Ebpf,
}

impl Departure {
    /// Puts it on what leaves `device`.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub(super) fn attach(netns: &Netns, device: &str, ms: u32) -> Result<Self> {
        let mut ebpf = Ebpf::load(&object(&program(i64::from(ms) * 1_000_000))?)?;
        let program: &mut SchedClassifier = ebpf.program_mut(NAME).context("no program")?.try_into()?;
        program.load()?;
        netns.enter(|| -> Result<()> {
            // Before Linux 6.6 a program hangs on this; where it is there already, an error says so.
            let _ = tc::qdisc_add_clsact(device);
            program.attach(device, TcAttachType::Egress)?;
            Ok(())
        })??;
        Ok(Self { _ebpf: ebpf })
    }
}

/// One instruction, `include/uapi/linux/bpf.h`: opcode, registers (source in the upper half), offset, constant.
fn instruction(opcode: u8, registers: u8, offset: i16, constant: i32) -> [u8; 8] {
    let ([o0, o1], [c0, c1, c2, c3]) = (offset.to_le_bytes(), constant.to_le_bytes());
    [opcode, registers, o0, o1, c0, c1, c2, c3]
}

/// `skb->tstamp = bpf_ktime_get_ns() + delay_ns; return TC_ACT_OK;`
fn program(delay_ns: i64) -> Vec<u8> {
    let (low, high) = (delay_ns as i32, (delay_ns >> 32) as i32);
    [
        // r6 = r1, the packet: the call does not keep r1.
        instruction(0xbf, 0x16, 0, 0),
        // call bpf_ktime_get_ns
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
    .concat()
}

/// An ELF object as a compiler would have made it.
fn object(code: &[u8]) -> Result<Vec<u8>> {
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
    let license = object.add_section(Vec::new(), b"license".to_vec(), SectionKind::Data);
    object.append_section_data(license, b"GPL\0", 1);
    object.write().context("writing the object")
}

#[cfg(test)]
mod tests {
    use super::*;
    use chaos_tests::{lab::shapes::Pair, require_root};

    #[test]
    fn the_kernel_takes_the_program() {
        require_root!();
        let pair = Pair::new().expect("a pair");
        Departure::attach(&pair.a, "va", 20).expect("attached");
    }
}
