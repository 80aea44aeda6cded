//! Which socket units trigger a service: from the unit files, and from the running systemd.

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// Directories of system units, the first that has a file wins (systemd.unit(5), "Unit File Load Path").
pub(super) const UNIT_DIRS: [&str; 4] =
    ["/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

/// systemd answers in milliseconds; one that hangs must not hold the agent up.
const SYSTEMD_TIMEOUT: Duration = Duration::from_secs(1);

/// The unit that `name` is an alias of: `redis.service` is a link to `redis-server.service` on Debian.
pub(super) fn alias_of(unit_dirs: &[PathBuf], name: &str) -> Option<String> {
    let target = unit_dirs.iter().find_map(|dir| fs::read_link(dir.join(name)).ok())?;
    let real = target.file_name()?.to_str()?;
    // A masked unit is a link to /dev/null, a linked one keeps its name.
    let same_kind = Path::new(real).extension() == Path::new(name).extension();
    (same_kind && real != name).then(|| real.to_owned())
}

/// Socket units whose connections go to `service`: those with `Service=` it, and the one of the same name
/// that has no `Service=` (systemd.socket(5)).
pub(super) fn sockets_of(unit_dirs: &[PathBuf], service: &str) -> Vec<String> {
    let Some(stem) = service.strip_suffix(".service") else { return Vec::new() };
    let mut sockets: BTreeMap<String, PathBuf> = BTreeMap::new();
    for entry in unit_dirs.iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten() {
        if let Some(name) = entry.file_name().to_str().filter(|name| name.ends_with(".socket")) {
            sockets.entry(name.to_owned()).or_insert_with(|| entry.path());
        }
    }
    sockets
        .into_iter()
        .filter(|(name, path)| {
            let named = fs::read_to_string(path).ok().and_then(|text| service_of_socket(&text));
            named.map_or_else(|| *name == format!("{stem}.socket"), |named| named == service)
        })
        .map(|(name, _)| name)
        .collect()
}

/// `Service=` in the `[Socket]` section; the last one counts, an empty one takes it back.
fn service_of_socket(text: &str) -> Option<String> {
    let mut section = "";
    let mut service = None;
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
        } else if section == "[Socket]"
            && let Some((key, value)) = line.split_once('=')
            && key.trim() == "Service"
        {
            service = Some(value.trim().to_owned()).filter(|name| !name.is_empty());
        }
    }
    service
}

/// What the running systemd says; nothing if it does not answer in time.
pub(super) fn ask_systemd_for_sockets_of(service: &str) -> Vec<String> {
    let spawned = Command::new("systemctl")
        .args(["show", "--property=TriggeredBy", "--value", "--", service])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = spawned else { return Vec::new() };
    let deadline = Instant::now() + SYSTEMD_TIMEOUT;
    while matches!(child.try_wait(), Ok(None)) {
        if Instant::now() >= deadline {
            tracing::debug!("systemctl did not answer within {SYSTEMD_TIMEOUT:?}");
            // It may have ended just now; then there is nothing to kill.
            let _ = child.kill();
            let _ = child.wait();
            return Vec::new();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let mut answer = String::new();
    let read = child.stdout.take().map(|mut stdout| stdout.read_to_string(&mut answer));
    if matches!(read, Some(Ok(_))) { sockets_in(&answer) } else { Vec::new() }
}

/// The socket units among triggers such as `api.socket api.path api.timer`.
fn sockets_in(triggers: &str) -> Vec<String> {
    triggers.split_whitespace().filter(|name| name.ends_with(".socket")).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_socket_section_counts() {
        let text = "[Unit]\nService=no.service\n# Service=no.service\n[Socket]\nListenStream=80\nService = a.service\n";
        assert_eq!(service_of_socket(text), Some("a.service".to_owned()));
        assert_eq!(service_of_socket("[Socket]\nService=a.service\nService=\n"), None);
        assert_eq!(service_of_socket("[Socket]\nListenStream=80\n"), None);
    }

    #[test]
    fn timers_and_paths_are_no_sockets() {
        assert_eq!(sockets_in("api.socket api.path\tapi.timer b.socket\n"), ["api.socket", "b.socket"]);
        assert!(sockets_in("\n").is_empty());
    }
}
