//! The object file itself: DWARF out, and a short comparison of two.

use anyhow::{Context as _, Result};
use object::{
    Object as _, ObjectSection as _,
    build::elf::{Builder, SectionData},
};

/// Removes DWARF; BTF stays, it is a section of its own and what the kernel takes.
pub(crate) fn strip(elf: &[u8]) -> Result<Vec<u8>> {
    let mut builder = Builder::read(elf).context("the linker's output is not ELF")?;
    for section in &mut builder.sections {
        let name = section.name.as_slice();
        let debug = |name: &[u8]| name.starts_with(b".debug_");
        section.delete = debug(name) || name.strip_prefix(b".rel").is_some_and(debug);
    }
    for symbol in &mut builder.symbols {
        // "linked_module", and nothing else, is what the linker writes there.
        symbol.delete = symbol.st_type() == object::elf::STT_FILE;
    }
    builder.delete_orphans();
    // LLVM keeps section names in .strtab; the writer wants a section of their own for them.
    let names = builder.sections.add();
    names.name = b".shstrtab".as_slice().into();
    names.sh_type = object::elf::SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = SectionData::SectionString;
    let mut out = Vec::new();
    builder.write(&mut out).context("writing the stripped object")?;
    Ok(out)
}

/// One line per section that differs between two objects; empty = same sections, same bytes.
pub(crate) fn diff(committed: &[u8], rebuilt: &[u8]) -> Result<Vec<String>> {
    let (old, new) = (sections(committed)?, sections(rebuilt)?);
    let mut names: Vec<&str> = old.iter().chain(&new).map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let find =
        |list: &[(String, Vec<u8>)], name: &str| list.iter().find(|(n, _)| n == name).map(|(_, d)| d.clone());
    let lines = names.into_iter().filter_map(|name| match (find(&old, name), find(&new, name)) {
        (Some(a), Some(b)) if a == b => None,
        (Some(a), Some(b)) => {
            let at = a.iter().zip(&b).position(|(x, y)| x != y).unwrap_or_else(|| a.len().min(b.len()));
            Some(format!(
                "{name}: {} bytes committed, {} rebuilt, first difference at {at:#x}",
                a.len(),
                b.len()
            ))
        }
        (Some(a), None) => Some(format!("{name}: {} bytes committed, not in the rebuilt object", a.len())),
        (None, Some(b)) => Some(format!("{name}: not in the committed object, {} bytes rebuilt", b.len())),
        (None, None) => None,
    });
    Ok(lines.collect())
}

fn sections(elf: &[u8]) -> Result<Vec<(String, Vec<u8>)>> {
    let file = object::File::parse(elf).context("not an ELF object")?;
    let named = file.sections().map(|section| Ok((section.name()?.to_owned(), section.data()?.to_vec())));
    named.collect()
}
