//! The stack of the deepest chain of calls, as the verifier of Linux 6.1 counts it (`check_max_stack_depth`,
//! `kernel/bpf/verifier.c`): each frame rounded up to 32 bytes, 512 at most. Later ones round up to 16.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SectionKind, SymbolKind};

/// What a chain of calls may take.
pub(crate) const MOST: u64 = 512;
const ROUND: u64 = 32;
/// Bytes of an instruction.
const INSN: u8 = 8;

/// Section and address.
type Place = (usize, u64);

/// A function: what it takes for itself, and whom it calls.
#[derive(Debug, Default)]
struct Function {
    name: String,
    stack: u64,
    calls: Vec<Place>,
}

/// The deepest chain: bytes, and the names from the program down.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) bytes: u64,
    pub(crate) names: Vec<String>,
}

/// Finds it.
pub(crate) fn deepest(elf: &[u8]) -> Result<Chain> {
    let functions = functions(elf)?;
    ensure!(!functions.is_empty(), "the object has no functions");
    let mut deepest = Chain::default();
    for place in functions.keys() {
        let chain = chain(&functions, *place, 0)?;
        if chain.bytes > deepest.bytes {
            deepest = chain;
        }
    }
    Ok(deepest)
}

fn chain(functions: &BTreeMap<Place, Function>, place: Place, depth: usize) -> Result<Chain> {
    ensure!(depth < functions.len(), "functions that call each other");
    let function = functions.get(&place).with_context(|| format!("a call to nothing at {place:x?}"))?;
    let mut below = Chain::default();
    for callee in &function.calls {
        let chain = chain(functions, *callee, depth + 1)?;
        if chain.bytes > below.bytes {
            below = chain;
        }
    }
    let bytes = function.stack.max(1).next_multiple_of(ROUND) + below.bytes;
    let names = std::iter::once(function.name.clone()).chain(below.names).collect();
    Ok(Chain { bytes, names })
}

fn functions(elf: &[u8]) -> Result<BTreeMap<Place, Function>> {
    let file = object::File::parse(elf).context("not an ELF object")?;
    let mut functions = BTreeMap::new();
    for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0) {
        let Some(index) = symbol.section_index() else { continue };
        let section = file.section_by_index(index)?;
        let code = section
            .data_range(symbol.address(), symbol.size())?
            .with_context(|| format!("{} has no code", symbol.name().unwrap_or_default()))?;
        let mut function = Function { name: symbol.name()?.to_owned(), ..Function::default() };
        function.stack = stack(code);
        let base = (index.0, symbol.address());
        function.calls = calls(&file, &section, base, code)?;
        functions.insert(base, function);
    }
    Ok(functions)
}

/// The lowest byte below the frame pointer (`r10`) that is named: by a load or store, or by an address made from it.
fn stack(code: &[u8]) -> u64 {
    const FRAME: u8 = 10;
    let mut lowest = 0i64;
    let mut copies = [false; 16];
    for insn in code.chunks_exact(INSN.into()) {
        let &[op, registers, low, high, a, b, c, d] = insn else { continue };
        let (to, from) = (registers & 15, registers >> 4);
        let offset = i64::from(i16::from_le_bytes([low, high]));
        let value = i64::from(i32::from_le_bytes([a, b, c, d]));
        match (op & 7, op) {
            // Loads name the frame as their source, stores as their destination.
            (1, _) if from == FRAME => lowest = lowest.min(offset),
            (2 | 3, _) if to == FRAME => lowest = lowest.min(offset),
            // `mov to, r10`, then `add to, value`.
            (_, 0xbf) => copies[usize::from(to)] = from == FRAME,
            (_, 0x07) if copies[usize::from(to)] => {
                lowest = lowest.min(value);
                copies[usize::from(to)] = false;
            }
            _ => {}
        }
    }
    lowest.unsigned_abs()
}

fn calls(
    file: &object::File<'_>,
    section: &object::Section<'_, '_>,
    (index, start): Place,
    code: &[u8],
) -> Result<Vec<Place>> {
    // A call of a function of ours, not of a helper.
    let is_call = |insn: &[u8]| matches!(insn, [0x85, registers, ..] if registers >> 4 == 1);
    let targets: BTreeMap<u64, RelocationTarget> =
        section.relocations().map(|(at, relocation)| (at, relocation.target())).collect();
    let mut calls = Vec::new();
    for (number, insn) in (0..).zip(code.chunks_exact(INSN.into())).filter(|(_, insn)| is_call(insn)) {
        let at = start + number * u64::from(INSN);
        let value = i64::from(i32::from_le_bytes(insn[4..].try_into()?));
        let from = |base: u64| base.wrapping_add_signed((value + 1) * i64::from(INSN));
        calls.push(match targets.get(&at) {
            Some(RelocationTarget::Symbol(symbol)) => {
                let symbol = file.symbol_by_index(*symbol)?;
                let place = symbol.section_index().context("a call of what is not here")?.0;
                let is_section = symbol.kind() == SymbolKind::Section;
                (place, if is_section { from(0) } else { symbol.address() })
            }
            _ => (index, from(at)),
        });
    }
    ensure!(section.kind() == SectionKind::Text, "code in a section that is none");
    Ok(calls)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

    use super::*;

    #[test]
    fn the_committed_object_has_room_on_every_kernel() {
        let elf = std::fs::read(crate::root().join(super::super::OBJECT)).unwrap();
        let chain = deepest(&elf).unwrap();
        assert!(chain.names.len() > 3, "{chain:?}: nothing is called");
        assert!(
            chain.bytes <= MOST,
            "{} bytes of stack, {MOST} are possible: {:?}",
            chain.bytes,
            chain.names
        );
    }

    #[test]
    fn frames_are_what_is_named_below_the_frame_pointer() {
        // *(u64 *)(r10 - 16) = r1; r2 = r10; r2 += -40; r3 += -80
        let code = [
            [0x7b, 0x1a, 0xf0, 0xff, 0, 0, 0, 0],
            [0xbf, 0xa2, 0, 0, 0, 0, 0, 0],
            [0x07, 0x02, 0, 0, 0xd8, 0xff, 0xff, 0xff],
            [0x07, 0x03, 0, 0, 0xb0, 0xff, 0xff, 0xff],
        ];
        assert_eq!(stack(&code.concat()), 40);
    }
}
