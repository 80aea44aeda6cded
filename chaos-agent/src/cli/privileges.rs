//! Whether this process may do what it is about to do, and how it could get to.

use std::path::{Path, PathBuf};

use super::failure::Failure;

/// A capability by its bit and its name.
struct Capability {
    /// Bit in the sets of /proc/PID/status (`include/uapi/linux/capability.h`).
    bit: u32,
    name: &'static str,
    /// Bit of a capability that includes this one, by its own documentation in capabilities(7).
    included_in: Option<u32>,
}

const SYS_ADMIN: u32 = 21;

/// What arming a fault takes: attach programs and make devices, enter and make network namespaces,
/// load programs, and load those that compare packet pointers.
const NEEDED: &[Capability] = &[
    Capability { bit: 12, name: "CAP_NET_ADMIN", included_in: None },
    Capability { bit: SYS_ADMIN, name: "CAP_SYS_ADMIN", included_in: None },
    Capability { bit: 39, name: "CAP_BPF", included_in: Some(SYS_ADMIN) },
    Capability { bit: 38, name: "CAP_PERFMON", included_in: Some(SYS_ADMIN) },
];

/// Refuses with one sentence when a capability is missing. A kernel that does not tell is trusted:
/// the operation itself will then say what it lacks.
pub(crate) fn require() -> Result<(), Failure> {
    let Ok(status) = procfs::process::Process::myself().and_then(|me| me.status()) else { return Ok(()) };
    check(status.capeff, nix::unistd::geteuid().is_root(), &binary(), &invocation())
}

/// Refuses unless we are root; `why` is what needs it.
pub(crate) fn require_root(why: &str) -> Result<(), Failure> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(Failure::refused(format!("this needs root: {why}")).mend(format!("sudo {}", invocation())))
}

/// Whether this process has what arming a fault takes.
pub(crate) fn are_there() -> bool {
    require().is_ok()
}

fn check(effective: u64, root: bool, binary: &Path, invocation: &str) -> Result<(), Failure> {
    let has = |bit: u32| effective & (1 << bit) != 0;
    let missing: Vec<&str> = NEEDED
        .iter()
        .filter(|cap| !has(cap.bit) && !cap.included_in.is_some_and(has))
        .map(|cap| cap.name)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(", ");
    let failure = Failure::refused(format!("this needs {names}, which this process does not have"));
    if root {
        let adds: Vec<String> =
            missing.iter().map(|name| format!("--cap-add {}", name.trim_start_matches("CAP_"))).collect();
        return Err(failure.mend(format!(
            "this root is confined (a container?): start it with {}, or run chaos on the host",
            adds.join(" ")
        )));
    }
    Err(failure.mend(format!(
        "sudo {invocation}\n       or once: sudo setcap cap_net_admin,cap_sys_admin,cap_bpf,cap_perfmon+ep {}",
        binary.display()
    )))
}

fn binary() -> PathBuf {
    std::env::current_exe().unwrap_or_else(|_| "chaos".into())
}

/// The command line as it was typed, quoted where a shell would take it apart.
fn invocation() -> String {
    let words: Vec<String> = std::env::args_os().map(|word| quote(&word.to_string_lossy())).collect();
    words.join(" ")
}

fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+.,:/@%[]".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentence(effective: u64, root: bool) -> String {
        let failure =
            check(effective, root, Path::new("/usr/bin/chaos"), "chaos stop --all").expect_err("refused");
        assert_eq!(failure.exit, super::super::failure::Exit::Refused);
        format!("{} | {}", failure.what, failure.mend.unwrap_or_default())
    }

    #[test]
    fn without_privileges_the_sentence_names_them_and_the_way_to_get_them() {
        let text = sentence(0, false);
        for phrase in ["CAP_NET_ADMIN", "CAP_BPF", "sudo chaos stop --all", "sudo setcap", "/usr/bin/chaos"] {
            assert!(text.contains(phrase), "{text}");
        }
    }

    #[test]
    fn a_confined_root_is_told_about_the_container() {
        let text = sentence(1 << SYS_ADMIN, true);
        assert!(text.contains("--cap-add NET_ADMIN"), "{text}");
        assert!(!text.contains("CAP_BPF"), "CAP_SYS_ADMIN includes it: {text}");
    }

    #[test]
    fn enough_is_enough() {
        let enough = (1 << 12) | (1 << SYS_ADMIN);
        assert!(check(enough, false, Path::new("chaos"), "chaos").is_ok());
        assert!(check(u64::MAX, true, Path::new("chaos"), "chaos").is_ok());
    }

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(quote("--loss=10%"), "--loss=10%");
        assert_eq!(quote("it's me"), r"'it'\''s me'");
        assert_eq!(quote(""), "''");
    }
}
