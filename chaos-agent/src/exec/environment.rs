//! Environments as lists of `NAME=value`, where they can be found.

use std::{
    ffi::{CStr, CString, OsStr, OsString},
    fs,
    os::unix::ffi::OsStringExt,
};

use nix::unistd::User;
use procfs::process::Process;

/// What sudo sets to the values of the target user, or of its own configuration (sudo(8), "ENVIRONMENT").
const SET_BY_SUDO: [&str; 6] = ["HOME", "LOGNAME", "MAIL", "PATH", "SHELL", "USER"];

/// The environment a process was started with: /proc/PID/environ as it is, with its order, its duplicates and
/// bytes that are not UTF-8.
pub(super) fn initial(process: &Process) -> Option<Vec<CString>> {
    let bytes = fs::read(format!("/proc/{}/environ", process.pid())).ok()?;
    let entries = bytes.split(|byte| *byte == 0).filter(|entry| !entry.is_empty());
    let environment: Vec<_> = entries.filter_map(|entry| CString::new(entry).ok()).collect();
    (!environment.is_empty()).then_some(environment)
}

/// Ours.
pub(super) fn own() -> Vec<CString> {
    std::env::vars_os().filter_map(|(name, value)| entry(&name, &value)).collect()
}

/// The caller's initial environment with what sudo let through of its later one.
pub(super) fn completed(mut initial: Vec<CString>, own: Vec<CString>) -> Vec<CString> {
    for passed in own.into_iter().filter(|entry| !is_of_sudo(entry)) {
        initial.retain(|entry| name(entry) != name(&passed));
        initial.push(passed);
    }
    initial
}

/// Ours without what sudo added, and with the user's own names.
pub(super) fn reconstructed(own: Vec<CString>, user: Option<&User>) -> Vec<CString> {
    let mut replaced: Vec<(&str, &OsStr)> = Vec::new();
    if let Some(user) = user {
        let name = OsStr::new(&user.name);
        replaced = vec![
            ("HOME", user.dir.as_os_str()),
            ("SHELL", user.shell.as_os_str()),
            ("USER", name),
            ("LOGNAME", name),
        ];
    }
    own.into_iter()
        .filter(|entry| !name(entry).starts_with(b"SUDO_"))
        .filter(|entry| !replaced.iter().any(|(name, _)| value_of(entry, name).is_some()))
        .chain(replaced.iter().filter_map(|(name, value)| entry(OsStr::new(name), value)))
        .collect()
}

/// The value in an entry `name=value` of this name.
pub(super) fn value_of<'a>(entry: &'a CStr, name: &str) -> Option<&'a [u8]> {
    entry.to_bytes().strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

/// The value of the first entry of this name, as getenv(3) finds it.
pub(super) fn find<'a>(environment: &'a [CString], name: &str) -> Option<&'a [u8]> {
    environment.iter().find_map(|entry| value_of(entry, name))
}

fn name(entry: &CStr) -> &[u8] {
    entry.to_bytes().split(|byte| *byte == b'=').next().unwrap_or_default()
}

fn is_of_sudo(entry: &CStr) -> bool {
    name(entry).starts_with(b"SUDO_") || SET_BY_SUDO.iter().any(|name| value_of(entry, name).is_some())
}

fn entry(name: &OsStr, value: &OsStr) -> Option<CString> {
    let mut entry = OsString::from(name);
    entry.push("=");
    entry.push(value);
    CString::new(entry.into_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[&str]) -> Vec<CString> {
        entries.iter().map(|entry| CString::new(*entry).unwrap()).collect()
    }

    #[test]
    fn what_sudo_let_through_completes_the_callers() {
        let initial = list(&["PATH=/home/u/bin", "HOME=/home/u", "LANG=C"]);
        let own = list(&[
            "PATH=/sbin",
            "HOME=/root",
            "LANG=de",
            "SUDO_UID=1",
            "SUDO_COMMAND=x",
            "DISPLAY=:0",
            "MAIL=m",
        ]);
        let wanted = list(&["PATH=/home/u/bin", "HOME=/home/u", "LANG=de", "DISPLAY=:0"]);
        assert_eq!(completed(initial, own), wanted);
    }

    #[test]
    fn without_any_source_the_users_names_are_right() {
        let user = User::from_uid(nix::unistd::Uid::from_raw(0)).unwrap();
        let own = list(&["SUDO_UID=1", "HOME=/elsewhere", "USERS=kept", "A=b=c"]);
        let environment = reconstructed(own, user.as_ref());
        assert_eq!(environment[..2], list(&["USERS=kept", "A=b=c"]));
        assert_eq!(find(&environment, "HOME"), Some(b"/root".as_slice()));
        assert_eq!(find(&environment, "A"), Some(b"b=c".as_slice()));
        assert_eq!(find(&environment, "SUDO_UID"), None);
    }

    #[test]
    fn a_process_is_read_as_it_was_started() {
        let own = Process::myself().unwrap();
        let environment = initial(&own).unwrap();
        assert!(environment.iter().any(|entry| value_of(entry, "CARGO_MANIFEST_DIR").is_some()));
    }
}
