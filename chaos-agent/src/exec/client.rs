//! Commands that only ask somebody else to do the work: their packets are not in the command's cgroup.

use std::{ffi::OsStr, path::Path};

/// Where a client's work happens, and what to target instead.
struct Client {
    /// Names of the program.
    names: &'static [&'static str],
    /// Words that make it start work elsewhere; empty means any use.
    actions: &'static [&'static str],
    /// Who does the work.
    worker: &'static str,
    /// The target to use instead.
    instead: &'static str,
}

const CONTAINER_ACTIONS: &[&str] =
    &["run", "exec", "start", "restart", "compose", "up", "create", "build", "buildx"];

const CLIENTS: &[Client] = &[
    Client {
        names: &["docker", "nerdctl", "docker-compose", "ctr", "crictl"],
        actions: CONTAINER_ACTIONS,
        worker: "the container's own cgroup, by the container daemon",
        instead: "chaos inject cgroup:PATH with the path that `cat /proc/PID/cgroup` shows for a process of the container",
    },
    Client {
        names: &["podman", "podman-compose"],
        actions: CONTAINER_ACTIONS,
        worker: "a cgroup that podman makes for the container",
        instead: "chaos inject cgroup:PATH with the path that `cat /proc/PID/cgroup` shows for a process of the container",
    },
    Client {
        names: &["systemctl"],
        actions: &["start", "restart", "reload", "try-restart", "reload-or-restart", "isolate"],
        worker: "the unit's cgroup, by systemd",
        instead: "chaos inject unit:NAME",
    },
    Client {
        names: &["service", "invoke-rc.d", "rc-service"],
        actions: &["start", "restart", "reload"],
        worker: "the service's own processes, by the init system",
        instead: "chaos inject unit:NAME",
    },
    Client {
        names: &["systemd-run"],
        actions: &[],
        worker: "a transient unit, by systemd",
        instead: "chaos inject unit:NAME with the name given by `systemd-run --unit=NAME`",
    },
    Client {
        names: &["kubectl", "oc", "helm", "k3s"],
        actions: &["exec", "run", "apply", "create", "rollout", "scale", "debug", "install", "upgrade"],
        worker: "pods on a node of the cluster",
        instead: "chaos inject cgroup:PATH or netns:pid:PID on that node",
    },
    Client {
        names: &["ssh", "mosh", "rsh"],
        actions: &[],
        worker: "the remote machine; only the connection to it is affected here",
        instead: "chaos exec on that machine",
    },
    Client {
        names: &["at", "batch", "crontab"],
        actions: &[],
        worker: "a daemon, later",
        instead: "chaos exec inside the job",
    },
    Client {
        names: &["machinectl", "lxc", "incus", "virsh", "vagrant"],
        actions: &["start", "shell", "exec", "run", "launch", "up", "restart"],
        worker: "the guest's own cgroup or machine",
        instead: "chaos inject cgroup:PATH of the guest",
    },
    Client {
        names: &["tmux", "screen"],
        actions: &[],
        worker: "its server process, if one runs already",
        instead: "chaos exec inside the session",
    },
];

/// Programs that run the program named after them: its words are looked at instead. With them the options that
/// take the next word as their value.
const WRAPPERS: &[(&str, &[&str])] = &[
    ("sudo", &["-u", "-g", "-h", "-p", "-C", "-D", "-R", "-T", "-U", "--user", "--group", "--chdir"]),
    ("doas", &["-u", "-C"]),
    ("env", &["-u", "-C", "-S", "--unset", "--chdir"]),
    ("nohup", &[]),
    ("nice", &["-n", "--adjustment"]),
    ("ionice", &["-c", "-n", "--class", "--classdata"]),
    ("time", &["-f", "-o", "--format", "--output"]),
    ("timeout", &["-s", "-k", "--signal", "--kill-after"]),
    ("stdbuf", &["-i", "-o", "-e"]),
    ("setsid", &[]),
    ("exec", &[]),
    ("command", &[]),
];

/// A sentence for the user when the command is a client whose work happens outside its cgroup, such as
/// `docker run` or `systemctl start`; with it what to target instead.
#[must_use]
pub fn client_warning<S: AsRef<OsStr>>(argv: &[S]) -> Option<String> {
    let words: Vec<&str> = argv.iter().filter_map(|word| word.as_ref().to_str()).collect();
    let words = unwrapped(&words);
    let name = program_name(words.first()?);
    let client = CLIENTS.iter().find(|client| client.names.contains(&name))?;
    let rest = words.get(1..).unwrap_or_default();
    let action = rest.iter().find(|word| client.actions.contains(word));
    let shown = match action {
        Some(action) => format!("{name} {action}"),
        None if client.actions.is_empty() => name.to_owned(),
        None => return None,
    };
    Some(format!(
        "`{shown}` only asks for work that happens elsewhere ({}), so its packets are not this command's; use \
         instead: {}",
        client.worker, client.instead
    ))
}

/// The words after any `sudo -u x`, `env A=b`, `timeout 5s`.
fn unwrapped<'a, 'b>(mut words: &'b [&'a str]) -> &'b [&'a str] {
    while let Some((_, valued)) =
        words.first().and_then(|first| WRAPPERS.iter().find(|(name, _)| *name == program_name(first)))
    {
        let timeout = words.first().is_some_and(|first| program_name(first) == "timeout");
        let mut next = 1;
        while let Some(word) = words.get(next) {
            if valued.contains(word) {
                next += 2;
            } else if word.starts_with('-') || word.contains('=') {
                next += 1;
            } else {
                break;
            }
        }
        // The first plain word of timeout(1) is the duration.
        next += usize::from(timeout);
        words = words.get(next..).unwrap_or_default();
    }
    words
}

fn program_name(word: &str) -> &str {
    Path::new(word).file_name().and_then(OsStr::to_str).unwrap_or(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warning(line: &str) -> Option<String> {
        client_warning(&line.split_whitespace().collect::<Vec<_>>())
    }

    #[test]
    fn clients_are_recognised_through_wrappers() {
        for line in [
            "docker run --rm alpine wget x",
            "/usr/bin/docker --context c exec web sh",
            "sudo docker run alpine",
            "sudo -u me -- env A=b timeout -k 1 5s podman start x",
            "docker compose up",
            "nerdctl compose up",
            "systemctl --user start x.service",
            "systemd-run --scope curl x",
            "kubectl -n default exec pod -- curl x",
            "ssh host curl x",
            "batch",
        ] {
            assert!(warning(line).is_some(), "{line}");
        }
    }

    #[test]
    fn other_commands_are_not() {
        for line in [
            "curl docker run",
            "docker ps",
            "systemctl status x",
            "cargo test",
            "sudo",
            "timeout 5",
            "sh -c docker",
            "",
        ] {
            assert_eq!(warning(line), None, "{line}");
        }
    }

    #[test]
    fn the_sentence_says_what_to_use_instead() {
        let sentence = warning("systemctl restart api").unwrap();
        assert!(sentence.contains("systemctl restart") && sentence.contains("unit:NAME"), "{sentence}");
    }
}
