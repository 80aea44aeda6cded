//! Hands the compiled eBPF object to the crate and refuses to build when it is not the one the
//! sources beside it make.
//!
//! Environment: `CHAOS_STALE_OBJECT=allow` turns the refusal into a warning, for work on the host
//! side only. `CHAOS_EBPF_OBJECT=/path/chaos.bpf.o` embeds another object; the tests use it where
//! the pinned tools are not to be had and the object was rebuilt with others.

#[path = "build/sources.rs"]
mod sources;

use std::{env, fs, path::Path, process::exit};

use sources::{LIST, OBJECT, Sources};

fn main() {
    let manifest = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let root = Path::new(&manifest).join("..");
    let root = root.as_path();
    println!("cargo::rerun-if-env-changed=CHAOS_STALE_OBJECT");
    println!("cargo::rerun-if-env-changed=CHAOS_EBPF_OBJECT");
    println!("cargo::rerun-if-changed=build/sources.rs");
    println!("cargo::rerun-if-changed=ebpf");

    let object = if let Some(other) = env::var_os("CHAOS_EBPF_OBJECT") {
        other.into()
    } else {
        if let Err(stale) = check(root) {
            if env::var("CHAOS_STALE_OBJECT").is_ok_and(|value| value == "allow") {
                println!("cargo::warning={stale}");
            } else {
                println!("cargo::error={stale} (to go on with the old object: CHAOS_STALE_OBJECT=allow)");
                exit(1);
            }
        }
        root.join(OBJECT)
    };
    println!("cargo::rerun-if-changed={}", object.display());
    if !object.exists() && !root.join("chaos-ebpf/src/main.rs").exists() {
        return;
    }
    let copy = Path::new(&env::var_os("OUT_DIR").unwrap_or_default()).join("chaos.bpf.o");
    if let Err(error) = fs::copy(&object, copy) {
        println!("cargo::error={}: {error}; make it with `cargo xtask build-ebpf`", object.display());
        exit(1);
    }
}

/// Compares the sources with the list made when the object was built.
fn check(root: &Path) -> Result<(), String> {
    // A package without the eBPF sources (such as an unpacked crate) has nothing to compare.
    if !root.join("chaos-ebpf/src/main.rs").exists() {
        return Ok(());
    }
    let list = fs::read_to_string(root.join(LIST))
        .map_err(|error| format!("{LIST}: {error}; make it with `cargo xtask build-ebpf`"))?;
    let sources = Sources::parse(&list)?;
    for file in sources.files() {
        println!("cargo::rerun-if-changed={}", root.join(file).display());
    }
    let changed = sources.changed(root);
    if changed.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = changed.iter().map(|path| path.display().to_string()).collect();
    Err(format!(
        "the eBPF sources are newer than the committed object: run `cargo xtask build-ebpf` (changed: {})",
        names.join(", ")
    ))
}
