//! The one set of tools that makes the committed object. Changing any of these means building and
//! committing the object again; `chaos-ebpf/rust-toolchain.toml` names the same toolchain.

/// The toolchain's name for rustup.
pub(crate) const TOOLCHAIN: &str = "nightly-2026-05-20";

/// What `rustc -vV` of that toolchain says. The nightly of a day is built from the commit of the
/// day before; the hash, not the name, is what decides.
pub(crate) const RUSTC_COMMIT: &str = "e50aa6fba4e63ab34c72bf9acfd2c307c1155d1a";

/// For people.
pub(crate) const RUSTC_VERSION: &str = "rustc 1.97.0-nightly (e50aa6fba 2026-05-19)";

/// The linker that turns LLVM bitcode into a BPF object.
pub(crate) const LINKER_VERSION: &str = "0.10.4";

/// Any linker of this series reads the toolchain's LLVM 22 bitcode; only [`LINKER_VERSION`] is
/// known to give the same bytes.
pub(crate) const LINKER_SERIES: &str = "0.10.";

/// The target; little endian, as every machine that is supported.
pub(crate) const TARGET: &str = "bpfel-unknown-none";

/// Compiler flags that do not depend on the machine.
///
/// - v3: atomics whose result is used need it (Linux 5.1 and later run it).
/// - debuginfo and `--btf`: BTF is made from it. DWARF itself is stripped afterwards.
/// - embed-source: BTF's line information carries the source line, read here from the debug
///   information and not from a path of this machine; so a verifier log shows our lines.
/// - `bpf_target_arch`: the bindings else take the architecture of the machine that builds.
pub(crate) const RUSTFLAGS: &[&str] = &[
    "-Clinker=bpf-linker",
    "-Ctarget-cpu=v3",
    "-Cpanic=abort",
    "-Cdebuginfo=2",
    "-Zdwarf-version=5",
    "-Zembed-source=yes",
    "-Clink-arg=--btf",
    "--cfg=bpf_target_arch=\"x86_64\"",
];
